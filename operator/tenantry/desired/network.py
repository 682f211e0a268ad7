"""NetworkPolicies: nothing in or out, then what the plan and the settings allow.

A cluster's CNI enforces them; without one that does they are only words.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tenantry.api.plan import PlanSpec
from tenantry.desired.owner import Access, Manifest, Owner, child
from tenantry.domain import names

NAMESPACE_NAME = "kubernetes.io/metadata.name"

PRIVATE_RANGES = {
    "0.0.0.0/0": (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local: the clouds' metadata service
        "172.16.0.0/12",
        "192.168.0.0/16",
    ),
    "::/0": ("::1/128", "fc00::/7", "fe80::/10"),
}
"""What is not internet, by family: private, carrier, loopback, link-local (RFC 1918, 6598, 3927, 4193)."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the settings say of the cluster around the tenants.

    dns_namespace: where the cluster's DNS runs. scraper_namespaces: who may scrape tenants' metrics.
    api_server_cidrs: addresses of the API server, for the application that watches its configuration.
    """

    dns_namespace: str = "kube-system"
    scraper_namespaces: tuple[str, ...] = ()
    api_server_cidrs: tuple[str, ...] = ()
    api_server_ports: tuple[int, ...] = (443, 6443)


def policies(owner: Owner, plan: PlanSpec, access: Access, around: Surroundings) -> list[Manifest]:
    """Return the deny-all policy and, while access is open, the allowances."""
    denied = default_deny(owner)
    if access is not Access.OPEN:
        return [denied]
    network = plan.network
    allowed = [_dns(owner, around), _same_namespace(owner)]
    if network.ingress.namespaces:
        allowed.append(_ingress(owner, "tenantry-ingress", network.ingress.namespaces))
    egress = _egress_rules(network.egress)
    if egress:
        allowed.append(_policy(owner, "tenantry-egress", egress=egress))
    if around.scraper_namespaces:
        allowed.append(_ingress(owner, "tenantry-scraper", around.scraper_namespaces))
    if around.api_server_cidrs:
        blocks = [_block(cidr) for cidr in around.api_server_cidrs]
        rule = {"ports": _ports(around.api_server_ports), "to": blocks}
        allowed.append(_policy(owner, "tenantry-api-server", egress=[rule]))
    return [denied, *allowed]


def default_deny(owner: Owner) -> Manifest:
    """Return the policy that denies everything both ways.

    The empty lists are written out: a policy without them that somebody opens stays open under apply.
    """
    spec = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": []}
    return child(owner, "networking.k8s.io/v1", "NetworkPolicy", names.DEFAULT_DENY, spec=spec)


def _policy(
    owner: Owner, name: str, *, ingress: list[Any] | None = None, egress: list[Any] | None = None
) -> Manifest:
    types = [kind for kind, rules in (("Ingress", ingress), ("Egress", egress)) if rules is not None]
    spec = {"podSelector": {}, "policyTypes": types, "ingress": ingress or [], "egress": egress or []}
    return child(owner, "networking.k8s.io/v1", "NetworkPolicy", name, spec=spec)


def _dns(owner: Owner, around: Surroundings) -> Manifest:
    ports = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
    rule = {"ports": ports, "to": [_namespace_peer(around.dns_namespace)]}
    return _policy(owner, "tenantry-dns", egress=[rule])


def _same_namespace(owner: Owner) -> Manifest:
    peer: dict[str, Any] = {"podSelector": {}}
    return _policy(owner, "tenantry-same-namespace", ingress=[{"from": [peer]}], egress=[{"to": [peer]}])


def _ingress(owner: Owner, name: str, namespaces: Iterable[str]) -> Manifest:
    return _policy(owner, name, ingress=[{"from": [_namespace_peer(item) for item in sorted(namespaces)]}])


def _egress_rules(egress: Any) -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = []
    if egress.internet_ports:
        to = [
            {"ipBlock": {"cidr": all_, "except": list(private)}} for all_, private in PRIVATE_RANGES.items()
        ]
        rules.append({"ports": _ports(egress.internet_ports), "to": to})
    if egress.namespaces:
        rules.append({"to": [_namespace_peer(item) for item in sorted(egress.namespaces)]})
    if egress.cidrs:
        rules.append({"to": [_block(cidr) for cidr in sorted(egress.cidrs)]})
    return rules


def _namespace_peer(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: name}}}


def _block(cidr: str) -> dict[str, Any]:
    return {"ipBlock": {"cidr": cidr}}


def _ports(ports: Iterable[int]) -> list[dict[str, Any]]:
    return [{"port": port, "protocol": "TCP"} for port in sorted(ports)]
