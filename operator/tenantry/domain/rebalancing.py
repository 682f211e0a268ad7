"""How full each shard is, compared with its share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tenantry.api.shard import VectorShard
from tenantry.domain.rebalance import THETA


@dataclass(frozen=True, slots=True)
class Balance:
    """What a shard holds as a part of what it should, such as 1.03, and whether that is within bounds."""

    share: str
    within: bool


def balance(
    shards: Sequence[VectorShard], sizes: Mapping[str, int], theta: float = THETA
) -> Mapping[str, Balance]:
    """Return how each shard stands. sizes: bytes by shard."""
    common = [shard for shard in shards if not shard.spec.drain and not shard.spec.dedicated]
    weights = sum(shard.spec.weight for shard in common)
    total = sum(sizes.get(shard.metadata.name, 0) for shard in common)
    found = {}
    for shard in common:
        share = total * shard.spec.weight / weights
        ratio = sizes.get(shard.metadata.name, 0) / share if share else 1.0
        found[shard.metadata.name] = Balance(f"{ratio:.2f}", ratio <= 1 + theta)
    return found
