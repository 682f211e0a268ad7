"""The vectors of a deleted tenant: kept where nobody can log in, exported when they are purged, and removed.

    kept      the place is closed: no login, no session
    purged    closed, exported, the export on record in the archive's status, removed; in this order

What a crash leaves half done is found again: the export by its name in the store, the place by the shard's record of
it, which is removed last. An export may take longer than a reconcile: it goes on behind.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass

from tenantry.api.archive import ArchivePhase, Export, TenantArchive
from tenantry.api.tenant import Tenant
from tenantry.desired.owner import Manifest
from tenantry.domain import names
from tenantry.domain.deletion import Former, VectorsStep, is_of, vectors_step
from tenantry.domain.errors import Retry, Stalled
from tenantry.domain.moves import under_way
from tenantry.domain.places import COUNTS, Record, archived
from tenantry.domain.reasons import Action, Reason
from tenantry.reconcile import record as audit
from tenantry.reconcile import report
from tenantry.reconcile.enact import translated
from tenantry.reconcile.exports import Exported, Source, StoreFailed
from tenantry.reconcile.placing import CHECK_SECONDS
from tenantry.reconcile.ports import Context, Engine
from tenantry.reconcile.result import Key
from tenantry.reconcile.vectors import shard_errors, usable

WAIT_SECONDS = 10.0
"""How long a reconcile waits for an export; most tenants' are done by then."""


@dataclass(frozen=True, slots=True)
class Held:
    """A place of a former tenant on a shard."""

    shard: str
    record: Record

    @property
    def counts(self) -> bool:
        """Return whether the vectors in it are the tenant's, not a copy that a move has left."""
        return self.record.place.state in COUNTS


def held(former: Former, cx: Context) -> list[Held]:
    """Return the places of a former tenant as the shards have them on record: the true one first."""
    archives, claim = cx.seen.archives_of(former.tenant), cx.seen.tenant(former.tenant)
    found = []
    for shard in cx.seen.shards():
        record = (cx.fleet[shard.metadata.name].records or {}).get(former.tenant)
        if record is not None and is_of(record.place, former, archives, claim):
            found.append(Held(shard.metadata.name, record))
    return sorted(found, key=lambda item: (item.counts, item.record.place.epoch), reverse=True)


def may_hold(subject: Tenant | TenantArchive, cx: Context) -> bool:
    """Return whether there are vectors of a deleted tenant, or may be on a shard that cannot be read."""
    places = held(Former.of(subject), cx)
    if isinstance(subject, TenantArchive) and subject.status.phase in (
        ArchivePhase.PURGED,
        ArchivePhase.RESTORED,
    ):
        return any(item.record.place.uid == subject.spec.tenant_uid for item in places)
    return bool(places) or _hidden(subject, cx) is not None


def _hidden(subject: Tenant | TenantArchive, cx: Context) -> Retry | Stalled | None:
    """Return what keeps us from knowing whether any vectors are left of a deleted tenant."""
    unread = cx.fleet.unread(shard.metadata.name for shard in cx.seen.shards())
    if unread:
        problem = cx.fleet[unread[0]].problem
        said = f": {problem.message}" if problem else ""
        return Retry(
            Reason.SHARD_UNKNOWN,
            f"VectorShard {unread[0]} has not been read yet, and it may hold vectors of this tenant{said}",
            CHECK_SECONDS if problem else 1.0,
            failed=False,
        )
    if held(Former.of(subject), cx):
        return None
    placement = subject.placement if isinstance(subject, Tenant) else subject.spec.placement
    given_up = subject.metadata.annotations.get(names.WITHOUT_EXPORT) == "true"
    if placement is None or cx.seen.shard(placement.shard) is not None or given_up:
        return None
    return Stalled(
        Reason.SHARD_NOT_FOUND,
        f"its vectors are on VectorShard {placement.shard}, which does not exist: apply it again, or annotate this "
        f"{subject.kind} with {names.WITHOUT_EXPORT}=true to leave them there",
        CHECK_SECONDS,
    )


async def keep_vectors(archive: TenantArchive, cx: Context) -> None:
    """Let nobody log in to the place of a deleted tenant. Raises PartError."""
    former = Former.of(archive)
    for item in held(former, cx):
        if item.counts and not item.record.is_as(archived(item.record.place)):
            await _closed(item, cx)
            cx.wake(Key("Tenant", former.tenant))  # a later one may wait for it


async def purge_vectors(archive: TenantArchive, raw: Manifest, cx: Context) -> Manifest:
    """Export and remove the vectors of a deleted tenant; return the archive as stored then. Raises PartError."""
    former = Former.of(archive)
    wait_for_moves(former.tenant, cx)
    hidden = _hidden(archive, cx) if archive.status.phase is not ArchivePhase.PURGED else None
    if hidden is not None:
        raise hidden
    for item in held(former, cx):
        if item.counts:
            raw = await _export(archive, raw, await _closed(item, cx), cx)
        await _remove(item, former, cx)
    return raw


async def remove_vectors(tenant: Tenant, cx: Context) -> None:
    """Remove the vectors of a Tenant that leaves nothing behind, without an export. Raises PartError."""
    former = Former.of(tenant)
    hidden = _hidden(tenant, cx)
    if hidden is not None:
        raise hidden
    for item in held(former, cx):
        await _remove(item, former, cx)


def wait_for_moves(tenant: str, cx: Context) -> None:
    """Raise Retry while a move has its hands on the place of a deleted tenant."""
    for move in cx.seen.moves_of(tenant):
        if under_way(move):
            raise Retry(Reason.MOVES, f"waits for TenantMove {move.metadata.name}, which is given up", 1.0)


async def _closed(item: Held, cx: Context) -> Held:
    """Close a place, so that what is exported is all that there is. Raises Retry where it is another's by now.

    A later Tenant may take it over at this very moment: what it has written is not written over.
    """
    before = item.record.place
    if item.record.is_as(archived(before)):
        return item
    engine = usable(item.shard, cx.fleet[item.shard])
    with shard_errors(item.shard):
        record = await engine.find(before.tenant)
        ours = record is not None and record.place.uid == before.uid
        if record is not None and ours:
            record = await engine.ensure(archived(record.place), record.place)
    if record is None:
        cx.fleet.drop(item.shard, before.tenant)
    else:
        cx.fleet.put(item.shard, record)
    if record is None or not ours:
        raise Retry(
            Reason.SHARD_UNKNOWN, f"the place on {item.shard} was changed meanwhile", 1.0, failed=False
        )
    return Held(item.shard, record)


async def _remove(item: Held, former: Former, cx: Context) -> None:
    engine = usable(item.shard, cx.fleet[item.shard])
    if all(other.shard != item.shard for other in held(former, cx)):
        return  # a Tenant has taken it over meanwhile
    with shard_errors(item.shard):
        await engine.remove(former.tenant)
    cx.fleet.drop(item.shard, former.tenant)
    cx.fleet.unprobed(former.tenant)
    cx.wake(Key("VectorShard", item.shard))


async def _export(archive: TenantArchive, raw: Manifest, item: Held, cx: Context) -> Manifest:
    """Bring the vectors of a place to the store, and that on record; return the archive as stored."""
    engine = usable(item.shard, cx.fleet[item.shard])
    store = cx.exports.store
    with shard_errors(item.shard):
        empty = store is None and await _is_empty(engine, archive.spec.tenant)
    step = vectors_step(archive, item.shard, item.record, empty=empty, store=store is not None)
    if step is VectorsStep.REMOVE:
        return raw
    exported = await _exported(archive, item, engine, cx)
    return raw if exported is None else await _on_record(archive, raw, exported, cx)


async def _exported(archive: TenantArchive, item: Held, engine: Engine, cx: Context) -> Exported | None:
    """Return the export of a place; None: it is empty. Raises Retry while it is being written."""
    store, source = cx.exports.store, _source(archive, item, cx)
    assert store is not None  # noqa: S101 - else there is nothing to export to

    async def work() -> Exported | None:
        # One that was complete when the last process died: what it was made of may be gone since.
        present = await store.find(source.name)
        if present is not None or await _is_empty(engine, source.tenant):
            return present
        return await store.put(source, engine.export(source.tenant), cx.clock.now)

    def done() -> None:
        cx.wake(Key("TenantArchive", archive.metadata.name))

    try:
        with shard_errors(item.shard):
            ended, exported = await cx.exports.result(source.name, work, WAIT_SECONDS, done)
    except StoreFailed as error:
        raise Retry(Reason.EXPORT_FAILED, f"the export of its vectors: {error}") from error
    if not ended:
        raise Retry(
            Reason.EXPORTING,
            f"exports about {item.record.rows} vectors from VectorShard {item.shard}",
            CHECK_SECONDS,
            failed=False,
        )
    return exported


async def _is_empty(engine: Engine, tenant: str) -> bool:
    async with aclosing(engine.export(tenant)) as pieces:
        async for _ in pieces:
            return False
    return True


def _source(archive: TenantArchive, item: Held, cx: Context) -> Source:
    place = item.record.place
    return Source(
        tenant=archive.spec.tenant,
        tenant_uid=place.uid,
        owner=place.owner,
        archive=archive.metadata.name,
        archive_uid=archive.metadata.uid,
        epoch=place.epoch,
        shard=item.shard,
        server=cx.fleet[item.shard].server,
        dimensions=place.shape.dimensions,
        metric=str(place.shape.metric),
        type=str(place.shape.type),
    )


async def _on_record(archive: TenantArchive, raw: Manifest, exported: Exported, cx: Context) -> Manifest:
    """Put an export into the audit log and into the archive's status, before what it was made of is removed."""
    source = exported.source
    message = f"exported {exported.rows} vectors from VectorShard {source.shard} to {exported.url}"
    identity = f"{archive.metadata.uid}/exported@{source.epoch}"
    row = await audit.intent(archive, cx, identity, Action.EXPORTED, message, actor=names.MANAGER)
    entry = Export(
        shard=source.shard,
        epoch=source.epoch,
        url=exported.url,
        rows=exported.rows,
        bytes=exported.size,
        sha256=exported.sha256,
        finished_at=exported.finished,
    )
    others = [item.as_json() for item in archive.status.exports if item.url != entry.url]
    with translated():
        stored = await report.apply_status(raw, {"exports": [*others, entry.as_json()]}, cx, names.EXPORTS)
    await cx.objects.emit(raw, row.action, row.message)
    return stored
