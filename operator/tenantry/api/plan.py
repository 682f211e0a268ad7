"""Plan: a preset of resources, limits, model and retrieval settings, and prices."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tenantry.api.common import (
    AGE,
    PENDING_STATUS,
    ApiModel,
    Column,
    DecimalString,
    Definition,
    DnsLabel,
    Quantity,
    Resource,
    Status,
    Text,
)
from tenantry.api.presets import OVERRIDABLE, Model, RateLimits, Retrieval
from tenantry.api.schema import Schema, list_map, list_set

Count = Annotated[int, Schema(minimum=0, maximum=10**15, format="int64")]
Quota = Annotated[dict[str, Quantity], Schema(minProperties=1, maxProperties=32)]
ResourceAmounts = Annotated[dict[str, Quantity], Schema(maxProperties=8)]


class Interval(StrEnum):
    """How often a price is due."""

    MONTH = "month"
    YEAR = "year"


class PricingMode(StrEnum):
    """How tiers add up: each part at its own tier's price, or all of it at the last one's reached."""

    GRADUATED = "graduated"
    VOLUME = "volume"


class PodSecurity(StrEnum):
    """The Pod Security Standards that a tenant can be held to; privileged is not among them."""

    BASELINE = "baseline"
    RESTRICTED = "restricted"


class Priority(StrEnum):
    """Whose requests go first at the gateway."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


class Price(ApiModel):
    """The plan's basic fee."""

    interval: Interval
    """How often the amount is due: month or year."""
    amount: Annotated[DecimalString, Schema(minLength=1, maxLength=20)]
    """The amount per interval in the plan's currency, a decimal in quotes such as "99.00"."""


class Tier(ApiModel):
    """A price per unit up to a quantity."""

    up_to: Annotated[int, Schema(minimum=1, maximum=10**15, format="int64")] | None = None
    """The quantity in a period, counted from 0, up to which this tier holds. Only the last tier has none."""
    unit_amount: Annotated[DecimalString, Schema(minLength=1, maxLength=26)]
    """The price of one unit in the plan's currency, a decimal in quotes with up to 12 places."""


class UsagePrice(ApiModel):
    """What a meter's units cost; billed monthly."""

    meter: DnsLabel
    """The name of the Meter."""
    included: Count = 0
    """Units per month that are covered by the basic fee."""
    mode: PricingMode = PricingMode.GRADUATED
    """graduated: each part of the quantity at its own tier's price. volume: all of it at the price of the
    last tier that it reaches."""
    tiers: Annotated[list[Tier], Schema(minItems=1, maxItems=20)]
    """Prices by quantity, increasing; the last one is open."""


class ContainerDefaults(ApiModel):
    """What a container gets that asks for nothing."""

    limits: ResourceAmounts = Field(default_factory=dict)
    """Limits of a container that names none."""
    requests: ResourceAmounts = Field(default_factory=dict)
    """Requests of a container that names none."""


class Resources(ApiModel):
    """What the tenant's namespace may use."""

    quota: Quota
    """Keys and values of the namespace's ResourceQuota, such as pods, requests.cpu, limits.memory."""
    container_defaults: ContainerDefaults = Field(default_factory=ContainerDefaults)
    """Requests and limits of containers that name none."""
    container_max: ResourceAmounts = Field(default_factory=dict)
    """The largest limits that one container may name."""


class Ingress(ApiModel):
    """Who may reach the tenant's pods from outside of its namespace."""

    namespaces: Annotated[list[DnsLabel], list_set(max_items=64)] = Field(default_factory=list)
    """Namespaces whose pods may connect, such as that of the ingress controller."""


class Egress(ApiModel):
    """What the tenant's pods may reach outside of its namespace, besides DNS."""

    internet_ports: Annotated[
        list[Annotated[int, Schema(minimum=1, maximum=65535)]], list_set(max_items=64)
    ] = Field(default_factory=list)
    """TCP ports on the internet; private and metadata ranges are left out."""
    namespaces: Annotated[list[DnsLabel], list_set(max_items=64)] = Field(default_factory=list)
    """Namespaces whose pods may be connected to."""
    cidrs: Annotated[list[Annotated[str, Schema(maxLength=43)]], list_set(max_items=64)] = Field(
        default_factory=list
    )
    """Networks that may be connected to on every port, in CIDR notation."""


class Network(ApiModel):
    """The tenant's network beyond its own namespace."""

    ingress: Ingress = Field(default_factory=Ingress)
    """Who may reach the tenant's pods from outside of its namespace."""
    egress: Egress = Field(default_factory=Egress)
    """What the tenant's pods may reach outside of its namespace, besides DNS."""


class PeriodLimit(ApiModel):
    """Limits of a meter per billing period."""

    meter: DnsLabel
    """The name of the Meter."""
    soft: Count | None = None
    """The quantity at which the customer is warned."""
    hard: Count | None = None
    """The quantity at which requests are refused."""


class Limits(RateLimits):
    """Rate limits at the gateway and limits per billing period; an absent one does not limit."""

    per_period: Annotated[list[PeriodLimit], list_map("meter", max_items=32)] = Field(default_factory=list)
    """Limits of meters per billing period."""


class PlanSpec(ApiModel):
    """What a tenant on this plan gets, and what it costs."""

    display_name: Text
    """The plan's name for people."""
    rank: Annotated[int, Schema(minimum=0, maximum=1_000_000)]
    """Orders plans: to a higher rank is an upgrade, to a lower one a downgrade."""
    trial_days: Annotated[int, Schema(minimum=0, maximum=730)] = 0
    """Days without a bill at the beginning."""
    currency: Annotated[str, Schema(minLength=3, maxLength=3)]
    """The currency of all prices, an ISO 4217 code in lower case. It cannot be changed: another currency
    is another plan."""
    prices: Annotated[list[Price], list_map("interval", max_items=2)] = Field(default_factory=list)
    """The basic fee, one price per interval."""
    usage: Annotated[list[UsagePrice], list_map("meter", max_items=32)] = Field(default_factory=list)
    """What metered units cost, one entry per meter; billed monthly."""
    resources: Resources
    """What the tenant's namespace may use."""
    network: Network = Field(default_factory=Network)
    """The tenant's network beyond its own namespace and DNS. Unset: nothing beyond them."""
    pod_security: PodSecurity = PodSecurity.RESTRICTED
    """The Pod Security Standard that the namespace enforces: baseline or restricted."""
    priority: Priority = Priority.NORMAL
    """Whose requests go first at the gateway: low, normal or high."""
    limits: Limits = Field(default_factory=Limits)
    """Rate limits at the gateway and limits per billing period. An absent one does not limit."""
    model: Model = Field(default_factory=Model)
    """Defaults for the language model."""
    retrieval: Retrieval = Field(default_factory=Retrieval)
    """Defaults for retrieval."""
    overridable: Annotated[list[Annotated[str, Schema(enum=list(OVERRIDABLE))]], list_set(max_items=64)] = (
        Field(default_factory=list)
    )
    """The settings that tenants on this plan may override, such as model.temperature."""


class PlanStatus(Status):
    """What the operator has made of it."""

    tenants: Annotated[int, Schema(minimum=0)] = 0
    """How many tenants are on this plan."""


class Plan(Resource):
    """A preset (free, pro, enterprise): resources, limits, model and retrieval defaults, prices."""

    DEFINITION: ClassVar[Definition] = Definition(
        plural="plans",
        short_names=["pl"],
        columns=[
            Column(
                name="Price",
                type="string",
                path='.spec.prices[?(@.interval=="month")].amount',
                description="The basic fee per month",
            ),
            Column(
                name="Tenants", type="integer", path=".status.tenants", description="Tenants on this plan"
            ),
            AGE,
            Column(
                name="Currency",
                type="string",
                path=".spec.currency",
                description="The currency of all prices",
                priority=1,
            ),
        ],
        status_default=PENDING_STATUS,
    )

    kind: Literal["Plan"] = "Plan"
    spec: PlanSpec
    """What a tenant on this plan gets, and what it costs."""
    status: PlanStatus = Field(default_factory=PlanStatus)
    """What the operator has made of it."""
