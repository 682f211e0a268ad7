"""Events: nobody waits for them, they come in the order of time, and what repeats is counted."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web

from tenantry.adapters.kubernetes import events as sending
from tenantry.adapters.kubernetes.client import Client
from tenantry.adapters.kubernetes.objects import ApiObjects
from tests.unit.kubernetes.fake_api import failure, served

ABOUT = {"apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "x", "uid": "u"}}


class Events:
    """Keeps Events; holds them back until it is told to take them, and refuses the first ones."""

    def __init__(self, refused: int = 0) -> None:
        self.open = asyncio.Event()
        self.refused = refused
        self.got: list[str] = []
        self.stored: dict[str, dict[str, Any]] = {}

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        event = await request.json()
        await self.open.wait()
        if self.refused:
            self.refused -= 1
            return failure(429, "too many requests")
        if request.method == "PATCH":
            name = request.path.rpartition("/")[2]
            if name not in self.stored:
                return failure(404, "not found")
            self.stored[name] |= event
        else:
            self.got.append(event["reason"])
            self.stored[event["metadata"]["name"]] = event
        return web.json_response({})

    def shown(self) -> list[tuple[str, int]]:
        """Return message and count of each Event, in the order in which kubectl shows those of one second."""
        return [(event["message"], event["count"]) for _, event in sorted(self.stored.items())]


def writer(client: Client, leads: bool = True) -> ApiObjects:
    return ApiObjects(client, lambda: leads, lambda _: None, lambda *_: None)


async def test_nobody_waits_for_an_event_but_the_end() -> None:
    server = Events()
    async with served(server) as client, asyncio.timeout(60):
        objects = writer(client)
        for reason in "abc":
            await objects.emit(ABOUT, reason, "message")
        assert server.got == []
        server.open.set()
        await objects.drain(60)
        assert sorted(server.got) == ["a", "b", "c"]
        await objects.drain(60)


async def test_an_event_is_sent_once_and_a_refusal_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    server = Events(refused=1)
    server.open.set()
    async with served(server) as client, asyncio.timeout(60):
        objects = writer(client)
        await objects.emit(ABOUT, "a", "message")
        await objects.drain(60)
    assert server.got == []
    assert re.search("no Event a about x: .* with 429: too many requests", caplog.text)


async def test_events_do_not_pile_up_nor_keep_a_process_from_stopping(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sending, "MOST_WAITING", 2)
    server = Events()
    async with served(server) as client, asyncio.timeout(60):
        objects = writer(client)
        for reason in "abc":
            await objects.emit(ABOUT, reason, "message")
        assert "no Event c about x: too many wait already" in caplog.text
        await objects.drain(0.01)
        server.open.set()
        await objects.emit(ABOUT, "d", "message")
        await objects.drain(60)
        assert server.got[-1] == "d"


async def test_a_process_without_the_lease_sends_no_events() -> None:
    server = Events()
    server.open.set()
    async with served(server) as client:
        objects = writer(client, leads=False)
        await objects.emit(ABOUT, "a", "message")
        await objects.drain(60)
    assert server.got == []


async def test_an_event_that_comes_again_is_counted() -> None:
    server = Events()
    server.open.set()
    async with served(server) as client, asyncio.timeout(60):
        objects = writer(client)
        for _ in range(3):
            await objects.emit(ABOUT, "Repaired", "put back")
            await objects.drain(60)
        await objects.emit(ABOUT, "Repaired", "put back another")
        await objects.emit({**ABOUT, "metadata": {"name": "x", "uid": "later"}}, "Repaired", "put back")
        await objects.drain(60)
    assert server.shown() == [("put back", 3), ("put back another", 1), ("put back", 1)]


async def test_events_that_come_while_one_is_on_its_way_are_told_with_the_next() -> None:
    server = Events()
    async with served(server) as client, asyncio.timeout(60):
        objects = writer(client)
        for _ in range(300):
            await objects.emit(ABOUT, "Repaired", "put back")
        server.open.set()
        await objects.drain(60)
    assert server.shown() == [("put back", 300)]


async def test_an_event_that_was_refused_is_told_with_the_next() -> None:
    server = Events(refused=1)
    server.open.set()
    async with served(server) as client, asyncio.timeout(60):
        objects = writer(client)
        for _ in range(2):
            await objects.emit(ABOUT, "Repaired", "put back")
            await objects.drain(60)
    assert server.shown() == [("put back", 2)]


async def test_an_event_that_the_api_server_has_forgotten_is_sent_anew() -> None:
    server = Events()
    server.open.set()
    async with served(server) as client, asyncio.timeout(60):
        objects = writer(client)
        await objects.emit(ABOUT, "Repaired", "put back")
        await objects.drain(60)
        server.stored.clear()
        await objects.emit(ABOUT, "Repaired", "put back")
        await objects.drain(60)
    assert server.shown() == [("put back", 2)]


async def test_what_comes_after_a_pause_is_another_event(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Events()
    server.open.set()
    async with served(server) as client, asyncio.timeout(60):
        objects = writer(client)
        await objects.emit(ABOUT, "Repaired", "put back")
        await objects.drain(60)
        monkeypatch.setattr(sending, "SERIES", timedelta(0))
        await objects.emit(ABOUT, "Repaired", "put back")
        await objects.drain(60)
    assert server.shown() == [("put back", 1), ("put back", 1)]


async def test_many_events_that_are_alike_become_one() -> None:
    server = Events()
    server.open.set()
    async with served(server) as client, asyncio.timeout(60):
        objects = writer(client)
        for number in range(1, 16):
            await objects.emit(ABOUT, "ConfigChanged", f"revision {number}")
        await objects.emit(ABOUT, "SpecChanged", "spec.plan changed")
        await objects.emit(ABOUT, "ConfigChanged", "revision 3")
        await objects.drain(60)
    singles = [(f"revision {number}", 2 if number == 3 else 1) for number in range(1, 11)]
    combined = ("(combined from similar events): revision 15", 5)
    assert server.shown() == [*singles, combined, ("spec.plan changed", 1)]


async def test_of_many_objects_only_the_latest_events_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "REMEMBERED", 2)
    server = Events()
    server.open.set()
    async with served(server) as client, asyncio.timeout(60):
        objects = writer(client)
        for reason in "abca":
            await objects.emit(ABOUT, reason, "message")
            await objects.drain(60)
    assert server.got == ["a", "b", "c", "a"]
