"""What becomes of a tenant that is deleted, and of what is kept of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum

from tenantry.api.archive import TenantArchive
from tenantry.api.tenant import DeletionPolicy, Tenant
from tenantry.domain import names
from tenantry.domain.observed import Observed, TenantClaim


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
) -> ArchiveStep:
    """Decide about an archive from what is there: the namespace, whose it is, and a Tenant of that name."""
    if tenant is not None and tenant.uid == archive.spec.tenant_uid and not tenant.deleting:
        return ArchiveStep.UNTRUE
    later = owner not in (None, archive.spec.tenant_uid)
    if namespace is not None and later and namespace.tenant == archive.spec.tenant:
        # A later tenant of that name has it, or had it and left an archive of its own.
        return ArchiveStep.RESTORED
    if namespace is None or owner != archive.spec.tenant_uid:
        return ArchiveStep.PURGED
    if archive.deleting or now >= archive.spec.purge_after or namespace.deleting:
        return ArchiveStep.PURGE
    # Both would write the same, side by side. A tenant without our finalizer, which another one holds, has left.
    leaving = (
        tenant is not None and tenant.uid == archive.spec.tenant_uid and names.FINALIZER in tenant.finalizers
    )
    return ArchiveStep.WAIT if leaving else ArchiveStep.KEEP
