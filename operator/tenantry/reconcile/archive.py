"""One TenantArchive: hold the namespace closed until its time comes, then purge it; or see it restored."""

from __future__ import annotations

from datetime import timedelta

from pydantic import ValidationError

from tenantry.api.archive import TenantArchive
from tenantry.api.common import rfc3339
from tenantry.desired.owner import Manifest, Owner
from tenantry.domain import conditions, names
from tenantry.domain.conditions import Outcome
from tenantry.domain.deletion import ArchiveStep, archive_step, leave
from tenantry.domain.errors import PartError, Stalled
from tenantry.domain.observed import Observed
from tenantry.domain.ownership import origin, owner_of, tenant_uids
from tenantry.domain.reasons import Action, Reason
from tenantry.reconcile import purge, record, report
from tenantry.reconcile.enact import translated
from tenantry.reconcile.farewell import close, depart, stand_by_deleted_kind
from tenantry.reconcile.ports import Context
from tenantry.reconcile.result import Key, Result

LEAVE_CHECK_SECONDS = 5.0


async def reconcile(key: Key, cx: Context) -> Result:
    """Do what is due about one archive; safe to run again after dying at any line."""
    raw = await cx.objects.get("TenantArchive", key.name)
    if raw is None:
        return Result.done()
    try:
        archive = TenantArchive.model_validate(raw)
    except ValidationError as error:
        return await report.unreadable(raw, error, cx)
    try:
        return await _advance(archive, raw, cx)
    except PartError as error:
        await _status(archive, raw, str(archive.status.phase or "Kept"), Outcome.failed(error), cx)
        return report.result_of([error])


async def _advance(archive: TenantArchive, raw: Manifest, cx: Context) -> Result:
    """Put our finalizer on it, then take the step that is due."""
    present = archive.metadata.finalizers
    if names.FINALIZER not in present:
        if archive.deleting:
            return Result.done()
        with translated():
            marked = await cx.objects.patch(raw, {"finalizers": [*present, names.FINALIZER]})
        if marked is None:
            return Result.done()
        raw = marked
    name = archive.namespace_name
    namespace = cx.seen.namespace(name)
    owner = owner_of(namespace, tenant_uids(cx.seen.children(name))) if namespace else None
    tenant = cx.seen.tenant(archive.spec.tenant)
    vectors = purge.may_hold(archive, cx)
    step = archive_step(archive, namespace, owner, tenant, cx.clock.now(), vectors=vectors)
    if owner != archive.spec.tenant_uid and step in (ArchiveStep.KEEP, ArchiveStep.PURGE):
        namespace = None  # only vectors are left to keep or to purge
    if archive.status.phase in ("Restored", "Purged") and step in (ArchiveStep.RESTORED, ArchiveStep.PURGED):
        return await _past(raw, cx)
    return await _take(step, archive, raw, namespace, cx)


async def _take(
    step: ArchiveStep, archive: TenantArchive, raw: Manifest, namespace: Observed | None, cx: Context
) -> Result:
    uid = archive.metadata.uid
    due = rfc3339(archive.metadata.deletion_timestamp or archive.spec.purge_after)
    if step is ArchiveStep.UNTRUE:
        return await _untrue(archive, raw, cx)
    if step is ArchiveStep.WAIT:
        # The tenant's end wakes it; that our finalizer came off and another one holds the tenant does not.
        return Result(after=LEAVE_CHECK_SECONDS, outcome="waiting")
    if step is ArchiveStep.RESTORED:
        message = f"Tenant {archive.spec.tenant} has taken namespace {archive.namespace_name} over"
        outcome = Outcome(Reason.READY, message)
        return await _past(await _status(archive, raw, "Restored", outcome, cx), cx)
    if step is ArchiveStep.PURGED:
        await record.intent(
            archive,
            cx,
            f"{uid}/purged@{due}",
            Action.PURGED,
            "nothing of the tenant is left",
            actor=names.MANAGER,
        )
        outcome = Outcome(Reason.READY, "nothing of the tenant is left")
        return await _past(await _status(archive, raw, "Purged", outcome, cx), cx)
    if step is ArchiveStep.PURGE:
        return await _purge(archive, raw, namespace, cx)
    return await _keep(archive, raw, namespace, cx)


async def _purge(archive: TenantArchive, raw: Manifest, namespace: Observed | None, cx: Context) -> Result:
    """Remove all that is kept: vectors first, which are exported before, then the namespace."""
    uid = archive.metadata.uid
    due = rfc3339(archive.metadata.deletion_timestamp or archive.spec.purge_after)
    what = _kept(archive, namespace)
    why = f"retention ended at {rfc3339(archive.spec.purge_after)}"
    message = f"purging {what}: " + ("the archive was deleted" if archive.deleting else why)
    if archive.deleting:
        await stand_by_deleted_kind("tenantarchives", what, cx)
    # Who deletes an object is not in its managedFields.
    actor = "unknown" if archive.deleting else names.MANAGER
    row = await record.intent(archive, cx, f"{uid}/purging@{due}", Action.PURGING, message, actor=actor)
    raw = await purge.purge_vectors(archive, raw, cx)
    if namespace is None or not namespace.deleting:
        await cx.objects.emit(raw, row.action, row.message)
    if namespace is not None:
        await depart(leave(origin(namespace, _adoption(archive))), namespace, cx)
    return await _take(ArchiveStep.PURGED, archive, raw, None, cx)


async def _keep(archive: TenantArchive, raw: Manifest, namespace: Observed | None, cx: Context) -> Result:
    """Hold access cut until the time has come."""
    if namespace is not None and namespace.deleting:
        namespace = None  # nothing can be made in it any more; the vectors stay
    if namespace is not None:
        owner = Owner(archive.spec.tenant, archive.spec.tenant_uid, namespace.name)
        shelf = cx.seen.children(namespace.name)
        await close(owner, namespace, shelf, cx, adoption=_adoption(archive), email=archive.spec.owner.email)
    await purge.keep_vectors(archive, cx)
    verb, them = ("is", "it") if namespace else ("are", "them")
    message = (
        f"{_kept(archive, namespace)} {verb} kept until {rfc3339(archive.spec.purge_after)}, access is cut: apply "
        f"Tenant {archive.spec.tenant} again to restore {them}, or delete this TenantArchive to purge {them} now"
    )
    await _status(archive, raw, "Kept", Outcome(Reason.READY, message), cx)
    return Result(after=_seconds_until(archive, cx))


def _kept(archive: TenantArchive, namespace: Observed | None) -> str:
    return f"namespace {namespace.name}" if namespace else f"vectors of Tenant {archive.spec.tenant}"


async def _untrue(archive: TenantArchive, raw: Manifest, cx: Context) -> Result:
    """Do nothing on the word of an archive whose tenant lives (a backup tool made it again)."""
    if archive.deleting:
        return await _past(raw, cx)
    raise Stalled(
        Reason.TENANT_LIVES,
        f"Tenant {archive.spec.tenant} with UID {archive.spec.tenant_uid} is not deleted, so there is nothing to "
        f"keep or to purge: delete this TenantArchive",
    )


async def _past(raw: Manifest, cx: Context) -> Result:
    """Let an archive go that holds nothing more: at once where it was deleted, else after a while as a record."""
    archive = TenantArchive.model_validate(raw)
    try:
        return await _let_go(archive, raw, cx)
    except PartError as error:
        # The phase that it has come to stands.
        await _status(archive, raw, str(archive.status.phase or "Kept"), Outcome.failed(error), cx)
        return report.result_of([error])


async def _let_go(archive: TenantArchive, raw: Manifest, cx: Context) -> Result:
    with translated():
        if archive.deleting:
            kept = [item for item in archive.metadata.finalizers if item != names.FINALIZER]
            await cx.objects.patch(raw, {"finalizers": kept})
            return Result.done()
        since = max(archive.spec.purge_after, archive.metadata.creation_timestamp)
        left = (
            since - cx.clock.now()
        ) + cx.policy.archive_history  # in this order the year 9999 has a next month
        if left > timedelta(0):
            return Result(after=left.total_seconds())
        await cx.objects.delete("TenantArchive", archive.metadata.name, uid=archive.metadata.uid)
    return Result.done()


def _adoption(archive: TenantArchive) -> str:
    namespace = archive.spec.tenant_spec.get("namespace")  # of any schema, or of anybody who writes archives
    return str(namespace.get("adoption", "Never")) if isinstance(namespace, dict) else "Never"


def _seconds_until(archive: TenantArchive, cx: Context) -> float:
    return max(0.0, (archive.spec.purge_after - cx.clock.now()).total_seconds())


async def _status(
    archive: TenantArchive, raw: Manifest, phase: str, outcome: Outcome, cx: Context
) -> Manifest:
    """Say how it stands; return the archive as it is then, for a write that follows."""
    listed = conditions.summarise(
        {},
        archive.status.conditions,
        generation=archive.metadata.generation,
        now=cx.clock.now(),
        ready_message=outcome.message,
        also=(outcome,),
    )
    wanted = {
        "observedGeneration": archive.metadata.generation,
        "phase": phase,
        "conditions": [item.as_json() for item in listed],
    }
    stored = await report.write_status(raw, wanted, cx) or raw
    if archive.status.phase != phase:
        await cx.objects.emit(raw, phase, outcome.message)
    return stored
