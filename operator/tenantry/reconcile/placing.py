"""Where a tenant's vectors are: read from the status, else found on the shards' own records, else decided, once.

The placement is written before the place is made, under a field manager of its own: a crash between leaves a
placement whose place is made by the next try.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tenantry.api.plan import Plan
from tenantry.api.shard import VectorShard
from tenantry.api.tenant import PLACEMENT_MANAGER, Placement, Tenant
from tenantry.desired.owner import Manifest
from tenantry.domain import names
from tenantry.domain.errors import PartError, Retry, Stalled
from tenantry.domain.moves import under_way
from tenantry.domain.placement import ShardLoad, place
from tenantry.domain.places import PlaceState, capacity_of, unreachable_pin
from tenantry.domain.reasons import Action, Reason
from tenantry.reconcile import rebalance, report
from tenantry.reconcile import record as audit
from tenantry.reconcile.enact import translated
from tenantry.reconcile.ports import Context, Unavailable

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


async def placement(
    tenant: Tenant, raw: Manifest, plan: Plan | None, no_plan: PartError | None, cx: Context
) -> Placed:
    """Return where a tenant's vectors are, deciding it where they are nowhere. Raises PartError, Conflict."""
    name = tenant.metadata.name
    present = tenant.placement
    shard = cx.seen.shard(present.shard) if present is not None else None
    if present is not None and shard is not None and (is_moving(name, cx) or _stands(name, present, cx)):
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


def _belongs_elsewhere(tenant: Tenant, plan: Plan | None, shard: VectorShard) -> bool:
    """Tell whether a tenant's spec or its plan asks for another shard: the planner decides about that."""
    pin = tenant.spec.vector_store.shard if tenant.spec.vector_store else ""
    if pin:
        return pin != shard.metadata.name
    return plan is not None and plan.spec.vector_store.dedicated != shard.spec.dedicated


def is_moving(tenant: str, cx: Context) -> bool:
    """Tell whether a move of a tenant has its hands on the place now."""
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
    row = await recorded(tenant, cx, identity, Action.PLACED, message)
    with translated():
        stored = await report.apply_status(raw, {"placement": placement.as_json()}, cx, PLACEMENT_MANAGER)
    return Placed(shard, placement.epoch, stored, (row,))


async def recorded(tenant: Tenant, cx: Context, identity: str, action: Action, message: str) -> audit.Row:
    """Put on record what the operator is about to do. Raises Retry without the ledger."""
    row = audit.entry(tenant, cx, identity, action, message, actor=names.MANAGER)
    try:
        await cx.audit.record([row])
    except Unavailable as error:
        raise Retry(Reason.LEDGER_UNAVAILABLE, f"waits for the audit log: {error}") from error
    return audit.told(row)
