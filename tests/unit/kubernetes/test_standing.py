"""How tenants and archives stand, read from their status."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tenantry.adapters.kubernetes.standing import purge_due, unready
from tenantry.api.archive import TenantArchive
from tenantry.domain.observed import Unready

CREATED, LATER = "2026-01-02T03:04:05Z", "2026-01-02T04:00:00Z"


def tenant(*conditions: dict[str, str]) -> dict[str, Any]:
    status = {"conditions": list(conditions)} if conditions else None
    return {"metadata": {"name": "acme", "creationTimestamp": CREATED}, "status": status}


def condition(kind: str, status: str, reason: str = "Refused", since: str = LATER) -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "lastTransitionTime": since}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("manifest", "standing"),
    [
        (tenant(), Unready(at(CREATED), "Pending", stalled=False)),
        (
            # As the schema has it before the operator has looked.
            tenant(condition("Ready", "Unknown", "Pending", "1970-01-01T00:00:00Z")),
            Unready(at(CREATED), "Pending", stalled=False),
        ),
        (
            tenant(condition("Ready", "False"), condition("Reconciling", "True")),
            Unready(at(LATER), "Refused", stalled=False),
        ),
        (
            tenant(condition("Ready", "False", "PlanNotFound"), condition("Stalled", "True", "PlanNotFound")),
            Unready(at(LATER), "PlanNotFound", stalled=True),
        ),
        (tenant(condition("Ready", "True", "Suspended"), condition("Suspended", "True")), None),
        *(
            (
                tenant(condition("Ready", "False", since=garbled)),
                Unready(at(CREATED), "Refused", stalled=False),
            )
            for garbled in ("0000-01-01T00:00:00Z", "2026-01-01T00:00:00+99:99", "2026-01-01", "soon")
        ),
        *(
            ({**tenant(), "status": garbled}, Unready(at(CREATED), "Pending", stalled=False))
            for garbled in ("all well", {"conditions": {}}, {"conditions": ["Ready"]}, {"conditions": [{}]})
        ),
    ],
)
def test_a_tenant_that_is_not_ready_says_since_when_and_why(
    manifest: dict[str, Any], standing: Unready | None
) -> None:
    assert unready(manifest) == standing


@pytest.mark.parametrize(
    ("phase", "deleted", "due"),
    [
        (None, None, "2026-03-01T00:00:00Z"),
        ("Kept", None, "2026-03-01T00:00:00Z"),
        ("Kept", "2026-02-01T00:00:00Z", "2026-02-01T00:00:00Z"),
        ("Kept", "2026-04-01T00:00:00Z", "2026-03-01T00:00:00Z"),
        ("Restored", None, None),
        ("Purged", None, None),
    ],
)
def test_what_an_archive_keeps_is_to_be_gone_by_its_date_or_its_deletion(
    phase: str | None, deleted: str | None, due: str | None
) -> None:
    archive = TenantArchive.model_validate(
        {
            "metadata": {"name": "acme-1f0c9a2e", "deletionTimestamp": deleted},
            "spec": {
                "tenant": "acme",
                "tenantUID": "1f0c9a2e",
                "owner": {"email": "ops@acme.example"},
                "purgeAfter": "2026-03-01T00:00:00Z",
            },
            "status": {"phase": phase},
        }
    )
    assert purge_due(archive) == (at(due) if due else None)
