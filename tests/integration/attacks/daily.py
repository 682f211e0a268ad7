"""What a tenant's people do every day, which the policies must leave them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tests.integration.attacks.actors import APPLY, Request
from tests.integration.attacks.catalogue import OWNER, WRITERS
from tests.integration.attacks.requests import (
    KINDS,
    VERSIONS,
    WORKLOADS,
    at,
    container,
    delete,
    get,
    patch,
    pod,
    pod_spec,
    post,
    subresource,
    workload,
)

Object = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """Requests that must be granted, one after the other; `{name}` objects are theirs alone and end with them."""

    what: str
    requests: Callable[[str, str], Iterable[Request]]
    """Given the namespace, and a name that nothing else has."""
    who: tuple[str, ...] = WRITERS


def _kept(
    resource: str, content: Object, change: Object | None = None, **metadata: Any
) -> Callable[..., list[Request]]:
    """Create, read, change and delete an object."""

    def requests(namespace: str, name: str) -> list[Request]:
        return [
            post(resource, namespace, name, content, **metadata),
            get(resource, namespace, name),
            get(resource, namespace, watch="true"),
            patch(resource, namespace, name, change or {"metadata": {"annotations": {"team": "search"}}}),
            delete(resource, namespace, name),
        ]

    return requests


def _workloads(namespace: str, name: str) -> list[Request]:
    requests = []
    for resource in WORKLOADS:
        requests.append(
            workload(resource, namespace, pod_spec(), name=name, labels={"tenantry.dev/tenant": "acme"})
        )
        requests.append(patch(resource, namespace, name, {"metadata": {"labels": {"team": "search"}}}))
        if resource in ("deployments", "statefulsets", "replicasets"):
            requests.append(patch(resource, namespace, name, {"spec": {"replicas": 0}}, "scale"))
        if resource in ("deployments", "statefulsets", "daemonsets"):
            restarted = {"annotations": {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}}
            requests.append(patch(resource, namespace, name, {"spec": {"template": {"metadata": restarted}}}))
        requests.append(delete(resource, namespace, name, propagationPolicy="Foreground"))
    return requests


def _pods(namespace: str, name: str) -> list[Request]:
    tolerations = [{"key": "example.com/spot", "operator": "Exists", "effect": "NoSchedule"}]
    volumes: list[Object] = [
        {"name": "settings", "configMap": {"name": "tenant-config"}},
        {"name": "keys", "secret": {"secretName": "own"}},
        {"name": "scratch", "emptyDir": {}},
        {
            "name": "self",
            "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]},
        },
        {
            "name": "token",
            "projected": {"sources": [{"serviceAccountToken": {"path": "token", "audience": "x"}}]},
        },
    ]
    beside = container("beside", restartPolicy="Always")
    large = container(resources={"limits": {"cpu": "4", "memory": "8Gi"}, "requests": {"cpu": "100m"}})
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    return [
        pod(
            namespace,
            large,
            name=name,
            initContainers=[beside],
            serviceAccountName="app",
            tolerations=tolerations,
            volumes=volumes,
            terminationGracePeriodSeconds=120,
            nodeSelector={"example.com/pool": "gpu"},
        ),
        patch("pods", namespace, name, {"metadata": {"labels": {"tenantry.dev/tenant": "acme"}}}),
        subresource("pods", namespace, name, "eviction", eviction),
        pod(namespace, name=f"{name}-2"),
        delete("pods", namespace, f"{name}-2", gracePeriodSeconds="30"),
        delete("pods", namespace, labelSelector=f"app={name}", gracePeriodSeconds="0"),
    ]


def _applied(namespace: str, name: str) -> list[Request]:
    """Server-side apply of what a chart has, as `helm` and GitOps tools send it."""
    labels = {
        "app.kubernetes.io/managed-by": "Helm",
        "app.kubernetes.io/instance": name,
        "helm.sh/chart": "web-1.0.0",
    }
    contents: dict[str, Object] = {
        "configmaps": {"data": {"a": "1"}},
        "secrets": {"type": "helm.sh/release.v1", "stringData": {"release": "x"}},
        "services": {"spec": {"ports": [{"port": 80}], "selector": {"app": name}}},
    }
    requests = []
    for resource, content in contents.items():
        body = {
            "apiVersion": VERSIONS.get(resource, "v1"),
            "kind": KINDS[resource],
            "metadata": {"name": name, "labels": labels},
            **content,
        }
        query = {"fieldManager": "helm", "force": "true"}
        requests.append(Request("PATCH", at(resource, namespace, name), body, query, APPLY))
        requests.append(delete(resource, namespace, name))
    return requests


def _own_accounts(namespace: str, name: str) -> list[Request]:
    return [
        post("serviceaccounts", namespace, name),
        patch("serviceaccounts", namespace, name, {"imagePullSecrets": [{"name": "own"}]}),
        pod(namespace, name=name, serviceAccountName=name),
        delete("pods", namespace, name),
        patch("serviceaccounts", namespace, "default", {"imagePullSecrets": [{"name": "own"}]}),
        patch("serviceaccounts", namespace, "default", {"imagePullSecrets": None}),
        delete("serviceaccounts", namespace, name),
        # An owner may be who owners are.
        pod(namespace, name=name, serviceAccountName="boss"),
        delete("pods", namespace, name),
    ]


RULE: Object = {
    "host": "acme.example",
    "http": {
        "paths": [
            {
                "path": "/",
                "pathType": "Prefix",
                "backend": {"service": {"name": "web", "port": {"number": 80}}},
            }
        ]
    },
}
TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}

DAILY_WORK = (
    Work(
        "Deployments, StatefulSets, DaemonSets, Jobs and CronJobs: create, label, scale, restart, delete",
        _workloads,
    ),
    Work("Pods with init containers, sidecars, tolerations and volumes: create, evict, delete", _pods),
    Work("Services inside of the cluster", _kept("services", {"spec": {"ports": [{"port": 80}]}})),
    Work("Headless Services", _kept("services", {"spec": {"clusterIP": "None", "ports": [{"port": 80}]}})),
    Work("Ingresses", _kept("ingresses", {"spec": {"rules": [RULE]}})),
    Work("ConfigMaps", _kept("configmaps", {"data": {"a": "1"}}, {"data": {"a": "2"}})),
    Work("Secrets", _kept("secrets", {"stringData": {"key": "x"}}, {"stringData": {"key": "y"}})),
    Work(
        "Registry credentials",
        _kept(
            "secrets",
            {"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": '{"auths":{}}'}},
        ),
    ),
    Work(
        "PersistentVolumeClaims",
        _kept(
            "persistentvolumeclaims",
            {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}},
        ),
    ),
    Work(
        "HorizontalPodAutoscalers",
        _kept("horizontalpodautoscalers", {"spec": {"scaleTargetRef": TARGET, "maxReplicas": 3}}),
    ),
    Work(
        "PodDisruptionBudgets",
        _kept(
            "poddisruptionbudgets",
            {"spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}},
        ),
    ),
    Work(
        "Finalizers that Kubernetes itself takes off",
        _kept("configmaps", {"data": {}}, finalizers=["orphan"]),
    ),
    Work("What charts and GitOps tools apply", _applied),
    Work("ServiceAccounts of one's own, and pods that run as them", _own_accounts, who=OWNER),
)
