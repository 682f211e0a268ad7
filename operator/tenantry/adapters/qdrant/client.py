"""A Qdrant server by its own library, with its errors as our types."""

from __future__ import annotations

import json
import ssl
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, Final, TypeVar

import httpx
from qdrant_client import AsyncQdrantClient
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from tenantry.adapters import addresses
from tenantry.adapters.addresses import Address
from tenantry.reconcile.ports import Refused, Unavailable

NO_ADDRESS: Final = "is no address: write https://user:api-key@host:6333?grpc_port=6334"

_GRPC_PORT: Final = 6334
_SECONDS: Final = 30
_DENIED: Final = frozenset({401, 403})
_PASSES: Final = frozenset({408, 409, 429})
"""Overloaded, or somebody else was there first: it is tried again."""
_LONGEST: Final = 300
"""Characters of what the server says that are told on."""

T = TypeVar("T")


def parse(text: str) -> Address:
    """Return what an address says; its user is nobody's. Raises Refused, whose sentence does not repeat it."""
    return addresses.parse(text, _GRPC_PORT, NO_ADDRESS)


class Denied(Refused):
    """The server does not know the key, or does not let it do that (HTTP 401, 403)."""


class Missing(Refused):
    """What was asked of is not there (HTTP 404)."""


class Client:
    """Requests with one key: the server's, or a token that is signed with it. Not for threads."""

    def __init__(self, address: Address, key: str = "") -> None:
        self._address = address
        self._key = key or address.key
        self._opened: AsyncQdrantClient | None = None
        self._closed = False

    async def ask(self, request: Callable[[AsyncQdrantClient], Awaitable[T]]) -> T:
        """Return what the library gives for a request.

        Raises Denied, Missing, Refused (what was asked is wrong), Unavailable.
        """
        if self._closed:
            raise Unavailable("the connection is closed")
        try:
            return await self._send(request)
        except ResourceExhaustedResponse as error:
            raise Unavailable(str(error), float(error.retry_after_s)) from error
        except UnexpectedResponse as error:
            raise _translated(error) from error
        except ResponseHandlingException as error:
            raise Unavailable(f"{self._address.url}: {_name(error.source)}") from error
        except (json.JSONDecodeError, httpx.HTTPError) as error:
            raise Unavailable(f"{self._address.url}: {_name(error)}") from error

    async def metrics(self) -> str:
        """Return the server's metrics. Raises as `ask` does."""
        return await self.ask(lambda _: self._metrics())

    async def close(self) -> None:
        """Give up the connections."""
        self._closed = True
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    async def _send(self, request: Callable[[AsyncQdrantClient], Awaitable[T]]) -> T:
        if self._opened is None:
            self._opened = AsyncQdrantClient(
                url=self._address.url,
                port=self._address.port,
                timeout=_SECONDS,
                check_compatibility=False,
                **self._options(),
            )
        return await request(self._opened)

    async def _metrics(self) -> str:
        """The library would read them as JSON, which they are not."""
        async with httpx.AsyncClient(timeout=_SECONDS, **self._options()) as client:
            answer = await client.get(f"{self._address.url}/metrics")
        if not answer.is_success:
            raise UnexpectedResponse.for_response(answer)
        return answer.text

    def _options(self) -> dict[str, Any]:
        """As a header: of a key that is named as one the library warns where the line is not encrypted."""
        secure = self._address.scheme == "https"
        return {
            "headers": {"api-key": self._key},
            "trust_env": False,
            "verify": _trusted() if secure else False,
        }


@cache
def _trusted() -> ssl.SSLContext:
    """Return the authorities that the system trusts; the library has a list of its own."""
    return ssl.create_default_context()


def _translated(error: UnexpectedResponse) -> Exception:
    status = error.status_code or 0
    said = _sentence(error.content) or f"{status} {error.reason_phrase}"
    if status in _DENIED:
        return Denied(said)
    if status == 404:
        return Missing(said)
    if status >= 500 or status in _PASSES:
        return Unavailable(said)
    return Refused(said)


def _sentence(content: bytes) -> str:
    """Return what the server says is wrong."""
    try:
        said = json.loads(content)["status"]["error"]
    except (ValueError, KeyError, TypeError):
        said = content.decode(errors="replace")
    return str(said).strip()[:_LONGEST]


def _name(error: Exception) -> str:
    return str(error) or type(error).__name__
