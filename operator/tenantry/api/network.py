"""What a tenant's pods may reach, and be reached by, beyond their own namespace."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tenantry.api.common import ApiModel, DnsLabel
from tenantry.api.schema import Rule, Schema, list_set

Namespaces = Annotated[list[DnsLabel], list_set(max_items=64)]

Port = Annotated[int, Schema(minimum=1, maximum=65535)]

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
                "!isCIDR(self) || !(cidr(self).containsIP('169.254.169.254') || "
                "cidr(self).containsIP('fd00:ec2::254'))",
                "must not contain 169.254.169.254 or fd00:ec2::254, where clouds give credentials to any pod; "
                "for the internet use internetPorts",
                reason="FieldValueForbidden",
            ),
        ],
    ),
]


class Ingress(ApiModel):
    """Who may reach the tenant's pods from outside of its namespace."""

    namespaces: Namespaces = Field(default_factory=list)
    """Namespaces whose pods may connect, such as that of the ingress controller."""


class Egress(ApiModel):
    """What the tenant's pods may reach outside of its namespace, besides DNS."""

    internet_ports: Annotated[list[Port], list_set(max_items=64)] = Field(default_factory=list)
    """TCP ports on the internet; private and metadata ranges are left out."""
    namespaces: Namespaces = Field(default_factory=list)
    """Namespaces whose pods may be connected to."""
    cidrs: Annotated[list[Cidr], list_set(max_items=64)] = Field(default_factory=list)
    """Networks that may be connected to on every port, in CIDR notation."""


class Network(ApiModel):
    """The tenant's network beyond its own namespace."""

    ingress: Ingress = Field(default_factory=Ingress)
    """Who may reach the tenant's pods from outside of its namespace."""
    egress: Egress = Field(default_factory=Egress)
    """What the tenant's pods may reach outside of its namespace, besides DNS."""
