"""Watches of one namespace, so that a test sees every child as it changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from tenantry.adapters.kubernetes.client import Client, Expired
from tenantry.adapters.kubernetes.kinds import CHILD_KINDS, KINDS, Kind
from tests.integration.conftest import PATIENCE_SECONDS

Object = dict[str, Any]
Key = tuple[str, str]
"""Kind and name."""

NAMESPACED = tuple(kind.kind for kind in CHILD_KINDS if kind.namespaced)


class Mirror:
    """The objects of some kinds in one namespace, as they are now."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._changed = asyncio.Condition()
        self.objects: dict[Key, Object] = {}

    async def until(self, holds: Callable[[dict[Key, Object]], Any], what: str) -> Any:
        """Wait until something holds of the objects; return what it returned."""
        async with self._changed:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while not (found := holds(self.objects)):
                        await self._changed.wait()
                    return found
            except TimeoutError:
                raise AssertionError(f"not within {PATIENCE_SECONDS:g} s: {what}") from None

    async def follow(self, kind: Kind, listed: asyncio.Event) -> None:
        """List and watch one kind until cancelled."""
        path = kind.path(namespace=self._namespace)
        answer = await self._client.send("GET", path)
        for item in answer["items"]:
            self.objects[kind.kind, item["metadata"]["name"]] = item
        listed.set()
        version = answer["metadata"]["resourceVersion"]
        while True:
            async with self._client.stream(
                path, {"watch": "true", "resourceVersion": version}, 600
            ) as events:
                async for event in events:
                    if event["type"] == "ERROR":
                        raise Expired(str(event))
                    version = event["object"]["metadata"]["resourceVersion"]
                    await self._take(kind.kind, event)

    async def _take(self, kind: str, event: Object) -> None:
        item = event["object"]
        async with self._changed:
            if event["type"] == "DELETED":
                self.objects.pop((kind, item["metadata"]["name"]), None)
            else:
                self.objects[kind, item["metadata"]["name"]] = item
            self._changed.notify_all()


@asynccontextmanager
async def mirror(client: Client, namespace: str, kinds: Iterable[str] = NAMESPACED) -> AsyncIterator[Mirror]:
    """Watch kinds of objects in a namespace; on entry everything is listed."""
    seen = Mirror(client, namespace)
    tasks: list[asyncio.Task[None]] = []
    try:
        for kind in kinds:
            listed = asyncio.Event()
            tasks.append(asyncio.create_task(seen.follow(KINDS[kind], listed)))
            await listed.wait()
        yield seen
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
