"""How many tenants a second, as a share of a bare client's rate: both in turn, several rounds, in one run."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tenantry.adapters.kubernetes.kinds import EVENTS
from tenantry.api.plan import Plan
from tests.benchmarks.bare import BareClient
from tests.benchmarks.scenarios import create, names, shows
from tests.benchmarks.watcher import Bench

ROUNDS = 3
EDIT_SECONDS = 180.0

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rates:
    """Tenants a second of the operator and of the bare client, round by round."""

    what: str
    operator: list[float]
    bare: list[float]
    asked: float | None

    @property
    def ratios(self) -> list[float]:
        """The operator's rate as a share of the bare client's in the same round."""
        return [mine / theirs for mine, theirs in zip(self.operator, self.bare, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.ratios)


async def measure(bench: Bench, count: int, edited: int) -> list[Rates]:
    """Take all rates: a burst of `count` tenants, and edits of a Plan with `edited` tenants on it."""
    plan = Plan.model_validate(await bench.api.get("Plan", "pro"))
    bare = BareClient(bench.api, plan)
    # The first of anything is slow in the API server: schemas are compiled, caches are filled.
    await asyncio.gather(*(create(bench, name) for name in names(10)))
    await bare.make(names(10))
    burst = await _in_turn(
        f"burst of {count} tenants, all children, Ready",
        0.7,
        ROUNDS,
        lambda _: _burst(bench, count),
        lambda _: _timed(count, bare.make(names(count))),
    )
    return [burst, *await _plan_edits(bench, bare, edited)]


async def _plan_edits(bench: Bench, bare: BareClient, count: int) -> list[Rates]:
    spec = (await bench.api.get("Plan", "pro") or {})["spec"]
    wide = {
        "apiVersion": "tenantry.dev/v1alpha1",
        "kind": "Plan",
        "metadata": {"name": "bench-wide"},
        "spec": spec,
    }
    await bench.api.apply(wide)
    chosen, others = names(count), names(count)
    for start in range(0, count, 100):
        await asyncio.gather(
            *(create(bench, name, plan="bench-wide") for name in chosen[start : start + 100])
        )
        await bare.make(others[start : start + 100])
    told: list[float] = []
    model = await _in_turn(
        f"Plan edit: model of {count} tenants (revision, tenant-config)",
        0.5,
        ROUNDS,
        lambda turn: _edit_model(bench, chosen, 3000 + turn, told),
        lambda turn: _timed(count, bare.edit_configuration(others, 2 + turn)),
    )
    return [
        model,
        Rates("the same until the last status tells it", told, model.bare, None),
        await _in_turn(
            f"Plan edit: quota of {count} tenants",
            0.5,
            ROUNDS,
            lambda turn: _edit_quota(bench, chosen, str(70 + turn)),
            lambda turn: _timed(count, bare.edit_quota(others, 70 + turn)),
        ),
    ]


async def _in_turn(
    what: str,
    asked: float | None,
    rounds: int,
    operator: Callable[[int], Awaitable[float]],
    bare: Callable[[int], Awaitable[float]],
) -> Rates:
    mine, theirs = [], []
    for turn in range(rounds):
        mine.append(await operator(turn))
        theirs.append(await bare(turn))
    return Rates(what, mine, theirs, asked)


async def _burst(bench: Bench, count: int) -> float:
    """Create many tenants at once; return tenants a second until the last is Ready."""
    chosen = names(count)
    return await _timed(count, asyncio.gather(*(create(bench, name, limit=EDIT_SECONDS) for name in chosen)))


async def _edit_model(bench: Bench, chosen: list[str], tokens: int, told: list[float]) -> float:
    """Edit the plan; return tenants a second until the last has the effect, append those until it is told of all."""
    holds = shows("model", "maxTokens", tokens)
    revision = ((await bench.api.get("Tenant", chosen[0]) or {})["status"]["configRevision"]) + 1

    def tells(item: Object | None) -> bool:
        return item is not None and item["status"].get("configRevision") == revision

    reports = [bench.arrival("Tenant", each, tells) for each in chosen]
    begin = time.monotonic()
    rate = await _edit(bench, chosen, {"model": {"maxTokens": tokens}}, "ConfigMap", "tenant-config", holds)
    await asyncio.wait_for(asyncio.gather(*reports), EDIT_SECONDS)
    told.append(len(chosen) / (time.monotonic() - begin))
    await _events_told(bench, len(chosen), revision)
    return rate


async def _events_told(bench: Bench, count: int, revision: int) -> None:
    """Wait for the Events too: the bare client's turn is not to be slowed down by them."""
    text = f"configuration revision {revision} is in effect"
    while True:
        answer = await bench.client.send("GET", EVENTS.path(namespace="default"))
        if sum(text in item["message"] for item in answer["items"]) >= count:
            return
        await asyncio.sleep(0.5)


async def _edit_quota(bench: Bench, chosen: list[str], pods: str) -> float:
    spec = {"resources": {"quota": {"pods": pods}}}

    def holds(item: Object | None) -> bool:
        return item is not None and item["spec"]["hard"].get("pods") == pods

    return await _edit(bench, chosen, spec, "ResourceQuota", "tenantry", holds)


async def _edit(
    bench: Bench,
    chosen: list[str],
    spec: Object,
    kind: str,
    name: str,
    holds: Callable[[Object | None], bool],
) -> float:
    """Edit the plan; return tenants a second until the last has the effect."""
    shown = [bench.arrival(kind, name, holds, f"tenant-{each}") for each in chosen]
    await bench.api.patch("Plan", "bench-wide", {"spec": spec})
    return await _timed(len(chosen), asyncio.wait_for(asyncio.gather(*shown), EDIT_SECONDS))


async def _timed(count: int, work: Awaitable[Any]) -> float:
    begin = time.monotonic()
    await work
    return count / (time.monotonic() - begin)
