"""Whole lists of everything: before the first reconcile, and again from time to time.

Nothing is reconciled before every kind has been listed once. Without its Namespaces a deleted tenant would seem
to have none to archive, without its revisions a configuration would be numbered anew, and without its policies
one that should be pruned would stay while the tenant is called Ready. Only ClusterRoles are not needed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

from tenantry.adapters.kubernetes.client import Client, Expired
from tenantry.adapters.kubernetes.kinds import KINDS, OWN_KINDS
from tenantry.adapters.kubernetes.reflector import Reflector, SetBack, list_own
from tenantry.adapters.kubernetes.seen import Seen
from tenantry.reconcile.ports import Conflict, Refused, Unavailable

logger = logging.getLogger(__name__)

DISPENSABLE = frozenset({"ClusterRole"})
"""Kinds that the operator may go on without: the chart ships the ClusterRoles, and may keep them from it."""

GRACE_SECONDS = 20.0
"""How long the first list of a dispensable kind is waited for, and of any other before the log says so."""

PAUSE_SECONDS = 1.0

GAP_SECONDS = 1.0
"""A first list of Kopf comes in pages; so long after the last of its objects it is taken for whole."""


class Listing:
    """Lists our own kinds itself, and has the reflectors list the children."""

    def __init__(
        self, client: Client, seen: Seen, reflectors: Sequence[Reflector], grace: float = GRACE_SECONDS
    ) -> None:
        self._client = client
        self._seen = seen
        self._reflectors = reflectors
        self._grace = grace
        self.waits_for = "our own kinds"
        """What `first` waits for, and what is in the way, for the probe; empty when it has ended."""

    async def first(self) -> None:
        """Return when everything that is needed has been listed, however long that takes."""
        await self._own_at_last()
        loop = asyncio.get_running_loop()
        patience = loop.time() + self._grace
        said = ""
        while missing := [item for item in self._reflectors if not item.synced.is_set()]:
            late = loop.time() >= patience
            needed = [item for item in missing if item.kind.kind not in DISPENSABLE]
            if late and not needed:
                logger.warning("Goes on without %s", _describe(missing))
                break
            self.waits_for = _describe(needed or missing)
            if late and self.waits_for != said:
                said = self.waits_for
                logger.error("Nothing is reconciled before the operator can list %s", said)
            with suppress(TimeoutError):
                await asyncio.wait_for((needed or missing)[0].synced.wait(), PAUSE_SECONDS)
        self.waits_for = ""

    async def again(self) -> bool:
        """List everything; return whether all that is needed could be. One kind's failing does not stop others.

        Raises SetBack where the API server is at an older state than it was.
        """
        lists: list[tuple[str, str, Callable[[], Awaitable[object]]]] = [
            (kind.kind, kind.plural, partial(list_own, self._client, kind, self._seen)) for kind in OWN_KINDS
        ]
        lists.extend((item.kind.kind, item.kind.plural, item.relist) for item in self._reflectors)
        whole = True
        for kind, plural, list_all in lists:
            try:
                await list_all()
            except SetBack:
                raise
            except Exception as error:  # noqa: BLE001 - the probe tells when it fails for too long
                logger.warning("The full list of %s failed, the next one is due in time: %s", plural, error)
                whole = whole and kind in DISPENSABLE
        return whole

    async def _own_at_last(self) -> None:
        """List our own kinds, however long the API server takes to serve them; says once what it waits for."""
        said = ""
        while True:
            try:
                for kind in OWN_KINDS:
                    await list_own(self._client, kind, self._seen)
                return
            except LookupError:
                reason = "the API server does not know Tenantry's kinds yet; apply the folder crds/"
            except (Unavailable, Refused, Conflict, Expired) as error:
                reason = str(error)
            self.waits_for = f"our own kinds ({reason})"
            if reason != said:
                logger.warning("Waiting: %s", reason)
                said = reason
            await asyncio.sleep(PAUSE_SECONDS)


class Gaps:
    """Lists a kind of ours once Kopf has listed it: what it never tells is what was deleted before that.

    That is at the start, where our own list comes first and a tenant may leave before Kopf's; and whenever the
    API server ends a watch with 410 and Kopf lists anew. What is deleted after Kopf's list, its watch tells.
    """

    def __init__(self, client: Client, seen: Seen, pause: float = GAP_SECONDS) -> None:
        self._client = client
        self._seen = seen
        self._pause = pause
        self._due: dict[str, float] = {}
        self._told = asyncio.Event()

    def listed(self, kind: str) -> None:
        """Take note of an object of a list of Kopf, or that Kopf is about to list a kind."""
        self._due[kind] = asyncio.get_running_loop().time() + self._pause
        self._told.set()

    async def run(self, ready: asyncio.Event) -> None:
        """List what has become due, until cancelled; `ready` is set when Kopf begins."""
        await ready.wait()
        for kind in OWN_KINDS:
            self.listed(kind.kind)
        while True:
            await self._told.wait()
            name, at = min(self._due.items(), key=lambda item: item[1])
            wait = at - asyncio.get_running_loop().time()
            if wait > 0:
                await asyncio.sleep(wait)
                continue  # it may have been put off meanwhile
            await self._list(name)

    async def _list(self, name: str) -> None:
        del self._due[name]
        try:
            await list_own(self._client, KINDS[name], self._seen)
        except (Unavailable, Refused, Conflict, Expired, LookupError):
            self.listed(name)  # again, as long as it takes: the watch and the full lists tell what is wrong
        if not self._due:
            self._told.clear()


def _describe(missing: Sequence[Reflector]) -> str:
    return ", ".join(
        f"{item.kind.plural} ({item.problem})" if item.problem else item.kind.plural for item in missing
    )
