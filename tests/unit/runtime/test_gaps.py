"""What was deleted between our own list of a kind and Kopf's is found out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web
from tests.unit.kubernetes.fake_api import failure, listed, served
from tests.unit.kubernetes.test_seen import manifest

from tenantry.adapters.kubernetes.kinds import OWN_KINDS
from tenantry.adapters.kubernetes.seen import Seen
from tenantry.runtime.listing import Gaps


class Server:
    """Lists what is there; refuses the first lists."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.items: dict[str, list[dict[str, Any]]] = {}
        self.lists: asyncio.Queue[str] = asyncio.Queue()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        plural = request.path.rpartition("/")[2]
        if self.failures:
            self.failures -= 1
            return failure(503, "starting")
        self.lists.put_nowait(plural)
        return listed(self.items.get(plural, []), 50)


@pytest.mark.parametrize("failures", [0, 7])
async def test_a_tenant_that_left_before_kopf_listed_is_forgotten(failures: int) -> None:
    gone = asyncio.Event()
    seen = Seen("free", lambda *_: None if seen.tenants() else gone.set())
    seen.saw(manifest("Tenant", "acme", "a", 40))
    server, ready = Server(failures), asyncio.Event()
    async with served(server) as client, asyncio.timeout(60):
        task = asyncio.create_task(Gaps(client, seen, 0.01).run(ready))
        ready.set()
        await gone.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert seen.tenants() == []


async def test_a_list_of_many_objects_is_followed_by_one() -> None:
    seen = Seen("free", lambda *_: None)
    server, ready = Server(), asyncio.Event()
    async with served(server) as client, asyncio.timeout(60):
        gaps = Gaps(client, seen, 0.1)
        task = asyncio.create_task(gaps.run(ready))
        for _ in range(100):
            gaps.listed("Tenant")
            await asyncio.sleep(0)
        ready.set()
        assert {await server.lists.get() for _ in OWN_KINDS} == {kind.plural for kind in OWN_KINDS}
        gaps.listed("Plan")  # as after a 410
        assert await server.lists.get() == "plans"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
