"""Which keys a change wakes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from tenantry.adapters.kubernetes import seen
from tenantry.domain.observed import TenantClaim
from tenantry.reconcile import rebalance, roles
from tenantry.reconcile.result import Key

COUNT_PAUSE_SECONDS = 1.0
"""A Plan or a VectorShard counts its tenants: a burst of them is one count, not hundreds."""


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

    def placed_on(self, shard: str) -> Sequence[TenantClaim]:
        """Return every tenant whose status places it on that shard."""

    def unplaced(self) -> Sequence[TenantClaim]:
        """Return every tenant that has no placement."""

    def archives_in(self, namespace: str) -> Sequence[str]:
        """Return the names of the archives that keep this namespace."""

    def plans(self) -> Sequence[str]:
        """Return the names of all Plans."""


def wake(index: Index, queue: Queue, kind: str, where: str, name: str) -> None:
    """Queue everything that a change of one object concerns; see `adapters.kubernetes.seen.Changed`."""
    match kind:
        case "Tenant":
            _wake_tenant(index, queue, where, name)
        case "Plan":
            queue.add(Key("Plan", name))
            _wake_tenants(queue, index.tenants_on(name))
        case "VectorShard":
            queue.add(Key("VectorShard", name))
            queue.add(rebalance.KEY)
            _wake_tenants(queue, (*index.placed_on(name), *index.unplaced()))
        case "TenantMove" | "TenantArchive":
            queue.add(Key(kind, name))
            if where:
                queue.add(Key("Tenant", where))
        case seen.PLACEMENT:
            queue.add(Key("VectorShard", where), COUNT_PAUSE_SECONDS)
        case "ClusterRole":
            queue.add(roles.KEY)
        case _:
            _wake_namespace(index, queue, name if kind == "Namespace" else where)


def _wake_tenant(index: Index, queue: Queue, namespace: str, name: str) -> None:
    queue.add(Key("Tenant", name))
    _wake_namespace(index, queue, namespace)
    for plan in index.plans():
        queue.add(Key("Plan", plan), COUNT_PAUSE_SECONDS)


def _wake_tenants(queue: Queue, claims: Iterable[TenantClaim]) -> None:
    for claim in claims:
        queue.add(Key("Tenant", claim.name))


def _wake_namespace(index: Index, queue: Queue, namespace: str) -> None:
    _wake_tenants(queue, index.claims(namespace))
    for archive in index.archives_in(namespace):
        queue.add(Key("TenantArchive", archive))
