"""The planner of moves between shards: one key for all of them.

It creates TenantMoves, as many as may begin now, and leaves the rest for later looks: how the fleet is then decides
anew. A move is named by the tenant and the epoch of its placement: one that a process has created just before it died
is met again as a Conflict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from tenantry.api.common import API_VERSION
from tenantry.api.shard import VectorShard
from tenantry.desired.owner import Manifest
from tenantry.domain.errors import PartError
from tenantry.domain.layout import Facts, Holding
from tenantry.domain.observed import TenantClaim
from tenantry.domain.quantities import as_quantity
from tenantry.domain.rebalance import RebalancePlan
from tenantry.domain.rebalancing import Beginning, Decision, decide
from tenantry.reconcile import report
from tenantry.reconcile.enact import translated
from tenantry.reconcile.ports import Conflict, Context, Observations
from tenantry.reconcile.result import Key, Result

KEY = Key("Rebalance", "")

PENDING_SECONDS = 60.0
"""How often to look while there is something to do; a move that has handed its tenant over wakes the planner too."""

IDLE_SECONDS = 600.0
"""How often to look otherwise: what asks for a move wakes the planner."""

PLANNED = "RebalancePlanned"
BLOCKED = "RebalanceBlocked"
"""Reasons of the Events about a VectorShard."""

MOST_NAMED = 5
"""So many tenants are named in an Event; of the others their number."""


async def reconcile(key: Key, cx: Context) -> Result:  # noqa: ARG001 - there is one
    """Create the moves that may begin now; safe to run again after dying at any line."""
    terms = cx.policy.rebalance
    if not terms.enabled or not cx.seen.shards():
        return Result.done()
    facts = gather(cx.seen, _holdings(cx), cx.clock.now(), cx.fleet.reserved)
    decision = decide(facts, terms)
    try:
        with translated():
            for move in decision.withdrawn:
                await cx.objects.delete("TenantMove", move.metadata.name, uid=move.metadata.uid)
            for beginning in decision.beginning:
                with suppress(Conflict):
                    await cx.objects.create(manifest(beginning))
    except PartError as error:
        return report.result_of([error])
    await _tell(decision, facts, cx)
    busy = decision.pending or decision.unsettled
    return Result(after=PENDING_SECONDS if busy else IDLE_SECONDS, low=True)


def gather(
    seen: Observations, holdings: Mapping[str, Holding], now: datetime, coming: Mapping[str, str]
) -> Facts:
    """Return what a decision is made from, of what the watches have seen and the shards have on record."""
    shards = seen.shards()
    claims = [
        _entitled(claim, shard, seen) for shard in shards for claim in seen.placed_on(shard.metadata.name)
    ]
    return Facts(shards, holdings, claims, now, coming, seen.moves(), seen.ended_moves())


def _entitled(claim: TenantClaim, shard: VectorShard, seen: Observations) -> TenantClaim:
    """Return a tenant with whether its plan asks for a shard of its own; without the plan it is as it is."""
    plan = seen.plan(claim.plan)
    dedicated = plan.spec.vector_store.dedicated if plan is not None else shard.spec.dedicated
    return replace(claim, dedicated=dedicated) if dedicated else claim


def _holdings(cx: Context) -> dict[str, Holding]:
    known = {shard.metadata.name: cx.fleet[shard.metadata.name] for shard in cx.seen.shards()}
    return {
        name: Holding.of((each.records or {}).values(), reachable=each.usable) for name, each in known.items()
    }


def manifest(beginning: Beginning) -> Manifest:
    """Return the TenantMove for a step."""
    step = beginning.step
    return {
        "apiVersion": API_VERSION,
        "kind": "TenantMove",
        "metadata": {"name": beginning.name},
        "spec": {"tenant": step.tenant, "targetShard": step.target, "reason": str(step.reason)},
    }


# --- what is said of it ---------------------------------------------------------------------------------------------


async def _tell(decision: Decision, facts: Facts, cx: Context) -> None:
    """Send Events about shards: once when moves of it begin, and when what stays there changes."""
    planned, blocked = _planned(decision), _blocked(decision, facts)
    for shard in facts.shards:
        name = shard.metadata.name
        about = {
            "apiVersion": API_VERSION,
            "kind": "VectorShard",
            "metadata": {"name": name, "uid": shard.metadata.uid},
        }
        # While a plan is followed its figures change with each step: that it has begun is told once.
        if cx.fleet.news(name, PLANNED, "begun" if name in planned else ""):
            await cx.objects.emit(about, PLANNED, planned[name])
        said = "; ".join(blocked.get(name, ()))
        if cx.fleet.news(name, BLOCKED, said):
            await cx.objects.emit(about, BLOCKED, said, warning=True)


def _planned(decision: Decision) -> dict[str, str]:
    """Say of each shard what leaves it."""
    steps = [*(item.step for item in decision.beginning), *(item.step for item in decision.waiting)]
    found = {}
    for name in sorted({step.source for step in steps}):
        leaving = [step for step in steps if step.source == name]
        size = as_quantity(sum(step.size for step in leaving))
        tenants = f"{len(leaving)} tenant{'s' * (len(leaving) != 1)}"
        found[name] = f"{tenants} with {size} will be moved to other shards; {figures(decision.plan)}"
    return found


def figures(plan: RebalancePlan) -> str:
    """Return how good a plan is, for people."""
    moved, bound = as_quantity(plan.moved), as_quantity(plan.bound)
    ratio = f", ratio {plan.ratio:.2f}" if plan.bound else ""
    return f"the plan moves {moved} in all (lower bound {bound}{ratio})"


def _blocked(decision: Decision, facts: Facts) -> dict[str, list[str]]:
    """Say of each shard who stays there, and why."""
    where = {claim.name: claim.shard for claim in facts.claims}
    for shard in facts.shards:
        for tenant in facts.holding(shard.metadata.name).sizes:
            where.setdefault(tenant, shard.metadata.name)
    found: dict[str, list[str]] = {}
    for why, tenants in _grouped(decision):
        for shard_name in sorted({where[tenant] for tenant in tenants}):
            here = [tenant for tenant in tenants if where[tenant] == shard_name]
            found.setdefault(shard_name, []).append(f"{named(here)}: {why}")
    return found


def _grouped(decision: Decision) -> Iterator[tuple[str, list[str]]]:
    if decision.plan.too_large:
        yield "more than any shard's share, so it stays where it is", sorted(decision.plan.too_large)
    for why in sorted(set(decision.notes.values())):
        yield why, sorted(tenant for tenant, said in decision.notes.items() if said == why)


def named(tenants: list[str]) -> str:
    """Return the names of some tenants, and how many more there are."""
    more = len(tenants) - MOST_NAMED
    return ", ".join(tenants[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
