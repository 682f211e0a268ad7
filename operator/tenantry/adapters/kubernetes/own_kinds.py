"""Our own kinds as last seen, in memory: Tenants, Plans and TenantArchives, each found by what concerns it.

VectorShards and TenantMoves are in `shard_kinds`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from tenantry.adapters.kubernetes import changes, standing
from tenantry.adapters.kubernetes.copies import Copies
from tenantry.adapters.kubernetes.shard_kinds import ShardKinds
from tenantry.api.archive import TenantArchive
from tenantry.api.plan import Plan
from tenantry.api.tenant import is_our_placement
from tenantry.domain.observed import TenantClaim, Unready

_DELETED_PLANS = 256


class OwnKinds(ShardKinds):
    """The part of `Seen` that is about our own kinds."""

    def __init__(self, default_plan: str) -> None:
        super().__init__()
        self._default_plan = default_plan
        self._plans: dict[str, Plan] = {}
        self._deleted_plans: dict[str, Plan] = {}
        self._tenants: dict[str, TenantClaim] = {}
        self._copies = Copies()
        self._by_namespace: defaultdict[str, set[str]] = defaultdict(set)
        self._by_plan: defaultdict[str, set[str]] = defaultdict(set)
        self._by_shard: defaultdict[str, set[str]] = defaultdict(set)
        self._archives: dict[str, TenantArchive] = {}
        self._archives_by_tenant: defaultdict[str, set[str]] = defaultdict(set)
        self._archives_by_namespace: defaultdict[str, set[str]] = defaultdict(set)

    def plan(self, name: str) -> Plan | None:
        """Return a Plan."""
        return self._plans.get(name)

    def plans(self) -> Sequence[str]:
        """Return the names of all Plans."""
        return sorted(self._plans)

    def deleted_plan(self, name: str) -> Plan | None:
        """Return a Plan of that name that was deleted, the first of several, until `plan_deletion_recorded`."""
        return next((plan for plan in self._deleted_plans.values() if plan.metadata.name == name), None)

    def plan_deletion_recorded(self, plan: Plan) -> None:
        """Forget a deleted Plan: its audit row is written."""
        self._deleted_plans.pop(plan.metadata.uid, None)

    def tenant(self, name: str) -> TenantClaim | None:
        """Return what is known of one tenant."""
        return self._tenants.get(name)

    def tenant_object(self, name: str) -> dict[str, Any] | None:
        """Return a Tenant as last seen, for the caller to keep; None where it has to be read."""
        return self._copies.get(name)

    def distrust(self, kind: str, name: str) -> None:
        """Have an object read next time: a write showed that what was seen of it is old."""
        if kind == "Tenant":
            self._copies.drop(name)

    def tenants(self) -> Sequence[str]:
        """Return the names of all Tenants."""
        return sorted(self._tenants)

    def claims(self, namespace: str) -> Sequence[TenantClaim]:
        """Return every tenant that wants this namespace."""
        return [self._tenants[name] for name in self._by_namespace.get(namespace, ())]

    def tenants_on(self, plan: str) -> Sequence[TenantClaim]:
        """Return every tenant whose effective plan has that name."""
        return [self._tenants[name] for name in self._by_plan.get(plan, ())]

    def placed_on(self, shard: str) -> Sequence[TenantClaim]:
        """Return every tenant whose status places it on that shard."""
        return [self._tenants[name] for name in self._by_shard.get(shard, ())] if shard else []

    def unplaced(self) -> Sequence[TenantClaim]:
        """Return every tenant that has no placement."""
        return [self._tenants[name] for name in self._by_shard.get("", ())]

    def archives(self) -> Sequence[str]:
        """Return the names of all TenantArchives."""
        return sorted(self._archives)

    def archives_of(self, tenant: str) -> Sequence[TenantArchive]:
        """Return the archives of former tenants of that name."""
        return [self._archives[name] for name in sorted(self._archives_by_tenant.get(tenant, ()))]

    def archives_in(self, namespace: str) -> Sequence[str]:
        """Return the names of the archives that keep this namespace."""
        return sorted(self._archives_by_namespace.get(namespace, ()))

    def count_by_phase_and_plan(self) -> Mapping[tuple[str, ...], int]:
        """Return how many tenants there are by phase and plan."""
        return Counter((claim.phase, claim.plan) for claim in self._tenants.values())

    def unready(self) -> Sequence[Unready]:
        """Return how each tenant stands that is not Ready."""
        return [claim.unready for claim in self._tenants.values() if claim.unready is not None]

    def purges(self) -> Sequence[datetime]:
        """Return when what each archive keeps is to be gone, of those that keep something."""
        due = map(standing.purge_due, self._archives.values())
        return [moment for moment in due if moment is not None]

    def _take_own(self, kind: str, name: str, manifest: Mapping[str, Any]) -> bool:
        """Keep what is needed of an object of ours; return whether anything changed that wakes.

        What we write ourselves, its status and its finalizers, is not among it.
        """
        if kind == "Tenant":
            return self._take_tenant(name, manifest)
        try:
            if kind in ("VectorShard", "TenantMove"):
                return self._take_shard_kind(kind, name, manifest)
            if kind == "Plan":
                plan = Plan.model_validate(manifest)
                before = self._plans.get(name)
                if before is not None and before.metadata.uid != plan.metadata.uid:
                    self._remember_plan(before)  # its deletion is told later, or was missed
                self._plans[name] = plan
                return before is None or not changes.same(before, plan)
            archive = TenantArchive.model_validate(manifest)
        except ValidationError:
            # An object that an older or newer schema let in: its own reconcile reports it.
            return True
        known = self._archives.get(name)
        self._unindex_archive(name)
        self._archives[name] = archive
        self._archives_by_tenant[archive.spec.tenant].add(name)
        self._archives_by_namespace[archive.namespace_name].add(name)
        return known is None or not changes.same(known, archive) or known.status != archive.status

    def _take_tenant(self, name: str, manifest: Mapping[str, Any]) -> bool:
        metadata = manifest["metadata"]
        before = self._tenants.get(name)
        ours = is_our_placement(metadata.get("managedFields") or ())
        new = TenantClaim(
            name=name,
            uid=metadata["uid"],
            created=_time(metadata["creationTimestamp"]),
            namespace=_text(manifest, "spec", "namespace", "name") or f"tenant-{name}",
            plan=_text(manifest, "spec", "plan") or self._default_plan,
            phase=_text(manifest, "status", "phase") or "Pending",
            deleting="deletionTimestamp" in metadata,
            stamp=changes.stamp(manifest),
            finalizers=tuple(metadata.get("finalizers") or ()),
            unready=standing.unready(manifest),
            shard=_text(manifest, "status", "placement", "shard") if ours else "",
            epoch=_number(manifest, "status", "placement", "epoch") if ours else 0,
            pin=_text(manifest, "spec", "vectorStore", "shard"),
            told=changes.told(manifest),
        )
        if before is not None:
            self._unindex(before)
        self._tenants[name] = new
        self._by_namespace[new.namespace].add(name)
        self._by_plan[new.plan].add(name)
        self._by_shard[new.shard].add(name)
        return before is None or (before.uid, before.stamp) != (new.uid, new.stamp)

    def _where(self, kind: str, name: str) -> str:
        """Return what else an object of ours concerns: a namespace, or a tenant."""
        if kind == "Tenant" and name in self._tenants:
            return self._tenants[name].namespace
        if kind == "TenantArchive" and name in self._archives:
            return self._archives[name].spec.tenant
        if kind == "TenantMove":
            return self._tenant_of_move(name)
        return ""

    def _remember_plan(self, plan: Plan | None) -> None:
        if plan is not None:
            self._deleted_plans[plan.metadata.uid] = plan
            if len(self._deleted_plans) > _DELETED_PLANS:
                del self._deleted_plans[next(iter(self._deleted_plans))]

    def _unindex_archive(self, name: str) -> None:
        archive = self._archives.get(name)
        if archive is None:
            return
        for index, key in (
            (self._archives_by_tenant, archive.spec.tenant),
            (self._archives_by_namespace, archive.namespace_name),
        ):
            index[key].discard(name)
            if not index[key]:
                del index[key]

    def _unindex(self, claim: TenantClaim) -> None:
        for index, key in (
            (self._by_namespace, claim.namespace),
            (self._by_plan, claim.plan),
            (self._by_shard, claim.shard),
        ):
            index[key].discard(claim.name)
            if not index[key]:
                del index[key]

    def _drop_own(self, kind: str, name: str) -> None:
        if kind == "Tenant":
            self._copies.drop(name)
            if name in self._tenants:
                self._unindex(self._tenants.pop(name))
        elif kind == "Plan":
            self._remember_plan(self._plans.pop(name, None))
        elif kind in ("VectorShard", "TenantMove"):
            self._drop_shard_kind(kind, name)
        else:
            self._unindex_archive(name)
            self._archives.pop(name, None)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _text(manifest: Mapping[str, Any], *path: str) -> str:
    """Return the text at a path, empty where there is none: an older schema may have let anything else in."""
    found = _at(manifest, path)
    return found if isinstance(found, str) else ""


def _number(manifest: Mapping[str, Any], *path: str) -> int:
    """Return the whole number at a path, 0 where there is none."""
    found = _at(manifest, path)
    return found if type(found) is int else 0


def _at(manifest: Mapping[str, Any], path: Sequence[str]) -> object:
    found: Any = manifest
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
