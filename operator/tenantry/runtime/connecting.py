"""How Kopf connects to the API server: with a token that is valid now, and no faster than is good for it."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import math
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import kopf
from kubernetes.aio.client.configuration import Configuration

from tenantry.adapters.kubernetes.decoding import ReadableResponse
from tenantry.adapters.kubernetes.reflector import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    SHORTEST_WATCH_SECONDS,
)

LOGIN_PAUSE_SECONDS = 1.0


def login(configuration: Configuration) -> Callable[..., Awaitable[kopf.AiohttpSession]]:
    """Return what Kopf calls at first, and whenever the API server has refused what the last call returned."""
    refused: kopf.ConnectionInfo | None = None
    logins = itertools.count()
    pace = Pace()

    async def connect(**_: Any) -> kopf.AiohttpSession:
        nonlocal refused
        present = await credentials(configuration)
        if present == refused:
            # An API server that starts refuses good tokens for a moment, and a new one may not be there yet.
            await asyncio.sleep(LOGIN_PAUSE_SECONDS)
            present = await credentials(configuration)
        refused = present
        # Kopf ends where what was refused comes again: each time it differs in what nobody looks at.
        return dataclasses.replace(session(present, pace), priority=next(logins))

    return connect


@dataclasses.dataclass(frozen=True, kw_only=True)
class Connection(kopf.ConnectionInfo):
    """A connection that takes what certificates `adapters.kubernetes.client.configure` takes."""

    def as_ssl_context(self) -> ssl.SSLContext:
        context = super().as_ssl_context()
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


class Pace:
    """Holds back watches that end as soon as they have begun: Kopf begins the next one without a pause."""

    def __init__(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._sleep = sleep
        self._last: dict[str, tuple[float, float]] = {}

    async def __call__(
        self, session: aiohttp.ClientSession, _context: object, asked: aiohttp.TraceRequestStartParams
    ) -> None:
        """Called by aiohttp, and awaited, before each request."""
        if asked.url.query.get("watch") != "true":
            return
        now = asyncio.get_running_loop().time()
        began, pause = self._last.get(asked.url.path, (-math.inf, 0.0))
        short = now - began < SHORTEST_WATCH_SECONDS
        pause = min(max(pause * 2, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS) if short else 0.0
        self._last[asked.url.path] = now + pause, pause
        if pause:
            await self._sleep(pause)
            if session.closed:  # its login was refused meanwhile; Kopf takes the next one by aiohttp's words
                raise RuntimeError("Session is closed")


def session(connection: kopf.ConnectionInfo, pace: Pace) -> kopf.AiohttpSession:
    """Return connections for Kopf, which closes them, as it would make them but for how answers are read."""
    tracing = aiohttp.TraceConfig()
    tracing.on_request_start.append(pace)
    connections = aiohttp.ClientSession(
        trace_configs=[tracing],
        connector=aiohttp.TCPConnector(limit=0, ssl=connection.as_ssl_context()),
        headers=connection.as_http_headers(),
        proxy=connection.proxy_url,
        response_class=ReadableResponse,
    )
    return kopf.AiohttpSession(server=connection.server, aiohttp_session=connections)


async def credentials(configuration: Configuration) -> kopf.ConnectionInfo:
    """Return the connection with a token that is valid now: a pod's is written anew every hour."""
    header = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization") or ""
    scheme, _, token = header.partition(" ")
    return Connection(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        scheme=scheme or None,
        token=token or None,
        proxy_url=configuration.proxy,
    )
