"""What somebody else deleted of our children: to tell a repair from a first write, and to put revisions back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tenantry.domain import names
from tenantry.domain.configuration import KEPT_REVISIONS
from tenantry.domain.observed import ChildKey, Observed, RevisionDetail

Shelves = dict[str, dict[ChildKey, Observed]]
"""Children by namespace, as they were last seen."""


class Losses:
    """Remembers, by namespace, the children that others deleted, and the content of the last ten revisions."""

    def __init__(self) -> None:
        self._deleted: Shelves = {}
        self._revisions: Shelves = {}

    def deleted(self, namespace: str) -> Mapping[ChildKey, Observed]:
        """Return the children that somebody else deleted and that have not come back since, as last seen."""
        return self._deleted.get(namespace, {})

    def revisions(self, namespace: str, tenant_uid: str | None) -> Sequence[RevisionDetail]:
        """Return the revisions of that very tenant that somebody else deleted, oldest first."""
        lost = self._revisions.get(namespace, {}).values()
        details = [item.detail for item in lost if tenant_uid and item.tenant_uid == tenant_uid]
        return sorted(
            (detail for detail in details if isinstance(detail, RevisionDetail)), key=lambda it: it.revision
        )

    def add(self, child: Observed) -> None:
        """Remember a child that somebody else deleted, if it has a name that we give.

        Members may make objects with our label and delete them, under ever new names.
        """
        if child.name not in names.WRITTEN_BY_MEMBERS.get(child.kind, (child.name,)):
            return
        self._deleted.setdefault(child.namespace, {})[child.key] = child
        if isinstance(child.detail, RevisionDetail) and child.kind == "ControllerRevision":
            lost = self._revisions.setdefault(child.namespace, {})
            lost[child.key] = child
            if len(lost) > KEPT_REVISIONS:
                del lost[min(lost, key=lambda key: names.revision_number(key.name) or 0)]

    def came_back(self, child: Observed) -> None:
        """Take note that a child is there (again); another one in a revision's place does not stand for it."""
        _discard(self._deleted, child.namespace, child.key)
        lost = self._revisions.get(child.namespace, {}).get(child.key)
        if lost is not None and lost.detail == child.detail:
            _discard(self._revisions, child.namespace, child.key)

    def removed_by_us(self, namespace: str, key: ChildKey) -> None:
        """Take note that we deleted a child ourselves: nobody misses it."""
        _discard(self._deleted, namespace, key)
        _discard(self._revisions, namespace, key)

    def forget(self, namespace: str) -> None:
        """Forget a namespace that is gone."""
        self._deleted.pop(namespace, None)
        self._revisions.pop(namespace, None)


def _discard(shelves: Shelves, namespace: str, key: ChildKey) -> None:
    shelf = shelves.get(namespace, {})
    shelf.pop(key, None)
    if not shelf:
        shelves.pop(namespace, None)
