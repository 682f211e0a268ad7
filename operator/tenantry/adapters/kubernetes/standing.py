"""How our own objects stand, by what their status says; for the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tenantry.api.archive import ArchivePhase, TenantArchive
from tenantry.domain.observed import Unready
from tenantry.domain.reasons import Reason


def unready(manifest: Mapping[str, Any]) -> Unready | None:
    """Return why and since when a Tenant is not Ready; None where it is."""
    listed = {item["type"]: item for item in (manifest.get("status") or {}).get("conditions") or []}
    ready, stalled = listed.get("Ready", {}), listed.get("Stalled", {})
    if ready.get("status") == "True":
        return None
    # The schema's own condition, before the operator has looked, is from 1970.
    times = [manifest["metadata"]["creationTimestamp"], ready.get("lastTransitionTime")]
    return Unready(
        since=max(datetime.fromisoformat(time) for time in times if time),
        reason=ready.get("reason") or Reason.PENDING,
        stalled=stalled.get("status") == "True",
    )


def purge_due(archive: TenantArchive) -> datetime | None:
    """Return when what an archive keeps is to be gone; None where it keeps nothing any more."""
    if archive.status.phase in (ArchivePhase.RESTORED, ArchivePhase.PURGED):
        return None
    deleted = archive.metadata.deletion_timestamp
    return min(archive.spec.purge_after, deleted) if deleted else archive.spec.purge_after
