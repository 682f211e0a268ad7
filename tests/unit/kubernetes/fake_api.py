"""An API server that answers as a test tells it, over real HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from tenantry.adapters.kubernetes.client import Client

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def served(answer: Answer) -> AsyncIterator[Client]:
    """Yield a client of a server that gives every request to `answer`."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return await answer(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client = Client(Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}"))
    try:
        yield client
    finally:
        await client.close()
        await runner.cleanup()


def failure(code: int, message: str) -> web.Response:
    """Return a Status as the API server words its refusals."""
    status = {"kind": "Status", "code": code, "message": message}
    return web.json_response(status, status=code, headers={"Retry-After": "0"} if code == 429 else None)


def listed(items: list[dict[str, Any]], version: int) -> web.Response:
    """Return a whole list."""
    return web.json_response({"metadata": {"resourceVersion": str(version)}, "items": items})


async def watched(request: web.Request, events: list[dict[str, Any]]) -> web.StreamResponse:
    """Answer a watch with some events; it ends when the handler returns."""
    response = web.StreamResponse()
    await response.prepare(request)
    for event in events:
        await response.write(json.dumps(event).encode() + b"\n")
    return response
