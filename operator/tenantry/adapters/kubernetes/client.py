"""A thin JSON client over the Kubernetes library's connection, with the API server's errors as our types.

The generated methods of the library build an object for every field; objects here stay plain JSON, which at
10,000 tenants is the difference between a second and a minute. Kubeconfigs, tokens and TLS remain the library's.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from aiohttp.abc import AbstractStreamWriter
from kubernetes.aio import config
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config.incluster_config import InClusterConfigLoader

from tenantry.adapters.kubernetes.decoding import decode
from tenantry.adapters.kubernetes.tokens import TokenFile, renew, renew_as_loaded
from tenantry.reconcile.ports import Conflict, Refused, Unavailable

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""What a pod has of its account."""

JSON = "application/json"
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"

OVERLOADED = frozenset({429, 500, 502, 503, 504})
CONNECTIONS = 64
UNMANAGEABLE = (b"failed to create manager for existing fields", b"failed to create typed live object")
"""The API server's 500 about an object that no apply can be laid over: it says so until the object is replaced."""
NOT_IN_YAML = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]|\xef\xbb\xbf|\xef\xbf[\xbe\xbf]")
"""Characters, in UTF-8, that YAML (as which an apply is read) refuses or takes for blanks; JSON holds any."""
ATTEMPTS = 4
"""How often one request is sent while the API server says that it is overloaded, before the queue backs off."""
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 2.0
"""What a server asks for by Retry-After beyond that is left to the queue, which holds no worker meanwhile."""
LONGEST_RETRY_AFTER_SECONDS = 60.0
"""Nobody, least of all a proxy, makes the operator wait for longer than its own back-off does."""
READ_TIMEOUT_SECONDS = 30.0
WRITE_TIMEOUT_SECONDS = 10.0
"""A write is small; one that hangs for longer would hold a worker, and be sent under a Lease that has run out."""


class ConnectionFailed(Exception):  # noqa: N818
    """There is no usable connection; `str()` is one sentence that says what to set."""


class Expired(Exception):  # noqa: N818
    """HTTP 410: the resourceVersion or continue token is too old; list again."""


async def configure(kubeconfig: str | None, context: str | None) -> Configuration:
    """Return the connection that --kubeconfig, --context, KUBECONFIG or the pod's ServiceAccount name.

    Where none of them is given the present context is not taken: a cluster is only touched when it is named.
    Raises ConnectionFailed.
    """
    kubeconfig, context = kubeconfig or None, context or None
    configuration = Configuration()
    configuration.connection_pool_maxsize = CONNECTIONS
    # From 3.13 on Python refuses a CA without key identifiers, as many clusters have (kubernetes-client/python
    # #2394). Chain, names and times are verified as before.
    configuration.disable_strict_ssl_verification = True
    # With it aiohttp looks for ~/.netrc in a thread before every request, half of the time of a burst.
    configuration.client_session_kwargs = {"trust_env": False}
    if kubeconfig is None and context is None:
        if not _in_pod():
            raise ConnectionFailed("no cluster is named: give --kubeconfig or --context, or set KUBECONFIG")
        _configure_pod(configuration)
        return configuration
    if kubeconfig is not None and not _is_there(kubeconfig):
        raise ConnectionFailed(f"no kubeconfig at {kubeconfig}: give another by --kubeconfig or KUBECONFIG")
    try:
        loader = await config.load_kube_config(
            config_file=kubeconfig, context=context, client_configuration=configuration
        )
    except (config.ConfigException, OSError, ValueError) as error:
        place = kubeconfig or "~/.kube/config"
        raise ConnectionFailed(f"no cluster to connect to in {place}: {error}") from error
    renew_as_loaded(configuration, loader)
    configuration.proxy = configuration.proxy or _proxy(configuration.host)
    return configuration


def _configure_pod(configuration: Configuration) -> None:
    token, authority = SERVICE_ACCOUNT / "token", SERVICE_ACCOUNT / "ca.crt"
    try:
        InClusterConfigLoader(str(token), str(authority), try_refresh_token=False).load_and_set(configuration)
    except (config.ConfigException, OSError, ValueError) as error:
        raise ConnectionFailed(f"no cluster to connect to from this pod: {error}") from error
    renew(configuration, TokenFile(token))
    configuration.proxy = _proxy(configuration.host)


def _proxy(url: str) -> str | None:
    """Return the proxy that HTTPS_PROXY and NO_PROXY name for this address."""
    parts = urlsplit(url)
    if proxy_bypass(parts.hostname or ""):
        return None
    return getproxies().get(parts.scheme)


def _is_there(kubeconfig: str) -> bool:
    """Return whether any of the files of a KUBECONFIG exists."""
    return any(Path(path).is_file() for path in kubeconfig.split(os.pathsep))


def _in_pod() -> bool:
    return SERVICE_ACCOUNT.exists()


class Client:
    """Requests to one API server. Safe for concurrent use; `close()` when done."""

    def __init__(self, configuration: Configuration, count: Callable[[str, str], None] | None = None) -> None:
        self.configuration = configuration
        self._library = RESTClientObject(configuration)
        self._session: aiohttp.ClientSession | None = None
        self._count = count or (lambda _verb, _code: None)

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = JSON,
        allowed: Callable[[], bool] | None = None,
        attempts: int = ATTEMPTS,
    ) -> dict[str, Any]:
        """Send one request and return the JSON answer.

        An overloaded server is asked again, `attempts` times in all, by its Retry-After where it gives a short
        one: every request of ours may be repeated. allowed: the fence of a write, which has a body, asked directly
        before each time that it is sent; Unavailable once it says no. Raises LookupError for 404, else
        Conflict, Refused, Expired, Unavailable.
        """
        attempt = 0
        while True:
            attempt += 1
            status, headers, text = await self._once(method, path, query, body, content_type, allowed)
            what = f"{method} {path}"
            if status < 300:
                return _read(text, what)
            pause = _pause(headers, attempt)
            if _is_overload(status, text) and attempt < attempts and pause is not None:
                await asyncio.sleep(pause)
                continue
            raise _error(status, headers, text, what)

    async def _once(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: Any,
        content_type: str,
        allowed: Callable[[], bool] | None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        seconds = READ_TIMEOUT_SECONDS if method == "GET" else WRITE_TIMEOUT_SECONDS
        try:
            asked = await self._headers(content_type)
            content = _content(body, allowed, content_type)
            response = await self._request(
                method, self._url(path, query), asked, content, aiohttp.ClientTimeout(total=seconds)
            )
            text = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if isinstance(error.__cause__, Unavailable):
                raise error.__cause__ from None
            self._count(method, "error")
            raise Unavailable(f"the API server did not answer {method} {path}: {_words(error)}") from error
        self._count(method, str(response.status))
        return response.status, response.headers, text

    @asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, Any], idle_seconds: float
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Open a watch and yield its events; silence for `idle_seconds` ends it with Unavailable."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=idle_seconds)
        try:
            raw = await self._request("GET", self._url(path, query), await self._headers(JSON), None, timeout)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._count("WATCH", "error")
            raise Unavailable(f"cannot watch {path}: {_words(error)}") from error
        self._count("WATCH", str(raw.status))
        try:
            if raw.status >= 300:
                raise _error(raw.status, raw.headers, await raw.read(), f"WATCH {path}")
            yield _lines(raw, path)
        finally:
            raw.close()

    async def _request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes | _Fenced | None,
        limits: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """Send a request over the library's connections, but without its own JSON, the half of a request's cost."""
        if self._session is None:
            self._session = self._library._create_pool_manager()
        return await self._session.request(
            method,
            url,
            headers=headers,
            data=content,
            timeout=limits,
            # The API server redirects nobody; a proxy that wants a log-in does, and a write that follows is a read.
            allow_redirects=False,
            proxy=self._library.proxy,
            proxy_headers=self._library.proxy_headers,
            server_hostname=self.configuration.tls_server_name,
        )

    def _url(self, path: str, query: Mapping[str, Any] | None) -> str:
        return f"{self.configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")

    async def _headers(self, content_type: str) -> dict[str, str]:
        headers = {"Accept": JSON, "Content-Type": content_type, "User-Agent": "tenantry"}
        token = await self.configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if token:
            headers["Authorization"] = token
        return headers


class _Fenced(aiohttp.BytesPayload):
    """The body of a write, with its fence.

    aiohttp may wait for a free connection, open one, and send a request again whose connection broke. The body is
    what it asks for last, with nothing to wait for between here and the socket; the head goes out with it.
    """

    def __init__(self, content: bytes, allowed: Callable[[], bool]) -> None:
        super().__init__(content)
        self._allowed = allowed

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write it where that is allowed. Raises Unavailable, which aiohttp makes the cause of its own error."""
        _check(self._allowed)
        await super().write_with_length(writer, content_length)


def _content(body: Any, allowed: Callable[[], bool] | None, content_type: str) -> bytes | _Fenced | None:
    """Return JSON to send. Raises Unavailable where its fence is closed already."""
    if body is None:
        return None
    text = body if isinstance(body, bytes) else orjson.dumps(body)
    if content_type == APPLY and not (text.isascii() and b"\x7f" not in text):
        text = NOT_IN_YAML.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), text)
    if allowed is None:
        return text
    _check(allowed)
    return _Fenced(text, allowed)


def _check(allowed: Callable[[], bool]) -> None:
    if not allowed():
        raise Unavailable("this process does not hold the Lease: it writes nothing")


async def _lines(raw: aiohttp.ClientResponse, path: str) -> AsyncIterator[dict[str, Any]]:
    rest = b""
    try:
        async for chunk in raw.content.iter_any():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                if line:
                    yield decode(line)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(f"the watch of {path} broke off: {_words(error)}") from error


def _is_overload(status: int, text: bytes) -> bool:
    return status in OVERLOADED and not any(words in text for words in UNMANAGEABLE)


def _read(text: bytes, what: str) -> dict[str, Any]:
    """Return an answer of the API server; Unavailable where something else has answered, or half of it is lost."""
    try:
        answer = decode(text) if text else {}
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise Unavailable(f"the answer to {what} is no JSON object: is a proxy before the API server?")
    return answer


def _pause(headers: Mapping[str, str], attempt: int) -> float | None:
    """Return the seconds to wait before a request is sent again, None where that is too long to stand by."""
    asked = _retry_after(headers)
    if asked is None:
        return FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 1) * random.uniform(0.8, 1.2)
    return asked * random.uniform(1.0, 1.2) if asked <= LONGEST_PAUSE_SECONDS else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    asked = headers.get("Retry-After", "")
    return min(float(asked), LONGEST_RETRY_AFTER_SECONDS) if asked.isdigit() else None


def _error(status: int, headers: Mapping[str, str], text: bytes, what: str) -> Exception:
    try:
        answer = orjson.loads(text)
        message = str(answer.get("message") or text.decode(errors="replace"))
    except (ValueError, AttributeError):
        message = text.decode(errors="replace")[:300] or "no words"
    if status == 404:
        return LookupError(message)
    if status == 409:
        return Conflict(message)
    if status == 410:
        return Expired(message)
    if _is_overload(status, text) or status == 401 or status < 400:
        # A refusal names its object; these speak of the server, or come from something before it.
        words = f"the API server answers {what} with {status}: {message}"
        return Unavailable(words, _retry_after(headers))
    return Refused(message)


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "it took too long"
    return str(error) or type(error).__name__
