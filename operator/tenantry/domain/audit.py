"""What the audit log keeps: one entry per change that matters."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tenantry.domain.names import MANAGERS


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One row: who did what to which object, before and after, and when.

    `identity` names the change itself (for example ``<uid>/spec/3``), so that recording it again after a
    crash adds nothing. `before` and `after` are JSON objects, or None where there was or is nothing.
    """

    identity: str
    at: datetime
    actor: str
    action: str
    kind: str
    name: str
    uid: str
    tenant: str | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    message: str = field(default="")


def actor_of(managed_fields: Sequence[Mapping[str, Any]], *, changed: Collection[str] = ()) -> str:
    """Return who wrote an object last, by its managedFields: the newest writer of anything but status.

    changed: the fields of the spec that did; who holds one of them goes before who only set a label since. The
    API server records a field manager (``kubectl-client-side-apply``, ``argocd-controller``), not a user; where
    nobody but the operator wrote, the answer is ``unknown``.
    """
    writers = [
        entry
        for entry in managed_fields
        if entry.get("subresource") != "status" and entry.get("manager") not in MANAGERS
    ]
    if not writers:
        return "unknown"
    fields = {f"f:{name}" for name in changed}
    authors = [
        entry for entry in writers if fields & entry.get("fieldsV1", {}).get("f:spec", {}).keys()
    ] or writers
    newest = max(authors, key=lambda entry: str(entry.get("time", "")))
    return str(newest.get("manager", "unknown"))
