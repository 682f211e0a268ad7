"""A client that watches tenants, their configuration and their policies, and tells when something happened."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from tenantry.adapters.kubernetes.client import Client, Expired
from tenantry.adapters.kubernetes.kinds import KINDS
from tenantry.reconcile.ports import Unavailable
from tests.integration.conftest import Api

Object = dict[str, Any]
Key = tuple[str, str, str]


class Bench:
    """The API, and the latest version of every watched object with the moment in which it arrived."""

    KINDS = ("Tenant", "ConfigMap", "NetworkPolicy", "ResourceQuota")

    def __init__(self, api: Api, client: Client) -> None:
        self.api = api
        self.client = client
        self._latest: dict[Key, Object | None] = {}
        self._waiters: dict[Key, list[tuple[Callable[[Object | None], bool], asyncio.Future[float]]]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, kinds: Iterable[str] = KINDS) -> None:
        """Begin to watch."""
        self._tasks = [asyncio.create_task(self._watch(kind)) for kind in kinds]

    async def stop(self) -> None:
        """Watch no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def arrival(
        self, kind: str, name: str, holds: Callable[[Object | None], bool], namespace: str = ""
    ) -> asyncio.Future[float]:
        """Return a future with the moment in which a version arrives that `holds`; ask before you write."""
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault((kind, namespace, name), []).append((holds, future))
        return future

    async def _watch(self, kind: str) -> None:
        version = ""
        while True:
            try:
                version = await self._stream(kind, version)
            except (Expired, Unavailable):
                version = ""

    async def _stream(self, kind: str, version: str) -> str:
        if not version:
            answer = await self.client.send("GET", KINDS[kind].path())
            for item in answer["items"]:
                self._arrived(kind, "ADDED", item)
            version = answer["metadata"]["resourceVersion"]
        query = {"watch": "true", "resourceVersion": version}
        async with self.client.stream(KINDS[kind].path(), query, 300) as events:
            async for event in events:
                if event["type"] == "ERROR":
                    raise Expired(json.dumps(event["object"]))
                version = event["object"]["metadata"]["resourceVersion"]
                self._arrived(kind, event["type"], event["object"])
        return version

    def _arrived(self, kind: str, what: str, item: Object) -> None:
        now = time.monotonic()
        metadata = item["metadata"]
        key = (kind, metadata.get("namespace", ""), metadata["name"])
        present = None if what == "DELETED" else item
        left = []
        for holds, future in self._waiters.pop(key, []):
            if not future.done() and holds(present):
                future.set_result(now)
            elif not future.done():
                left.append((holds, future))
        if left:
            self._waiters[key] = left
