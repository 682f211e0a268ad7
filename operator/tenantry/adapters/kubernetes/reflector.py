"""Lists and watches of the children: what client-go calls a reflector.

Kopf watches our own kinds. For children it would keep a memory for each of 160,000 objects and never learn of
one that was deleted while a watch was interrupted; here a list after each interruption is compared with what
was known, so nothing is missed, and what is kept of an object is a fingerprint.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tenantry.adapters.kubernetes.client import Client, Expired
from tenantry.adapters.kubernetes.kinds import Kind
from tenantry.adapters.kubernetes.seen import Seen
from tenantry.reconcile.ports import Conflict, Refused, Unavailable

logger = logging.getLogger(__name__)

AT_ONCE = 25
"""Objects of a list that are taken in at one turn of the event loop; one takes a tenth of a millisecond or two."""

SERVER_TIMEOUT_SECONDS = 290
IDLE_SECONDS = 75.0
"""The API server sends a bookmark each minute: a longer silence is a dead connection."""

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 15.0
SHORTEST_WATCH_SECONDS = 1.0
"""A watch that ends by itself sooner than this is begun again only after a pause."""


class SetBack(Exception):  # noqa: N818
    """The API server is at an older state than it has been: it was restored from a backup.

    What was seen since then is true no more, and resourceVersions begin to mean something else. The process must
    start anew, as Kubernetes asks of every controller then.
    """


class Reflector:
    """Keeps one kind of child in `Seen` up to date. `synced` is set after the first whole list."""

    def __init__(
        self,
        client: Client,
        kind: Kind,
        seen: Seen,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self.kind = kind
        self._seen = seen
        self._sleep = sleep
        self._version = ""
        self._newest = 0
        self._heard = False
        self.synced = asyncio.Event()
        self.problem = ""
        """What kept the last list or watch from working, one sentence; empty where they work."""

    async def run(self) -> None:
        """List, watch, and begin again whenever the watch ends; returns only when cancelled. Raises SetBack.

        The pauses between grow until a watch has brought something: an API server, or a proxy before it, that
        ends every watch at once is not asked all the time.
        """
        pause = FIRST_PAUSE_SECONDS
        loop = asyncio.get_running_loop()
        while True:
            self._heard = False
            try:
                self._version = self._version or await self.relist()
                began = loop.time()
                await self._watch()
                lasted = loop.time() - began >= SHORTEST_WATCH_SECONDS
            except SetBack:
                raise
            except Exception as error:  # noqa: BLE001 - whatever one kind does, the others go on
                self._failed(error)
                lasted = False
            if self._heard:
                pause = FIRST_PAUSE_SECONDS
            if not lasted:
                await self._sleep(pause * random.uniform(0.8, 1.2))
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _failed(self, error: Exception) -> None:
        if isinstance(error, Expired):
            self._version = ""
            return
        self.problem = str(error) or type(error).__name__
        if isinstance(error, (Unavailable, Refused, Conflict, LookupError)) and not isinstance(
            error, KeyError
        ):
            logger.warning("watch of %s: %s", self.kind.plural, error)
            return
        logger.error("watch of %s: an answer that makes no sense (%r); listing anew", self.kind.plural, error)
        self._version = ""

    async def relist(self) -> str:
        """List all objects, take them in, forget what is not there any more; return the list's version.

        Raises SetBack where that is older than what was seen before.
        """
        present: set[str] = set()
        before = {item.uid: item for item in self._seen.present(self.kind.kind)}
        # Asked for from here on: a watch beside it may be ahead of the list by the time that this is here.
        newest, version = self._newest, ""
        async for page, listed_at in pages(self._client, self.kind):
            version = listed_at
            self._check_not_set_back(int(version), newest)
            async for item in _by_turns(page):
                present.add(item["metadata"]["uid"])
                take_in(self._seen, item)
        for uid, known in before.items():
            if uid not in present:
                # One that was written after the list was made is not gone.
                self._seen.gone(known.kind, known.namespace, known.name, uid, int(version))
        self.problem = ""
        self.synced.set()
        return version

    def _check_not_set_back(self, version: int, newest: int) -> None:
        """Raise SetBack for a list that is older than what was seen before: an API server never answers with one."""
        if version < newest:
            raise SetBack(
                f"the API server was set back to an older state: {self.kind.plural} were at version {newest} "
                f"and are at {version}"
            )
        self._newest = max(self._newest, version)

    async def _watch(self) -> None:
        query: dict[str, Any] = {
            "watch": "true",
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": random.randint(SERVER_TIMEOUT_SECONDS, SERVER_TIMEOUT_SECONDS + 60),
            **self.kind.selectors,
        }
        async with self._client.stream(self.kind.path(), query, IDLE_SECONDS) as events:
            async for event in events:
                self._take(event)

    def _take(self, event: dict[str, Any]) -> None:
        what, item = event["type"], event["object"]
        if what == "ERROR":
            if item.get("code") == 410:
                raise Expired(str(item.get("message")))
            raise Unavailable(str(item.get("message")))
        metadata = item["metadata"]
        version = int(metadata["resourceVersion"])
        item["kind"] = self.kind.kind
        if what == "DELETED":
            namespace, uid = metadata.get("namespace", ""), metadata["uid"]
            self._seen.gone(self.kind.kind, namespace, metadata["name"], uid, version)
        elif what != "BOOKMARK":
            take_in(self._seen, item)
        self._version, self._heard, self.problem = str(version), True, ""
        self._newest = max(self._newest, version)


def take_in(seen: Seen, item: dict[str, Any]) -> None:
    """Show an object to `seen`; one that it cannot read is left out, with a line in the log."""
    try:
        seen.saw(item)
    except Exception as error:  # one bad object must not hide the others of its kind
        metadata = item.get("metadata", {})
        where = "/".join(part for part in (metadata.get("namespace"), metadata.get("name")) if part)
        logger.error("%s %s is left out: %s: %s", item.get("kind"), where, type(error).__name__, error)
        logger.debug("Traceback of what is left out", exc_info=True)


async def _by_turns(page: list[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    """Yield objects and now and then to others: a dozen lists at once would keep the Lease from being renewed."""
    for number, item in enumerate(page):
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)
        yield item


async def pages(client: Client, kind: Kind) -> AsyncIterator[tuple[list[dict[str, Any]], str]]:
    """Yield (items, resourceVersion of the list) page by page, each item with its kind."""
    query: dict[str, Any] = {"limit": kind.page, **kind.selectors}
    while True:
        answer = await client.send("GET", kind.path(), query=query)
        items, metadata = answer.get("items") or [], answer.get("metadata") or {}
        if "resourceVersion" not in metadata:
            raise Unavailable(f"the list of {kind.plural} makes no sense: is a proxy before the API server?")
        for item in items:
            item["kind"], item["apiVersion"] = kind.kind, kind.api_version
        yield items, str(metadata["resourceVersion"])
        following = metadata.get("continue")
        if not following:
            return
        query["continue"] = following


async def list_own(client: Client, kind: Kind, seen: Seen) -> int:
    """List one of our own kinds into `seen` and forget what is gone; return how many there are."""
    present: dict[str, str] = {}
    listed = 0
    async for page, version in pages(client, kind):
        listed = int(version)
        async for item in _by_turns(page):
            present[item["metadata"]["name"]] = item["metadata"]["uid"]
            take_in(seen, item)
    seen.forget_missing(kind.kind, present, listed)
    return len(present)
