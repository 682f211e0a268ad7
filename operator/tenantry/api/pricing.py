"""What a plan costs: the basic fee and the prices of metered units."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict

from tenantry.api.common import ApiModel, Count, DecimalString, DnsLabel
from tenantry.api.currencies import MINOR_UNITS, codes_with
from tenantry.api.schema import Rule, Schema


class Interval(StrEnum):
    """How often a price is due."""

    MONTH = "month"
    YEAR = "year"


class PricingMode(StrEnum):
    """How tiers add up: each part at its own tier's price, or all of it at the last one's reached."""

    GRADUATED = "graduated"
    VOLUME = "volume"


Currency = Annotated[
    str,
    Schema(
        minLength=3,
        maxLength=3,
        rules=[
            Rule(
                f"self in {sorted(MINOR_UNITS)}",
                "currency must be an ISO 4217 code in lower case, such as usd or eur",
                offending="'currency must be an ISO 4217 code in lower case, such as usd, not ' + self",
            ),
            Rule(
                "self == oldSelf",
                "currency cannot be changed, tenants are billed in it; put it back or create another Plan",
                offending="'currency cannot be changed, tenants are billed in it; put ' + oldSelf + "
                "' back or create another Plan'",
                reason="FieldValueForbidden",
            ),
        ],
    ),
]
"""An ISO 4217 code in lower case."""


class Price(ApiModel):
    """The plan's basic fee."""

    interval: Interval
    """How often the amount is due: month or year."""
    amount: Annotated[
        DecimalString,
        Schema(
            minLength=1,
            maxLength=20,
            rules=[
                Rule(
                    r"self.matches('^[0-9]{1,12}(\\.[0-9]{1,3})?$')",
                    'amount must be a decimal of at least 0 in quotes, such as "99.00"',
                    offending="'amount must be a decimal of at least 0, such as \"99.00\", not ' + self",
                )
            ],
        ),
    ]
    """The amount per interval in the plan's currency, a decimal in quotes such as "99.00"."""


def _amounts_fit(decimals: int) -> Rule:
    """In a currency with that many decimals, no amount has more."""
    too_many = rf"\\.[0-9]{{{decimals + 1},}}$" if decimals else r"\\."
    at_most = f"at most {decimals} decimals" if decimals else "no decimals"
    return Rule(
        f"!(self.currency in {codes_with(decimals)}) || "
        f"!has(self.prices) || self.prices.all(p, !p.amount.matches('{too_many}'))",
        f"prices must have amounts with {at_most} in this currency",
        offending=f"'prices must have amounts with {at_most} in ' + self.currency",
        field_path=".prices",
    )


AMOUNTS_FIT_CURRENCY = [_amounts_fit(decimals) for decimals in sorted(set(MINOR_UNITS.values()))]
"""Rules for an object with `currency` and `prices`."""


class Tier(ApiModel):
    """A price per unit up to a quantity."""

    up_to: Annotated[int, Schema(minimum=1, maximum=10**15, format="int64")] | None = None
    """The quantity in a period, counted from 0, up to which this tier holds. Only the last tier has none."""
    unit_amount: Annotated[
        DecimalString,
        Schema(
            minLength=1,
            maxLength=26,
            rules=[
                Rule(
                    r"self.matches('^[0-9]{1,12}(\\.[0-9]{1,12})?$')",
                    "unitAmount must be a decimal of at least 0 with at most 12 places in quotes, "
                    'such as "0.002"',
                    offending="'unitAmount must be a decimal of at least 0 with at most 12 places, "
                    'such as "0.002", not \' + self',
                )
            ],
        ),
    ]
    """The price of one unit in the plan's currency, a decimal in quotes with up to 12 places."""


_TIER_RULES = [
    Rule(
        "self.tiers.filter(t, !has(t.upTo)).size() == 1 && !has(self.tiers[self.tiers.size() - 1].upTo)",
        "tiers must end with one tier without upTo, and only the last may lack it",
        field_path=".tiers",
    ),
    Rule(
        "self.tiers.filter(t, has(t.upTo)).map(t, t.upTo).isSorted() && self.tiers.all(t, !has(t.upTo) || "
        "self.tiers.exists_one(other, has(other.upTo) && other.upTo == t.upTo))",
        "tiers must have an upTo that increases from one tier to the next; it counts from 0",
        field_path=".tiers",
    ),
    Rule(
        "self.tiers.all(t, !has(t.upTo) || t.upTo > self.included)",
        "tiers must have an upTo above included: it counts from 0, so a tier below included never applies",
        field_path=".tiers",
    ),
    Rule(
        "self.mode != 'volume' || self.included == 0",
        "included must be 0 with mode volume, where one tier's price is for all units; "
        "use mode graduated or remove included",
        field_path=".included",
    ),
]


class UsagePrice(ApiModel):
    """What a meter's units cost; billed monthly."""

    model_config = ConfigDict(json_schema_extra=Schema(rules=_TIER_RULES).keywords)

    meter: DnsLabel
    """The name of the Meter."""
    included: Count = 0
    """Units per month that are covered by the basic fee."""
    mode: PricingMode = PricingMode.GRADUATED
    """graduated: each part of the quantity at its own tier's price. volume: all of it at the price of the
    last tier that it reaches."""
    tiers: Annotated[list[Tier], Schema(minItems=1, maxItems=20)]
    """Prices by quantity, increasing; the last one is open."""
