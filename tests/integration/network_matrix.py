"""Who reaches whom: the questions, asked of the objects of a cluster, and their answers as tables."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice, product
from typing import Any

from tests.integration.cyclonus import Connection, Peer, allowed

Object = dict[str, Any]
Port = tuple[int, str]

ITSELF, ANOTHER = "its own namespace", "another tenant"
ANY_PORT: tuple[Port, ...] = ((53, "UDP"), (80, "TCP"), (443, "TCP"), (5432, "TCP"))
"""Those of the plans, DNS, and one that no plan has."""
HTTPS: tuple[Port, ...] = ((443, "TCP"),)
DISGUISES: tuple[dict[str, str], ...] = (
    {},
    {"k8s-app": "kube-dns", "app.kubernetes.io/name": "tenantry", "app.kubernetes.io/managed-by": "tenantry"},
)
"""Labels of pods, which take turns: a tenant gives its own what labels it likes, and none may open anything."""


def ends(*networks: str) -> tuple[str, ...]:
    """Return the first and the last address of networks."""
    parsed = [ipaddress.ip_network(network) for network in networks]
    return tuple(str(each[index]) for each in parsed for index in (0, -1))


def translated(*addresses: str) -> tuple[str, ...]:
    """Return IPv4 addresses as a NAT64 translator takes them."""
    start = int(ipaddress.IPv6Address("64:ff9b::"))
    return tuple(str(ipaddress.IPv6Address(start + int(ipaddress.IPv4Address(each)))) for each in addresses)


@dataclass(frozen=True)
class Row:
    """One line of a table; its columns are tenants.

    others: who is at the other end: addresses outside of the cluster, namespaces, ITSELF or ANOTHER.
    inbound: the other end connects to the tenant, rather than the tenant to it.
    """

    what: str
    others: tuple[str, ...]
    ports: tuple[Port, ...] = ANY_PORT
    inbound: bool = False


PUBLIC = (
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.0",
    "2606:4700:4700::1111",
    *translated("8.8.8.8"),
)
PRIVATE_4 = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
METADATA_4 = (
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
)
METADATA_6 = ("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254")
SCRAPER = "observability"
SETTINGS = {
    "TENANTRY_API_SERVER_CIDRS": "10.0.0.1/32,fd00::1/128",
    "TENANTRY_SCRAPER_NAMESPACES": SCRAPER,
}

ROWS = (
    Row("pods of its own namespace", (ITSELF,)),
    Row("pods of another tenant, whatever the plans of both", (ANOTHER,)),
    Row("cluster DNS (`kube-system`, port 53)", ("kube-system",), ((53, "UDP"), (53, "TCP"))),
    Row("anything else in `kube-system`", ("kube-system",), ((443, "TCP"), (8080, "TCP"), (9153, "TCP"))),
    Row("internet, TCP 443", PUBLIC, HTTPS),
    Row("internet, TCP 5432", PUBLIC, ((5432, "TCP"),)),
    Row(
        "internet, any other port, and UDP",
        PUBLIC,
        ((22, "TCP"), (25, "TCP"), (80, "TCP"), (443, "UDP"), (53, "UDP")),
    ),
    Row("private IPv4: 10/8, 172.16/12, 192.168/16, 100.64/10", ends(*PRIVATE_4)),
    Row("cloud metadata, IPv4 and IPv6", (*METADATA_4, *METADATA_6)),
    Row(
        "local and reserved IPv4: 0/8, 127/8, 169.254/16, 198.18/15, 224/4, 240/4",
        ends("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4"),
    ),
    Row(
        "private, local and reserved IPv6, and tunnels",
        (
            *ends("fc00::/7", "fe80::/10", "ff00::/8", "2001::/23", "2002::/16", "2001:db8::/32"),
            "::1",
            "64:ff9b:1::1",
        ),
    ),
    Row("private IPv4 and metadata behind NAT64", translated(*ends(*PRIVATE_4), *METADATA_4)),
    Row("a network that the plan names (203.0.113.0/24)", ends("203.0.113.0/24")),
    Row(
        "a private database, such as a shard or the operator's own",
        ("10.20.0.5", "fd00:20::5"),
        ((5432, "TCP"),),
    ),
    Row(
        "another port of that database",
        ("10.20.0.5", "fd00:20::5"),
        ((22, "TCP"), (5433, "TCP"), (5432, "UDP")),
    ),
    Row("the operator (`tenantry-system`)", ("tenantry-system",)),
    Row("a node (kubelet, node ports)", ("192.168.10.7",), ((10250, "TCP"), (30080, "TCP"))),
    Row("any other namespace", ("default", "ingress-system", "monitoring", SCRAPER)),
    Row("the API server", ("10.0.0.1", "fd00::1"), ((443, "TCP"), (6443, "TCP"))),
    Row("pods of its own namespace", (ITSELF,), inbound=True),
    Row("pods of another tenant, whatever the plans of both", (ANOTHER,), inbound=True),
    Row(
        "namespaces that the plan names (`ingress-system`, `monitoring`)",
        ("ingress-system", "monitoring"),
        inbound=True,
    ),
    Row("a scraper that no plan names (`observability`)", (SCRAPER,), inbound=True),
    Row("any other namespace", ("default", "kube-system", "tenantry-system"), inbound=True),
    Row("internet", PUBLIC, inbound=True),
    Row("private networks, nodes", (*ends(*PRIVATE_4), "fd00::7", "192.168.10.7"), inbound=True),
)
BY_SETTING = {
    "the API server": "the API server, in `TENANTRY_API_SERVER_CIDRS`",
    "a scraper that no plan names (`observability`)": "a scraper, in `TENANTRY_SCRAPER_NAMESPACES`",
}
"""Rows that the settings above change, and what they are called then."""
SHARD = ("10.20.0.5/32", "fd00:20::5/128")
BY_SHARD = {
    "a private database, such as a shard or the operator's own": "its own shard, at an address of it, TCP 5432"
}
"""The row that a place on a shard changes."""


@dataclass(frozen=True)
class Snapshot:
    """The objects of a cluster: Namespaces by name, and the NetworkPolicies of all of them.

    tenants: by column, the namespaces of tenants that are alike; the first is asked about, the others are neighbours.
    """

    namespaces: dict[str, Object] = field(repr=False)
    policies: list[Object] = field(repr=False)
    tenants: dict[str, tuple[str, ...]]


Answers = dict[tuple[Row, str], str]
"""Row and column to `yes`, `no`, or `some` where not all of what a row stands for is answered alike."""


def answers(seen: Snapshot, columns: Sequence[str] = ()) -> Answers:
    """Ask all that the rows stand for, of the tenants of all columns or of some."""
    cells = list(product(ROWS, columns or seen.tenants))
    asked = [list(_connections(row, column, seen)) for row, column in cells]
    verdicts = iter(allowed(seen.policies, [each for connections in asked for each in connections]))
    told = [set(islice(verdicts, len(connections))) for connections in asked]
    words = {frozenset({True}): "yes", frozenset({False}): "no"}
    return {cell: words.get(frozenset(found), "some") for cell, found in zip(cells, told, strict=True)}


def tables(plain: Answers, by_setting: Answers, by_shard: Answers) -> str:
    """Return both directions in Markdown, from the answers without anything, with the settings, and on a shard."""
    columns = list(dict.fromkeys(column for _, column in plain))
    blocks = []
    for inbound, head in ((False, "a tenant's pods reach"), (True, "a tenant's pods are reached from")):
        lines = [f"| {head} | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
        for row in (row for row in ROWS if row.inbound is inbound):
            lines.append(_line(row.what, [plain[row, column] for column in columns]))
            for called, found in ((BY_SETTING, by_setting), (BY_SHARD, by_shard)):
                if row.what in called:
                    lines.append(_line(called[row.what], [found[row, column] for column in columns]))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _line(what: str, cells: Sequence[str]) -> str:
    return f"| {what} | {' | '.join(cells)} |"


def _connections(row: Row, column: str, seen: Snapshot) -> Iterator[Connection]:
    name = seen.tenants[column][0]
    others = [each for other in row.others for each in _named(other, name, seen)]
    far = [(each, version) for each in others for version in _versions(each, seen)]
    asked = zip(product(far, row.ports), cycle(DISGUISES), strict=False)
    for ((other, version), (port, protocol)), labels in asked:
        there = _pod(other, seen, version, labels) if other in seen.namespaces else Peer(other)
        tenant = _pod(name, seen, version, labels)
        source, destination = (there, tenant) if row.inbound else (tenant, there)
        yield Connection(source, destination, port, protocol)


def _named(other: str, name: str, seen: Snapshot) -> list[str]:
    """Return addresses or namespaces for the other end of a row, as the tenant in the namespace `name` has them."""
    if other == ITSELF:
        return [name]
    if other == ANOTHER:
        return [each for alike in seen.tenants.values() for each in alike if each != name]
    return [other]


def _versions(other: str, seen: Snapshot) -> tuple[int, ...]:
    """Return the versions of IP in which there is an other end: pods have both."""
    return (4, 6) if other in seen.namespaces else (ipaddress.ip_address(other).version,)


def _pod(namespace: str, seen: Snapshot, version: int, labels: dict[str, str]) -> Peer:
    number = list(seen.namespaces).index(namespace)
    address = f"10.244.{number}.9" if version == 4 else f"fd00:244:0:{number:x}::9"
    return Peer(address, seen.namespaces[namespace], labels)
