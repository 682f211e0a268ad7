"""A proxy in front of a real API server that lets a test decide what happens to each request and watch event.

operator ──HTTP──► Proxy ──HTTPS──► kube-apiserver
                     │
                     └── `fault`: asked before a request is passed on, after its answer came, at every watch event

What the operator sends passes unchanged, its token too, so that its rights are the real ones. Each door (`door()`)
is an address of its own, so that what several replicas send can be told apart.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import yaml
from aiohttp import web

from tenantry.adapters.kubernetes.client import configure
from tests.conftest import Cluster

Object = dict[str, Any]

DROPPED_HEADERS = frozenset({"transfer-encoding", "content-length", "content-encoding", "connection", "host"})
LARGEST = 64 * 2**20
_TICK_SECONDS = 0.05
PATIENCE_SECONDS = 60.0
WRITES = frozenset({"create", "apply", "patch", "replace", "delete"})


@dataclass(slots=True)
class Request:
    """One request. `verb`: get, list, watch, create, apply, patch, replace or delete.

    `number` counts all requests through the proxy, from 1. `status`: of the answer that the API server gave,
    None while there is none. `at`, `forwarded`, `done`: monotonic seconds when it arrived, when it was passed on
    to the API server (None: it was not), and when its answer was given. `late`: for how many seconds the proxy had
    stood still just before, and it may have been on its way.
    """

    number: int
    door: str
    verb: str
    kind: str
    """Plural, such as `tenants`."""
    name: str = ""
    namespace: str = ""
    subresource: str = ""
    body: bytes = b""
    at: float = 0.0
    late: float = 0.0
    forwarded: float | None = None
    done: float | None = None
    status: int | None = None

    @property
    def is_write(self) -> bool:
        """Whether it changes an object of ours: not a Lease, an Event, or a question about rights."""
        return self.verb in WRITES and self.kind not in ("leases", "events", "selfsubjectaccessreviews")

    @property
    def content(self) -> Object:
        """What is sent, as JSON."""
        found: Object = json.loads(self.body) if self.body else {}
        return found

    def __str__(self) -> str:
        where = "/".join(part for part in (self.kind, self.namespace, self.name, self.subresource) if part)
        return f"{self.verb} {where}"


@dataclass(slots=True)
class Answer:
    """What the client gets."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


class Cut(Exception):  # noqa: N818
    """Raised by a fault: the connection breaks, the client gets no answer."""


class Fault:
    """What goes wrong; of this one nothing does. A subclass overrides what it needs; a method may also wait."""

    async def before(self, request: Request) -> Answer | None:
        """Return an answer in place of the API server's, or None to pass the request on; Cut: nothing happens."""
        return None

    async def after(self, request: Request, answer: Answer) -> Answer:
        """Return what the client gets of an answer; Cut: it was done, and the client never learns of it."""
        return answer

    def events(self, request: Request, event: Object) -> Iterable[Object]:
        """Return what a watch passes on in place of one event: none, it, it twice, an older one; Cut ends it."""
        return (event,)


def refusal(status: int, reason: str, message: str, **headers: str) -> Answer:
    """Return an error as the API server words it; headers: `retry_after="3"` is sent as Retry-After."""
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = json.dumps({**body, "reason": reason, "code": status}).encode()
    return Answer(status, content, {"Content-Type": "application/json", **named})


class Proxy:
    """Use as `async with Proxy(cluster) as proxy`; `fault` and `log` may be replaced and cleared at any time."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.fault = Fault()
        self.log: list[Request] = []
        """Every request in the order in which it arrived; written to as it goes on."""
        self._stack = AsyncExitStack()
        self._watches: dict[asyncio.Task[Any], Request] = {}
        self._count = 0
        self._ticked = time.monotonic()
        self._gap, self._gap_ended = 0.0, 0.0

    async def __aenter__(self) -> Proxy:
        configuration = await configure(self.cluster.kubeconfig, None)
        self._upstream = configuration.host
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        ticking = asyncio.create_task(self._tick())
        self._stack.callback(ticking.cancel)
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        self._session = await self._stack.enter_async_context(
            aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end_watches()
        await self._stack.aclose()

    async def _tick(self) -> None:
        """Notice when this process stands still: what was sent to it meanwhile arrives at once."""
        while True:
            self._ticked = time.monotonic()
            await asyncio.sleep(_TICK_SECONDS)
            now = time.monotonic()
            if now - self._ticked > 4 * _TICK_SECONDS:
                self._gap, self._gap_ended = now - self._ticked, now

    def _lateness(self) -> float:
        now = time.monotonic()
        standing = now - self._ticked
        before = self._gap if now - self._gap_ended < 4 * _TICK_SECONDS else 0.0
        return max(before, standing if standing > 4 * _TICK_SECONDS else 0.0)

    async def door(self, name: str, folder: Path) -> Cluster:
        """Open an address; return the cluster with the operator's kubeconfig pointing at it (kept in `folder`)."""

        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._handle(name, request)

        app = web.Application(client_max_size=LARGEST)
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        document = yaml.safe_load(Path(self.cluster.operator_kubeconfig).read_text())
        for cluster in document["clusters"]:
            cluster["cluster"] = {"server": f"http://127.0.0.1:{port}"}
        path = folder / f"{name}.kubeconfig"
        path.write_text(yaml.safe_dump(document))
        path.chmod(0o600)
        return Cluster(
            self.cluster.kubeconfig, self.cluster.kubectl_program, str(path), settings=self.cluster.settings
        )

    def end_watches(self, kind: str = "") -> None:
        """Break the connections of all watches, or of one kind's (plural)."""
        for task, request in list(self._watches.items()):
            if kind in ("", request.kind):
                task.cancel()

    def writes(self, door: str = "") -> list[Request]:
        """Return the writes so far that a fault let through to the API server, of all doors or one."""
        return [
            item for item in self.log if item.is_write and item.status is not None and door in ("", item.door)
        ]

    async def quiet(self, seconds: float, *doors: str) -> None:
        """Wait until no write has come from now on for so many seconds: through these doors, or any."""
        began = time.monotonic()
        while True:
            writes = [item for item in self.writes() if not doors or item.door in doors]
            pause = max((began, *(item.at for item in writes))) + seconds - time.monotonic()
            if pause <= 0:
                return
            told = [str(item) for item in writes[-20:]]
            assert time.monotonic() < began + PATIENCE_SECONDS, f"it does not come to rest: {told}"
            await asyncio.sleep(pause)

    async def _handle(self, door: str, incoming: web.Request) -> web.StreamResponse:
        request = self._parsed(door, incoming, await incoming.read())
        self.log.append(request)
        fault = self.fault  # a test may set another one meanwhile: this request has to do with one only
        try:
            answer = await fault.before(request)
            if answer is None:
                if request.verb == "watch":
                    return await self._watch(request, incoming)
                answer = await self._forward(request, incoming)
                request.status = answer.status
                answer = await fault.after(request, answer)
        except Cut:
            return _hang_up(incoming)
        finally:
            request.done = time.monotonic()
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    async def _forward(self, request: Request, incoming: web.Request) -> Answer:
        async with self._send(request, incoming) as response:
            return Answer(response.status, await response.read(), _kept(response.headers.items()))

    def _send(self, request: Request, incoming: web.Request) -> Any:
        request.forwarded = time.monotonic()
        url = f"{self._upstream}{incoming.rel_url}"
        headers = _kept(incoming.headers.items()) | {"Accept-Encoding": "identity"}
        return self._session.request(incoming.method, url, data=request.body or None, headers=headers)

    async def _watch(self, request: Request, incoming: web.Request) -> web.StreamResponse:
        async with self._send(request, incoming) as upstream:
            request.status = upstream.status
            if upstream.status >= 300:
                return web.Response(status=upstream.status, body=await upstream.read())
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(incoming)
            streaming = asyncio.ensure_future(self._stream(request, upstream, response))
            self._watches[streaming] = request
            try:
                await asyncio.wait({streaming})
            finally:
                streaming.cancel()
                self._watches.pop(streaming, None)
            if streaming.cancelled() or streaming.exception() is not None:
                return _hang_up(incoming)
            return response

    async def _stream(
        self, request: Request, upstream: aiohttp.ClientResponse, response: web.StreamResponse
    ) -> None:
        async for line in _lines(upstream):
            for event in self.fault.events(request, json.loads(line)):
                await response.write(json.dumps(event).encode() + b"\n")
        await response.write_eof()

    def _parsed(self, door: str, incoming: web.Request, body: bytes) -> Request:
        self._count += 1
        parts = urlsplit(incoming.path).path.strip("/").split("/")
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        kind, name, subresource = (*rest, "", "", "")[:3]
        return Request(
            self._count,
            door,
            _verb(incoming, name),
            kind,
            name or _name(body),
            namespace,
            subresource,
            body,
            time.monotonic(),
            self._lateness(),
        )


def _verb(incoming: web.Request, name: str) -> str:
    if incoming.method == "GET":
        if incoming.query.get("watch") in ("true", "1"):
            return "watch"
        return "get" if name else "list"
    if incoming.method == "PATCH":
        return "apply" if "apply-patch" in incoming.headers.get("Content-Type", "") else "patch"
    return {"POST": "create", "PUT": "replace", "DELETE": "delete"}[incoming.method]


def _name(body: bytes) -> str:
    """Return the name of what is created: its path has none."""
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(body)["metadata"]["name"])
    return ""


def _kept(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name: value for name, value in headers if name.lower() not in DROPPED_HEADERS}


def _hang_up(incoming: web.Request) -> web.StreamResponse:
    if incoming.transport is not None:
        incoming.transport.abort()
    return web.Response(status=499)


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in response.content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line
