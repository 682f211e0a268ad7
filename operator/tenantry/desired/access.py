"""Who may do what: the four ClusterRoles, the RoleBindings of a tenant's members, and its ServiceAccount.

The built-in `admin` and `edit` would let members write NetworkPolicies and role bindings and mint tokens. What
RBAC alone cannot refuse, admission policies must: Secrets of type service-account-token, pods that run as another
ServiceAccount, Services with externalIPs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tenantry.api.tenant import Member
from tenantry.desired.owner import Access, Manifest, Owner, child
from tenantry.domain import names

RBAC_GROUP = "rbac.authorization.k8s.io"
LOOK = ["get", "list", "watch"]
WRITE = ["create", "delete", "deletecollection", "patch", "update"]
ROLES = ("owner", "editor", "viewer", "app")


def _rule(groups: list[str], resources: list[str], verbs: list[str]) -> dict[str, Any]:
    return {"apiGroups": groups, "resources": resources, "verbs": verbs}


WORKLOADS = [
    _rule([""], ["configmaps", "persistentvolumeclaims", "pods", "services"], []),
    _rule(
        ["apps"], ["daemonsets", "deployments", "deployments/scale", "statefulsets", "statefulsets/scale"], []
    ),
    _rule(["apps"], ["replicasets", "replicasets/scale"], []),
    _rule(["batch"], ["cronjobs", "jobs"], []),
    _rule(["autoscaling"], ["horizontalpodautoscalers"], []),
    _rule(["networking.k8s.io"], ["ingresses"], []),
    _rule(["policy"], ["poddisruptionbudgets"], []),
]

LOOK_ONLY = [
    _rule(
        [""], ["endpoints", "events", "limitranges", "pods/log", "resourcequotas", "serviceaccounts"], LOOK
    ),
    _rule([""], ["namespaces"], ["get"]),
    _rule([""], ["pods/status", "services/status", "replicationcontrollers"], LOOK),
    _rule(["apps"], ["controllerrevisions", "deployments/status", "statefulsets/status"], LOOK),
    _rule(["discovery.k8s.io"], ["endpointslices"], LOOK),
    _rule(["events.k8s.io"], ["events"], LOOK),
    _rule(["metrics.k8s.io"], ["pods"], LOOK),
    _rule(["networking.k8s.io"], ["networkpolicies"], LOOK),
]


def _with(rules: Iterable[dict[str, Any]], verbs: list[str]) -> list[dict[str, Any]]:
    return [{**rule, "verbs": verbs} for rule in rules]


def _rules(role: str) -> list[dict[str, Any]]:
    if role == "app":
        return [
            {**_rule([""], ["configmaps"], LOOK), "resourceNames": [names.CONFIG_MAP]},
            {**_rule([""], ["secrets"], LOOK), "resourceNames": [names.VECTOR_STORE]},
        ]
    if role == "viewer":
        return [*_with(WORKLOADS, LOOK), *LOOK_ONLY]
    into_pods = _rule([""], ["pods/attach", "pods/exec", "pods/portforward"], ["create", "get"])
    secrets = _rule([""], ["secrets"], sorted(LOOK + WRITE))
    editor = [*_with(WORKLOADS, sorted(LOOK + WRITE)), *LOOK_ONLY, into_pods, secrets]
    evict = _rule([""], ["pods/eviction"], ["create"])
    if role == "editor":
        return [*editor, evict]
    own = [
        _rule([""], ["serviceaccounts"], WRITE),
        _rule([RBAC_GROUP], ["rolebindings", "roles"], LOOK),
    ]
    return [*editor, evict, *own]


def cluster_roles() -> list[Manifest]:
    """Return the four ClusterRoles that tenants' RoleBindings refer to."""
    return [
        {
            "apiVersion": f"{RBAC_GROUP}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": cluster_role_name(role), "labels": {names.ROLE: role}},
            "rules": _rules(role),
        }
        for role in ROLES
    ]


def cluster_role_name(role: str) -> str:
    """Return the ClusterRole behind a role of ours."""
    return f"tenantry-tenant-{role}"


def service_account(owner: Owner) -> Manifest:
    """Return the account that the tenant's application runs as; it may read its configuration and no more."""
    return child(owner, "v1", "ServiceAccount", names.SERVICE_ACCOUNT, automountServiceAccountToken=True)


def role_bindings(owner: Owner, members: Iterable[Member], access: Access) -> list[Manifest]:
    """Return one RoleBinding for each role; one without members is there too, with no subjects.

    Suspended, owners and editors become viewers; cut off, nobody is bound, the application neither.
    """
    by_role: dict[str, list[dict[str, Any]]] = {role: [] for role in ROLES}
    if access is not Access.CUT:
        by_role["app"].append(_subject("ServiceAccount", names.SERVICE_ACCOUNT, owner.namespace))
        for member in members:
            role = "viewer" if access is Access.SUSPENDED else str(member.role)
            subject = _subject(str(member.kind), member.name, member.namespace or owner.namespace)
            if subject not in by_role[role]:
                by_role[role].append(subject)
    return [_binding(owner, role, subjects) for role, subjects in by_role.items()]


def _binding(owner: Owner, role: str, subjects: list[dict[str, Any]]) -> Manifest:
    ref = {"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": cluster_role_name(role)}
    ordered = sorted(subjects, key=lambda item: (item["kind"], item["name"]))
    return child(owner, f"{RBAC_GROUP}/v1", "RoleBinding", f"tenantry-{role}", roleRef=ref, subjects=ordered)


def _subject(kind: str, name: str, namespace: str) -> dict[str, Any]:
    if kind == "ServiceAccount":
        return {"kind": kind, "name": name, "namespace": namespace}
    return {"apiGroup": RBAC_GROUP, "kind": kind, "name": name}
