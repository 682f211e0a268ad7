"""For whom a child is built, and the metadata that says so on each child."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from tenantry.domain import names

Manifest = dict[str, Any]


class Access(Enum):
    """How far the tenant's members and pods may go."""

    OPEN = "open"
    SUSPENDED = "suspended"  # members only look, nothing new starts, no network
    CUT = "cut"  # deleted and retained: nobody gets in


@dataclass(frozen=True, slots=True)
class Owner:
    """The tenant that a child belongs to, and the namespace that it lives in."""

    tenant: str
    uid: str
    namespace: str


def child(owner: Owner, api_version: str, kind: str, name: str, **content: Any) -> Manifest:
    """Return a namespaced child with our marks; the user's own labels are never copied to it."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": owner.namespace,
            "labels": {names.MANAGED_BY: names.MANAGER, names.TENANT: owner.tenant},
            "annotations": {names.TENANT_UID: owner.uid},
        },
        **content,
    }
