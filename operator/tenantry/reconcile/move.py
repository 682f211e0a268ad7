"""One TenantMove: a state machine whose only decision is one compare-and-swap of the tenant's placement.

    Pending ─ Preparing ─ Copying ─ CatchingUp ─ Verifying ─ Blocking ─┬─ Committed ─ Cleaning ─ Completed
       │          └───────────┴── RollingBack ───┴───────────┴─────────┘
       └──────────────────────────── Aborted

A phase is on record before anything of it is done, and everything of it may be done again: a process that dies
anywhere is followed by one that reads the phase and goes on. Of a death in Blocking the placement tells on which side
of the decision it was: before it the move is rolled back or tried again, after it only goes forward.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from tenantry.api.common import rfc3339
from tenantry.api.move import MovePhase, TenantMove
from tenantry.desired.owner import Manifest
from tenantry.domain import conditions, moves, names
from tenantry.domain.conditions import Outcome
from tenantry.domain.errors import PartError, Retry
from tenantry.domain.places import PlaceState
from tenantry.domain.reasons import Action, Reason
from tenantry.reconcile import rebalance, report
from tenantry.reconcile import record as audit
from tenantry.reconcile.enact import translated
from tenantry.reconcile.handover import Under, commit, is_decided, places, switch, take_note, tenant_of
from tenantry.reconcile.mover import Busy
from tenantry.reconcile.ports import Context, Engine, Refused, Unavailable
from tenantry.reconcile.result import Key, Result
from tenantry.reconcile.vectors import shard_errors, usable

LONGEST_PAUSE_SECONDS = 30.0
"""Between two tries to hold writes back, where somebody's transaction did not end."""

SHARD_SECONDS = 5.0
"""How often to look again where a shard is in the way: sooner than for a tenant that only waits to be brought up to
date."""


@dataclass(slots=True)
class Wait:
    """The phase goes on: look again after so many seconds."""

    seconds: float
    message: str


Step = Callable[[Under], Awaitable[MovePhase | Wait]]


async def reconcile(key: Key, cx: Context) -> Result:
    """Take a move as far as it goes now; safe to run again after dying at any line."""
    raw = await cx.objects.get("TenantMove", key.name)
    if raw is None:
        return Result.done()
    try:
        move = TenantMove.model_validate(raw)
    except ValidationError as error:
        return await report.unreadable(raw, error, cx)
    if not move.active:
        return await _past(move, raw, cx)
    status = {"phase": MovePhase.PENDING, **move.status.as_json()}
    try:
        if names.FINALIZER not in move.metadata.finalizers and not move.deleting:
            with translated():
                marked = await cx.objects.patch(
                    raw, {"finalizers": [*move.metadata.finalizers, names.FINALIZER]}
                )
            if marked is None:
                return Result.done()
            raw = marked
        if (move.status.phase or MovePhase.PENDING) is MovePhase.PENDING:
            raw = await _begin(move, raw, status, cx)
            if status["phase"] in (MovePhase.PENDING, MovePhase.ABORTED, MovePhase.COMPLETED):
                return Result(after=0.0)
        return await _go_on(await _under(move, raw, status, cx))
    except PartError as error:
        await _write(move, raw, status, Outcome.failed(error), cx)
        return report.result_of([error])


async def _begin(move: TenantMove, raw: Manifest, status: dict[str, Any], cx: Context) -> Manifest:
    """Check that a move can begin, and put on record that it does; or that it never will."""
    name, target = move.spec.tenant, move.spec.target_shard
    claim = cx.seen.tenant(name)
    reason = moves.given_up(move, claim, MovePhase.PENDING)
    if reason:
        return await _ended(move, raw, status, MovePhase.ABORTED, f"not begun: {reason}", cx)
    record = (cx.fleet[claim.shard].records or {}).get(name) if claim else None
    rivals = [item for item in cx.seen.moves_of(name) if item.metadata.name != move.metadata.name]
    problem = moves.hindrance(
        move,
        claim,
        cx.seen.shard(claim.shard) if claim else None,
        cx.seen.shard(target),
        record,
        cx.fleet[target].size,
        rivals,
    )
    if problem is not None:
        raise problem
    assert claim is not None and record is not None  # noqa: S101, PT018 - `hindrance` looked
    if claim.shard == target:
        return await _ended(
            move, raw, status, MovePhase.COMPLETED, f"Tenant {name} is on {target} already", cx
        )
    _engine(claim.shard, cx), _engine(target, cx)
    message = f"moving vectors of Tenant {name} from {claim.shard} to {target} ({move.spec.reason})"
    row = await _recorded(move, cx, Action.MOVING, message)
    status |= {"source": claim.shard, "epoch": record.place.epoch, "tenantUID": claim.uid}
    status |= {"phase": MovePhase.PREPARING, "startedAt": rfc3339(cx.clock.now())}
    raw = await _write(move, raw, status, _waiting(message), cx)
    await cx.objects.emit(raw, row.action, row.message)
    cx.wake(Key("Tenant", name))  # its network policies let it out to both from now on
    return raw


async def _under(move: TenantMove, raw: Manifest, status: dict[str, Any], cx: Context) -> Under:
    source, target = _engine(status["source"], cx), _engine(move.spec.target_shard, cx)
    with shard_errors(move.spec.target_shard):
        mover = cx.engines.mover(source, target, move.spec.tenant)
    return Under(move, raw, cx, source, target, mover, status)


def _engine(shard: str, cx: Context) -> Engine:
    return usable(shard, cx.fleet[shard], SHARD_SECONDS)


async def _go_on(under: Under) -> Result:
    """Take one phase after the other, each put on record before it is begun."""
    cx, move = under.cx, under.move
    try:
        while True:
            phase = MovePhase(under.status["phase"])
            reason = moves.given_up(move, cx.seen.tenant(under.tenant), phase, under.status["tenantUID"])
            if reason and phase is not MovePhase.BLOCKING:
                phase = await _enter(under, MovePhase.ROLLING_BACK, f"is rolled back: {reason}")
            with shard_errors(under.target_shard):
                following = await STEPS[phase](under)
            if isinstance(following, Wait):
                # Not `phase`: a step may have gone back to an earlier one, and waits there.
                await _enter(under, MovePhase(under.status["phase"]), following.message)
                return Result(after=following.seconds, outcome="waiting")
            if following in (MovePhase.COMPLETED, MovePhase.ABORTED):
                message = "is completed" if following is MovePhase.COMPLETED else "was rolled back"
                action = Action.MOVED if following is MovePhase.COMPLETED else Action.MOVE_ABORTED
                row = await _recorded(move, cx, action, f"the move of Tenant {under.tenant} {message}")
                await _ended(move, under.raw, under.status, following, row.message, cx)
                cx.watch.moved(completed=following is MovePhase.COMPLETED)
                return Result(after=0.0)
            await _enter(under, following, f"is {following}")
    finally:
        with suppress(Refused, Unavailable):
            await under.mover.close()


async def _enter(under: Under, phase: MovePhase, message: str) -> MovePhase:
    under.status["phase"] = phase
    said = f"Tenant {under.tenant} from {under.source_shard} to {under.target_shard} {message}"
    under.raw = await _write(under.move, under.raw, under.status, _waiting(said), under.cx)
    return phase


# --- phases -----------------------------------------------------------------------------------------------


async def _prepare(under: Under) -> MovePhase | Wait:
    record = await under.source.find(under.tenant)
    if record is None:
        raise Retry(Reason.SHARD_UNKNOWN, f"{under.source_shard} has no record of Tenant {under.tenant}", 5.0)
    try:
        await under.mover.prepare(moves.importing(record.place))
    except Busy as error:
        return Wait(SHARD_SECONDS, f"waits for its turn: {error}")
    there = await under.target.find(under.tenant)
    if there is not None:
        under.cx.fleet.put(under.target_shard, there)  # it takes room there from now on
    return MovePhase.COPYING


async def _copy(under: Under) -> MovePhase | Wait:
    progress = await under.mover.progress()
    under.saw(progress)
    if progress.lost:
        return await _again(under)
    pause = under.cx.policy.moves.poll.total_seconds()
    if not progress.copied:
        return Wait(pause, "is being copied")
    return MovePhase.CATCHING_UP if await under.mover.index() else Wait(pause, "is being indexed")


async def _again(under: Under) -> MovePhase:
    """Begin the copy anew: the source has thrown away what was still to be sent."""
    await under.mover.clean_target()
    return MovePhase.PREPARING


async def _catch_up(under: Under) -> MovePhase | Wait:
    progress = await under.mover.progress()
    under.saw(progress)
    if progress.lost:
        return await _again(under)
    if progress.lag_bytes > moves.LAG_BYTES:
        return Wait(under.cx.policy.moves.poll.total_seconds(), "catches up")
    return MovePhase.VERIFYING


async def _verify(under: Under) -> MovePhase | Wait:
    try:
        difference = await under.mover.verify()
    except Busy as error:
        return Wait(SHARD_SECONDS, f"is not compared yet: {error}")
    if difference is None:
        return MovePhase.BLOCKING
    return Wait(LONGEST_PAUSE_SECONDS, f"is not the same on both shards yet: {difference}")


async def _block(under: Under) -> MovePhase | Wait:
    """Hold writes back, decide, and let them go on at the target: all at one go, since writers wait."""
    raw = await tenant_of(under)
    if is_decided(under, raw):
        return MovePhase.COMMITTED
    claim, uid = under.cx.seen.tenant(under.tenant), under.status["tenantUID"]
    if moves.given_up(under.move, claim, MovePhase.BLOCKING, uid):
        await under.mover.unblock()
        return MovePhase.ROLLING_BACK
    try:
        known = await places(under)
        blocked = await under.mover.block()
        began = time.monotonic() - blocked.seconds
        committed = await commit(under, raw)
    except (Busy, Refused) as error:
        await under.mover.unblock()
        tries = under.status["blocks"] = under.status.get("blocks", 0) + 1
        await _enter(under, MovePhase.CATCHING_UP, f"is tried again: {error}")
        return Wait(min(2.0**tries, LONGEST_PAUSE_SECONDS), f"is tried again: {error}")
    if not committed:
        await under.mover.unblock()
        return MovePhase.ROLLING_BACK
    await switch(under, known)
    pause = time.monotonic() - began
    under.status["writePauseMs"] = round(pause * 1000)
    under.cx.watch.paused(pause)
    return MovePhase.COMMITTED


async def _committed(under: Under) -> MovePhase | Wait:
    await switch(under, await places(under))
    await take_note(under)
    await under.mover.detach()
    under.status["finishedAt"] = rfc3339(under.cx.clock.now())
    for key in (
        Key("VectorShard", under.source_shard),
        Key("VectorShard", under.target_shard),
        rebalance.KEY,  # both shards are free for the next move
    ):
        under.cx.wake(key)
    return MovePhase.CLEANING


async def _clean(under: Under) -> MovePhase | Wait:
    finished = TenantMove.model_validate(under.raw).status.finished_at
    now = under.cx.clock.now()
    left = (finished + under.cx.policy.moves.grace - now).total_seconds() if finished else 0.0
    under.cx.wake(Key("Tenant", under.tenant))  # its place is its own to look after again
    claim = under.cx.seen.tenant(under.tenant)
    leaves = claim is None or claim.deleting or under.move.deleting
    if left > 0 and not leaves:
        return Wait(left, f"is done; {under.source_shard} sends writers on until its place there is removed")
    here = await under.source.find(under.tenant)
    if here is not None and here.place.state is not PlaceState.MOVED:
        # The source was set back to a backup since: what is there now is told of, and is somebody's to decide about.
        return MovePhase.COMPLETED
    await under.mover.clean_source()
    under.cx.fleet.drop(under.source_shard, under.tenant)
    under.cx.wake(Key("VectorShard", under.source_shard))
    return MovePhase.COMPLETED


async def _roll_back(under: Under) -> MovePhase | Wait:
    await under.mover.clean_target()
    under.cx.fleet.drop(under.target_shard, under.tenant)
    here = await under.source.find(under.tenant)
    if here is not None:
        under.cx.fleet.put(under.source_shard, here)
    under.status["finishedAt"] = rfc3339(under.cx.clock.now())
    under.cx.wake(Key("Tenant", under.tenant))
    return MovePhase.ABORTED


STEPS: dict[MovePhase, Step] = {
    MovePhase.PREPARING: _prepare,
    MovePhase.COPYING: _copy,
    MovePhase.CATCHING_UP: _catch_up,
    MovePhase.VERIFYING: _verify,
    MovePhase.BLOCKING: _block,
    MovePhase.COMMITTED: _committed,
    MovePhase.CLEANING: _clean,
    MovePhase.ROLLING_BACK: _roll_back,
}


# --- what is said of it -----------------------------------------------------------------------------------


def _waiting(message: str) -> Outcome:
    return Outcome.failed(Retry(Reason.MOVES, message, 0.0))


async def _ended(
    move: TenantMove, raw: Manifest, status: dict[str, Any], phase: MovePhase, message: str, cx: Context
) -> Manifest:
    status["phase"] = phase
    status.setdefault("finishedAt", rfc3339(cx.clock.now()))
    raw = await _write(move, raw, status, Outcome(Reason.READY, message), cx)
    await cx.objects.emit(raw, Action.MOVED if phase is MovePhase.COMPLETED else Action.MOVE_ABORTED, message)
    cx.wake(rebalance.KEY)
    return raw


async def _write(
    move: TenantMove, raw: Manifest, status: dict[str, Any], outcome: Outcome, cx: Context
) -> Manifest:
    """Bring the status to what is known; return the object as it is then."""
    listed = conditions.summarise(
        {},
        move.status.conditions,
        generation=move.metadata.generation,
        now=cx.clock.now(),
        ready_message=outcome.message,
        also=(outcome,),
    )
    status["observedGeneration"] = move.metadata.generation
    status["conditions"] = [item.as_json() for item in listed]
    return await report.write_status(raw, dict(status), cx) or raw


async def _recorded(move: TenantMove, cx: Context, action: Action, message: str) -> audit.Row:
    identity = f"{move.metadata.uid}/{action.lower()}"
    return await audit.intent(move, cx, identity, action, message, actor=names.MANAGER)


async def _past(move: TenantMove, raw: Manifest, cx: Context) -> Result:
    """Let a move go that is over: at once where it was deleted, else after a while as a record."""
    if move.deleting:
        kept = [item for item in move.metadata.finalizers if item != names.FINALIZER]
        await cx.objects.patch(raw, {"finalizers": kept})
        return Result.done()
    ended = move.status.finished_at or move.metadata.creation_timestamp
    left = (ended + cx.policy.moves.history - cx.clock.now()).total_seconds()
    if left > 0:
        return Result(after=left)
    await cx.objects.delete("TenantMove", move.metadata.name, uid=move.metadata.uid)
    return Result(after=0.0)
