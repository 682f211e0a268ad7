"""A tenant's rows as lines of JSON, out of its table and back.

Both go by COPY, piece by piece: memory does not grow with the table. A line is

    {"id": "…", "embedding": [0.1, …], "content": "…", "metadata": {…}, "created_at": "2026-11-25T12:00:00+00:00"}

and whose row it is says the manifest beside it (see `reconcile.exports`): it may be given to another name.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection, sql

from tenantry.adapters.lines import split
from tenantry.adapters.pgvector.server import translated
from tenantry.adapters.pgvector.store import Place
from tenantry.reconcile.ports import Refused, Unavailable

PIECE: Final = 1 << 20
"""Bytes that are handed on at one go."""

_DECODER: Final = json.JSONDecoder(parse_float=str, parse_int=str)

# Written as CSV whose quote and separator are characters that JSON never has unescaped: each line is the JSON itself.
_OUT: Final = (
    "COPY (SELECT row_to_json(r) FROM (SELECT id, embedding::text::json AS embedding, content, metadata, created_at"
    " FROM {table}) r) TO STDOUT (FORMAT csv, QUOTE E'\\x01', ESCAPE E'\\x01', DELIMITER E'\\x02')"
)
_IN: Final = "COPY {table} (tenant_id, id, embedding, content, metadata, created_at) FROM STDIN"


async def export(connection: AsyncConnection[Any], place: Place) -> AsyncGenerator[bytes, None]:
    """Yield a tenant's rows as they are at one moment. Needs a superuser. Raises Refused or Unavailable.

    Ends only after all rows that the server counted; whoever stops before has nothing, and closes the generator. The
    connection is in a transaction meanwhile.
    """
    try:
        async with connection.transaction(), connection.cursor() as cursor:
            # One snapshot, however long it takes; times in UTC, and digits enough to read back the same numbers.
            await cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            for setting in ("statement_timeout = 0", "timezone = 'UTC'", "extra_float_digits = 1"):
                await cursor.execute(sql.SQL("SET LOCAL ") + sql.SQL(setting))
            kept, rows = bytearray(), 0
            async with cursor.copy(sql.SQL(_OUT).format(table=place.table)) as copy:
                async for row in copy:
                    kept += row
                    rows += 1
                    if len(kept) >= PIECE:
                        yield bytes(kept)
                        kept.clear()
            if cursor.rowcount != rows:
                raise Unavailable(f"{rows} rows came of {cursor.rowcount}")
            if kept:
                yield bytes(kept)
    except psycopg.Error as error:
        raise translated(error) from error


async def restore(
    connection: AsyncConnection[Any],
    place: Place,
    lines: AsyncIterator[bytes],
    accepted: Callable[[], Awaitable[None]] | None = None,
) -> int:
    """Put exported rows into a tenant's table, which must be empty: all or none. Return how many.

    accepted: is awaited when all rows are there, before they count. Whatever it raises, or `lines` at its end, leaves
    the table empty. Needs a superuser, whom row-level security lets by. Raises Refused or Unavailable.
    """
    try:
        async with connection.transaction(), connection.cursor() as cursor:
            for setting in ("statement_timeout = 0", "idle_in_transaction_session_timeout = 0"):
                await cursor.execute(sql.SQL("SET LOCAL ") + sql.SQL(setting))
            # Readers may go on; nobody writes between the look and the end of the copy.
            await cursor.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(place.table))
            await cursor.execute(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(place.table))
            if await cursor.fetchone() != (False,):
                raise Refused(f"the place of {place.tenant} holds vectors already: delete them first")
            rows = 0
            async with cursor.copy(sql.SQL(_IN).format(table=place.table)) as copy:
                async for line in split(lines):
                    rows += 1
                    await copy.write_row((place.tenant, *_values(line, rows)))
            if cursor.rowcount != rows:
                raise Unavailable(f"{cursor.rowcount} rows arrived of {rows}")
            if accepted is not None:
                await accepted()
            return rows
    except psycopg.errors.DataError as error:
        raise Refused(f"the export does not fit the place: {_sentence(error)}") from error
    except psycopg.Error as error:
        raise translated(error) from error


def _values(line: bytes, number: int) -> tuple[str | None, ...]:
    """Return the values of a line as COPY takes them."""
    try:
        raw = _members(line.decode())
        name, content, created = (json.loads(raw[key]) for key in ("id", "content", "created_at"))
        return name, raw["embedding"], content, raw["metadata"], created
    except (ValueError, KeyError, IndexError) as error:
        raise Refused(f"line {number} is no row of an export: {type(error).__name__}: {error}") from error


def _members(text: str) -> dict[str, str]:
    """Return the values of a JSON object as they are spelled: numbers of any length go through unchanged."""
    found: dict[str, str] = {}
    at = _past(text, 0, "{")
    while text[at] != "}":
        if found:
            at = _past(text, at, ",")
        key, at = _DECODER.raw_decode(text, at)
        start = _past(text, at, ":")
        _, at = _DECODER.raw_decode(text, start)
        found[key] = text[start:at]
        at = _past(text, at)
    return found


def _past(text: str, at: int, mark: str = "") -> int:
    """Return where the next token after a mark begins; `mark` empty: the next token."""
    at = _blanks(text, at)
    if not text.startswith(mark, at):
        raise ValueError(f"no {mark} at character {at}")
    return _blanks(text, at + len(mark))


def _blanks(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\t", "\r"):
        at += 1
    return at


def _sentence(error: psycopg.Error) -> str:
    return error.diag.message_primary or str(error).partition("\n")[0]
