"""Kubernetes' quantities, such as 500m and 16Gi: what the API server takes one for, and bytes as one."""

from __future__ import annotations

import re
from decimal import ROUND_UP, Context, Decimal

_QUANTITY = re.compile(
    r"^([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(m|u|n|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]+)?$"
)
_SUFFIXES = {
    **{suffix: Decimal(10) ** (3 * power) for power, suffix in enumerate(["n", "u", "m"], start=-3)},
    **{
        suffix: Decimal(1000) ** power for power, suffix in enumerate(["k", "M", "G", "T", "P", "E"], start=1)
    },
    **{f"{s}i": Decimal(1024) ** power for power, s in enumerate(["K", "M", "G", "T", "P", "E"], start=1)},
}


EXACT = Context(prec=100)
_MILLI = Decimal("1e-3")
_LARGEST_BINARY = Decimal(2**63 - 1)


def quantity(text: str) -> Decimal:
    """Return the number that the API server takes a quantity for; ValueError if it is none.

    In limits and quotas it keeps nothing smaller than milli, rounding up, and nothing with a binary suffix above
    2^63-1.
    """
    match = _QUANTITY.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not a quantity")
    number, suffix = match.groups()
    if suffix is None or suffix in _SUFFIXES:
        value = EXACT.multiply(Decimal(number), _SUFFIXES[suffix] if suffix else Decimal(1))
    else:
        value = Decimal(number + suffix)
    if int(value.as_tuple().exponent) < -3:
        value = value.quantize(_MILLI, ROUND_UP, EXACT)
    if suffix is not None and suffix.endswith("i"):
        value = min(value, _LARGEST_BINARY)
    return value if value else Decimal(0)


def in_bytes(text: str) -> int:
    """Return a quantity in whole bytes, rounded up; ValueError if it is none."""
    return int(quantity(text).to_integral_value(ROUND_UP))


def as_quantity(size: int) -> str:
    """Return bytes as a quantity for people, with three digits or so: 812Ki, 1.5Gi, 640Gi."""
    if size < 1024:
        return str(size)
    suffixes = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]
    value, suffix = Decimal(size) / 1024, suffixes.pop(0)
    while value >= 1000 and suffixes:
        value, suffix = value / 1024, suffixes.pop(0)
    return f"{value:.0f}{suffix}" if value >= 10 or value == int(value) else f"{value:.1f}{suffix}"
