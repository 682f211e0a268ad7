"""What we remember of an object in the cluster: enough to see drift, small enough for 10,000 tenants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple


class ChildKey(NamedTuple):
    """An object within one namespace (or, for a ClusterRole, within the cluster)."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class NamespaceDetail:
    """What deciding about a namespace needs to know beyond its identity.

    `owned_labels` and `owned_annotations` are the keys that our field manager set, by managedFields.
    `holding` says in the API server's words what keeps a terminating namespace from going. `made_by_us`: the
    managedFields show that it was this operator that created it; whoever adopts never gets there.
    """

    labels: Mapping[str, str]
    annotations: Mapping[str, str]  # of the domain tenantry.dev only
    owned_labels: frozenset[str]
    owned_annotations: frozenset[str]
    has_owner_references: bool
    holding: str
    made_by_us: bool = False


@dataclass(frozen=True, slots=True)
class RevisionDetail:
    """A configuration revision: its number and its content as canonical JSON."""

    revision: int
    config: str


@dataclass(frozen=True, slots=True)
class Observed:
    """One object as last seen. `fingerprint` stands for all of its content that is ours to decide."""

    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str
    fingerprint: str
    deleting: bool
    tenant: str | None
    tenant_uid: str | None
    writer: str
    detail: NamespaceDetail | RevisionDetail | None = None

    @property
    def key(self) -> ChildKey:
        """Return the key within the namespace."""
        return ChildKey(self.kind, self.name)


@dataclass(frozen=True, slots=True)
class Unready:
    """That a Tenant is not Ready: since when, why, and whether it waits for somebody to correct something."""

    since: datetime
    reason: str
    stalled: bool


@dataclass(frozen=True, slots=True)
class TenantClaim:
    """What is remembered of each Tenant: the namespace and the plan that it wants, and how it fares."""

    name: str
    uid: str
    created: datetime
    namespace: str
    plan: str
    phase: str
    deleting: bool
    stamp: str = ""  # changes with anything but the status and the finalizers
    finalizers: tuple[str, ...] = ()
    unready: Unready | None = None
    shard: str = ""  # where its status places it
    epoch: int = 0
    pin: str = ""  # the shard that its spec asks for
    told: int = 0  # changes with what its status says
    dedicated: bool = False  # its plan asks for a shard of its own; filled in where that is looked at

    @property
    def seniority(self) -> tuple[datetime, str]:
        """Return what decides between two that want one namespace: the older, then the lower UID."""
        return (self.created, self.uid)
