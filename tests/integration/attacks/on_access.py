"""Attacks that would give more rights: bindings, tokens, other identities, the cluster's own objects."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.integration.attacks.actors import Request
from tests.integration.attacks.catalogue import EDITORS, MEMBERS, RBAC, WRITERS, Attack, Place, policy
from tests.integration.attacks.requests import (
    WORKLOADS,
    at,
    delete,
    get,
    patch,
    pod_spec,
    post,
    subresource,
    workload,
    workloads,
)

Object = dict[str, Any]

SYSTEM = "tenantry-system"
RBAC_GROUP = "rbac.authorization.k8s.io"
EVERYTHING = {"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}
MALLORY = {"subjects": [{"kind": "User", "name": "mallory", "apiGroup": RBAC_GROUP}]}


def _binding(role: str, kind: str = "ClusterRole") -> Object:
    return {"roleRef": {"apiGroup": RBAC_GROUP, "kind": kind, "name": role}, **MALLORY}


def _bindings(place: Place) -> Iterator[Request]:
    for role in ("cluster-admin", "admin", "edit", "view", "tenantry-tenant-owner"):
        yield post("rolebindings", place.namespace, "attack", _binding(role))
        yield post("clusterrolebindings", "", "attack", _binding(role))


def _roles(place: Place) -> Iterator[Request]:
    escalation = {
        "rules": [{"apiGroups": [RBAC_GROUP], "resources": ["roles"], "verbs": ["escalate", "bind"]}]
    }
    for content in (EVERYTHING, escalation):
        yield post("roles", place.namespace, "attack", content)
        yield post("clusterroles", "", "attack", content)
    for role in ("tenantry-tenant-viewer", "tenantry-tenant-app", "view"):
        yield patch("clusterroles", "", role, EVERYTHING)
    yield delete("clusterroles", "", "tenantry-tenant-owner")
    # Roles that others aggregate: a label makes it part of the built-in ones.
    label = {f"{RBAC_GROUP}/aggregate-to-view": "true"}
    yield post("clusterroles", "", "attack", EVERYTHING, labels=label)


def _tokens(place: Place) -> Iterator[Request]:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    for namespace, name in (
        (place.namespace, "app"),
        (place.namespace, "default"),
        (place.namespace, "boss"),
        (place.neighbour, "app"),
        (SYSTEM, "tenantry"),
        ("kube-system", "generic-garbage-collector"),
    ):
        yield subresource("serviceaccounts", namespace, name, "token", body)


def _token_secrets(place: Place) -> Iterator[Request]:
    for account in ("app", "default", "boss"):
        yield post(
            "secrets",
            place.namespace,
            "attack",
            {"type": "kubernetes.io/service-account-token"},
            annotations={"kubernetes.io/service-account.name": account},
        )


def _as_account(place: Place, account: str) -> Iterator[Request]:
    yield from workloads(place.namespace, pod_spec(serviceAccountName=account))
    # The older field of the same meaning.
    yield workload("deployments", place.namespace, pod_spec(serviceAccount=account))
    change = {"spec": {"template": {"spec": {"serviceAccountName": account}}}}
    yield patch("deployments", place.namespace, "web", change)


def _impersonations(place: Place) -> Iterator[Request]:
    path = at("selfsubjectreviews", version="authentication.k8s.io/v1")
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    for headers in (
        {"Impersonate-User": "admin"},
        {"Impersonate-User": "alice@acme.example", "Impersonate-Group": "system:masters"},
        {"Impersonate-User": f"system:serviceaccount:{SYSTEM}:tenantry"},
        {"Impersonate-User": f"system:serviceaccount:{place.namespace}:app"},
        {"Impersonate-User": "system:kube-controller-manager"},
    ):
        yield Request("POST", path, body=body, headers=headers)


def _signing_request() -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mallory")])
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def _certificates(place: Place) -> Iterator[Request]:
    spec = {
        "request": base64.b64encode(_signing_request()).decode(),
        "signerName": "kubernetes.io/kube-apiserver-client",
        "usages": ["client auth"],
    }
    yield post("certificatesigningrequests", "", "attack", {"spec": spec})
    yield get("certificatesigningrequests")


def _own_kinds(place: Place) -> Iterator[Request]:
    spec = {"spec": {"plan": "enterprise"}}
    yield get("tenants")
    yield get("tenants", "", place.tenant)
    yield patch("tenants", "", place.tenant, spec)
    yield patch("tenants", "", place.tenant, {"status": {"plan": "enterprise"}}, "status")
    yield patch("tenants", "", place.tenant, {"metadata": {"finalizers": None}})
    yield delete("tenants", "", place.tenant)
    owner = {"spec": {"owner": {"email": "mallory@acme.example"}}}
    yield post("tenants", "", "attack", owner)
    yield get("plans")
    yield patch("plans", "", "pro", {"spec": {"resources": {"quota": {"pods": "10000"}}}})
    yield patch("plans", "", "pro", {"status": {"tenants": 0}}, "status")
    yield delete("plans", "", "enterprise")
    yield get("vectorshards")
    yield delete("vectorshards")
    server = {"engine": "pgvector", "connection": {"secretRef": {"name": "database", "key": "url"}}}
    yield post("vectorshards", "", "attack", {"spec": server})
    yield get("tenantmoves")
    yield delete("tenantmoves")
    yield post("tenantmoves", "", "attack", {"spec": {"tenant": place.tenant, "targetShard": "shard-b"}})
    yield get("tenantarchives")
    yield patch("tenantarchives", "", place.archive, {"spec": {"purgeAfter": "2020-01-01T00:00:00Z"}})
    yield delete("tenantarchives", "", place.archive)


def _policies(place: Place) -> Iterator[Request]:
    for name in ("children", "namespaces", "marks", "pods", "services", "secrets"):
        yield delete("validatingadmissionpolicies", "", f"tenantry-{name}")
        yield delete("validatingadmissionpolicybindings", "", f"tenantry-{name}")
    audit = {"spec": {"validationActions": ["Audit"]}}
    yield patch("validatingadmissionpolicybindings", "", "tenantry-children", audit)
    for resource in ("mutatingwebhookconfigurations", "validatingwebhookconfigurations"):
        yield post(resource, "", "attack", {"webhooks": []})


def _cluster(place: Place) -> Iterator[Request]:
    names_ = {"plural": "attacks", "singular": "attack", "kind": "Attack", "listKind": "AttackList"}
    schema = {"openAPIV3Schema": {"type": "object"}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    definition = {"group": "attack.dev", "names": names_, "scope": "Namespaced", "versions": [version]}
    yield post("customresourcedefinitions", "", "attacks.attack.dev", {"spec": definition})
    yield delete("customresourcedefinitions", "", "tenants.tenantry.dev")
    service = {"name": "attack", "namespace": place.namespace}
    served = {"group": "attack.dev", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1}
    yield post(
        "apiservices",
        "",
        "v1.attack.dev",
        {"spec": {**served, "service": service, "insecureSkipTLSVerify": True}},
    )
    yield post("priorityclasses", "", "attack", {"value": 1000000000})
    volume = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": "/"},
        "claimRef": {"namespace": place.namespace, "name": "own"},
    }
    yield post("persistentvolumes", "", "attack", {"spec": volume})
    yield get("nodes")
    yield get("persistentvolumes")
    yield get("namespaces")
    yield patch("namespaces", "", "kube-system", {"metadata": {"labels": {"team": "attack"}}})
    yield post("namespaces", "", "attack")


def _records(place: Place) -> Iterator[Request]:
    for namespace in (place.namespace, place.neighbour, "default", "kube-system"):
        about = {"apiVersion": "v1", "kind": "Pod", "name": "x", "namespace": namespace}
        content = {"involvedObject": about, "reason": "Forged", "message": "forged", "type": "Normal"}
        yield post("events", namespace, "attack", content)
    holder = {"spec": {"holderIdentity": "mallory", "leaseDurationSeconds": 3600}}
    for namespace in (SYSTEM, "kube-system", place.namespace):
        yield post("leases", namespace, "attack", holder)


def _suspended(place: Place) -> Iterator[Request]:
    namespace = place.suspended
    yield post("configmaps", namespace, "attack", {"data": {}})
    yield post("secrets", namespace, "attack", {"stringData": {}})
    yield from workloads(namespace, pod_spec(), WORKLOADS)
    yield patch("configmaps", namespace, "own", {"data": {"a": "2"}})
    yield delete("configmaps", namespace, "own")
    yield post("serviceaccounts", namespace, "attack")
    yield delete("resourcequotas", namespace, "tenantry-suspended")
    yield patch("tenants", "", "hooli", {"spec": {"suspended": False}})


def _removed(place: Place) -> Iterator[Request]:
    namespace = place.removed
    for resource in (
        "configmaps",
        "secrets",
        "pods",
        "deployments",
        "events",
        "networkpolicies",
        "rolebindings",
    ):
        yield get(resource, namespace)
    yield get("configmaps", namespace, "own")
    yield get("namespaces", "", namespace)
    yield post("configmaps", namespace, "attack", {"data": {}})
    yield delete("configmaps", namespace, "own")
    yield from workloads(namespace, pod_spec(), WORKLOADS)
    yield post("tenants", "", "initech", {"spec": {"owner": {"email": "mallory@acme.example"}}})


ATTACKS = (
    Attack(
        "Change anything while the tenant is suspended, or end the suspension",
        RBAC,
        "cannot",
        _suspended,
        who=MEMBERS,
    ),
    Attack(
        "See or change anything in what is kept of a removed tenant, as one of its members",
        RBAC,
        "cannot",
        _removed,
        who=MEMBERS,
    ),
    Attack("Bind a role", RBAC, "cannot create resource", _bindings, who=MEMBERS),
    Attack("Make or widen a role", RBAC, "roles", _roles, who=MEMBERS),
    Attack(
        "Mint a token, of one's own ServiceAccounts or others",
        RBAC,
        'cannot create resource "serviceaccounts/token"',
        _tokens,
        who=MEMBERS,
    ),
    Attack(
        "Have a token written into a Secret",
        policy("secrets"),
        "must not be of type kubernetes.io/service-account-token, whose token never expires. "
        "Run a pod as the ServiceAccount and it finds a token that is renewed.",
        _token_secrets,
    ),
    Attack(
        "Run a pod as a ServiceAccount that is an owner",
        policy("pods"),
        "cannot run as ServiceAccount boss, which is an owner of this tenant, and you are not. "
        "Use another ServiceAccount, such as app, or ask an owner.",
        lambda place: _as_account(place, "boss"),
        who=EDITORS,
        free=("owner",),
    ),
    Attack(
        "Run a pod as a ServiceAccount that the platform team has given more",
        policy("pods"),
        "cannot run as ServiceAccount deployer, which may do more than this tenant.",
        lambda place: _as_account(place, "deployer"),
        who=WRITERS,
    ),
    Attack(
        "Impersonate a user, a group or a ServiceAccount",
        RBAC,
        "cannot impersonate",
        _impersonations,
        who=MEMBERS,
    ),
    Attack(
        "Ask for a client certificate",
        RBAC,
        'resource "certificatesigningrequests"',
        _certificates,
        who=MEMBERS,
    ),
    Attack(
        "Read, change or delete a Tenant, a Plan or a TenantArchive, or a status of theirs",
        RBAC,
        'in API group "tenantry.dev" at the cluster scope',
        _own_kinds,
        who=MEMBERS,
    ),
    Attack(
        "Take the policies off, or register a webhook",
        RBAC,
        'in API group "admissionregistration.k8s.io"',
        _policies,
        who=MEMBERS,
    ),
    Attack(
        "Change the cluster: definitions, API services, priority classes, volumes, nodes, namespaces",
        RBAC,
        "cannot",
        _cluster,
        who=MEMBERS,
    ),
    Attack(
        "Forge Events, or take the operator's Lease",
        RBAC,
        "cannot create resource",
        _records,
        who=MEMBERS,
    ),
)
