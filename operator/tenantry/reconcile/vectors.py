"""A tenant's vectors: its placement on a shard, its place there, and the Secret by which applications use it.

    placement   read from the status; where there is none, found on the shards' own records; else decided, once
    place       brought to what `domain.places.upkeep` says, in the shard
    Secret      `vector-store`, from what the shard has on record: the same record gives the same Secret

The placement is written before the place is made, under a field manager of its own: a crash between leaves a
placement whose place is made by the next try.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tenantry.api.plan import Plan
from tenantry.api.shard import VectorShard
from tenantry.api.tenant import PLACEMENT_MANAGER, Placement, Tenant
from tenantry.desired import children
from tenantry.desired.network import shards_egress
from tenantry.desired.owner import Manifest, Owner
from tenantry.domain import names
from tenantry.domain.audit import AuditEntry
from tenantry.domain.conditions import Outcome
from tenantry.domain.deletion import being_purged
from tenantry.domain.errors import PartError, Retry, Stalled
from tenantry.domain.moves import under_way
from tenantry.domain.observed import ChildKey, Observed
from tenantry.domain.ownership import address_digest
from tenantry.domain.placement import ShardLoad, place
from tenantry.domain.places import Applicant, Place, PlaceState, Record, capacity_of, unreachable_pin, upkeep
from tenantry.domain.reasons import Action, Reason
from tenantry.domain.vectors import Shape
from tenantry.reconcile import rebalance, report
from tenantry.reconcile import record as audit
from tenantry.reconcile.enact import Repair, apply_group, translated
from tenantry.reconcile.fleet import Known
from tenantry.reconcile.ports import Context, Engine, Refused, Unavailable
from tenantry.reconcile.result import Key

EMPTY_PLACE_BYTES = 64 * 1024
"""What a place without vectors takes, with room to spare: counted for each tenant that has no more than that."""

CHECK_SECONDS = 15.0
"""How often to look again where a shard is in the way; that it is back wakes its tenants besides."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a tenant is: its shard, and the Tenant as it is after that was written. rows: what was decided now."""

    shard: VectorShard
    epoch: int
    raw: Manifest
    rows: tuple[audit.Row, ...] = ()


@dataclass(frozen=True, slots=True)
class Provisioned:
    """How a tenant's place came out. after: seconds until something about it is due."""

    outcome: Outcome
    after: float | None = None
    rows: tuple[audit.Row, ...] = ()


def concerned(tenant: Tenant, cx: Context) -> bool:
    """Return whether a tenant has to do with shards: there are some, or its vectors are on one."""
    return bool(cx.seen.shards()) or tenant.placement is not None


async def placement(
    tenant: Tenant, raw: Manifest, plan: Plan | None, no_plan: PartError | None, cx: Context
) -> Placed:
    """Return where a tenant's vectors are, deciding it where they are nowhere. Raises PartError, Conflict."""
    name = tenant.metadata.name
    present = tenant.placement
    shard = cx.seen.shard(present.shard) if present is not None else None
    if present is not None and shard is not None and (_moving(name, cx) or _stands(name, present, cx)):
        if _belongs_elsewhere(tenant, plan, shard):
            cx.wake(rebalance.KEY)
        return Placed(shard, present.epoch, raw)
    shards = cx.seen.shards()
    _all_read(shards, cx)
    found = cx.fleet.locate(name, [shard.metadata.name for shard in shards])
    if found is not None and (present is None or found[1].place.epoch > present.epoch):
        return await _found(tenant, raw, Placement(shard=found[0], epoch=found[1].place.epoch), cx)
    if present is not None:
        if shard is None:
            raise Stalled(
                Reason.SHARD_NOT_FOUND,
                f"its vectors are on VectorShard {present.shard}, which does not exist: apply it again",
            )
        return Placed(shard, present.epoch, raw)  # decided, and not provisioned yet
    if plan is None:
        assert no_plan is not None  # noqa: S101 - one of the two is there
        raise no_plan
    target = choose(tenant, plan, cx)
    cx.fleet.reserve(name, target)
    try:
        return await _write(tenant, raw, Placement(shard=target, epoch=1), cx)
    finally:
        cx.fleet.settle(name)


def egress(tenant: Tenant, placed: Placed | None, cx: Context) -> Manifest | None:
    """Return the policy that lets a tenant's pods out to its shard, and to both while it moves.

    It does not depend on whether the shard can be used now: a policy that comes and goes would cut off those who can
    still reach it.
    """
    present = tenant.placement
    shard = placed.shard.metadata.name if placed else present.shard if present else ""
    involved = {shard}
    for move in cx.seen.moves_of(tenant.metadata.name):
        if move.status.source:
            involved |= {move.status.source, move.spec.target_shard}
    ways = []
    for name in sorted(involved):
        known = cx.seen.shard(name)
        host, _, port = (known.status.endpoint or "").rpartition(":") if known else ("", "", "")
        if known is not None and host and port.isdecimal():
            ways.append((known.spec.network, host, [int(port), *known.status.more_ports]))
    return shards_egress(Owner(tenant.metadata.name, tenant.metadata.uid, tenant.namespace_name), ways)


def _belongs_elsewhere(tenant: Tenant, plan: Plan | None, shard: VectorShard) -> bool:
    """Tell whether a tenant's spec or its plan asks for another shard: the planner decides about that."""
    pin = tenant.spec.vector_store.shard if tenant.spec.vector_store else ""
    if pin:
        return pin != shard.metadata.name
    return plan is not None and plan.spec.vector_store.dedicated != shard.spec.dedicated


def _moving(tenant: str, cx: Context) -> bool:
    return any(under_way(move) for move in cx.seen.moves_of(tenant))


def _stands(tenant: str, present: Placement, cx: Context) -> bool:
    """Tell whether a placement can be believed without asking other shards.

    It can where its shard cannot be read now, or says the same. A shard that has no record of the tenant, or one of
    having given it away, says that this status is old: it came from a backup.
    """
    records = cx.fleet[present.shard].records
    if records is None:
        return True
    record = records.get(tenant)
    return record is not None and record.place.state is not PlaceState.MOVED


def _all_read(shards: Sequence[VectorShard], cx: Context) -> None:
    """Raise Retry where a shard was never read: it may hold the tenant's vectors."""
    unread = cx.fleet.unread(shard.metadata.name for shard in shards)
    if unread:
        problem = cx.fleet[unread[0]].problem
        raise Retry(
            Reason.SHARD_UNKNOWN,
            f"VectorShard {unread[0]} has not been read yet, and it may hold vectors of this tenant"
            + (f": {problem.message}" if problem else ""),
            CHECK_SECONDS if problem else 1.0,
            failed=False,
        )


def choose(tenant: Tenant, plan: Plan, cx: Context) -> str:
    """Return the shard for a new tenant. Raises Stalled where none has room.

    It reads and decides at one go, without awaiting anything: two tenants at once never take the same room.
    """
    loads = _loads(cx)
    pin = tenant.spec.vector_store.shard if tenant.spec.vector_store else ""
    own, engine = plan.spec.vector_store.dedicated, plan.spec.vector_store.engine
    if pin:
        return _pinned(pin, loads)
    fitting = [
        loads[item.metadata.name]
        for item in cx.seen.shards()
        if item.spec.dedicated == own and engine in (None, item.spec.engine)
    ]
    if own:
        fitting = [load for load in fitting if load.tenants == 0]
    target = place(tenant.metadata.name, fitting, needed=EMPTY_PLACE_BYTES)
    if target is not None:
        return target.name
    kind = f" of engine {engine}" if engine else ""
    message = (
        f"plan {plan.metadata.name} asks for a shard of its own{kind}, and none is free: add a VectorShard with "
        f"spec.dedicated: true"
        if own
        else f"no VectorShard{kind} takes another tenant (each is full, cordoned, drained or cannot be reached): add "
        f"one, or raise spec.capacity.storage of one"
    )
    raise Stalled(Reason.NO_SHARD_WITH_ROOM, message, CHECK_SECONDS)


def _pinned(pin: str, loads: dict[str, ShardLoad]) -> str:
    if pin not in loads:
        raise unreachable_pin(pin)
    if not loads[pin].has_room(EMPTY_PLACE_BYTES):
        raise Stalled(
            Reason.NO_SHARD_WITH_ROOM,
            f"spec.vectorStore.shard names VectorShard {pin}, which is full: raise its spec.capacity.storage, or "
            f"name another",
            CHECK_SECONDS,
        )
    return pin


def _loads(cx: Context) -> dict[str, ShardLoad]:
    """Return each shard as a place for new tenants; who is about to come counts."""
    loads = {}
    for shard in cx.seen.shards():
        name, known = shard.metadata.name, cx.fleet[shard.metadata.name]
        placed = {claim.name for claim in cx.seen.placed_on(name)}
        placed |= {tenant for tenant, target in cx.fleet.reserved.items() if target == name}
        measured = [max(record.size, EMPTY_PLACE_BYTES) for record in (known.records or {}).values()]
        unmeasured = placed - (known.records or {}).keys()
        loads[name] = ShardLoad(
            name,
            weight=shard.spec.weight,
            accepts=known.usable and not (shard.spec.cordoned or shard.spec.drain),
            tenants=len(placed | (known.records or {}).keys()),
            stored=sum(measured) + len(unmeasured) * EMPTY_PLACE_BYTES,
            capacity=capacity_of(shard),
        )
    return loads


async def _found(tenant: Tenant, raw: Manifest, placement: Placement, cx: Context) -> Placed:
    """Write what a shard has on record into the status, unless it stands there and only the news of that is late."""
    with translated():
        now = await cx.objects.get("Tenant", tenant.metadata.name)
    if now is not None and Tenant.model_validate(now).placement == placement:
        shard = cx.seen.shard(placement.shard)
        assert shard is not None  # noqa: S101 - only shards that are there are asked
        return Placed(shard, placement.epoch, now)
    return await _write(tenant, now or raw, placement, cx, found=True)


async def _write(
    tenant: Tenant, raw: Manifest, placement: Placement, cx: Context, *, found: bool = False
) -> Placed:
    """Put a placement on record, then into the status. Raises Retry without the ledger."""
    name = tenant.metadata.name
    shard = cx.seen.shard(placement.shard)
    assert shard is not None  # noqa: S101 - only shards that are there are chosen or found
    message = (
        f"vectors of Tenant {name} " + ("were found on" if found else "are placed on") + f" {placement.shard}"
    )
    identity = f"{tenant.metadata.uid}/placed@{placement.epoch}/{placement.shard}"
    row = await _recorded(tenant, cx, identity, Action.PLACED, message)
    with translated():
        stored = await report.apply_status(raw, {"placement": placement.as_json()}, cx, PLACEMENT_MANAGER)
    return Placed(shard, placement.epoch, stored, (row,))


async def _recorded(tenant: Tenant, cx: Context, identity: str, action: Action, message: str) -> audit.Row:
    row: AuditEntry = audit.entry(tenant, cx, identity, action, message, actor=names.MANAGER)
    try:
        await cx.audit.record([row])
    except Unavailable as error:
        raise Retry(Reason.LEDGER_UNAVAILABLE, f"waits for the audit log: {error}") from error
    return audit.told(row)


# --- the place, and the Secret --------------------------------------------------------------------------------------


async def provision(
    tenant: Tenant, placed: Placed, present: Mapping[ChildKey, Observed], cx: Context, repairs: list[Repair]
) -> Provisioned:
    """Bring a tenant's place and its Secret to what they should be. Raises PartError."""
    name, shard = tenant.metadata.name, placed.shard.metadata.name
    known = cx.fleet[shard]
    engine = usable(shard, known)
    record = (known.records or {}).get(name)
    moving = _moving(name, cx)
    if moving and (record is None or record.place.state is PlaceState.IMPORTING):
        # Decided, and not handed over yet: the move writes the Secret when the target takes writes.
        return Provisioned(Outcome(Reason.READY, f"vectors are being moved to {shard}"))
    after: float | None = None
    rows: list[audit.Row] = []
    if moving:
        assert record is not None  # noqa: S101 - looked at above
        # Of a place that moves only one thing may change: whether anybody may log in.
        if record.place.open == tenant.spec.suspended:
            record = await _not_held(shard, engine, name)
            record = await _ensured(
                shard, engine, replace(record.place, open=not tenant.spec.suspended), record, cx
            )
    else:
        record, after, rows = await _kept_up(tenant, placed, engine, record, cx)
    owner = Owner(name, tenant.metadata.uid, tenant.namespace_name)
    error = await apply_group(children.shard_group(owner, engine.access(record)), present, cx, repairs)
    if error is not None:
        raise error
    message = f"vectors are on {shard}" + (", and are being moved" if moving else "")
    return Provisioned(Outcome(Reason.READY, message), after, tuple(rows))


async def _not_held(shard: str, engine: Engine, tenant: str) -> Record:
    """Return the record of a place that moves, as it is now. Raises Retry where its writes are held back.

    Written as it was known before, it would let writes in again.
    """
    with shard_errors(shard):
        record = await engine.find(tenant)
    if record is None or record.place.state is not PlaceState.OWNER:
        raise Retry(Reason.MOVES, f"vectors are being handed over from {shard}", 1.0, failed=False)
    return record


async def _kept_up(
    tenant: Tenant, placed: Placed, engine: Engine, record: Record | None, cx: Context
) -> tuple[Record, float | None, list[audit.Row]]:
    shard = placed.shard.metadata.name
    if record is not None:
        archives = cx.seen.archives_of(tenant.metadata.name)
        purge = being_purged(record.place, tenant.metadata.uid, archives, cx.clock.now())
        if purge is not None:
            raise purge
    wanted, after = upkeep(
        applicant(tenant, cx),
        placed.epoch,
        record,
        cx.clock.now(),
        cx.policy.rotation,
        chosen=tenant.spec.vector_store is not None,
    )
    if record is not None and record.is_as(wanted):
        if cx.fleet.cleared(tenant.metadata.name):
            # It may be otherwise than its record says: the engine looks, and puts it back.
            with shard_errors(shard):
                record = await engine.ensure(wanted)
        return record, after, []
    rows = []
    if record is not None and wanted.generation != record.place.generation:
        identity = f"{tenant.metadata.uid}/credentials/{wanted.generation}"
        minutes = cx.policy.rotation.grace.total_seconds() / 60
        message = (
            f"replaced the credentials of the vector store; those before are valid {minutes:.0f} minutes more"
        )
        rows.append(await _recorded(tenant, cx, identity, Action.CREDENTIALS_ROTATED, message))
    return await _ensured(shard, engine, wanted, record, cx), after, rows


async def _ensured(shard: str, engine: Engine, wanted: Place, record: Record | None, cx: Context) -> Record:
    if record is not None and record.is_as(wanted):
        return record
    with shard_errors(shard):
        now = await engine.ensure(wanted)
    cx.fleet.put(shard, now)
    if record is not None and record.place.uid != wanted.uid:
        for archive in cx.seen.archives_of(wanted.tenant):
            cx.wake(Key("TenantArchive", archive.metadata.name))  # its vectors have another owner now
    if record is None:
        # It counts there now, and its isolation is probed at the next look.
        cx.wake(Key("VectorShard", shard))
    return now


def applicant(tenant: Tenant, cx: Context) -> Applicant:
    """Return who a place is for."""
    asked = tenant.spec.vector_store
    shape = (
        Shape(asked.dimensions, asked.metric, asked.type) if asked else Shape(cx.policy.default_dimensions)
    )
    annotations = tenant.metadata.annotations
    return Applicant(
        tenant.metadata.name,
        tenant.metadata.uid,
        address_digest(tenant.spec.owner.email),
        shape,
        suspended=tenant.spec.suspended,
        mark=annotations.get(names.ROTATE, ""),
        restore_from=annotations.get(names.RESTORE_FROM, ""),
    )


def usable(shard: str, known: Known, seconds: float = CHECK_SECONDS) -> Engine:
    """Return the engine of a shard that can be used now. Raises Retry, to look again after so many seconds."""
    if known.engine is not None and known.problem is None and known.records is not None:
        return known.engine
    said = f": {known.problem.message}" if known.problem else ": it has not been looked at yet"
    raise Retry(Reason.SHARD_UNAVAILABLE, f"VectorShard {shard} cannot be used{said}", seconds, failed=False)


class shard_errors:  # noqa: N801 - reads as a clause of `with`
    """Turn what a shard answers into a part's error, for the tenant's conditions."""

    def __init__(self, shard: str) -> None:
        self._shard = shard

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: Any, error: BaseException | None, _trace: Any) -> None:
        if isinstance(error, Refused):
            raise Retry(Reason.REFUSED, f"VectorShard {self._shard} refuses: {error}") from error
        if isinstance(error, Unavailable):
            raise Retry(
                Reason.SHARD_UNAVAILABLE,
                f"VectorShard {self._shard} cannot be used: {error}",
                1.0,
                failed=True,
            ) from error
