"""JSON as an API server sends it, also where a decoder refuses it.

An API server passes some of what people write on as it is: the data of a ControllerRevision, the managedFields of
any object. That may be 10,000 brackets deep, or hold half a character; decoders refuse both, and with them the
whole list or event. Here only what nobody can read is left out, so that one object never hides the others.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson

logger = logging.getLogger(__name__)

DEEPEST = 200
"""Levels that are read where there are too many: more than any object has that we write, fewer than orjson writes."""

LEFT_OUT = "(left out by Tenantry: nested too deeply)"

_MARK = orjson.dumps(LEFT_OUT)
_TOKENS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_ESCAPES = re.compile(rb"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F]..)|\\.")
_REPLACEMENT = rb"\ufffd"


def decode(text: bytes) -> Any:
    """Return JSON. Raises ValueError where it is none, or one that no API server sends."""
    try:
        return orjson.loads(text)
    except ValueError:
        answer = orjson.loads(readable(text))
    for name in _unread(answer):
        logger.warning("%s is read but for what is nested in it more than %d levels deep", name, DEEPEST)
    return answer


def _unread(answer: Any) -> list[str]:
    """Return kind, namespace and name of the objects of which something was left out."""
    if not isinstance(answer, dict) or _MARK not in orjson.dumps(answer):
        return []
    inner = answer.get("object")
    items = answer.get("items") or [inner if isinstance(inner, dict) else answer]
    kind = str(answer.get("kind", "")).removesuffix("List")
    return [_name(item, kind) for item in items if _MARK in orjson.dumps(item)]


def _name(item: dict[str, Any], kind: str) -> str:
    metadata = item.get("metadata") or {}
    place = "/".join(part for part in (metadata.get("namespace"), metadata.get("name")) if part)
    return f"{item.get('kind') or kind} {place}".strip()


def readable(text: bytes) -> bytes:
    """Return JSON with LEFT_OUT for every list and map deeper than `DEEPEST`, and U+FFFD for halves of characters."""
    return _ESCAPES.sub(_whole, _pruned(text))


def _pruned(text: bytes) -> bytes:
    kept, depth, start = [], 0, 0
    for token in _TOKENS.finditer(text):
        bracket = token[0]
        if bracket in (b"[", b"{"):
            depth += 1
            if depth == DEEPEST + 1:
                kept.append(text[start : token.start()])
        elif bracket in (b"]", b"}"):
            if depth == DEEPEST + 1:
                kept.append(_MARK)
                start = token.end()
            depth -= 1
    return b"".join([*kept, text[start:]]) if kept and depth == 0 else text


def _whole(found: re.Match[bytes]) -> bytes:
    return _REPLACEMENT if found[1] else found[0]


class ReadableResponse(aiohttp.ClientResponse):
    """An answer for a client that reads JSON by Python's own decoder, which has less patience than orjson.

    The client is Kopf, which ends by aiohttp's error for an answer that breaks off: here it is one of the connection,
    after which Kopf asks again.
    """

    async def json(self, **_: Any) -> Any:
        """Return the whole answer."""
        try:
            return decode(await self.read())
        except aiohttp.ClientPayloadError as error:
            raise aiohttp.ClientConnectionError(str(error)) from error

    async def text(self, *arguments: Any, **options: Any) -> str:
        """Return what is told of an error, as far as it came."""
        try:
            return await super().text(*arguments, **options)
        except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError):
            return ""

    async def start(self, connection: Any) -> ReadableResponse:
        """Have what is read by chunks, as a watch is, come line by line."""
        await super().start(connection)
        self.content = _Lines(self.content)  # type: ignore[assignment]
        return self


class _Lines:
    """The content of an answer of which each chunk is a line that every decoder reads."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Yield lines; of a stream that breaks off the last one is lost, as it is without this."""
        rest: list[bytes] = []
        async for chunk in self._content.iter_chunked(size):
            first, *others = chunk.split(b"\n")
            rest.append(first)
            for line in others:
                whole = b"".join(rest)
                rest = [line]
                if whole:
                    yield _for_everybody(whole) + b"\n"


def _for_everybody(line: bytes) -> bytes:
    try:
        orjson.dumps(orjson.loads(line))  # which writes less than a fourth of the levels that it reads
    except (ValueError, TypeError):
        return readable(line)
    return line
