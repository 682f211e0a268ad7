"""When tenants move between shards, and which of the planner's steps may begin now.

    triggers   a shard drains; a tenant is pinned elsewhere, needs a shard of its own, or has no right to be where it
               is; a shard has been over (1 + theta) of its share for some minutes. The last is what a new shard or
               another weight comes to: the shards that are there are over their share then
    limits     one move at a time on each shard, as source or target; a pause between two rebalancing moves of a
               tenant and of a shard. Who drains a shard or pins a tenant waits for no pause

Level-triggered: what is to be done comes from how things are, and nothing is remembered between two decisions. The
name of a move comes from the tenant and the epoch of its placement, so that a second try creates none twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tenantry.api.move import MovePhase, MoveReason, TenantMove
from tenantry.api.shard import EngineKind, VectorShard
from tenantry.domain import conditions
from tenantry.domain.layout import Facts, Layout, layout, stuck
from tenantry.domain.reasons import ConditionType
from tenantry.domain.rebalance import THETA, Placed, RebalancePlan, Shard, Step, plan

FLOOR = 64 * 1024 * 1024
"""Shards that differ by less are not worth a move: a fleet of tenants without vectors is at rest."""

AFTER_ABORT = timedelta(minutes=10)
"""Somebody gave up a move: one for the same reason comes after so long at the earliest, also a drain or a pin."""


@dataclass(frozen=True, slots=True)
class RebalanceTerms:
    """How rebalancing goes. over: for how long a shard must be over its share. tenant_pause, shard_pause: between two
    rebalancing moves of one. floor: bytes over the limit that are worth no move."""

    enabled: bool = True
    theta: float = THETA
    over: timedelta = timedelta(minutes=5)
    tenant_pause: timedelta = timedelta(minutes=60)
    shard_pause: timedelta = timedelta(minutes=1)
    floor: int = FLOOR


@dataclass(frozen=True, slots=True)
class Balance:
    """What a shard holds as a part of what it should, such as 1.03, and whether that is within bounds."""

    share: str
    within: bool


def balance(
    shards: Sequence[VectorShard], sizes: Mapping[str, int], theta: float = THETA, floor: int = 0
) -> Mapping[str, Balance]:
    """Return how each shard stands, compared with the others of its engine. sizes: bytes by shard.

    One that is over its limit by less than `floor` bytes is within bounds.
    """
    found = {}
    for engine in EngineKind:
        common = [shard for shard in shards if shard.spec.engine is engine and _shares(shard)]
        weights = sum(shard.spec.weight for shard in common)
        total = sum(sizes.get(shard.metadata.name, 0) for shard in common)
        for shard in common:
            share = total * shard.spec.weight / weights
            held = sizes.get(shard.metadata.name, 0)
            within = held <= (1 + theta) * share or held - (1 + theta) * share < floor
            found[shard.metadata.name] = Balance(f"{held / share if share else 1.0:.2f}", within)
    return found


def _shares(shard: VectorShard) -> bool:
    return not shard.spec.drain and not shard.spec.dedicated


@dataclass(frozen=True, slots=True)
class Beginning:
    """A move to create now, by its name."""

    name: str
    step: Step


@dataclass(frozen=True, slots=True)
class Waiting:
    """A step that may not begin yet, and what it waits for."""

    step: Step
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done. triggers: why, a sentence each. withdrawn: moves of the planner that can never begin.

    notes: by tenant, why it stays where it should not be, and the next step. unsettled: how the fleet is will ask for
    another decision soon: a shard is over its share, or a move goes on.
    """

    plan: RebalancePlan = field(default_factory=lambda: RebalancePlan((), (), 0))
    triggers: tuple[str, ...] = ()
    beginning: tuple[Beginning, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    withdrawn: tuple[TenantMove, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    unsettled: bool = False

    @property
    def pending(self) -> bool:
        """Return whether there is anything to do, now or later."""
        return bool(self.beginning or self.waiting or self.withdrawn)


def decide(facts: Facts, terms: RebalanceTerms, *, asked: bool = False) -> Decision:
    """Return what is to be done now. asked: somebody wants it, so no shard has to be over its share for some time."""
    view = layout(facts)
    over = _over(facts, terms)
    withdrawn = tuple(move for move in facts.moves if _hopeless(move))
    unsettled = bool(over or facts.moves)
    triggers = tuple(_triggers(view, facts, over, terms))
    if not (triggers or asked):
        return Decision(withdrawn=withdrawn, notes=view.notes, unsettled=unsettled)
    plans = [plan(shards, tenants, theta=terms.theta) for shards, tenants in view.fleets.values()]
    whole = _together(plans)
    beginning, waiting = _admit(whole.steps, facts, terms, None if asked else over)
    notes = {**_stuck(whole, view), **view.notes}
    return Decision(whole, triggers, beginning, waiting, withdrawn, notes, unsettled)


def _together(plans: Iterable[RebalancePlan]) -> RebalancePlan:
    """Return the plans of all fleets as one, what must be before what should be."""
    each = list(plans)
    order = (MoveReason.PIN, MoveReason.DRAIN, MoveReason.REBALANCE)
    return RebalancePlan(
        tuple(
            sorted((step for one in each for step in one.steps), key=lambda step: order.index(step.reason))
        ),
        tuple(sorted((share for one in each for share in one.shares), key=lambda share: share.shard)),
        sum(one.bound for one in each),
        tuple(tenant for one in each for tenant in one.too_large),
        tuple(tenant for one in each for tenant in one.stuck),
        tuple(shard for one in each for shard in one.over),
    )


# --- triggers -------------------------------------------------------------------------------------------------------


def _over(facts: Facts, terms: RebalanceTerms) -> Mapping[str, bool]:
    """Return the shards that are over their share by their conditions, and whether they have been for long enough."""
    found = {}
    for shard in facts.shards:
        balanced = conditions.find(shard.status.conditions, ConditionType.BALANCED)
        if balanced is not None and balanced.status == "False":
            found[shard.metadata.name] = facts.now - balanced.last_transition_time >= terms.over
    return found


def _triggers(view: Layout, facts: Facts, over: Mapping[str, bool], terms: RebalanceTerms) -> Iterator[str]:
    for shards, tenants in view.fleets.values():
        known = {shard.name: shard for shard in shards if shard.reachable}
        free = [item for item in tenants if item.shard in known and not item.busy]
        yield from _sentences(known, free)
    minutes = terms.over.total_seconds() / 60
    for shard in facts.shards:
        if over.get(shard.metadata.name) and facts.holding(shard.metadata.name).reachable:
            yield f"{shard.metadata.name} has been over its share for at least {minutes:g} minutes"


def _sentences(known: Mapping[str, Shard], tenants: Sequence[Placed]) -> Iterator[str]:
    leaving: dict[str, int] = {}
    for item in tenants:
        here = known[item.shard]
        if item.pinned in known and item.pinned != item.shard:
            yield f"{item.tenant} belongs on {item.pinned} and is on {item.shard}"
        elif here.drained or here.reserved_for not in (None, item.tenant):
            leaving[item.shard] = leaving.get(item.shard, 0) + 1
    for name, count in sorted(leaving.items()):
        what = "drains" if known[name].drained else "is a dedicated shard"
        yield f"{name} {what}: {count} {'tenant leaves' if count == 1 else 'tenants leave'} it"


# --- what is in the way -----------------------------------------------------------------------------------------


def _stuck(whole: RebalancePlan, view: Layout) -> dict[str, str]:
    """Say of each tenant that the planner has found no room for what it would need."""
    placed = {item.tenant: item for _, tenants in view.fleets.values() for item in tenants if not item.busy}
    notes = {}
    for tenant in whole.stuck:
        item = placed[tenant]
        if item.pinned and item.pinned != item.shard:
            notes[tenant] = (
                f"VectorShard {item.pinned}, where it belongs, drains, is full or is another tenant's: raise its "
                f"spec.capacity.storage, or name another in spec.vectorStore.shard"
            )
        elif item.pinned:
            notes[tenant] = (
                f"spec.vectorStore.shard keeps it on {item.shard}, which it should leave: name another shard, or "
                f"leave it empty"
            )
        else:
            notes[tenant] = (
                f"it should leave {item.shard}, and no other VectorShard has room for it: add one, or raise "
                f"spec.capacity.storage of one"
            )
    return notes


def _hopeless(move: TenantMove) -> bool:
    """Tell whether a move of the planner cannot begin and should make way for another plan."""
    ours = move.spec.reason is not MoveReason.REQUESTED
    return ours and not move.deleting and not move.spec.abort and stuck(move)


# --- limits ---------------------------------------------------------------------------------------------------------


def _admit(
    steps: Iterable[Step], facts: Facts, terms: RebalanceTerms, over: Mapping[str, bool] | None
) -> tuple[tuple[Beginning, ...], tuple[Waiting, ...]]:
    """Part the steps into those that may begin now and those that wait. over: None where somebody asks for all.

    What a shard would give that its condition calls balanced is no step at all: beside a tenant that is too large the
    planner wants the others more even than that.
    """
    occupied = _occupied(facts)
    ended = _ended(facts, terms)
    names = {move.metadata.name for move in (*facts.moves, *facts.ended)}
    epochs = {claim.name: claim.epoch for claim in facts.claims}
    beginning, waiting = [], []
    for step in steps:
        if over is not None and step.reason is MoveReason.REBALANCE and step.source not in over:
            continue
        reason = _early(step, over, terms) or _taken(step, occupied) or ended.pause(step, facts.now)
        if reason:
            waiting.append(Waiting(step, reason))
            continue
        name = _name(step.tenant, epochs[step.tenant], names)
        occupied |= {step.source: name, step.target: name}
        beginning.append(Beginning(name, step))
    return tuple(beginning), tuple(waiting)


def _early(step: Step, over: Mapping[str, bool] | None, terms: RebalanceTerms) -> str:
    if over is None or step.reason is not MoveReason.REBALANCE or over[step.source]:
        return ""
    return f"until {step.source} has been over its share for {terms.over.total_seconds() / 60:g} minutes"


def _occupied(facts: Facts) -> dict[str, str]:
    """Return the shards that a move works on now, with its name.

    One that has handed its tenant over and only waits to remove the old place is in nobody's way.
    """
    shards = {claim.name: claim.shard for claim in facts.claims}
    found: dict[str, str] = {}
    for move in facts.moves:
        if move.status.phase is MovePhase.CLEANING or stuck(move):
            continue
        source = move.status.source or shards.get(move.spec.tenant, "")
        found |= {source: move.metadata.name, move.spec.target_shard: move.metadata.name}
    return found


def _taken(step: Step, occupied: Mapping[str, str]) -> str:
    shard = next((name for name in (step.source, step.target) if name in occupied), None)
    return f"for TenantMove {occupied[shard]} on {shard}" if shard is not None else ""


@dataclass(frozen=True, slots=True)
class _Pauses:
    """Until when tenants and shards rest: from rebalancing, and tenants whose move was given up from any move."""

    tenants: Mapping[str, datetime]
    shards: Mapping[str, datetime]
    aborted: Mapping[str, datetime]

    def pause(self, step: Step, now: datetime) -> str:
        """Return what a step waits for; empty where it waits for no pause."""
        rests = [(self.aborted.get(step.tenant), f"a move of {step.tenant} was given up")]
        if step.reason is MoveReason.REBALANCE:
            rests.append((self.tenants.get(step.tenant), f"{step.tenant} has just moved"))
            shards = (step.source, step.target)
            rests += [(self.shards.get(shard), f"a move on {shard} has just ended") for shard in shards]
        due = [(until, why) for until, why in rests if until is not None and until > now]
        if not due:
            return ""
        until, why = max(due, key=lambda each: each[0])
        return f"until {until:%H:%M:%S} UTC: {why}"


def _ended(facts: Facts, terms: RebalanceTerms) -> _Pauses:
    tenants: dict[str, datetime] = {}
    shards: dict[str, datetime] = {}
    aborted: dict[str, datetime] = {}
    for move in (*facts.ended, *facts.moves):
        at = move.status.finished_at
        if at is None:
            continue
        _latest(tenants, move.spec.tenant, at + terms.tenant_pause)
        for shard in filter(None, (move.status.source, move.spec.target_shard)):
            _latest(shards, shard, at + terms.shard_pause)
        if move.status.phase is MovePhase.ABORTED:
            _latest(aborted, move.spec.tenant, at + AFTER_ABORT)
    return _Pauses(tenants, shards, aborted)


def _latest(times: dict[str, datetime], name: str, at: datetime) -> None:
    times[name] = max(times.get(name, at), at)


def _name(tenant: str, epoch: int, taken: Iterable[str]) -> str:
    """Return the name of a tenant's move from this epoch; one that was given up keeps its own."""
    name, names, tries = f"{tenant}-e{epoch}", set(taken), 1
    while name in names:
        tries += 1
        name = f"{tenant}-e{epoch}-{tries}"
    return name
