"""What becomes of a tenant that is deleted, and of what is kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from tenantry.api.archive import ArchivePhase, TenantArchive
from tenantry.api.tenant import DeletionPolicy, Tenant
from tenantry.domain import names
from tenantry.domain.errors import Retry, Stalled
from tenantry.domain.observed import Observed, TenantClaim
from tenantry.domain.ownership import TERMINATING_CHECK_SECONDS, address_digest
from tenantry.domain.places import Place, Record
from tenantry.domain.reasons import Reason


class Farewell(Enum):
    """How a deleted tenant's namespace is left."""

    NOTHING = "nothing"  # it has none, or it is not its own
    RETAIN = "retain"  # archived: kept, with access cut
    REMOVE = "remove"  # deleted with all that is in it
    RELEASE = "release"  # adopted: given back to its owner


def farewell(tenant: Tenant, namespace: Observed | None, owner: str | None, origin: str) -> Farewell:
    """Decide how to leave a deleted tenant's namespace; `owner` is the UID that the namespace belongs to."""
    if namespace is None or owner != tenant.metadata.uid:
        return Farewell.NOTHING
    if tenant.spec.deletion_policy is DeletionPolicy.RETAIN and not namespace.deleting:
        return Farewell.RETAIN
    return leave(origin)


def leave(origin: str) -> Farewell:
    """Return how a namespace is left for good: one that was adopted is never deleted."""
    return Farewell.RELEASE if origin == names.ORIGIN_ADOPTED else Farewell.REMOVE


def purge_after(tenant: Tenant) -> datetime:
    """Return when retention ends: counted from the deletion, so that a second try gives the same time."""
    deleted = tenant.metadata.deletion_timestamp
    assert deleted is not None, "only a deleted tenant has a purge time"  # noqa: S101
    return deleted + timedelta(days=tenant.spec.retention_days)


class ArchiveStep(Enum):
    """What is to be done about an archive now."""

    WAIT = "wait"  # its tenant is taking leave still, and cuts access itself
    KEEP = "keep"  # hold access cut until purgeAfter
    RESTORED = "restored"  # a live Tenant has taken the namespace over
    PURGE = "purge"  # its time has come, or somebody deleted the archive
    PURGED = "purged"  # nothing of it is left
    UNTRUE = "untrue"  # its tenant lives: nothing may be done on its word


def archive_step(
    archive: TenantArchive,
    namespace: Observed | None,
    owner: str | None,
    tenant: TenantClaim | None,
    now: datetime,
    *,
    vectors: bool = False,
) -> ArchiveStep:
    """Decide about an archive from what is there: the namespace, whose it is, and a Tenant of that name.

    vectors: some of its tenant are kept, or may be.
    """
    if tenant is not None and tenant.uid == archive.spec.tenant_uid and not tenant.deleting:
        return ArchiveStep.UNTRUE
    later = owner not in (None, archive.spec.tenant_uid)
    if namespace is not None and later and namespace.tenant == archive.spec.tenant and not vectors:
        # A later tenant of that name has it, or had it and left an archive of its own. Of vectors that is not enough:
        # one with another owner may have a new namespace, and no right to them.
        return ArchiveStep.RESTORED
    kept = namespace is not None and owner == archive.spec.tenant_uid
    if not kept and not vectors:
        return ArchiveStep.PURGED
    # Whoever deletes the namespace does not mean the vectors, which are not in it.
    lost = namespace is not None and namespace.deleting and not vectors
    if purge_begun(archive, now) or lost:
        return ArchiveStep.PURGE
    # Both would write the same, side by side. A tenant without our finalizer, which another one holds, has left.
    leaving = (
        tenant is not None and tenant.uid == archive.spec.tenant_uid and names.FINALIZER in tenant.finalizers
    )
    return ArchiveStep.WAIT if leaving else ArchiveStep.KEEP


# --- vectors ----------------------------------------------------------------------------------------------------


def purge_begun(archive: TenantArchive, now: datetime) -> bool:
    """Return whether what an archive keeps is to go now."""
    return archive.deleting or now >= archive.spec.purge_after


@dataclass(frozen=True, slots=True)
class Former:
    """The tenant whose vectors are to go. owner: the digest of its address."""

    tenant: str
    uid: str
    owner: str

    @classmethod
    def of(cls, subject: Tenant | TenantArchive) -> Former:
        """Return who a deleted Tenant is, or whose archive it is."""
        owner = address_digest(subject.spec.owner.email)
        if isinstance(subject, Tenant):
            return cls(subject.metadata.name, subject.metadata.uid, owner)
        return cls(subject.spec.tenant, subject.spec.tenant_uid, owner)


def is_of(place: Place, former: Former, archives: Sequence[TenantArchive], claim: TenantClaim | None) -> bool:
    """Return whether a place is a former tenant's, to be purged with it.

    It is by the UID on record. One of another UID is where nobody else has it: no Tenant of the name is there, and an
    archive of that UID has let it go (it was restored, and this tenant left before its place was its own), or there
    is none (another cluster) and the owner is the same.
    """
    if place.tenant != former.tenant:
        return False
    if place.uid == former.uid:
        return True
    if claim is not None and claim.uid != former.uid:
        return False
    holder = next((item for item in archives if item.spec.tenant_uid == place.uid), None)
    if holder is not None:
        return holder.status.phase is ArchivePhase.RESTORED
    return place.owner == former.owner


def being_purged(place: Place, uid: str, archives: Sequence[TenantArchive], now: datetime) -> Retry | None:
    """Return why the Tenant of that UID cannot take a place over yet: what is in it is being purged."""
    if place.uid == uid:
        return None
    archive = next((item for item in archives if item.spec.tenant_uid == place.uid), None)
    if archive is None or archive.status.phase is ArchivePhase.RESTORED or not purge_begun(archive, now):
        return None
    return Retry(
        Reason.ARCHIVE_PURGING,
        f"vectors of the former tenant are being purged ({archive.metadata.name}): they must be gone before this "
        f"tenant gets a place",
        TERMINATING_CHECK_SECONDS,
    )


class VectorsStep(Enum):
    """What is to be done with vectors that are purged."""

    EXPORT = "export"
    REMOVE = "remove"


def vectors_step(
    archive: TenantArchive, shard: str, record: Record, *, empty: bool, store: bool
) -> VectorsStep:
    """Decide what comes next for a place that is closed. store: one for exports is set.

    Raises Stalled where vectors would be lost that nobody has said may be.
    """
    exported = any((item.shard, item.epoch) == (shard, record.place.epoch) for item in archive.status.exports)
    if exported or empty or archive.metadata.annotations.get(names.WITHOUT_EXPORT) == "true":
        return VectorsStep.REMOVE
    if store:
        return VectorsStep.EXPORT
    raise Stalled(
        Reason.NO_EXPORT_STORE,
        f"vectors on VectorShard {shard} are to be purged, and there is no store to export them to: set "
        f"TENANTRY_EXPORT_URL (settings.exportUrl of the chart), or annotate this TenantArchive with "
        f"{names.WITHOUT_EXPORT}=true to delete them without an export",
    )
