"""The fleet as the rebalance planner sees it: who is where, who is to be where, and which shard is whose alone.

A tenant with a move under way counts where it is going. One that cannot be moved now (it moves already, is being
deleted, is kept of a deleted Tenant, its place is not settled, or nobody can be moved in its shard's engine) counts
where it is, and stays.

A plan that asks for a dedicated shard works as a pin: each such tenant has an empty dedicated shard reserved for it,
and whoever else is on that one leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tenantry.api.move import MovePhase, TenantMove
from tenantry.api.shard import EngineKind, VectorShard
from tenantry.domain import conditions
from tenantry.domain.moves import MOVABLE, UNDECIDED
from tenantry.domain.observed import TenantClaim
from tenantry.domain.places import COUNTS, PlaceState, Record, capacity_of
from tenantry.domain.reasons import ConditionType
from tenantry.domain.rebalance import Placed, Shard


@dataclass(frozen=True, slots=True)
class Holding:
    """What a shard has on record. sizes: bytes by tenant whose vectors are there. settled: those that could be moved.

    left: bytes that moves have left behind there, and that take room until they are removed.
    """

    reachable: bool = False
    sizes: Mapping[str, int] = field(default_factory=dict)
    settled: frozenset[str] = frozenset()
    left: int = 0

    @classmethod
    def of(cls, records: Iterable[Record], *, reachable: bool = True) -> Holding:
        """Return what the records of a shard come to."""
        listed = list(records)
        return cls(
            reachable,
            {item.place.tenant: item.size for item in listed if item.place.state in COUNTS},
            frozenset(item.place.tenant for item in listed if item.place.state is PlaceState.OWNER),
            sum(item.size for item in listed if item.place.state is PlaceState.MOVED),
        )


@dataclass(frozen=True, slots=True)
class Facts:
    """All that rebalancing is decided from.

    claims: the tenants that have a placement. coming: shards of tenants whose placements are on their way. moves:
    those that are active; ended: those that are over, as long as they are on record.
    """

    shards: Sequence[VectorShard]
    holdings: Mapping[str, Holding]
    claims: Sequence[TenantClaim]
    now: datetime
    coming: Mapping[str, str] = field(default_factory=dict)
    moves: Sequence[TenantMove] = ()
    ended: Sequence[TenantMove] = ()

    def holding(self, shard: str) -> Holding:
        """Return what a shard has on record; nothing where that is not known."""
        return self.holdings.get(shard) or Holding()


@dataclass(frozen=True, slots=True)
class Layout:
    """What the planner is given. A tenant can only move between shards of one engine: each engine is a fleet.

    notes: by tenant, why it is not where it should be and will not be moved there, as a sentence with the next step.
    """

    fleets: Mapping[EngineKind, tuple[tuple[Shard, ...], tuple[Placed, ...]]]
    notes: Mapping[str, str]


def layout(facts: Facts) -> Layout:
    """Return the fleet as the planner sees it."""
    shards = {shard.metadata.name: shard for shard in facts.shards}
    moving = headings(facts.moves)
    where = {claim.name: moving.get(claim.name) or claim.shard for claim in facts.claims}
    notes: dict[str, str] = {}
    pins = {claim.name: _pin(claim, shards, notes) for claim in facts.claims if claim.pin}
    owners, own = _dedicated(facts, shards, where, notes)
    pins |= own
    fixed = {name: shard for name, shard in shards.items() if shard.spec.engine not in MOVABLE}
    present = _tenants(facts, where, pins, fixed)
    notes |= dict(_fixed(present, fixed))
    tenants = [*present, *_remains(facts, shards, notes)]
    fleets = {}
    for engine in sorted({shard.spec.engine for shard in facts.shards}):
        names = {name for name, shard in shards.items() if shard.spec.engine is engine}
        fleets[engine] = (
            tuple(_shard(shards[name], facts.holding(name), owners) for name in sorted(names)),
            tuple(item for item in tenants if item.shard in names),
        )
    return Layout(fleets, notes)


def heading_for(move: TenantMove) -> str:
    """Return the shard that a move will leave its tenant on, as far as is known; empty: where it is now."""
    phase = move.status.phase or MovePhase.PENDING
    given_up = phase in UNDECIDED and (move.spec.abort or move.deleting)
    return "" if given_up or stuck(move) or phase is MovePhase.ROLLING_BACK else move.spec.target_shard


def stuck(move: TenantMove) -> bool:
    """Return whether a move cannot even begin until somebody corrects something."""
    return _waits(move) and conditions.is_true(move.status.conditions, ConditionType.STALLED)


def headings(moves: Iterable[TenantMove]) -> dict[str, str]:
    """Return where tenants with a move under way are going; of several moves that is the one that has begun."""
    begun: dict[str, str] = {}
    for move in sorted(moves, key=lambda move: (_waits(move), move.metadata.creation_timestamp)):
        if heading_for(move):
            begun.setdefault(move.spec.tenant, heading_for(move))
    return begun


def _waits(move: TenantMove) -> bool:
    return move.status.phase in (None, MovePhase.PENDING)


def _pin(claim: TenantClaim, shards: Mapping[str, VectorShard], notes: dict[str, str]) -> str:
    """Return the shard that a tenant's spec asks for; where nothing can bring it there, that is noted."""
    target, here = shards.get(claim.pin), shards.get(claim.shard)
    if target is None:
        notes[claim.name] = (
            f"spec.vectorStore.shard names VectorShard {claim.pin}, which does not exist: apply it, name another, or "
            f"leave it empty"
        )
    elif here is not None and here.spec.engine is not target.spec.engine:
        notes[claim.name] = (
            f"spec.vectorStore.shard names VectorShard {claim.pin} of engine {target.spec.engine}, and the vectors "
            f"are on {claim.shard} of engine {here.spec.engine}: name one of the same engine"
        )
    return claim.pin


# --- shards of one tenant alone -----------------------------------------------------------------------------------


def _dedicated(
    facts: Facts, shards: Mapping[str, VectorShard], where: Mapping[str, str], notes: dict[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return whose each dedicated shard is (empty: nobody's), and where tenants without one are to go."""
    owners = {name: "" for name, shard in shards.items() if shard.spec.dedicated}
    entitled = sorted((claim for claim in facts.claims if claim.dedicated), key=lambda claim: claim.seniority)
    for claim in entitled:
        here = where[claim.name]
        if not owners.get(here, "taken") and claim.pin in ("", here):
            owners[here] = claim.name
    for claim in entitled:
        if not owners.get(claim.pin, "taken"):
            owners[claim.pin] = claim.name
    taken = {*where.values(), *facts.coming.values(), *(name for name, owner in owners.items() if owner)}
    free = [
        name
        for name in sorted(owners)
        if name not in taken and not facts.holding(name).sizes and _takes(shards[name], facts.holding(name))
    ]
    housed = {owner for name, owner in owners.items() if owner and not shards[name].spec.drain}
    targets: dict[str, str] = {}
    for claim in entitled:
        if claim.name in housed or claim.pin or claim.shard not in shards:
            continue
        target = next((name for name in free if _could_take(claim, shards, name, facts)), None)
        if target is None:
            notes[claim.name] = (
                f"plan {claim.plan} asks for a shard of its own, and none is free: add a VectorShard with "
                f"spec.dedicated: true"
            )
            continue
        free.remove(target)
        owners[target], targets[claim.name] = claim.name, target
    return owners, targets


def _takes(shard: VectorShard, holding: Holding) -> bool:
    return holding.reachable and not shard.spec.drain and not shard.spec.cordoned


def _could_take(claim: TenantClaim, shards: Mapping[str, VectorShard], target: str, facts: Facts) -> bool:
    capacity = capacity_of(shards[target])
    size = facts.holding(claim.shard).sizes.get(claim.name, 0)
    engine = shards[target].spec.engine
    same = engine is shards[claim.shard].spec.engine and engine in MOVABLE
    return same and (capacity is None or size <= capacity - facts.holding(target).left)


# --- as the planner has it ----------------------------------------------------------------------------------------


def _shard(shard: VectorShard, holding: Holding, owners: Mapping[str, str]) -> Shard:
    name, capacity = shard.metadata.name, capacity_of(shard)
    return Shard(
        name,
        weight=shard.spec.weight,
        reachable=holding.reachable,
        cordoned=shard.spec.cordoned,
        drained=shard.spec.drain,
        capacity=None if capacity is None else max(0, capacity - holding.left),
        reserved_for=owners.get(name),
    )


def _fixed(tenants: Iterable[Placed], fixed: Mapping[str, VectorShard]) -> Iterator[tuple[str, str]]:
    """Say of each tenant that should leave a shard whose engine moves nobody, that it stays."""
    for item in tenants:
        shard = fixed.get(item.shard)
        if shard is not None and (shard.spec.drain or item.pinned not in (None, item.shard)):
            said = (
                f"its vectors are on {item.shard} of engine {shard.spec.engine}, and only tenants of engine "
                f"{', '.join(MOVABLE)} are moved: it stays there until its Tenant is deleted"
            )
            yield item.tenant, said


def _tenants(
    facts: Facts, where: Mapping[str, str], pins: Mapping[str, str], fixed: Mapping[str, VectorShard]
) -> list[Placed]:
    moving = {move.spec.tenant for move in facts.moves}
    done = {(move.spec.tenant, move.status.epoch) for move in facts.ended if _completed(move)}
    found = []
    for claim in facts.claims:
        holding = facts.holding(claim.shard)
        # A move that is complete left this epoch: what is known of the Tenant is older than that.
        stays = claim.deleting or claim.name in moving or (claim.name, claim.epoch) in done
        found.append(
            Placed(
                claim.name,
                where[claim.name],
                holding.sizes.get(claim.name, 0),
                pinned=pins.get(claim.name) or None,
                busy=stays or claim.name not in holding.settled or claim.shard in fixed,
            )
        )
    return found


def _completed(move: TenantMove) -> bool:
    return move.status.phase is MovePhase.COMPLETED


def _remains(facts: Facts, shards: Mapping[str, VectorShard], notes: dict[str, str]) -> list[Placed]:
    """Return what is on shards of those whose placement is not there: most are kept of a deleted Tenant."""
    placed = {(claim.shard, claim.name) for claim in facts.claims}
    tenants = {claim.name for claim in facts.claims}
    found = []
    for name, shard in shards.items():
        for tenant, size in facts.holding(name).sizes.items():
            if (name, tenant) in placed:
                continue
            found.append(Placed(tenant, name, size, busy=True))
            if shard.spec.drain and tenant not in tenants:
                notes[tenant] = f"it is kept of a deleted Tenant: it stays on {name} until it is purged"
    return found
