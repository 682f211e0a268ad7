"""What NetworkPolicies let through, told by evaluating them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tenantry.api.shard import ShardNetwork
from tenantry.desired.network import NAMESPACE_NAME, Surroundings, policies, shards_egress, unnamed_shard
from tenantry.desired.owner import Access, Manifest, Owner
from tests.unit.builders import plan

ACME = Owner("acme", "uid-of-acme", "tenant-acme")
NAMES = st.lists(st.sampled_from(["ingress-system", "monitoring", "shared"]), unique=True)
PORTS = st.lists(st.integers(1, 65535), unique=True, max_size=4)
CIDRS = st.lists(st.sampled_from(["203.0.113.0/24", "10.20.0.0/16", "2001:db8::/32"]), unique=True)
SURROUNDINGS = st.builds(
    Surroundings,
    scraper_namespaces=NAMES.map(tuple),
    api_server_cidrs=st.sampled_from([(), ("10.0.0.1/32",), ("10.0.0.1/32", "fd00::1/128")]),
)
NETWORKS = st.fixed_dictionaries(
    {
        "ingress": st.fixed_dictionaries({"namespaces": NAMES}),
        "egress": st.fixed_dictionaries({"internetPorts": PORTS, "namespaces": NAMES, "cidrs": CIDRS}),
    }
)
METADATA = [
    "169.254.169.254",  # most clouds
    "169.254.170.2",  # ECS
    "100.100.100.200",  # Alibaba
    "192.0.0.192",  # Oracle
    "168.63.129.16",  # Azure's WireServer, which hands out certificates
    "fd00:ec2::254",  # AWS
    "fd20:ce::254",  # Google
]
NAT64 = "64:ff9b::"
NO_TENANT = {"key": "tenantry.dev/tenant", "operator": "DoesNotExist"}


def rules(built: list[Manifest], way: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for policy in built:
        for rule in policy["spec"][way]:
            yield policy["metadata"]["name"], rule


def reaches(built: list[Manifest], address: str, port: int, protocol: str = "TCP") -> bool:
    """Return whether any policy lets a pod connect to an address outside of the cluster."""
    wanted = ipaddress.ip_address(address)
    for _, rule in rules(built, "egress"):
        if "ports" in rule and not any(
            item["port"] == port and item["protocol"] == protocol for item in rule["ports"]
        ):
            continue
        for peer in rule["to"]:
            block = peer.get("ipBlock")
            if block is None or wanted not in ipaddress.ip_network(block["cidr"]):
                continue
            if not any(wanted in ipaddress.ip_network(item) for item in block.get("except", [])):
                return True
    return False


@cache
def internet(*ports: int) -> list[Manifest]:
    network = {"egress": {"internetPorts": list(ports)}}
    return policies(ACME, plan("pro", network=network), Access.OPEN, Surroundings())


@given(st.ip_addresses())
@example(ipaddress.ip_address("198.18.0.1"))
@example(ipaddress.ip_address("240.0.0.1"))
@example(ipaddress.ip_address("::"))
def test_the_internet_is_what_is_globally_routed_and_nothing_else(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if not address.is_global or address.is_multicast:
        assert not reaches(internet(443), str(address), 443)


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(network="2000::/3")))
def test_all_that_is_globally_routed_is_reached(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    left_out = [ipaddress.ip_network(item) for item in (*NOT_INTERNET, *TUNNELS)]
    if not any(address in network for network in left_out):
        assert reaches(internet(443), str(address), 443)


TUNNELS = ["168.63.129.16/32", "2001::/23", "2002::/16", "3fff::/20"]
NOT_INTERNET = [
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
    *("192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
    *("224.0.0.0/4", "240.0.0.0/4"),
    *("::/96", "::ffff:0:0/96", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "2001:db8::/32"),
]


@pytest.mark.parametrize("network", NOT_INTERNET)
@settings(max_examples=25)
@given(data=st.data())
def test_no_address_of_a_private_range_is_internet(network: str, data: st.DataObject) -> None:
    address = data.draw(st.ip_addresses(network=network))
    assert not reaches(internet(443), str(address), 443)


@pytest.mark.parametrize("network", [item for item in NOT_INTERNET if "." in item and ":" not in item])
@settings(max_examples=25)
@given(data=st.data())
def test_no_translation_leads_into_a_private_range_either(network: str, data: st.DataObject) -> None:
    inner = data.draw(st.ip_addresses(network=network))
    through_nat64 = ipaddress.ip_address(int(ipaddress.ip_address(NAT64)) + int(inner))
    through_6to4 = ipaddress.ip_address((0x2002 << 112) + (int(inner) << 80) + 1)
    assert not reaches(internet(443), str(through_nat64), 443)
    assert not reaches(internet(443), str(through_6to4), 443)


@pytest.mark.parametrize("address", METADATA)
def test_no_cloud_gives_credentials_to_a_pod(address: str) -> None:
    assert not reaches(internet(80, 443), address, 80)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "104.18.7.192", "2606:4700:4700::1111", f"{NAT64}808:808"]
)
def test_the_internet_is_reached_on_the_ports_of_the_plan_only(address: str) -> None:
    assert reaches(internet(443), address, 443)
    assert not reaches(internet(443), address, 80)
    assert not reaches(internet(443), address, 443, "UDP")
    assert not reaches(internet(), address, 443)


@given(NETWORKS, st.sampled_from(list(Access)), SURROUNDINGS)
def test_no_rule_is_wider_than_the_names_and_networks_that_were_given(
    network: dict[str, Any], access: Access, around: Surroundings
) -> None:
    built = policies(ACME, plan("pro", network=network), access, around)
    given_ = {
        "ingress": {*network["ingress"]["namespaces"], *around.scraper_namespaces},
        "egress": {*network["egress"]["namespaces"], around.dns_namespace},
    }
    networks = {*network["egress"]["cidrs"], *around.api_server_cidrs}
    for way, key in (("ingress", "from"), ("egress", "to")):
        for name, rule in rules(built, way):
            assert rule[key], "an empty list of peers is everybody"
            assert "ports" not in rule or rule["ports"], "an empty list of ports is every port"
            for peer in rule[key]:
                if peer == {"podSelector": {}}:
                    continue  # the tenant's own namespace
                if "ipBlock" in peer:
                    block = peer["ipBlock"]
                    assert block["cidr"] in networks or block.get("except")
                    continue
                assert peer.keys() == {"namespaceSelector"}
                assert peer["namespaceSelector"]["matchExpressions"] == [NO_TENANT]
                labels = peer["namespaceSelector"]["matchLabels"]
                assert labels.keys() == {NAMESPACE_NAME}
                assert labels[NAMESPACE_NAME] in given_[way], name
    for policy in built:
        spec = policy["spec"]
        assert spec["podSelector"] == {}
        assert {"ingress", "egress"} <= spec.keys(), (
            "an absent list that somebody fills stays filled under apply"
        )
        for way in ("Ingress", "Egress"):
            assert way in spec["policyTypes"] or spec[way.lower()] == []


@given(NETWORKS, SURROUNDINGS)
def test_without_access_nothing_goes_in_or_out(network: dict[str, Any], around: Surroundings) -> None:
    for access in (Access.SUSPENDED, Access.CUT):
        built = policies(ACME, plan("pro", network=network), access, around)
        assert not [*rules(built, "ingress"), *rules(built, "egress")]
        assert built[0]["spec"]["policyTypes"] == ["Ingress", "Egress"]


@given(NETWORKS, SURROUNDINGS)
def test_every_policy_has_a_name_of_its_own(network: dict[str, Any], around: Surroundings) -> None:
    built = policies(ACME, plan("pro", network=network), Access.OPEN, around)
    names = [policy["metadata"]["name"] for policy in built]
    assert len(names) == len(set(names))


@given(NETWORKS, st.randoms())
def test_the_order_in_a_plan_makes_no_difference(network: dict[str, Any], random: Any) -> None:
    def mixed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: mixed(item) for key, item in value.items()}
        return random.sample(value, len(value))

    one = policies(ACME, plan("pro", network=network), Access.OPEN, Surroundings())
    assert policies(ACME, plan("pro", network=mixed(network)), Access.OPEN, Surroundings()) == one


def test_dns_is_reached_by_both_protocols_and_nothing_else_there() -> None:
    built = policies(ACME, plan("pro", network={}), Access.OPEN, Surroundings(dns_namespace="dns"))
    to_dns = [rule for name, rule in rules(built, "egress") if name == "tenantry-dns"]
    assert [(item["port"], item["protocol"]) for rule in to_dns for item in rule["ports"]] == [
        (53, "UDP"),
        (53, "TCP"),
    ]


# --- a shard -----------------------------------------------------------------------------------------------------


def to_shard(host: str, **network: Any) -> list[Any]:
    """Return the peers that a tenant is let out to, on the shard's port and no other."""
    where = ShardNetwork.model_validate(network)
    built = shards_egress(ACME, [(where, host, [6432])])
    assert (built is None) is (unnamed_shard(where, host) is not None)
    if built is None:
        return []
    spec = built["spec"]
    assert (spec["podSelector"], spec["policyTypes"], spec["ingress"]) == ({}, ["Egress"], [])
    ((rule),) = spec["egress"]
    assert rule["ports"] == [{"port": 6432, "protocol": "TCP"}]
    return list(rule["to"])


def block(cidr: str) -> dict[str, Any]:
    return {"ipBlock": {"cidr": cidr}}


def namespace_peer(name: str) -> dict[str, Any]:
    return {
        "namespaceSelector": {"matchLabels": {NAMESPACE_NAME: name}, "matchExpressions": [NO_TENANT]},
    }


@given(st.ip_addresses())
def test_a_shard_at_an_address_is_that_address(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    (peer,) = to_shard(str(address))
    network = ipaddress.ip_network(peer["ipBlock"]["cidr"])
    assert (network.num_addresses, network.network_address) == (1, address)
    assert to_shard(f"[{address}]") == [peer]


@pytest.mark.parametrize(
    "host",
    [
        "db.data.svc",
        "db.data.svc.cluster.local",
        "db.data.svc.cluster.local.",
        "db-0.db.data.svc",
        "DB.Data.svc",
    ],
)
def test_a_shard_that_is_a_service_is_its_namespace_unless_that_is_a_tenants(host: str) -> None:
    assert to_shard(host) == [namespace_peer("data")]


@pytest.mark.parametrize(
    "host",
    [
        "db.example.com",
        "localhost",
        "db",
        "db.data",
        "data.svc",
        "svc",
        "",
        "x.data.svc.example.com",
        "10.0.0.0/8",
        "/run",
    ],
)
def test_what_has_another_name_is_not_opened_and_it_is_said_so(host: str) -> None:
    assert to_shard(host) == []
    said = unnamed_shard(ShardNetwork(), host) or ""
    assert said.startswith(f"spec.network is empty and {host} is neither an address")
    assert to_shard(host, namespaces=["data"]) == [namespace_peer("data")]


def test_what_a_shard_says_of_its_network_holds_whatever_its_address_is() -> None:
    for host in ("10.0.0.1", "db.data.svc", "db.example.com"):
        found = to_shard(host, cidrs=["10.9.0.0/24", "10.1.0.0/24"], namespaces=["poolers", "data"])
        assert found == [
            block("10.1.0.0/24"),
            block("10.9.0.0/24"),
            namespace_peer("data"),
            namespace_peer("poolers"),
        ]
