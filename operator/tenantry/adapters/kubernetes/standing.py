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
    status = manifest.get("status")
    # Others may write a status too, and an older schema may have let anything in.
    conditions = status.get("conditions") if isinstance(status, dict) else None
    listed = {
        item.get("type"): item
        for item in (conditions if isinstance(conditions, list) else [])
        if isinstance(item, dict)
    }
    ready, stalled = listed.get("Ready", {}), listed.get("Stalled", {})
    if ready.get("status") == "True":
        return None
    created = datetime.fromisoformat(manifest["metadata"]["creationTimestamp"])
    # The schema's own condition, before the operator has looked, is from 1970.
    return Unready(
        since=max(created, _moment(ready.get("lastTransitionTime")) or created),
        reason=ready.get("reason") or Reason.PENDING,
        stalled=stalled.get("status") == "True",
    )


def _moment(text: object) -> datetime | None:
    """Return an aware time, None for anything else."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def purge_due(archive: TenantArchive) -> datetime | None:
    """Return when what an archive keeps is to be gone; None where it keeps nothing any more."""
    if archive.status.phase in (ArchivePhase.RESTORED, ArchivePhase.PURGED):
        return None
    deleted = archive.metadata.deletion_timestamp
    return min(archive.spec.purge_after, deleted) if deleted else archive.spec.purge_after
