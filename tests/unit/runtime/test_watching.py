"""What Kopf would make of nonsense, and of its own tracebacks."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import aiohttp
import pytest
from aiohttp import web
from multidict import CIMultiDict
from tests.unit.kubernetes.fake_api import served
from yarl import URL

from tenantry import cli
from tenantry.runtime import connecting, watching

ANSWERS = (
    {"text": "<html>Please log in</html>", "content_type": "text/html"},
    {"text": '{"resources": [{"na', "content_type": "application/json"},
    {"text": "{}", "content_type": "application/json"},
    {"text": "[]", "content_type": "application/json"},
    {"text": '{"resources": [{"name": "tenants"}]}', "content_type": "application/json"},
)


def _group(name: str, version: str) -> dict[str, object]:
    found = {"version": version, "groupVersion": f"{name}/{version}"}
    return {"name": name, "versions": [found], "preferredVersion": found}


def _resource(plural: str) -> dict[str, object]:
    verbs = ["list", "watch", "get", "patch"]
    return {"name": plural, "kind": plural.title(), "singularName": "", "namespaced": False, "verbs": verbs}


API = f"/apis/{watching.GROUP}/{watching.VERSION}"
CRDS = "apiextensions.k8s.io"
DISCOVERY: dict[str, dict[str, object]] = {
    "/api": {"versions": ["v1"]},
    "/api/v1": {"resources": [_resource("namespaces")]},
    "/apis": {"groups": [_group(CRDS, "v1"), _group(watching.GROUP, watching.VERSION)]},
    f"/apis/{CRDS}/v1": {"resources": [_resource("customresourcedefinitions")]},
    API: {"resources": [_resource("plans"), _resource("tenants")]},
}


@pytest.fixture
def levels() -> Iterator[None]:
    """The levels of Kopf's loggers as they are in a fresh process, and were before."""
    loggers = [logging.getLogger(name) for name in ("kopf", "kopf._core.reactor")]
    before = [log.level for log in loggers]
    for log in loggers:
        log.setLevel(logging.NOTSET)
    yield
    for log, level in zip(loggers, before, strict=True):
        log.setLevel(level)


async def test_kopf_is_not_asked_to_start_before_the_kinds_are_told_sensibly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watching, "DISCOVERY_PAUSE_SECONDS", 0.01)
    left = list(ANSWERS)

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(**left.pop(0))

    async with served(answer) as client, asyncio.timeout(60):
        assert await watching._await_discovery(client.configuration, ("tenants",), asyncio.Event())
    assert left == []


async def test_watches_that_end_at_once_are_begun_ever_more_seldom() -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    pace = connecting.Pace(sleep)
    async with aiohttp.ClientSession() as session:

        async def begin(query: str) -> None:
            asked = aiohttp.TraceRequestStartParams("GET", URL(f"http://api/tenants{query}"), CIMultiDict())
            await pace(session, None, asked)

        for _ in range(9):
            await begin("?watch=true")
            await begin("")
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15.0])


async def test_kopf_does_not_spin_where_every_watch_ends_at_once() -> None:
    asked = 0

    async def answer(_: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return web.Response(text="")

    async with served(answer) as client:
        credentials = await connecting.credentials(client.configuration)
        session = connecting.session(credentials, connecting.Pace()).aiohttp_session
        with suppress(TimeoutError):
            async with asyncio.timeout(1), session:
                while True:
                    await session.get(f"{client.configuration.host}/tenants?watch=true")
    assert 1 <= asked <= 4


async def test_a_watch_that_is_held_back_while_its_login_ends_asks_for_the_next_one() -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(text="")

    async def refused(_: float) -> None:
        await session.close()

    async with served(answer) as client:
        credentials = await connecting.credentials(client.configuration)
        session = connecting.session(credentials, connecting.Pace(refused)).aiohttp_session
        url = f"{client.configuration.host}/tenants?watch=true"
        async with session.get(url):
            pass
        # What Kopf takes for that, and by another error it would end: see kopf._cogs.clients.api.request.
        with pytest.raises(RuntimeError, match="Session is closed"):
            await session.get(url)


@pytest.mark.parametrize("read", [aiohttp.ClientResponse.json, aiohttp.ClientResponse.text])
async def test_half_an_answer_is_an_error_of_the_connection(
    read: Callable[[aiohttp.ClientResponse], Awaitable[object]],
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=401, headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b'{"kind": "Sta')
        assert request.transport is not None
        request.transport.close()
        return response

    async with served(answer) as client:
        credentials = await connecting.credentials(client.configuration)
        async with connecting.session(credentials, connecting.Pace()).aiohttp_session as session:
            response = await session.get(f"{client.configuration.host}/tenants")
            with suppress(aiohttp.ClientConnectionError):
                assert await getattr(response, read.__name__)() == ""


async def test_kopf_ends_though_a_watch_that_begins_forgets_that_it_was_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The one of Plans is no JSON, by which Kopf ends; that of Tenants gets no answer."""
    monkeypatch.setattr(watching, "END_SECONDS", 6.0)  # Kopf cancels it after five
    waits, never = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path in DISCOVERY:
            return web.json_response(DISCOVERY[request.path])
        if "watch" not in request.query:
            return web.json_response({"items": [], "metadata": {"resourceVersion": "1"}})
        if request.path.endswith("tenants"):
            waits.set()
            await never.wait()
        await waits.wait()
        return web.Response(text="no JSON\n")

    async with served(answer) as client, asyncio.timeout(60):
        task = watching.watch_kinds(
            client.configuration, lambda *_: None, stop=asyncio.Event(), kinds=("plans", "tenants")
        )
        with pytest.raises(watching.WatchStopped, match=r"^watching the API server ended: Expecting value"):
            await task
    for thread in threading.enumerate():
        if thread.name == "kopf":
            thread.join(60)
            assert not thread.is_alive()


def test_what_ends_kopf_is_told_in_a_line_and_not_by_its_tracebacks(levels: None) -> None:
    cli._log("INFO")
    watching._quiet_kopf()
    assert not logging.getLogger("kopf._core.reactor.running").isEnabledFor(logging.ERROR)
    assert logging.getLogger("kopf._cogs.clients.watching").isEnabledFor(logging.WARNING)
