"""Which keys a change wakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tenantry.domain.observed import TenantClaim
from tenantry.reconcile import roles
from tenantry.reconcile.result import Key

PLAN_PAUSE_SECONDS = 1.0
"""A Plan counts its tenants: a burst of them is one count, not hundreds."""


class Queue(Protocol):
    """The part of the work queue that waking needs."""

    def add(self, key: Key, after: float = 0.0, *, low: bool = False) -> None:
        """Have a key reconciled, at once or after some seconds."""


class Index(Protocol):
    """What is known of who concerns whom."""

    def claims(self, namespace: str) -> Sequence[TenantClaim]:
        """Return every tenant that wants this namespace."""

    def tenants_on(self, plan: str) -> Sequence[TenantClaim]:
        """Return every tenant on this plan."""

    def archives_in(self, namespace: str) -> Sequence[str]:
        """Return the names of the archives that keep this namespace."""

    def plans(self) -> Sequence[str]:
        """Return the names of all Plans."""


def wake(index: Index, queue: Queue, kind: str, where: str, name: str) -> None:
    """Queue everything that a change of one object concerns; see `adapters.kubernetes.seen.Changed`."""
    match kind:
        case "Tenant":
            queue.add(Key("Tenant", name))
            _wake_namespace(index, queue, where)
            for plan in index.plans():
                queue.add(Key("Plan", plan), PLAN_PAUSE_SECONDS)
        case "Plan":
            queue.add(Key("Plan", name))
            for claim in index.tenants_on(name):
                queue.add(Key("Tenant", claim.name))
        case "TenantArchive":
            queue.add(Key("TenantArchive", name))
            if where:
                queue.add(Key("Tenant", where))
        case "ClusterRole":
            queue.add(roles.KEY)
        case "Namespace":
            _wake_namespace(index, queue, name)
        case _:
            _wake_namespace(index, queue, where)


def _wake_namespace(index: Index, queue: Queue, namespace: str) -> None:
    for claim in index.claims(namespace):
        queue.add(Key("Tenant", claim.name))
    for archive in index.archives_in(namespace):
        queue.add(Key("TenantArchive", archive))
