"""What Kopf would make of nonsense, and of its own tracebacks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress

import aiohttp
import pytest
from aiohttp import web
from multidict import CIMultiDict
from tests.unit.kubernetes.fake_api import served
from yarl import URL

from tenantry import cli
from tenantry.runtime import watching

ANSWERS = (
    {"text": "<html>Please log in</html>", "content_type": "text/html"},
    {"text": '{"resources": [{"na', "content_type": "application/json"},
    {"text": "{}", "content_type": "application/json"},
    {"text": "[]", "content_type": "application/json"},
    {"text": '{"resources": [{"name": "tenants"}]}', "content_type": "application/json"},
)


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

    async with served(answer) as client, asyncio.timeout(10):
        assert await watching._await_discovery(client.configuration, ("tenants",), asyncio.Event())
    assert left == []


async def test_watches_that_end_at_once_are_begun_ever_more_seldom() -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def begin(pace: watching._Pace, query: str = "?watch=true") -> None:
        asked = aiohttp.TraceRequestStartParams("GET", URL(f"http://api/tenants{query}"), CIMultiDict())
        await pace(None, None, asked)

    pace = watching._Pace(sleep)
    for _ in range(9):
        await begin(pace)
        await begin(pace, "")
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15.0])


async def test_kopf_does_not_spin_where_every_watch_ends_at_once() -> None:
    asked = 0

    async def answer(_: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return web.Response(text="")

    async with served(answer) as client:
        credentials = await watching._credentials(client.configuration)
        session = watching._session(credentials, watching._Pace()).aiohttp_session
        with suppress(TimeoutError):
            async with asyncio.timeout(1), session:
                while True:
                    await session.get(f"{client.configuration.host}/tenants?watch=true")
    assert 2 <= asked <= 4


def test_what_ends_kopf_is_told_in_a_line_and_not_by_its_tracebacks(levels: None) -> None:
    cli._log("INFO")
    watching._quiet_kopf()
    assert not logging.getLogger("kopf._core.reactor.running").isEnabledFor(logging.ERROR)
    assert logging.getLogger("kopf._cogs.clients.watching").isEnabledFor(logging.WARNING)
