"""Lists and watches of the children: what client-go calls a reflector.

Kopf watches our own kinds. For children it would keep a memory for each of 160,000 objects and never learn of
one that was deleted while a watch was interrupted; here a list after each interruption is compared with what
was known, so nothing is missed, and what is kept of an object is a fingerprint.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from typing import Any

from tenantry.adapters.kubernetes.client import Client, Expired
from tenantry.adapters.kubernetes.kinds import Kind
from tenantry.adapters.kubernetes.seen import Seen
from tenantry.reconcile.ports import Conflict, Refused, Unavailable

logger = logging.getLogger(__name__)

PAGE = 500
SERVER_TIMEOUT_SECONDS = 290
IDLE_SECONDS = 75.0
"""The API server sends a bookmark each minute: a longer silence is a dead connection."""

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 15.0


class Reflector:
    """Keeps one kind of child in `Seen` up to date. `synced` is set after the first whole list."""

    def __init__(self, client: Client, kind: Kind, seen: Seen) -> None:
        self._client = client
        self._kind = kind
        self._seen = seen
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """List, watch, and begin again whenever the watch ends; returns only when cancelled."""
        pause = FIRST_PAUSE_SECONDS
        version = ""
        while True:
            try:
                version = version or await self.relist()
                pause = FIRST_PAUSE_SECONDS
                version = await self._watch(version)
                continue
            except Expired:
                version = ""
            except (Unavailable, Refused, Conflict, LookupError) as error:
                logger.warning("watch of %s: %s", self._kind.plural, error)
            except (KeyError, ValueError) as error:
                logger.error(
                    "watch of %s: an event that makes no sense (%r); listing anew", self._kind.plural, error
                )
                version = ""
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def relist(self) -> str:
        """List all objects, take them in, forget what is not there any more; return the list's version."""
        present: set[str] = set()
        before = {item.uid: item for item in self._seen.present(self._kind.kind)}
        version = ""
        async for page, listed_at in pages(self._client, self._kind):
            version = listed_at
            for item in page:
                present.add(item["metadata"]["uid"])
                self._seen.saw(item)
        for uid, known in before.items():
            if uid not in present:
                # One that was written after the list was made is not gone.
                self._seen.gone(known.kind, known.namespace, known.name, uid, int(version))
        self.synced.set()
        return version

    async def _watch(self, version: str) -> str:
        query: dict[str, Any] = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": random.randint(SERVER_TIMEOUT_SECONDS, SERVER_TIMEOUT_SECONDS + 60),
        }
        if self._kind.selector:
            query["labelSelector"] = self._kind.selector
        async with self._client.stream(self._kind.path(), query, IDLE_SECONDS) as events:
            async for event in events:
                version = self._take(event, version)
        return version

    def _take(self, event: dict[str, Any], version: str) -> str:
        what, item = event["type"], event["object"]
        if what == "ERROR":
            if item.get("code") == 410:
                raise Expired(str(item.get("message")))
            raise Unavailable(str(item.get("message")))
        metadata = item["metadata"]
        version = str(metadata["resourceVersion"])
        if what == "BOOKMARK":
            return version
        item["kind"] = self._kind.kind
        if what == "DELETED":
            namespace, uid = metadata.get("namespace", ""), metadata["uid"]
            self._seen.gone(self._kind.kind, namespace, metadata["name"], uid, int(version))
        else:
            self._seen.saw(item)
        return version


async def pages(client: Client, kind: Kind) -> AsyncIterator[tuple[list[dict[str, Any]], str]]:
    """Yield (items, resourceVersion of the list) page by page, each item with its kind."""
    query: dict[str, Any] = {"limit": PAGE}
    if kind.selector:
        query["labelSelector"] = kind.selector
    while True:
        answer = await client.send("GET", kind.path(), query=query)
        items = answer.get("items") or []
        for item in items:
            item["kind"], item["apiVersion"] = kind.kind, kind.api_version
        yield items, str(answer["metadata"]["resourceVersion"])
        following = answer["metadata"].get("continue")
        if not following:
            return
        query["continue"] = following


async def list_own(client: Client, kind: Kind, seen: Seen) -> int:
    """List one of our own kinds into `seen` and forget what is gone; return how many there are."""
    present: dict[str, str] = {}
    listed = 0
    async for page, version in pages(client, kind):
        listed = int(version)
        for item in page:
            present[item["metadata"]["name"]] = item["metadata"]["uid"]
            seen.saw(item)
    seen.forget_missing(kind.kind, present, listed)
    return len(present)
