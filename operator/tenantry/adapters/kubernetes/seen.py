"""What the watches have seen: the port `Observations`, in memory.

Fed by the reflectors (children), by Kopf's handlers (our own kinds) and by the answers to our own writes. An
older resourceVersion never overwrites a newer one, and what was deleted does not come back by a late event:
the same name returns only with another UID.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from tenantry.adapters.kubernetes import changes
from tenantry.adapters.kubernetes.in_flight import InFlight
from tenantry.adapters.kubernetes.kinds import OWN_KINDS
from tenantry.adapters.kubernetes.losses import Losses
from tenantry.adapters.kubernetes.own_kinds import OwnKinds
from tenantry.desired.observe import is_our_revision, observe
from tenantry.domain import names
from tenantry.domain.observed import ChildKey, Observed, RevisionDetail, TenantClaim

Changed = Callable[[str, str, str], None]
"""Told (kind, where, name) whenever something that counts has changed.

where: the namespace of a child, the namespace that a Tenant wants, the tenant of an archive or of a move. That a
tenant was placed on a shard, or is not there any more, is a change of kind `PLACEMENT` (where: the shard).
"""

PLACEMENT = "Placement"

_OWN = frozenset(kind.kind for kind in OWN_KINDS)
_TOMBSTONES = 4096
_FOR_GOOD = sys.maxsize
"""The version of a tombstone of what is deleted, not only unlabelled: no object has that UID again."""


class Seen(OwnKinds):
    """All that is known of the cluster. Not for threads: one event loop feeds and reads it."""

    def __init__(self, default_plan: str, changed: Changed) -> None:
        super().__init__(default_plan)
        self._changed = changed
        self._namespaces: dict[str, Observed] = {}
        self._children: dict[str, dict[ChildKey, Observed]] = {}
        self._cluster_roles: dict[ChildKey, Observed] = {}
        self._tombstones: dict[str, int] = {}
        self._losses = Losses()
        self._in_flight = InFlight()
        self._last: dict[tuple[str, str], tuple[str, int]] = {}

    # --- reading ---------------------------------------------------------------------------------------------

    def namespace(self, name: str) -> Observed | None:
        """Return the namespace by that name."""
        return self._namespaces.get(name)

    def children(self, namespace: str) -> Mapping[ChildKey, Observed]:
        """Return all objects in a namespace that carry our label."""
        return self._children.get(namespace, {})

    def deleted(self, namespace: str) -> Mapping[ChildKey, Observed]:
        """Return the children that somebody else deleted and that have not come back since, as last seen."""
        return self._losses.deleted(namespace)

    def lost_revisions(self, namespace: str) -> Sequence[RevisionDetail]:
        """Return the last ten revisions of the namespace's tenant that somebody else deleted, oldest first."""
        there = self._namespaces.get(namespace)
        return self._losses.revisions(namespace, there.tenant_uid) if there else ()

    def cluster_roles(self) -> Mapping[ChildKey, Observed]:
        """Return the ClusterRoles that carry the label of a role."""
        return self._cluster_roles

    # --- children --------------------------------------------------------------------------------------------

    def writing(self, kind: str, namespace: str, name: str) -> AbstractContextManager[None]:
        """Enclose a write of ours: what a watch tells of it before its answer is there wakes nobody."""
        return self._in_flight.write((kind, namespace, name))

    def wrote(self, manifest: Mapping[str, Any]) -> None:
        """Take in the answer to a write of ours.

        Our own writes wake nobody, but for what they mean to others: a new archive, and a namespace that more than
        one Tenant or an archive is concerned with. An answer that brings somebody else's edit does: its event
        comes too late.
        """
        kind, metadata = manifest["kind"], manifest["metadata"]
        subject = (kind, metadata.get("namespace", ""), metadata["name"])
        self._in_flight.answered(subject, int(metadata["resourceVersion"]))
        self.saw(manifest, wake=kind == "TenantArchive")
        if kind == "Namespace" and (self.archives_in(subject[2]) or len(self.claims(subject[2])) > 1):
            self._changed(*subject)

    def saw(self, manifest: Mapping[str, Any], *, wake: bool = True) -> None:
        """Take in an object of any kind, as a watch or a list brings it."""
        kind = manifest["kind"]
        if kind in _OWN:
            self._saw_own(manifest, wake)
            return
        if not self._belongs(manifest):
            return
        metadata = manifest["metadata"]
        subject = (kind, metadata.get("namespace", ""), metadata["name"])
        key: Any = subject[2] if kind == "Namespace" else ChildKey(kind, subject[2])
        version = int(metadata["resourceVersion"])
        old = self._present(kind, subject[1]).get(key)
        # Versions of one kind grow through all of its objects: an older one of another UID is older too.
        if old is not None and version <= changes.version(old):
            return
        if self._tombstones.get(metadata["uid"], -1) >= version:
            return
        new = observe(manifest)
        self._shelf_of(kind, new.namespace)[key] = new
        if kind == "Namespace" and old is not None and old.uid != new.uid:
            self._forget_inside(new.name, version)
        self._losses.came_back(new)
        if wake and (old is None or changes.differs(old, new)):
            self._in_flight.changed(subject, version, lambda: self._changed(*subject))

    def gone(
        self,
        kind: str,
        namespace: str,
        name: str,
        uid: str,
        version: int | None = None,
        *,
        by_us: bool = False,
    ) -> None:
        """Forget an object that was deleted, or (with the version of the event) that has lost our label."""
        if kind in _OWN:
            self._forget_own(kind, name, uid)
            return
        key: Any = name if kind == "Namespace" else ChildKey(kind, name)
        if by_us:
            self._losses.removed_by_us(namespace, key)
        self._bury(uid, _FOR_GOOD if version is None else version)
        shelf = self._shelf_of(kind, namespace)
        old = shelf.get(key)
        if old is None or old.uid != uid or (version is not None and version < changes.version(old)):
            if not shelf:
                self._children.pop(namespace, None)
            return
        del shelf[key]
        if kind == "Namespace":
            self._forget_inside(name, version)
        if not shelf and namespace:
            self._children.pop(namespace, None)
        if namespace and not by_us and namespace in self._namespaces:
            self._losses.add(old)
        self._changed(kind, namespace, name)

    def _forget_inside(self, namespace: str, version: int | None) -> None:
        """Forget what was in a namespace that is gone: a watch of another kind may be slower to say so.

        Believed still to stand in a new namespace of that name, its limits would not be written before people are
        let in. version: of the namespace when it was gone, or of the new one; what is newer is inside that.
        """
        for key, child in list(self.children(namespace).items()):
            if version is None or changes.version(child) < version:
                del self._children[namespace][key]
                self._bury(child.uid, version or changes.version(child))
        if not self.children(namespace):
            self._children.pop(namespace, None)
        self._losses.forget(namespace)

    def present(self, kind: str) -> Iterable[Observed]:
        """Return every object of a kind of child, for a re-list to compare with."""
        if kind == "Namespace":
            return list(self._namespaces.values())
        if kind == "ClusterRole":
            return list(self._cluster_roles.values())
        return [seen for shelf in self._children.values() for seen in shelf.values() if seen.kind == kind]

    def _belongs(self, manifest: Mapping[str, Any]) -> bool:
        """Tell our ControllerRevisions from others': without a selector, to see one of ours that lost its label."""
        if manifest["kind"] != "ControllerRevision" or is_our_revision(manifest):
            return True
        metadata = manifest["metadata"]
        known = self.children(metadata["namespace"]).get(ChildKey(manifest["kind"], metadata["name"]))
        return known is not None and known.uid == metadata["uid"]

    def _present(self, kind: str, namespace: str) -> Mapping[Any, Observed]:
        if kind == "Namespace":
            return self._namespaces
        return self._cluster_roles if kind == "ClusterRole" else self.children(namespace)

    def _shelf_of(self, kind: str, namespace: str) -> dict[Any, Observed]:
        if kind == "Namespace":
            return self._namespaces
        if kind == "ClusterRole":
            return self._cluster_roles
        return self._children.setdefault(namespace, {})

    def _bury(self, uid: str, version: int) -> None:
        """Remember the last resourceVersion of what is gone, for late events; the oldest are let go."""
        self._tombstones[uid] = max(version, self._tombstones.get(uid, -1))
        if len(self._tombstones) > _TOMBSTONES:
            del self._tombstones[next(iter(self._tombstones))]

    # --- our own kinds ---------------------------------------------------------------------------------------

    def _saw_own(self, manifest: Mapping[str, Any], wake: bool) -> None:
        metadata = manifest["metadata"]
        kind, name, uid = manifest["kind"], metadata["name"], metadata["uid"]
        version = int(metadata["resourceVersion"])
        _, last = self._last.get((kind, name), ("", -1))
        if version < last or self._tombstones.get(uid, -1) >= version:
            return
        if kind == "Tenant" and (version > last or name not in self._copies):
            self._copies.keep(name, manifest)
        if version == last:
            return
        self._last[kind, name] = uid, version
        before = self._tenants.get(name) if kind == "Tenant" else None
        if self._take_own(kind, name, manifest):
            self._changed(kind, self._where(kind, name), name)
        elif before is not None:
            self._compare_finalizers(before, self._tenants[name], version, by_us=not wake)
            self._compare_statuses(before, self._tenants[name], version, by_us=not wake)
        if kind == "Tenant":
            self._tell_shards(name, before, self._tenants[name])

    def _compare_statuses(self, before: TenantClaim, now: TenantClaim, version: int, *, by_us: bool) -> None:
        """Wake a Tenant whose status somebody else has changed, as whoever restores one.

        A write of ours whose answer was lost looks like that too: what it says may be true no more.
        """
        if not by_us and before.told != now.told:
            self._in_flight.changed(
                ("Tenant", "", now.name), version, lambda: self._changed("Tenant", now.namespace, now.name)
            )

    def _tell_shards(self, tenant: str, before: TenantClaim | None, now: TenantClaim | None) -> None:
        """Tell the shards that a tenant came to, or left: they count theirs."""
        old, new = before.shard if before else "", now.shard if now else ""
        for shard in {old, new} - {""} if old != new else ():
            self._changed(PLACEMENT, shard, tenant)

    def _compare_finalizers(
        self, before: TenantClaim, now: TenantClaim, version: int, *, by_us: bool
    ) -> None:
        """Wake a Tenant whose finalizers somebody else has changed; ours comes off last, when it is deleted."""

        def wake() -> None:
            self._changed("Tenant", now.namespace, now.name)

        if by_us and names.FINALIZER in set(before.finalizers) - set(now.finalizers) and not now.deleting:
            wake()
        elif not by_us and before.finalizers != now.finalizers:
            self._in_flight.changed(("Tenant", "", now.name), version, wake)

    def _forget_own(self, kind: str, name: str, uid: str) -> None:
        self._bury(uid, _FOR_GOOD)
        known, _ = self._last.get((kind, name), ("", -1))
        if known != uid:
            return  # another by that name has come already
        where = self._where(kind, name)
        before = self._tenants.get(name) if kind == "Tenant" else None
        del self._last[kind, name]
        self._drop_own(kind, name)
        self._changed(kind, where, name)
        self._tell_shards(name, before, None)

    def forget_missing(self, kind: str, present: Mapping[str, str], version: int) -> None:
        """Forget the objects of ours that a full list (name to UID) of that version does not hold.

        One that was made after the list is not gone.
        """
        known = [(name, uid, last) for (what, name), (uid, last) in self._last.items() if what == kind]
        for name, uid, last in known:
            if present.get(name) != uid and last <= version:
                self._forget_own(kind, name, uid)
