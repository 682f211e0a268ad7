"""Requests: the fence of writes, limits of time, and answers that are not what an API server says."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from contextlib import nullcontext

import pytest
import yaml
from aiohttp import web

from tenantry.adapters.kubernetes import client as clients
from tenantry.adapters.kubernetes.objects import ApiObjects
from tenantry.reconcile.ports import Conflict, Refused, Unavailable
from tests.unit.kubernetes.fake_api import failure, served, watched

MANIFEST = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "n"}}
UID = {"uid": "u", "resourceVersion": "1"}


class Server:
    """Is overloaded, and takes the Lease away while it is."""

    def __init__(self) -> None:
        self.leads = True
        self.requests: list[str] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.method)
        self.leads = False
        return failure(429, "too many requests")


async def do(write: str, objects: ApiObjects) -> None:
    if write == "delete":
        await objects.delete("ConfigMap", "x", "n", uid="u")
    elif write == "patch":
        await objects.patch({**MANIFEST, "metadata": {"name": "x", "namespace": "n", **UID}}, {})
    else:
        await getattr(objects, write)(MANIFEST)


@pytest.mark.parametrize("write", ["apply", "create", "apply_status", "replace", "patch", "delete"])
async def test_a_process_that_lost_its_lease_does_not_repeat_a_write(write: str) -> None:
    server = Server()
    async with served(server) as client:
        objects = ApiObjects(client, lambda: server.leads, lambda _: None, lambda *_: None)
        with pytest.raises(Unavailable, match="does not hold the Lease"):
            await do(write, objects)
    assert len(server.requests) == 1


async def test_reads_need_no_lease_and_are_repeated() -> None:
    server = Server()
    async with served(server) as client:
        objects = ApiObjects(client, lambda: False, lambda _: None, lambda *_: None)
        with pytest.raises(Unavailable, match="too many"):
            await objects.get("ConfigMap", "x", "n")
        with pytest.raises(Unavailable, match="Lease"):
            await objects.create(MANIFEST)
    assert server.requests == ["GET"] * 4


async def test_what_ends_a_watch_comes_out_of_it_as_it_is() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return await watched(request, [{"type": "ERROR", "object": {"code": 410}}])

    async def listen(client: clients.Client) -> None:
        async with client.stream("/x", {}, 60) as events:
            async for event in events:
                raise clients.Expired(str(event["object"]["code"]))

    async with served(answer) as client:
        with pytest.raises(clients.Expired, match="410"):
            await listen(client)


@pytest.mark.parametrize(
    ("method", "limit"), [("GET", "READ_TIMEOUT_SECONDS"), ("PUT", "WRITE_TIMEOUT_SECONDS")]
)
async def test_a_request_has_its_own_limit_of_time(
    monkeypatch: pytest.MonkeyPatch, method: str, limit: str
) -> None:
    async def hang(_request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(clients, limit, 0.05)
    async with served(hang) as client, asyncio.timeout(60):
        with pytest.raises(Unavailable, match=f"did not answer {method}"):
            await client.send(method, "/x")
    assert clients.WRITE_TIMEOUT_SECONDS <= 10


class Handing:
    """Holds each write until told, and can break its connection; tells when the fence is asked."""

    def __init__(self) -> None:
        self.leads, self.breaks = True, False
        self.asked, self.answer = asyncio.Event(), asyncio.Event()
        self.requests: list[str] = []

    def holds_lease(self) -> bool:
        self.asked.set()
        return self.leads

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path.rpartition('/')[2]}")
        if self.breaks:
            self.leads = False
            assert request.transport is not None
            request.transport.abort()
        await self.answer.wait()
        return web.json_response(MANIFEST)


async def test_a_write_that_waits_for_a_connection_is_not_sent_after_the_lease_was_lost() -> None:
    server = Handing()
    async with served(server) as client, asyncio.timeout(60):
        configuration = copy.copy(client.configuration)
        configuration.connection_pool_maxsize = 1
        crowded = clients.Client(configuration)
        first = asyncio.create_task(crowded.send("PUT", "/first", body={}))
        second = asyncio.create_task(crowded.send("PUT", "/second", body={}, allowed=server.holds_lease))
        await server.asked.wait()
        server.leads = False
        server.answer.set()
        await first
        with pytest.raises(Unavailable, match="does not hold the Lease"):
            await second
        await crowded.close()
    assert server.requests == ["PUT first"]


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_what_aiohttp_repeats_by_itself_is_not_sent_after_the_lease_was_lost(method: str) -> None:
    server = Handing()
    server.breaks = True
    async with served(server) as client, asyncio.timeout(60):
        with pytest.raises(Unavailable, match="does not hold the Lease"):
            await client.send(method, "/x", body={}, allowed=server.holds_lease)
    assert server.requests == [f"{method} x"]


async def test_a_short_retry_after_is_waited_for_and_a_long_one_is_left_to_the_queue() -> None:
    times: list[float] = []

    async def busy(request: web.Request) -> web.StreamResponse:
        times.append(time.monotonic())
        if len(times) == 2:
            return web.json_response({})
        return web.json_response({"message": "later"}, status=429, headers={"Retry-After": request.path[1:]})

    async with served(busy) as client:
        assert await client.send("GET", "/1") == {}
        assert times[1] - times[0] >= 1
        with pytest.raises(Unavailable, match="answers GET /7 with 429: later") as refused:
            await client.send("GET", "/7")
        assert refused.value.retry_after == 7
        with pytest.raises(Unavailable) as refused:
            await client.send("GET", "/86400")
        assert refused.value.retry_after == clients.LONGEST_RETRY_AFTER_SECONDS
    assert len(times) == 4


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, "<html>log in</html>", "the answer to PUT /x is no JSON object"),
        (200, '{"kind": "Tena', "the answer to PUT /x is no JSON object"),
        (200, "[1]", "the answer to PUT /x is no JSON object"),
        (302, "", "the API server answers PUT /x with 302: no words"),
        (307, "", "the API server answers PUT /x with 307: no words"),
        (401, '{"message": "Unauthorized"}', "the API server answers PUT /x with 401: Unauthorized"),
        (502, "<h1>Bad Gateway</h1>", "the API server answers PUT /x with 502: <h1>Bad Gateway</h1>"),
    ],
)
async def test_what_is_no_answer_of_an_api_server_is_an_outage(status: int, body: str, words: str) -> None:
    asked: list[tuple[str, str]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append((request.method, request.path))
        return web.Response(status=status, text=body, headers={"Location": "/elsewhere"})

    async with served(answer) as client:
        with pytest.raises(Unavailable) as failed:
            await client.send("PUT", "/x", body={}, attempts=1)
    assert str(failed.value).startswith(words)
    assert asked == [("PUT", "/x")]


async def test_an_apply_is_the_same_in_json_and_in_yaml() -> None:
    """A system prompt may hold any character at all."""
    anything = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x11000), 0x1F600, 0x10FFFF)))
    body = {"data": {"prompt": anything, "tricks": '\\u007f "\x7f" \\\x85'}}
    sent: list[bytes] = []

    async def keep(request: web.Request) -> web.StreamResponse:
        sent.append(await request.read())
        return web.json_response({})

    async with served(keep) as client:
        await client.send("PATCH", "/x", body=body, content_type=clients.APPLY)
    assert json.loads(sent[0]) == body
    assert yaml.safe_load(sent[0]) == body


async def test_a_request_that_takes_too_long_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(clients, "WRITE_TIMEOUT_SECONDS", 0.05)
    async with served(hang) as client:
        with pytest.raises(Unavailable) as failed:
            await client.send("PUT", "/x", body={})
    assert str(failed.value) == "the API server did not answer PUT /x: it took too long"


@pytest.mark.parametrize(("found", "again"), [("u", True), ("another", False), (None, False)])
async def test_a_conflict_of_a_deletion_is_none_only_where_the_object_is_gone(
    found: str | None, again: bool
) -> None:
    async def conflict(request: web.Request) -> web.StreamResponse:
        if request.method == "DELETE":
            return failure(409, "the object changed")
        if found is None:
            return failure(404, "not found")
        return web.json_response({"metadata": {"name": "x", "namespace": "n", "uid": found}})

    async with served(conflict) as client:
        objects = ApiObjects(client, lambda: True, lambda _: None, lambda *_: None)
        with pytest.raises(Conflict) if again else nullcontext():
            await objects.delete("ConfigMap", "x", "n", uid="u")


@pytest.mark.parametrize(("status", "refused"), [(201, False), (409, False), (403, True), (422, True)])
async def test_who_would_be_let_in_is_asked_without_doing_it(status: int, refused: bool) -> None:
    asked: list[str] = []

    async def judge(request: web.Request) -> web.StreamResponse:
        asked.append(f"{request.method} {request.path} {request.query['dryRun']}")
        return web.json_response({}) if status == 201 else failure(status, "no")

    async with served(judge) as client:
        objects = ApiObjects(client, lambda: True, lambda _: None, lambda *_: None)
        with pytest.raises(Refused) if refused else nullcontext():
            await objects.try_create(MANIFEST)
    assert asked == ["POST /api/v1/namespaces/n/configmaps All"]
