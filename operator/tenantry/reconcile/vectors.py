"""A tenant's vectors: its place on the shard that `placing` says, and the Secret by which applications use it.

    place       brought to what `domain.places.upkeep` says, in the shard
    Secret      `vector-store`, from what the shard has on record: the same record gives the same Secret

Both can be made again at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tenantry.api.tenant import Tenant
from tenantry.desired import children
from tenantry.desired.network import shards_egress
from tenantry.desired.owner import Manifest, Owner
from tenantry.domain import names
from tenantry.domain.conditions import Outcome
from tenantry.domain.deletion import being_purged
from tenantry.domain.errors import Retry
from tenantry.domain.observed import ChildKey, Observed
from tenantry.domain.ownership import address_digest
from tenantry.domain.places import Applicant, Place, PlaceState, Record, upkeep
from tenantry.domain.reasons import Action, Reason
from tenantry.domain.vectors import Shape
from tenantry.reconcile import record as audit
from tenantry.reconcile.enact import Repair, apply_group
from tenantry.reconcile.fleet import Known
from tenantry.reconcile.placing import CHECK_SECONDS, Placed, is_moving, recorded
from tenantry.reconcile.ports import Context, Engine, Refused, Unavailable
from tenantry.reconcile.result import Key


@dataclass(frozen=True, slots=True)
class Provisioned:
    """How a tenant's place came out. after: seconds until something about it is due."""

    outcome: Outcome
    after: float | None = None
    rows: tuple[audit.Row, ...] = ()


def concerned(tenant: Tenant, cx: Context) -> bool:
    """Return whether a tenant has to do with shards: there are some, or its vectors are on one."""
    return bool(cx.seen.shards()) or tenant.placement is not None


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


async def provision(
    tenant: Tenant, placed: Placed, present: Mapping[ChildKey, Observed], cx: Context, repairs: list[Repair]
) -> Provisioned:
    """Bring a tenant's place and its Secret to what they should be. Raises PartError."""
    name, shard = tenant.metadata.name, placed.shard.metadata.name
    known = cx.fleet[shard]
    engine = usable(shard, known)
    record = (known.records or {}).get(name)
    moving = is_moving(name, cx)
    if moving and (record is None or record.place.state is PlaceState.IMPORTING):
        # Decided, and not handed over yet: the move writes the Secret when the target takes writes.
        return Provisioned(Outcome(Reason.READY, f"vectors are being moved to {shard}"))
    after: float | None = None
    rows: list[audit.Row] = []
    if moving:
        assert record is not None  # noqa: S101 - looked at above
        # Of a place that moves only one thing may change: whether anybody may log in.
        if record.place.open == tenant.spec.suspended:
            record = await _opened(shard, engine, name, cx, open_=not tenant.spec.suspended)
    else:
        record, after, rows = await _kept_up(tenant, placed, engine, record, cx)
    owner = Owner(name, tenant.metadata.uid, tenant.namespace_name)
    error = await apply_group(children.shard_group(owner, engine.access(record)), present, cx, repairs)
    if error is not None:
        raise error
    message = f"vectors are on {shard}" + (", and are being moved" if moving else "")
    return Provisioned(Outcome(Reason.READY, message), after, tuple(rows))


async def _opened(shard: str, engine: Engine, tenant: str, cx: Context, *, open_: bool) -> Record:
    """Open or close a place that moves. Raises Retry where its writes are held back.

    Written as it was known before, or a moment ago, it would let writes in again.
    """
    with shard_errors(shard):
        record = await engine.find(tenant)
    if record is None or record.place.state is not PlaceState.OWNER:
        raise Retry(Reason.MOVES, f"vectors are being handed over from {shard}", 1.0, failed=False)
    return await _ensured(shard, engine, replace(record.place, open=open_), record, cx, record.place)


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
        rows.append(await recorded(tenant, cx, identity, Action.CREDENTIALS_ROTATED, message))
    return await _ensured(shard, engine, wanted, record, cx), after, rows


async def _ensured(
    shard: str,
    engine: Engine,
    wanted: Place,
    record: Record | None,
    cx: Context,
    instead_of: Place | None = None,
) -> Record:
    if record is not None and record.is_as(wanted):
        return record
    with shard_errors(shard):
        now = await engine.ensure(wanted, instead_of)
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
