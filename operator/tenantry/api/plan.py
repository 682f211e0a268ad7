"""Plan: a preset of resources, limits, model and retrieval settings, and prices."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from tenantry.api.common import (
    AGE,
    DNS_LABEL_PATTERN,
    PENDING_STATUS,
    ApiModel,
    Column,
    Count,
    Definition,
    DnsLabel,
    Resource,
    Status,
    Text,
)
from tenantry.api.network import Egress, Ingress, Network
from tenantry.api.presets import OVERRIDABLE, Model, RateLimits, Retrieval
from tenantry.api.pricing import (
    AMOUNTS_FIT_CURRENCY,
    Currency,
    Interval,
    Price,
    PricingMode,
    Tier,
    UsagePrice,
)
from tenantry.api.resources import ContainerDefaults, Quota, ResourceAmounts, Resources
from tenantry.api.schema import Emptied, Rule, Schema, list_map, list_set
from tenantry.api.shard import EngineKind

__all__ = [
    "OVERRIDABLE",
    "ContainerDefaults",
    "Egress",
    "Ingress",
    "Interval",
    "Limits",
    "Model",
    "Network",
    "PeriodLimit",
    "Plan",
    "PlanSpec",
    "PlanStatus",
    "PlanVectorStore",
    "PodSecurity",
    "Price",
    "PricingMode",
    "Priority",
    "Quota",
    "RateLimits",
    "ResourceAmounts",
    "Resources",
    "Retrieval",
    "Tier",
    "UsagePrice",
]


class PodSecurity(StrEnum):
    """The Pod Security Standards that a tenant can be held to; privileged is not among them."""

    BASELINE = "baseline"
    RESTRICTED = "restricted"


class Priority(StrEnum):
    """Whose requests go first at the gateway."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


class PeriodLimit(ApiModel):
    """Limits of a meter per billing period."""

    model_config = ConfigDict(
        json_schema_extra=Schema(
            rules=[
                Rule(
                    "!has(self.soft) || !has(self.hard) || self.soft <= self.hard",
                    "soft must not be more than hard; lower soft or raise hard",
                    field_path=".soft",
                ),
                Rule(
                    "has(self.soft) || has(self.hard)", "perPeriod must give soft, hard or both for a meter"
                ),
            ]
        ).keywords
    )

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


class PlanVectorStore(ApiModel):
    """What the tenant gets of the vector shards."""

    dedicated: bool = False
    """A shard of its own: one whose VectorShard says dedicated: true, and that no other tenant is on."""
    engine: EngineKind | None = None
    """Only shards of this engine, which the tenants' applications speak: pgvector, weaviate or qdrant. Unset: any.
    It decides about new tenants; those that have a place stay."""


class PlanSpec(ApiModel):
    """What a tenant on this plan gets, and what it costs."""

    model_config = ConfigDict(json_schema_extra=Schema(rules=AMOUNTS_FIT_CURRENCY).keywords)

    display_name: Text
    """The plan's name for people."""
    rank: Annotated[int, Schema(minimum=0, maximum=1_000_000)]
    """Orders plans: to a higher rank is an upgrade, to a lower one a downgrade."""
    trial_days: Annotated[int, Schema(minimum=0, maximum=730)] = 0
    """Days without a bill at the beginning."""
    currency: Currency
    """The currency of all prices, an ISO 4217 code in lower case. It cannot be changed: another currency is
    another plan."""
    prices: Annotated[list[Price], list_map("interval", max_items=2)] = Field(default_factory=list)
    """The basic fee, one price per interval."""
    usage: Annotated[list[UsagePrice], list_map("meter", max_items=32)] = Field(default_factory=list)
    """What metered units cost, one entry per meter; billed monthly."""
    resources: Resources
    """What the tenant's namespace may use."""
    network: Annotated[Network, Emptied()] = Field(default_factory=Network)
    """The tenant's network beyond its own namespace and DNS. Unset: nothing beyond them."""
    pod_security: PodSecurity = PodSecurity.RESTRICTED
    """The Pod Security Standard that the namespace enforces: baseline or restricted."""
    priority: Priority = Priority.NORMAL
    """Whose requests go first at the gateway: low, normal or high."""
    limits: Annotated[Limits, Emptied()] = Field(default_factory=Limits)
    """Rate limits at the gateway and limits per billing period. An absent one does not limit."""
    model: Annotated[Model, Emptied()] = Field(default_factory=Model)
    """The language model, where a tenant overrides nothing."""
    retrieval: Annotated[Retrieval, Emptied()] = Field(default_factory=Retrieval)
    """How passages are found for an answer, where a tenant overrides nothing."""
    vector_store: Annotated[PlanVectorStore, Emptied()] = Field(default_factory=PlanVectorStore)
    """What the tenant gets of the vector shards. Unset: a place on one that it shares with others."""
    overridable: Annotated[
        list[Annotated[str, Schema(enum=list(OVERRIDABLE))]], list_set(max_items=len(OVERRIDABLE))
    ] = Field(default_factory=list)
    """The settings that tenants on this plan may override, such as model.temperature."""


class PlanStatus(Status):
    """How the plan is used."""

    tenants: Annotated[int, Schema(minimum=0)] = 0
    """How many tenants are on this plan."""


class Plan(Resource):
    """A Plan is a preset for tenants, such as free, pro or enterprise: resources, network, limits, settings of
    model and retrieval, and prices. Tenants name it in spec.plan; an edit reaches all of them at once."""

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
            Column(
                name="Rank",
                type="integer",
                path=".spec.rank",
                description="Orders upgrades and downgrades",
                priority=1,
            ),
        ],
        rules=[
            Rule(
                f"self.metadata.name.size() <= 63 && self.metadata.name.matches('{DNS_LABEL_PATTERN}')",
                "metadata.name must be at most 63 characters of a-z, 0-9 and '-' and start and end with a "
                "letter or digit",
                field_path=".metadata.name",
            )
        ],
        status_default=PENDING_STATUS,
    )

    kind: Literal["Plan"] = "Plan"
    spec: PlanSpec
    """What a tenant on this plan gets, and what it costs."""
    status: PlanStatus = Field(default_factory=PlanStatus)
    """How the plan is used, as the operator last saw it. Written by the operator alone."""
