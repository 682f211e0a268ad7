"""A tenant's move: what must be so before it begins, how its target's place is described, when it is given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from tenantry.api.move import MovePhase, TenantMove
from tenantry.api.shard import EngineKind, VectorShard
from tenantry.domain.errors import PartError, Retry, Stalled
from tenantry.domain.observed import TenantClaim
from tenantry.domain.places import Place, PlaceState, Record, capacity_of
from tenantry.domain.reasons import Reason

UNDECIDED = frozenset(
    {
        MovePhase.PENDING,
        MovePhase.PREPARING,
        MovePhase.COPYING,
        MovePhase.CATCHING_UP,
        MovePhase.VERIFYING,
        MovePhase.BLOCKING,
    }
)
"""Phases in which a move may still be given up."""

MOVABLE = frozenset({EngineKind.PGVECTOR})
"""Engines whose tenants can be moved, from one shard of it to another."""

LAG_BYTES = 1024 * 1024
"""A target that is further behind than this is not compared, and no writes are held back for it."""

CHECK_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Terms:
    """How moves go. grace: how long the old place redirects those who have not read the Secret again. history: how
    long a TenantMove that is over stays as a record."""

    grace: timedelta = timedelta(minutes=15)
    history: timedelta = timedelta(days=7)
    poll: timedelta = timedelta(seconds=1)


def hindrance(
    move: TenantMove,
    claim: TenantClaim | None,
    source: VectorShard | None,
    target: VectorShard | None,
    record: Record | None,
    stored: int,
    rivals: Sequence[TenantMove],
) -> PartError | None:
    """Return why a move cannot begin; None: it can. stored: bytes on the target. rivals: its other moves."""
    spec = move.spec
    if claim is None:
        return Stalled(
            Reason.TENANT_NOT_FOUND,
            f"spec.tenant names {spec.tenant}, and there is no such Tenant: delete this move",
        )
    if target is None:
        return Stalled(
            Reason.SHARD_NOT_FOUND,
            f"spec.targetShard names VectorShard {spec.target_shard}, which does not exist: apply it, or abort this "
            f"move",
        )
    for shard in filter(None, (source, target)):
        if shard.spec.engine not in MOVABLE or shard.spec.engine is not target.spec.engine:
            return Stalled(
                Reason.ENGINE_CANNOT_MOVE,
                f"spec.targetShard: VectorShard {shard.metadata.name} is of engine {shard.spec.engine}, and tenants "
                f"are moved between shards of engine {', '.join(MOVABLE)} only: delete this move",
            )
    if target.spec.drain:
        return Stalled(
            Reason.NO_SHARD_WITH_ROOM,
            f"spec.targetShard: VectorShard {spec.target_shard} drains: name another",
        )
    older = [rival for rival in rivals if _seniority(rival) < _seniority(move)]
    if older:
        return Retry(
            Reason.MOVES_ALREADY,
            f"waits for TenantMove {older[0].metadata.name} of the same tenant",
            CHECK_SECONDS,
        )
    if record is None or record.place.state is not PlaceState.OWNER:
        return Retry(
            Reason.SHARD_UNKNOWN,
            f"Tenant {spec.tenant} has no place on {claim.shard or 'any shard'} yet",
            1.0,
        )
    capacity = capacity_of(target)
    if capacity is not None and stored + record.size > capacity:
        return Stalled(
            Reason.NO_SHARD_WITH_ROOM,
            f"spec.targetShard: VectorShard {spec.target_shard} has no room for {record.size} bytes: raise its "
            f"spec.capacity.storage, or name another",
            CHECK_SECONDS,
        )
    return None


def _seniority(move: TenantMove) -> tuple[object, str]:
    return (move.metadata.creation_timestamp, move.metadata.name)


def importing(place: Place) -> Place:
    """Return the place on the target while it is being filled: of the next epoch.

    It can be logged in to, so that nothing is left to make when writes wait; nobody has its credentials yet, and a
    fence keeps all writes but the copy's out.
    """
    return replace(place, state=PlaceState.IMPORTING, epoch=place.epoch + 1, previous=False)


def activated(place: Place, *, open_: bool) -> Place:
    """Return the place on the target when it has become the tenant's."""
    return replace(place, state=PlaceState.OWNER, open=open_)


def given_up(move: TenantMove, claim: TenantClaim | None, phase: MovePhase, uid: str = "") -> str:
    """Return why a move is to be rolled back; empty: it goes on. uid: of the Tenant that it was begun for."""
    if phase not in UNDECIDED:
        return ""
    if move.spec.abort:
        return "spec.abort asks for it"
    if move.deleting:
        return "the TenantMove is being deleted"
    begun = phase is not MovePhase.PENDING
    if begun and (claim is None or claim.deleting or claim.uid != uid):
        return f"Tenant {move.spec.tenant} is gone or leaves"
    return ""


def under_way(move: TenantMove) -> bool:
    """Return whether a move has its hands on the tenant's place now: it has begun, and not handed it over yet."""
    before, after = (None, MovePhase.PENDING), (MovePhase.CLEANING, MovePhase.COMPLETED, MovePhase.ABORTED)
    return move.status.phase not in (*before, *after)
