"""A reflector against an API server that misbehaves: it neither spins nor goes blind."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from tenantry.adapters.kubernetes import reflector
from tenantry.adapters.kubernetes.client import Client
from tenantry.adapters.kubernetes.kinds import KINDS
from tenantry.adapters.kubernetes.reflector import FIRST_PAUSE_SECONDS, Reflector, SetBack, list_own, pages
from tenantry.adapters.kubernetes.seen import Seen
from tenantry.reconcile.ports import Unavailable
from tests.unit.kubernetes.fake_api import failure, listed, served, watched

CONFIG_MAP = KINDS["ConfigMap"]


def config_map(name: str, version: int, **metadata: Any) -> dict[str, Any]:
    identity = {"name": name, "namespace": "n", "uid": f"uid-{name}", "resourceVersion": str(version)}
    return {"metadata": {**identity, **metadata}, "data": {}}


def broken(name: str, version: int) -> dict[str, Any]:
    return config_map(name, version, labels="not a map")


class Pauses:
    """Sleeps for no time, and notes how long it was asked for; for ever after enough."""

    def __init__(self, enough: int) -> None:
        self.seconds: list[float] = []
        self.enough = enough
        self.done = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if len(self.seconds) >= self.enough:
            self.done.set()
            await asyncio.Event().wait()


class Server:
    """Lists nothing, and answers watches as a test says."""

    def __init__(self, watch: Callable[[web.Request, int], Awaitable[web.StreamResponse]]) -> None:
        self.watch = watch
        self.lists = 0
        self.watches: list[str] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            self.lists += 1
            return listed([], 5)
        self.watches.append(request.query["resourceVersion"])
        return await self.watch(request, len(self.watches))


def new_seen() -> Seen:
    return Seen("free", lambda *_: None)


async def pauses_of(server: Server, enough: int) -> list[float]:
    """Run a reflector until it has paused so often; return how long each time, in multiples of the first.

    Pauses are spread by a fifth, so what is returned is rounded to powers of two.
    """
    pauses = Pauses(enough)
    async with served(server) as client, asyncio.timeout(60):
        task = asyncio.create_task(Reflector(client, CONFIG_MAP, new_seen(), pauses.sleep).run())
        ended = asyncio.create_task(pauses.done.wait())
        await asyncio.wait([task, ended], return_when=asyncio.FIRST_COMPLETED)
        assert not task.done(), "a reflector never ends by itself"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return [2 ** round(math.log2(seconds / FIRST_PAUSE_SECONDS)) for seconds in pauses.seconds]


@pytest.fixture(autouse=True)
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each watch that is ended at once count as one, however long that took."""
    monkeypatch.setattr(reflector, "SHORTEST_WATCH_SECONDS", 3600.0)


async def test_a_watch_that_always_ends_at_once_is_asked_for_less_and_less() -> None:
    server = Server(lambda request, _: watched(request, []))
    assert await pauses_of(server, 9) == [1, 2, 4, 8, 16, 32, 64, 64, 64]
    assert server.watches == ["5"] * 9
    assert server.lists == 1


@pytest.mark.parametrize("code", [403, 429, 500, 410])
async def test_the_pause_grows_while_lists_work_and_watches_fail(
    code: int,
) -> None:
    async def refused(_request: web.Request, _number: int) -> web.StreamResponse:
        return failure(code, "no")

    server = Server(refused)
    assert await pauses_of(server, 4) == [1, 2, 4, 8]
    assert server.lists == (4 if code == 410 else 1)


async def test_a_watch_that_brought_something_begins_again_soon_and_where_it_was() -> None:
    async def sometimes(request: web.Request, number: int) -> web.StreamResponse:
        bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}
        gone = {"type": "ERROR", "object": {"code": 500, "message": "etcd is away"}}
        return await watched(request, [bookmark, gone] if number == 3 else [])

    server = Server(sometimes)
    assert await pauses_of(server, 5) == [1, 2, 1, 2, 4]
    assert server.watches == ["5", "5", "5", "9", "9"]


async def run_until(client: Client, seen: Seen, condition: Callable[[], bool]) -> None:
    task = asyncio.create_task(Reflector(client, CONFIG_MAP, seen).run())
    async with asyncio.timeout(60):
        while not condition():
            assert not task.done(), "a reflector never ends by itself"
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def known(seen: Seen) -> set[str]:
    return {key.name for key in seen.children("n")}


async def test_one_bad_object_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return listed([config_map("a", 1), broken("bad", 2), config_map("b", 3)], 5)
        items = [broken("worse", 6), config_map("c", 7)]
        return await watched(request, [{"type": "ADDED", "object": item} for item in items])

    seen = new_seen()
    with caplog.at_level(logging.ERROR):
        async with served(answer) as client:
            await run_until(client, seen, lambda: known(seen) == {"a", "b", "c"})
    lines = [record.getMessage() for record in caplog.records]
    assert sum("ConfigMap n/bad is left out" in line for line in lines) == 1
    assert any("ConfigMap n/worse is left out" in line for line in lines)


async def test_nonsense_in_a_watch_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    lists = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal lists
        if "watch" in request.query:
            return web.Response(text='{"type": "ADDED"}\n')
        lists += 1
        return listed([config_map("a", 1)], 5)

    with caplog.at_level(logging.ERROR):
        async with served(answer) as client:
            await run_until(client, new_seen(), lambda: lists > 1)
    assert "listing anew" in caplog.text


async def test_one_bad_object_of_our_own_hides_no_other() -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        metadata = {"uid": "u", "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"}
        bad = {"metadata": {**metadata, "name": "bad", "creationTimestamp": "never"}, "spec": {}}
        return listed([bad, {"metadata": {**metadata, "name": "good"}, "spec": {}}], 5)

    seen = new_seen()
    async with served(answer) as client:
        assert await list_own(client, KINDS["Tenant"], seen) == 2
    assert seen.tenants() == ["good"]


async def test_an_api_server_that_was_set_back_ends_it() -> None:
    """Restored from a backup: what was seen since is not true, and nothing of it may be acted upon."""
    versions = iter([8, 8, 7])

    async def answer(_: web.Request) -> web.StreamResponse:
        return listed([], next(versions))

    async with served(answer) as client:
        reflector = Reflector(client, CONFIG_MAP, new_seen())
        assert await reflector.relist() == "8"
        assert await reflector.relist() == "8", "nothing has happened since"
        with pytest.raises(SetBack, match="configmaps were at version 8 and are at 7"):
            await reflector.relist()


async def test_what_a_watch_has_told_counts_too() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return listed([], 5)
        gone = {"type": "ERROR", "object": {"code": 410, "message": "too old"}}
        return await watched(request, [{"type": "ADDED", "object": config_map("a", 9)}, gone])

    async with served(answer) as client, asyncio.timeout(60):
        with pytest.raises(SetBack, match="version 9 and are at 5"):
            await Reflector(client, CONFIG_MAP, new_seen(), Pauses(99).sleep).run()


async def test_a_list_that_a_watch_overtakes_is_not_taken_for_one_that_was_set_back() -> None:
    seen = new_seen()
    reflectors: list[Reflector] = []

    async def answer(_: web.Request) -> web.StreamResponse:
        # Between the list's snapshot and its arrival the watch tells of something newer.
        reflectors[0]._take({"type": "ADDED", "object": config_map("a", 9)})
        return listed([], 5)

    async with served(answer) as client:
        reflectors.append(Reflector(client, CONFIG_MAP, seen))
        assert await reflectors[0].relist() == "5"


async def test_an_answer_that_makes_no_sense_is_no_empty_list() -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({})

    async with served(answer) as client:
        seen = Seen("free", lambda *_: None)
        with pytest.raises(Unavailable, match="the list of configmaps makes no sense"):
            await Reflector(client, CONFIG_MAP, seen).relist()


async def test_what_members_fill_is_listed_in_small_pages() -> None:
    asked: dict[str, str] = {}

    async def answer(request: web.Request) -> web.StreamResponse:
        asked[request.path.rpartition("/")[2]] = request.query["limit"]
        return listed([], 5)

    async with served(answer) as client:
        for kind in ("ControllerRevision", "ConfigMap"):
            async for _ in pages(client, KINDS[kind]):
                pass
    largest = 1_500_000
    assert int(asked["controllerrevisions"]) * largest < 100_000_000
    assert int(asked["configmaps"]) >= 500, "only ours are listed, which are small"


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("ConfigMap", {"labelSelector": "app.kubernetes.io/managed-by=tenantry"}),
        (
            "Secret",
            {
                "labelSelector": "app.kubernetes.io/managed-by=tenantry",
                "fieldSelector": "metadata.name=vector-store",
            },
        ),
        ("Namespace", {}),
    ],
)
async def test_lists_and_watches_ask_for_the_same_objects(kind: str, asked: dict[str, str]) -> None:
    queries: list[dict[str, str]] = []
    both = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        queries.append({key: value for key, value in request.query.items() if key.endswith("Selector")})
        if "watch" not in request.query:
            return listed([], 5)
        both.set()
        return await watched(request, [])

    async with served(answer) as client, asyncio.timeout(60):
        task = asyncio.create_task(Reflector(client, KINDS[kind], new_seen()).run())
        await both.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert queries[:2] == [asked, asked]
