"""Attacks on other tenants, on the operator, and on the network between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.integration.attacks.actors import Request
from tests.integration.attacks.catalogue import MEMBERS, QUOTA, RBAC, WRITERS, Attack, Place, policy
from tests.integration.attacks.requests import (
    at,
    delete,
    get,
    patch,
    pod,
    post,
    subresource,
)

Object = dict[str, Any]

SYSTEM = "tenantry-system"
NODE = "attack-node"


def _reads(place: Place) -> Iterator[Request]:
    for version, resource in place.listable:
        for namespace in (place.neighbour, ""):
            path = at(resource, namespace, version=version)
            yield Request("GET", path)
            yield Request("GET", path, query={"watch": "true"})
    for resource, name in (
        ("secrets", "own"),
        ("configmaps", "own"),
        ("configmaps", "tenant-config"),
        ("pods", "solo"),
        ("deployments", "web"),
    ):
        yield get(resource, place.neighbour, name)


def _writes(place: Place) -> Iterator[Request]:
    for version, resource in place.listable:
        path = at(resource, place.neighbour, version=version)
        yield Request("DELETE", path, query={"labelSelector": "attack=none"})
    for resource, name in (
        ("secrets", "own"),
        ("configmaps", "own"),
        ("pods", "solo"),
        ("deployments", "web"),
    ):
        yield patch(resource, place.neighbour, name, {"metadata": {"labels": {"attack": "x"}}})
        yield delete(resource, place.neighbour, name)
    yield post("configmaps", place.neighbour, "attack", {"data": {}})
    yield post("secrets", place.neighbour, "attack", {"stringData": {}})
    yield pod(place.neighbour)
    yield post("services", place.neighbour, "attack", {"spec": {"ports": [{"port": 80}]}})


def _into_pods(place: Place) -> Iterator[Request]:
    yield get("pods", place.neighbour, "solo", "log")
    for what, query in (("exec", {"command": "env", "stdout": "true"}), ("attach", {"stdout": "true"})):
        yield subresource("pods", place.neighbour, "solo", what, **query)
        yield get("pods", place.neighbour, "solo", what, **query)
    yield subresource("pods", place.neighbour, "solo", "portforward", ports="80")


def _past_the_api(place: Place) -> Iterator[Request]:
    for namespace in (place.namespace, place.neighbour):
        yield get("pods", namespace, "solo", "proxy")
        yield get("services", namespace, "web", "proxy")
    yield get("nodes", "", NODE, "proxy")
    yield get("nodes", "", NODE, "metrics")


def _operators(place: Place) -> Iterator[Request]:
    for namespace in (SYSTEM, "kube-system"):
        for resource in ("secrets", "configmaps", "pods", "serviceaccounts", "leases", "deployments"):
            yield get(resource, namespace)
    yield get("secrets", SYSTEM, "database")
    yield patch("secrets", SYSTEM, "database", {"stringData": {"url": "x"}})
    yield delete("secrets", SYSTEM, "database")
    yield pod(SYSTEM)


def _network(place: Place) -> Iterator[Request]:
    open_to_all = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]}
    yield post("networkpolicies", place.namespace, "attack", {"spec": open_to_all})
    # Of some of its pods only, by a label that it gives them itself.
    chosen = {**open_to_all, "podSelector": {"matchLabels": {"app": "web"}}}
    yield post("networkpolicies", place.namespace, "attack", {"spec": chosen})
    yield post("networkpolicies", place.neighbour, "attack", {"spec": open_to_all})
    yield patch("networkpolicies", place.namespace, "tenantry-default-deny", {"spec": {"egress": [{}]}})
    yield delete("networkpolicies", place.namespace, "tenantry-default-deny")


def _endpoints(place: Place) -> Iterator[Request]:
    for namespace in (place.namespace, place.neighbour, "default"):
        ports = [{"port": 443, "protocol": "TCP", "name": "https"}]
        slice_ = {"addressType": "IPv4", "ports": ports, "endpoints": [{"addresses": ["10.9.9.9"]}]}
        yield post(
            "endpointslices", namespace, "attack", slice_, labels={"kubernetes.io/service-name": "web"}
        )
        subsets = [{"addresses": [{"ip": "10.9.9.9"}], "ports": ports}]
        yield post("endpoints", namespace, "attack", {"subsets": subsets})
    yield post("ingressclasses", "", "attack", {"spec": {"controller": "attack.example/x"}})
    yield post("servicecidrs", "", "attack", {"spec": {"cidrs": ["10.200.0.0/16"]}})


def _service(place: Place, **spec: Any) -> Request:
    return post("services", place.namespace, "attack", {"spec": {"ports": [{"port": 80}], **spec}})


ATTACKS = (
    Attack(
        "Read a neighbour, or all of the cluster: every kind, list and watch",
        RBAC,
        "cannot",
        _reads,
        who=MEMBERS,
    ),
    Attack("Write to a neighbour", RBAC, "cannot", _writes, who=MEMBERS),
    Attack(
        "Run commands in a neighbour's pods, or read their logs",
        RBAC,
        "cannot",
        _into_pods,
        who=MEMBERS,
        reaches=True,
    ),
    Attack(
        "Reach pods, services and nodes through the API server, past all network policies",
        RBAC,
        "cannot get resource",
        _past_the_api,
        who=MEMBERS,
        reaches=True,
    ),
    Attack(
        "Read or change the operator's and the cluster's Secrets and objects",
        RBAC,
        "cannot",
        _operators,
        who=MEMBERS,
    ),
    Attack(
        "Open the network: a NetworkPolicy of one's own, or ours changed or deleted",
        RBAC,
        'resource "networkpolicies" in API group "networking.k8s.io"',
        _network,
        who=MEMBERS,
    ),
    Attack(
        "Send other people's traffic elsewhere: Endpoints, EndpointSlices, an IngressClass",
        RBAC,
        "cannot create resource",
        _endpoints,
        who=MEMBERS,
    ),
    Attack(
        "A Service with external addresses",
        policy("services"),
        "must not set spec.externalIPs: traffic of others to 203.0.113.7 would come to it. "
        "Publish it by an Ingress, or ask your platform team.",
        lambda place: [
            _service(place, externalIPs=["203.0.113.7"]),
            patch("services", place.namespace, "web", {"spec": {"externalIPs": ["203.0.113.7"]}}),
        ],
    ),
    Attack(
        "A Service that is another name for somebody else's, for the ingress controller to follow",
        policy("services"),
        "must not be of type ExternalName: through it an ingress controller would reach what your pods may not. "
        "Use the name metadata.internal in your application's configuration instead.",
        lambda place: [
            post(
                "services",
                place.namespace,
                "attack",
                {"spec": {"type": "ExternalName", "externalName": "metadata.internal"}},
            ),
            patch(
                "services",
                place.namespace,
                "web",
                {"spec": {"type": "ExternalName", "externalName": "metadata.internal"}},
            ),
        ],
    ),
    Attack(
        "A Service on ports of the nodes",
        QUOTA,
        "limited: services.nodeports=0",
        lambda place: [
            _service(place, type="NodePort"),
            patch("services", place.namespace, "web", {"spec": {"type": "NodePort"}}),
        ],
        who=WRITERS,
        elsewhere=True,
    ),
    Attack(
        "A load balancer of one's own",
        QUOTA,
        "limited: services.loadbalancers=0",
        lambda place: [
            _service(place, type="LoadBalancer"),
            _service(place, type="LoadBalancer", allocateLoadBalancerNodePorts=False),
        ],
        elsewhere=True,
    ),
)
