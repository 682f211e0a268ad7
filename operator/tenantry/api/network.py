"""What a tenant's pods may reach, and be reached by, beyond their own namespace."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import Field

from tenantry.api.common import ApiModel, DnsLabel
from tenantry.api.schema import Emptied, Rule, Schema, list_set

Namespaces = Annotated[list[DnsLabel], list_set(max_items=64)]

Port = Annotated[int, Schema(minimum=1, maximum=65535)]

CREDENTIALS = (
    "169.254.169.254",  # AWS, Azure, Google and most others
    "fd00:ec2::254",  # AWS
    "fd20:ce::254",  # Google
    "168.63.129.16",  # Azure's host
    "100.100.100.200",  # Alibaba
    "192.0.0.192",  # Oracle
)
"""Addresses where clouds give credentials to whoever asks."""

NAT64 = "64:ff9b::/96"
"""IPv4 addresses behind a translator, for clusters with IPv6 alone."""


def translated(network: str) -> str:
    """Return an IPv4 network, or a single address, as the network that a NAT64 translator takes for it."""
    inner = ipaddress.IPv4Network(network)
    start = int(ipaddress.IPv6Network(NAT64).network_address) + int(inner.network_address)
    return str(ipaddress.IPv6Network((start, 96 + inner.prefixlen)))


_TRANSLATED = [translated(address).removesuffix("/128") for address in CREDENTIALS if "." in address]

Cidr = Annotated[
    str,
    Schema(
        maxLength=43,
        rules=[
            Rule(
                "isCIDR(self) && cidr(self) == cidr(self).masked()",
                "must be a network in CIDR notation with no bits set after the prefix, "
                "such as 203.0.113.0/24",
            ),
            Rule(
                f"!isCIDR(self) || !{[*CREDENTIALS, *_TRANSLATED]}.exists(address, cidr(self).containsIP(address))",
                f"must not contain {', '.join(CREDENTIALS)}, nor these behind NAT64 ({NAT64}), where clouds give "
                "credentials to any pod; for the internet use internetPorts",
                reason="FieldValueForbidden",
            ),
        ],
    ),
]


class Ingress(ApiModel):
    """Who may reach the tenant's pods from outside of its namespace."""

    namespaces: Namespaces = Field(default_factory=list)
    """Namespaces whose pods may connect, such as that of the ingress controller; never a tenant's."""


class Egress(ApiModel):
    """What the tenant's pods may reach outside of its namespace, besides DNS."""

    internet_ports: Annotated[list[Port], list_set(max_items=64)] = Field(default_factory=list)
    """TCP ports on the internet; private and metadata ranges are left out."""
    namespaces: Namespaces = Field(default_factory=list)
    """Namespaces whose pods may be connected to; never a tenant's."""
    cidrs: Annotated[list[Cidr], list_set(max_items=64)] = Field(default_factory=list)
    """Networks that may be connected to on every port, in CIDR notation."""


class Network(ApiModel):
    """The tenant's network beyond its own namespace."""

    ingress: Annotated[Ingress, Emptied()] = Field(default_factory=Ingress)
    """Who may reach the tenant's pods from outside of its namespace."""
    egress: Annotated[Egress, Emptied()] = Field(default_factory=Egress)
    """What the tenant's pods may reach outside of its namespace, besides DNS."""
