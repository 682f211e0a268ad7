"""Short ways to say what is sent to the API server."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from tests.integration.access import RESTRICTED
from tests.integration.attacks.actors import MERGE, Request

Object = dict[str, Any]

VERSIONS = {
    **dict.fromkeys(
        ("daemonsets", "deployments", "replicasets", "statefulsets", "controllerrevisions"), "apps/v1"
    ),
    **dict.fromkeys(("cronjobs", "jobs"), "batch/v1"),
    **dict.fromkeys(
        ("networkpolicies", "ingresses", "ingressclasses", "servicecidrs"), "networking.k8s.io/v1"
    ),
    **dict.fromkeys(
        ("roles", "rolebindings", "clusterroles", "clusterrolebindings"), "rbac.authorization.k8s.io/v1"
    ),
    **dict.fromkeys(
        ("tenants", "plans", "vectorshards", "tenantmoves", "tenantarchives"), "tenantry.dev/v1alpha1"
    ),
    "certificatesigningrequests": "certificates.k8s.io/v1",
    "customresourcedefinitions": "apiextensions.k8s.io/v1",
    "apiservices": "apiregistration.k8s.io/v1",
    **dict.fromkeys(
        (
            "mutatingwebhookconfigurations",
            "validatingwebhookconfigurations",
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
        ),
        "admissionregistration.k8s.io/v1",
    ),
    "endpointslices": "discovery.k8s.io/v1",
    "horizontalpodautoscalers": "autoscaling/v2",
    "leases": "coordination.k8s.io/v1",
    "poddisruptionbudgets": "policy/v1",
    "priorityclasses": "scheduling.k8s.io/v1",
    "storageclasses": "storage.k8s.io/v1",
}
"""API versions by resource; what is not here is of v1."""

KINDS = {
    "apiservices": "APIService",
    "certificatesigningrequests": "CertificateSigningRequest",
    "clusterrolebindings": "ClusterRoleBinding",
    "clusterroles": "ClusterRole",
    "configmaps": "ConfigMap",
    "controllerrevisions": "ControllerRevision",
    "cronjobs": "CronJob",
    "customresourcedefinitions": "CustomResourceDefinition",
    "daemonsets": "DaemonSet",
    "deployments": "Deployment",
    "endpoints": "Endpoints",
    "endpointslices": "EndpointSlice",
    "events": "Event",
    "horizontalpodautoscalers": "HorizontalPodAutoscaler",
    "ingressclasses": "IngressClass",
    "ingresses": "Ingress",
    "jobs": "Job",
    "leases": "Lease",
    "limitranges": "LimitRange",
    "mutatingwebhookconfigurations": "MutatingWebhookConfiguration",
    "namespaces": "Namespace",
    "nodes": "Node",
    "networkpolicies": "NetworkPolicy",
    "persistentvolumeclaims": "PersistentVolumeClaim",
    "persistentvolumes": "PersistentVolume",
    "plans": "Plan",
    "poddisruptionbudgets": "PodDisruptionBudget",
    "pods": "Pod",
    "priorityclasses": "PriorityClass",
    "replicasets": "ReplicaSet",
    "resourcequotas": "ResourceQuota",
    "rolebindings": "RoleBinding",
    "roles": "Role",
    "secrets": "Secret",
    "serviceaccounts": "ServiceAccount",
    "services": "Service",
    "servicecidrs": "ServiceCIDR",
    "statefulsets": "StatefulSet",
    "tenantarchives": "TenantArchive",
    "tenantmoves": "TenantMove",
    "tenants": "Tenant",
    "vectorshards": "VectorShard",
    "validatingwebhookconfigurations": "ValidatingWebhookConfiguration",
    "validatingadmissionpolicybindings": "ValidatingAdmissionPolicyBinding",
}


def at(resource: str, namespace: str = "", name: str = "", subresource: str = "", version: str = "") -> str:
    """Return a path; an empty namespace is the cluster, or all namespaces."""
    version = version or VERSIONS.get(resource, "v1")
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    place = f"{root}/namespaces/{namespace}" if namespace else root
    return "/".join(part for part in (place, resource, name, subresource) if part)


def get(resource: str, namespace: str = "", name: str = "", subresource: str = "", **query: str) -> Request:
    return Request("GET", at(resource, namespace, name, subresource), query=query)


def post(resource: str, namespace: str, name: str, content: Object | None = None, **metadata: Any) -> Request:
    """Create an object; `content` is all of it but its metadata."""
    body = {
        "apiVersion": VERSIONS.get(resource, "v1"),
        "kind": KINDS[resource],
        "metadata": {"name": name, **metadata},
        **(content or {}),
    }
    return Request("POST", at(resource, namespace), body=body, query={"fieldValidation": "Strict"})


def patch(
    resource: str, namespace: str, name: str, body: Any, subresource: str = "", kind: str = MERGE
) -> Request:
    return Request("PATCH", at(resource, namespace, name, subresource), body=body, content_type=kind)


def delete(resource: str, namespace: str = "", name: str = "", **query: str) -> Request:
    """Delete an object, or without a name all of them that the query selects."""
    return Request("DELETE", at(resource, namespace, name), query=query)


def subresource(
    resource: str, namespace: str, name: str, what: str, body: Object | None = None, **query: str
) -> Request:
    """Create below an object: an eviction, a token, a command in a pod."""
    return Request("POST", at(resource, namespace, name, what), body=body, query=query)


def container(name: str = "main", **more: Any) -> Object:
    """Return a container that the restricted level of Pod Security admits."""
    return {"name": name, "image": "app", "securityContext": RESTRICTED, **more}


def pod_spec(*containers: Object, **more: Any) -> Object:
    return {"containers": list(containers) or [container()], **more}


def pod(namespace: str, *containers: Object, name: str = "attack", **spec: Any) -> Request:
    return post("pods", namespace, name, {"spec": pod_spec(*containers, **spec)})


WORKLOADS = ("daemonsets", "deployments", "replicasets", "statefulsets", "jobs", "cronjobs")
MEMBERS_WRITE = ("pods", *WORKLOADS)


def workload(
    resource: str,
    namespace: str,
    spec: Object,
    *,
    name: str = "attack",
    labels: Object | None = None,
    annotations: Object | None = None,
    **metadata: Any,
) -> Request:
    """Create what makes pods by a template, or a pod; labels and annotations are those of the template."""
    if resource == "pods":
        return post("pods", namespace, name, {"spec": spec}, **metadata)
    matched = {"app": name}
    template: Object = {"metadata": {"labels": {**matched, **(labels or {})}}, "spec": deepcopy(spec)}
    if annotations:
        template["metadata"]["annotations"] = annotations
    if resource in ("jobs", "cronjobs"):
        template["spec"].setdefault("restartPolicy", "Never")
        content: Object = {"template": template}
        if resource == "cronjobs":
            content = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": content}}
    else:
        content = {"selector": {"matchLabels": matched}, "template": template}
        if resource == "statefulsets":
            content["serviceName"] = name
    return post(resource, namespace, name, {"spec": content}, **metadata)


def workloads(namespace: str, spec: Object, resources: Iterable[str] = MEMBERS_WRITE) -> list[Request]:
    """Return one request for each kind that makes pods."""
    return [workload(resource, namespace, spec) for resource in resources]
