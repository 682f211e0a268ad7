"""A Weaviate server's REST interface, with its errors as our types.

Weaviate's own library reads objects by gRPC, on a second port; all that the operator needs is in REST. Applications
use the library: searching as a tenant is possible by gRPC only.
"""

from __future__ import annotations

from typing import Any, Final

import aiohttp
import orjson

from tenantry.adapters import addresses
from tenantry.adapters.addresses import Address
from tenantry.reconcile.ports import Refused, Unavailable

NO_ADDRESS: Final = "is no address: write https://user:api-key@host:8080?grpc_port=50051"

_GRPC_PORT: Final = 50051
_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, sock_connect=5)
_DENIED: Final = frozenset({401, 403})
_OVERLOADED: Final = 429
_LONGEST: Final = 300
"""Characters of what the server says that are told on."""


def parse(text: str) -> Address:
    """Return what an address says. Raises Refused, whose sentence does not repeat it."""
    return addresses.parse(text, _GRPC_PORT, NO_ADDRESS)


class Denied(Refused):
    """The server knows the key's user, or not, and does not let it do that (HTTP 401, 403)."""


class Client:
    """Requests with one key. Not for threads."""

    def __init__(self, address: Address, key: str = "") -> None:
        self._address = address
        self._key = key or address.key
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """Send a request below /v1 and return the JSON answer, None where there is none or nothing is there (404).

        Raises Denied, Refused (what was asked is wrong), Unavailable.
        """
        status, text = await self._send(method, path, body, query)
        if status == 404:
            return None
        if status < 300:
            try:
                return orjson.loads(text) if text else None
            except orjson.JSONDecodeError:
                raise Unavailable(f"{method} {path}: the answer is no JSON") from None
        said = f"{method} {path}: {_sentence(text) or status}"
        if status in _DENIED:
            raise Denied(said)
        if status >= 500 or status == _OVERLOADED:
            raise Unavailable(said)
        raise Refused(said)

    async def close(self) -> None:
        """Give up the connections."""
        self._closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _send(self, method: str, path: str, body: Any, query: dict[str, Any]) -> tuple[int, bytes]:
        if self._closed:
            raise Unavailable("the connection is closed")
        if self._session is None:
            headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
            self._session = aiohttp.ClientSession(headers=headers, timeout=_TIMEOUT)
        try:
            async with self._session.request(
                method,
                f"{self._address.url}/v1/{path}",
                data=None if body is None else orjson.dumps(body),
                params={name: str(value) for name, value in query.items()},
                allow_redirects=False,
            ) as answer:
                return answer.status, await answer.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{self._address.url}: {str(error) or type(error).__name__}") from error


def _sentence(text: bytes) -> str:
    """Return what the server says is wrong."""
    try:
        said = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text.decode(errors="replace")[:_LONGEST]
    if not isinstance(said, dict):
        return ""
    errors = said.get("error") or [said]
    return "; ".join(str(each.get("message", "")) for each in errors)[:_LONGEST]
