"""Where a tenant's vectors go first: weighted rendezvous hashing with bounded loads.

Each tenant has an order of preference among the shards, which depends on their names and weights only; the first
one with room takes it. So a shard that comes or goes changes as few preferences as possible, equal tenants spread
evenly, and a hot shard's surplus goes to many others instead of to one neighbour.

A place is never computed again: where a tenant is stands in its `status.placement`, and only a move changes it.

Rendezvous hashing: Thaler and Ravishankar 1998; its weights: Schindelhauer and Schomaker 2005 (-weight / ln(hash));
bounded loads: Mirrokni, Thorup and Zadimoghaddam 2017.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

SLACK = 0.10
"""How far above its share a shard may be when it takes a new tenant (epsilon)."""

_BITS = 53
"""What a float holds exactly."""


@dataclass(frozen=True, slots=True)
class ShardLoad:
    """A shard as a place for new tenants.

    weight: its share of all tenants and bytes. accepts: reachable, not cordoned, not drained. tenants: those
    placed there, with those about to come. stored: bytes of them. capacity: bytes it may hold, None: no limit said.
    reserved_for: the only tenant that may be placed there, None: any.
    """

    name: str
    weight: int = 1
    accepts: bool = True
    tenants: int = 0
    stored: int = 0
    capacity: int | None = None
    reserved_for: str | None = None

    def has_room(self, needed: int) -> bool:
        """Return whether so many more bytes fit in."""
        return self.capacity is None or self.stored + needed <= self.capacity


def preference(tenant: str, shards: Iterable[ShardLoad]) -> list[ShardLoad]:
    """Return shards in the order in which a tenant would have them; equal on every machine and Python."""
    return sorted(shards, key=lambda shard: (-_score(tenant, shard), shard.name))


def place(
    tenant: str, shards: Sequence[ShardLoad], *, needed: int = 0, slack: float = SLACK
) -> ShardLoad | None:
    """Return the shard for a new tenant that needs so many bytes at first; None where none has room.

    The first one of its preference that stays within (1 + slack) of its share in tenants and in bytes. Where all
    that have room are over it, the one that is least so: capacity is a limit, balance is an aim.
    """
    open_ = [item for item in shards if item.accepts and item.reserved_for is None and item.has_room(needed)]
    if not open_:
        return None
    weights = sum(item.weight for item in open_)
    tenants = sum(item.tenants for item in open_) + 1
    stored = sum(item.stored for item in open_) + needed

    def within(shard: ShardLoad) -> bool:
        share = shard.weight / weights * (1 + slack)
        # Less than one tenant is nobody's share; what a float is off by makes no whole tenant.
        fits = shard.tenants + 1 <= max(1, math.ceil(round(tenants * share, 9)))
        return fits and (shard.stored + needed <= stored * share or stored == needed)

    order = preference(tenant, open_)
    least = min(
        order, key=lambda shard: ((shard.stored + needed) / shard.weight, shard.tenants / shard.weight)
    )
    return next((shard for shard in order if within(shard)), least)


def _score(tenant: str, shard: ShardLoad) -> float:
    """Return a number that is the highest of all with a chance of weight / sum of weights."""
    digest = blake2b(f"{tenant}\0{shard.name}".encode(), digest_size=8).digest()
    chance = ((int.from_bytes(digest, "big") >> (64 - _BITS)) + 0.5) / 2**_BITS
    return -shard.weight / math.log(chance)
