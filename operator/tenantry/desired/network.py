"""NetworkPolicies: nothing in or out, then what the plan and the settings allow.

A cluster's CNI enforces them; without one that does they are only words.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tenantry.api.network import NAT64, translated
from tenantry.api.plan import PlanSpec
from tenantry.api.shard import ShardNetwork
from tenantry.desired.owner import Access, Manifest, Owner, child
from tenantry.domain import names

NAMESPACE_NAME = "kubernetes.io/metadata.name"

NOT_INTERNET = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",  # carriers' and many clouds' own; metadata of Alibaba
    "127.0.0.0/8",
    "168.63.129.16/32",  # a public address, but Azure's host: it hands out certificates
    "169.254.0.0/16",  # link-local: metadata of most clouds
    "172.16.0.0/12",
    "192.0.0.0/24",  # protocols; metadata of Oracle
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",  # benchmarks, and some networks' inside
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",  # reserved, and pods of some clusters
)
"""What of IPv4 is not internet: private, shared, local, reserved (the IANA registry of special addresses)."""

INTERNET = {
    "0.0.0.0/0": NOT_INTERNET,
    "2000::/3": ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
    NAT64: tuple(translated(network) for network in NOT_INTERNET),
}
"""The internet as networks, each with what of it is none. 2000::/3 is all that is given out of IPv6; left out are
tunnels into IPv4 (Teredo, 6to4) and examples."""


_SERVICE = re.compile(r"(?:[a-z0-9_-]+\.)*[a-z0-9-]+\.(?P<namespace>[a-z0-9-]+)\.svc(?:\.cluster\.local\.?)?")
"""The name of a Service, or of a pod behind a headless one."""


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


def shards_egress(owner: Owner, shards: Iterable[tuple[ShardNetwork, str, Iterable[int]]]) -> Manifest | None:
    """Return the policy that lets a tenant out to its shard, and to both while it moves.

    shards: of each what its VectorShard says of the network, and the host and port that its address names. None where
    nothing says where any of them is; see `unnamed_shard`. Only for a tenant whose access is open.
    """
    rules: list[dict[str, Any]] = []
    for network, host, ports in shards:
        peers = _shard_peers(network, host)
        if peers:
            rules.append({"ports": _ports(ports), "to": peers})
    return _policy(owner, names.SHARD_EGRESS, egress=rules) if rules else None


def unnamed_shard(network: ShardNetwork, host: str) -> str | None:
    """Return a sentence where tenants are not let out to a shard, since nothing says where pods find it."""
    if _shard_peers(network, host):
        return None
    return (
        f"spec.network is empty and {host} is neither an address nor the name of a Service, so no policy lets "
        f"tenants' pods out to it: set spec.network.cidrs or spec.network.namespaces"
    )


def _shard_peers(network: ShardNetwork, host: str) -> list[dict[str, Any]]:
    """Return where pods find a shard: as its VectorShard says, else as its address does.

    Of any other DNS name nothing: no policy can have one, and what it stands for today it need not tomorrow.
    """
    if network.cidrs or network.namespaces:
        namespaces = [_namespace_peer(name) for name in sorted(network.namespaces)]
        return [*map(_block, sorted(network.cidrs)), *namespaces]
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        service = _SERVICE.fullmatch(host.lower())
        return [_namespace_peer(service["namespace"])] if service else []
    return [_block(f"{address}/{address.max_prefixlen}")]


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
        to = [{"ipBlock": {"cidr": all_, "except": list(but)}} for all_, but in INTERNET.items()]
        rules.append({"ports": _ports(egress.internet_ports), "to": to})
    if egress.namespaces:
        rules.append({"to": [_namespace_peer(item) for item in sorted(egress.namespaces)]})
    if egress.cidrs:
        rules.append({"to": [_block(cidr) for cidr in sorted(egress.cidrs)]})
    return rules


def _namespace_peer(name: str) -> dict[str, Any]:
    # Never a tenant's: one can be created in a namespace whose name a plan or a setting has for something else.
    no_tenant = {"key": names.TENANT, "operator": "DoesNotExist"}
    return {"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: name}, "matchExpressions": [no_tenant]}}


def _block(cidr: str) -> dict[str, Any]:
    return {"ipBlock": {"cidr": cidr}}


def _ports(ports: Iterable[int]) -> list[dict[str, Any]]:
    return [{"port": port, "protocol": "TCP"} for port in sorted(ports)]
