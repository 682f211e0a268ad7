"""Placement and the rebalance planner on tenants whose sizes are log-normal: how even, how many bytes, how fast."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tenantry.domain.placement import ShardLoad, place
from tenantry.domain.rebalance import Placed, RebalancePlan, Shard, Step, plan

SEEDS = 20
SIGMA = 1.5
MEDIAN_BYTES = 10**6
SHARDS = 5


@dataclass(frozen=True, slots=True)
class Growth:
    """What became of one set of tenants: placed empty on five shards, grown, settled; then a sixth shard came.

    fullest: the fullest shard's bytes as a share of the mean when settled. seconds: that the slower plan took.
    """

    tenants: int
    fullest: float
    settled: RebalancePlan
    sixth: RebalancePlan
    seconds: float


def followed(tenants: Sequence[Placed], steps: Sequence[Step]) -> list[Placed]:
    """Return the tenants as they are when all steps have been taken."""
    targets = {step.tenant: step.target for step in steps}
    return [replace(item, shard=targets.get(item.tenant, item.shard)) for item in tenants]


def grown(seed: int, count: int = 500) -> Growth:
    """Place so many empty tenants, let them grow, settle; add a sixth shard and settle again."""
    chance = random.Random(seed)
    fleet = [Shard(f"shard-{number}") for number in range(SHARDS)]
    taken = dict.fromkeys((shard.name for shard in fleet), 0)
    tenants = []
    for number in range(count):
        name = f"tenant-{seed}-{number}"
        chosen = place(name, [ShardLoad(shard, tenants=empty) for shard, empty in taken.items()])
        assert chosen is not None
        taken[chosen.name] += 1
        tenants.append(Placed(name, chosen.name, round(MEDIAN_BYTES * chance.lognormvariate(0, SIGMA))))
    began = time.perf_counter()
    settled = plan(fleet, tenants)
    first = time.perf_counter() - began
    tenants = followed(tenants, settled.steps)
    mean = sum(item.size for item in tenants) / len(fleet)
    began = time.perf_counter()
    sixth = plan([*fleet, Shard("shard-x")], tenants)
    seconds = max(first, time.perf_counter() - began)
    return Growth(count, max(share.after for share in settled.shares) / mean, settled, sixth, seconds)


def measure() -> list[tuple[str, ...]]:
    """Return what to print: a figure, what it is, what is asked."""
    rows = []
    for count in (500, 10_000):
        runs = [grown(seed, count) for seed in range(SEEDS)]
        fullest = [run.fullest for run in runs]
        ratios = [run.sixth.ratio for run in runs]
        moved = [len(run.sixth.steps) / count for run in runs]
        rows += [
            (f"{count} tenants settled: fullest shard / mean", _spread(fullest), "1.10, 1.15"),
            (f"{count} tenants, a sixth shard: bytes moved / bound", _spread(ratios), "1.1"),
            (f"{count} tenants, a sixth shard: tenants moved", _spread(moved, "%"), "at most 5 %"),
            (f"{count} tenants: seconds to plan", _spread([run.seconds for run in runs]), "10,000 in 1 s"),
        ]
    return rows


def _spread(values: Sequence[float], unit: str = "") -> str:
    """Return the median and the worst."""
    worst, middle = max(values), statistics.median(values)
    return f"{middle:.1%}, {worst:.1%}" if unit else f"{middle:.3f}, {worst:.3f}"
