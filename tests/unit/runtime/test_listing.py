"""The first list and the ones after it, where some kinds cannot be listed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from tests.unit.kubernetes.fake_api import failure, listed, served, watched

from tenantry.adapters.kubernetes.kinds import CHILD_KINDS, OWN_KINDS
from tenantry.adapters.kubernetes.reflector import Reflector
from tenantry.adapters.kubernetes.seen import Seen
from tenantry.runtime.listing import Listing

ALL = {kind.plural for kind in (*OWN_KINDS, *CHILD_KINDS)}


@dataclass
class Server:
    """Serves empty lists, but refuses some kinds."""

    refused: set[str]
    lists: list[str] = field(default_factory=list)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        plural = request.path.rpartition("/")[2]
        if plural in self.refused:
            return failure(403, f"{plural} is forbidden")
        if "watch" in request.query:
            response = await watched(request, [])
            await asyncio.Event().wait()
            return response
        self.lists.append(plural)
        return listed([], 5)


@asynccontextmanager
async def listing(server: Server, grace: float) -> AsyncIterator[Listing]:
    async with served(server) as client, asyncio.timeout(60):
        seen = Seen("free", lambda *_: None)
        reflectors = [Reflector(client, kind, seen) for kind in CHILD_KINDS]
        tasks = [asyncio.create_task(reflector.run()) for reflector in reflectors]
        try:
            yield Listing(client, seen, reflectors, grace)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_everything_is_listed_before_anything_is_reconciled() -> None:
    server = Server(set())
    async with listing(server, 5) as lists:
        await lists.first()
    assert set(server.lists) == ALL
    assert lists.waits_for == ""


@pytest.mark.parametrize("plural", ["namespaces", "rolebindings", "controllerrevisions", "plans"])
async def test_a_kind_that_cannot_be_listed_is_named_and_waited_for(
    plural: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server({plural})
    async with listing(server, 0) as lists:
        first = asyncio.create_task(lists.first())
        while not (f"{plural} is forbidden" in lists.waits_for and f"{plural} is forbidden" in caplog.text):
            assert not first.done(), "what is not seen is not absent"
            await asyncio.sleep(0.01)
        server.refused.clear()
        await first
    assert lists.waits_for == ""


async def test_cluster_roles_are_waited_for_a_while_only(caplog: pytest.LogCaptureFixture) -> None:
    async with listing(Server({"clusterroles"}), 0.2) as lists:
        with caplog.at_level(logging.WARNING):
            await lists.first()
        assert "Goes on without clusterroles (clusterroles is forbidden)" in caplog.text
        assert await lists.again(), "nor does it keep the probe from being content"


@pytest.mark.parametrize("plural", sorted(ALL - {"clusterroles"}))
async def test_one_kind_that_fails_does_not_keep_the_others_from_being_listed_again(plural: str) -> None:
    server = Server(set())
    async with listing(server, 5) as lists:
        await lists.first()
        server.refused.add(plural)
        server.lists.clear()
        assert not await lists.again()
        assert set(server.lists) >= ALL - {plural}
        server.refused.clear()
        assert await lists.again()
