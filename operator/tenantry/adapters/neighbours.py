"""Which neighbours a tenant tries to read, so that all are tried by somebody."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from typing import Final

from tenantry.domain.places import Record

CLOSEST: Final = 3
"""Neighbours whose rows are asked for."""


def closest(id_: str, neighbours: Sequence[Record]) -> Sequence[Record]:
    """Return those that come next by id, from the beginning again after the last."""
    ordered = sorted(neighbours, key=lambda each: each.id)
    at = bisect([each.id for each in ordered], id_)
    return (*ordered[at:], *ordered[:at])[:CLOSEST]
