"""Attacks on what the plan gives: sizes, numbers, priorities, nodes, and what a pod may do on its node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.integration.access import RESTRICTED
from tests.integration.attacks.actors import JSON_PATCH, STRATEGIC, Request
from tests.integration.attacks.catalogue import (
    LIMIT_RANGE,
    MEMBERS,
    OUTSIDE,
    POD_SECURITY,
    QUOTA,
    RBAC,
    Attack,
    Place,
    policy,
)
from tests.integration.attacks.requests import (
    container,
    delete,
    patch,
    pod,
    pod_spec,
    post,
    subresource,
    workloads,
)

Object = dict[str, Any]

NODE = "attack-node"
LONG = 315360000  # ten years


def _sized(**amounts: str) -> Object:
    return {"resources": {"limits": amounts, "requests": amounts}}


def _too_large(place: Place) -> Iterator[Request]:
    for amounts in ({"cpu": "5"}, {"memory": "9Gi"}):
        large = _sized(**amounts)
        yield pod(place.namespace, container(**large))
        yield pod(place.namespace, container(), container("second", **large))
        yield pod(place.namespace, container(), initContainers=[container("first", **large)])
        sidecar = container("beside", restartPolicy="Always", **large)
        yield pod(place.namespace, container(), initContainers=[sidecar])


def _too_many(place: Place) -> Iterator[Request]:
    many = [container(f"c{number}", **_sized(cpu="4", memory="1Gi")) for number in range(5)]
    yield pod(place.namespace, *many)
    # Two scopes that a quota without them would not count.
    yield pod(place.namespace, *many, activeDeadlineSeconds=60)
    sidecars = [{**each, "restartPolicy": "Always"} for each in many]
    yield pod(place.namespace, container(), initContainers=sidecars)


def _whole_pod(place: Place) -> Iterator[Request]:
    yield pod(place.namespace, container(), **_sized(cpu="100", memory="100Gi"))


def _resized(place: Place) -> Iterator[Request]:
    larger = {"spec": {"containers": [{"name": "main", **_sized(cpu="2")}]}}
    yield patch("pods", place.namespace, "solo", larger, "resize", STRATEGIC)
    debugger = {"spec": {"ephemeralContainers": [container("debug")]}}
    yield patch("pods", place.namespace, "solo", debugger, "ephemeralcontainers", STRATEGIC)


def _storage(place: Place) -> Iterator[Request]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "101Gi"}}}
    yield post("persistentvolumeclaims", place.namespace, "attack", {"spec": spec})


def _limits(place: Place) -> Iterator[Request]:
    more = {"spec": {"hard": {"pods": "10000"}}}
    yield patch("resourcequotas", place.namespace, "tenantry", more)
    yield patch("resourcequotas", place.namespace, "tenantry", {"status": {"used": {"pods": "0"}}}, "status")
    yield delete("resourcequotas", place.namespace, "tenantry")
    yield post("resourcequotas", place.namespace, "attack", {"spec": {"hard": {"pods": "1"}}})
    yield patch("limitranges", place.namespace, "tenantry", {"spec": {"limits": []}})
    yield delete("limitranges", place.namespace, "tenantry")


def _devices(place: Place) -> Iterator[Request]:
    gpu = container(**_sized(cpu="1", memory="1Gi", **{"nvidia.com/gpu": "8"}))
    yield from workloads(place.namespace, pod_spec(gpu))
    yield pod(place.namespace, container(), initContainers=[{**gpu, "name": "first"}])
    pages = container(**_sized(cpu="1", memory="1Gi", **{"hugepages-2Mi": "512Mi"}))
    yield pod(place.namespace, pages)


def _priorities(place: Place) -> Iterator[Request]:
    for name in ("system-cluster-critical", "system-node-critical"):
        yield from workloads(place.namespace, pod_spec(priorityClassName=name))


def _tolerating(place: Place) -> Iterator[Request]:
    for toleration in (
        {"operator": "Exists"},
        {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "node-role.kubernetes.io/master", "effect": "NoSchedule"},
    ):
        yield from workloads(place.namespace, pod_spec(tolerations=[toleration]))
    added = [{"op": "add", "path": "/spec/tolerations/-", "value": {"operator": "Exists"}}]
    yield patch("pods", place.namespace, "solo", added, kind=JSON_PATCH)


def _volumes(place: Place) -> Iterator[Request]:
    for kind, source in (("nfs", {"server": "10.0.0.1", "path": "/"}), ("hostPath", {"path": "/"})):
        spec = pod_spec(volumes=[{"name": "data", kind: source}])
        # Pod Security, too, refuses a pod as such; in a template it only warns.
        yield from workloads(place.namespace, spec, ("deployments", "cronjobs", "statefulsets"))


def _privileged(place: Place) -> Iterator[Request]:
    def secured(**changes: Any) -> Object:
        return container(securityContext={**RESTRICTED, **changes}) if changes else container()

    for spec in (
        {"hostNetwork": True},
        {"hostPID": True},
        {"hostIPC": True},
        {"volumes": [{"name": "data", "hostPath": {"path": "/"}}]},
        {"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "65536"}]}},
    ):
        yield pod(place.namespace, container(), **spec)
    for changes in (
        {"privileged": True, "allowPrivilegeEscalation": True},
        {"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}},
        {"runAsUser": 0},
        {"runAsNonRoot": False},
        {"procMount": "Unmasked"},
        {"seccompProfile": {"type": "Unconfined"}},
    ):
        users: Object = {"hostUsers": False} if "procMount" in changes else {}
        yield pod(place.namespace, secured(**changes), **users)
    yield pod(place.namespace, container(ports=[{"containerPort": 80, "hostPort": 80}]))
    # The node itself would ask another host.
    probe = {"httpGet": {"host": "169.254.169.254", "port": 80, "path": "/latest/meta-data"}}
    yield pod(place.namespace, container(livenessProbe=probe))
    yield pod(place.namespace, container(lifecycle={"postStart": probe}))


def _lingering(place: Place) -> Iterator[Request]:
    yield delete("pods", place.namespace, "solo", gracePeriodSeconds=str(LONG))
    yield delete("pods", place.namespace, labelSelector="app=solo", gracePeriodSeconds=str(LONG))


def _evicted(place: Place) -> Iterator[Request]:
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": "solo", "namespace": place.namespace},
        "deleteOptions": {"gracePeriodSeconds": LONG},
    }
    yield subresource("pods", place.namespace, "solo", "eviction", body)


def _bound(place: Place) -> Iterator[Request]:
    target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
    body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "loose"}, "target": target}
    yield subresource("pods", place.namespace, "loose", "binding", body)


ATTACKS = (
    Attack(
        "A container larger than the plan's maximum, an init container or a sidecar, too",
        LIMIT_RANGE,
        " usage per Container is ",
        _too_large,
        elsewhere=True,
    ),
    Attack("More in one pod than the plan has", QUOTA, "exceeded quota: tenantry", _too_many, elsewhere=True),
    Attack(
        "More for the pod as a whole, by `spec.resources`",
        QUOTA,
        "exceeded quota: tenantry",
        _whole_pod,
        elsewhere=True,
    ),
    Attack(
        "Resize a running pod, or add a container to it",
        RBAC,
        'cannot patch resource "pods/',
        _resized,
        who=MEMBERS,
    ),
    Attack("More storage than the plan has", QUOTA, "exceeded quota: tenantry", _storage, elsewhere=True),
    Attack(
        "Change the quota, its count, or the limits",
        RBAC,
        "cannot",
        _limits,
        who=MEMBERS,
    ),
    Attack(
        "A GPU or another device that the plan does not name",
        policy("devices"),
        "of which your plan has none. Leave it out, or ask your platform team for a plan with it.",
        _devices,
    ),
    Attack(
        "A priority class of the cluster itself, to displace others",
        policy("pods"),
        "which is for the cluster itself. Leave it out, or ask your platform team for a priority class of your own.",
        _priorities,
        elsewhere=True,
    ),
    Attack(
        "The same by a controller of another namespace",
        QUOTA,
        "exceeded quota: tenantry-system-classes",
        lambda place: [pod(place.namespace, priorityClassName="system-cluster-critical")],
        who=OUTSIDE,
        elsewhere=True,
    ),
    Attack(
        "Choose the node, past the scheduler",
        policy("pods"),
        "must not set spec.nodeName, which goes past the scheduler. Leave it out, or use a nodeSelector.",
        lambda place: workloads(place.namespace, pod_spec(nodeName=NODE)),
    ),
    Attack(
        "Bind a pod to a node, as the scheduler does",
        RBAC,
        'cannot create resource "pods/binding"',
        _bound,
        who=MEMBERS,
    ),
    Attack(
        "Tolerate every taint, or those of control-plane nodes",
        policy("pods"),
        "must not tolerate every taint, or those of control-plane nodes. "
        "Name the taints in spec.tolerations that your pods may run in spite of.",
        _tolerating,
    ),
    Attack(
        "Have the node mount the network's or its own disks",
        policy("pods"),
        "which the node would mount by itself. Use a persistentVolumeClaim, or ask your platform team.",
        _volumes,
    ),
    Attack(
        "A privileged pod, or one with access to its node",
        POD_SECURITY,
        'violates PodSecurity "restricted:latest"',
        _privileged,
        elsewhere=True,
    ),
    Attack(
        "A pod that takes ten years to end",
        policy("pods"),
        "must not have spec.terminationGracePeriodSeconds above 3600: "
        "for so long its namespace could not be deleted. Choose less.",
        lambda place: workloads(place.namespace, pod_spec(terminationGracePeriodSeconds=LONG)),
    ),
    Attack(
        "Give a pod ten years when deleting it",
        policy("deletions"),
        "must not be deleted with a grace period above 3600 seconds: "
        "for so long its namespace could not be deleted. Choose less.",
        lambda place: [*_lingering(place), *_evicted(place)],
    ),
)
