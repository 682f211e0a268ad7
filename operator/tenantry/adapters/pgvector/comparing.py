"""Compares a tenant's rows on two servers: all of them while writes go on, and what has changed since in no time.

`Compared` is what was found equal, and the source's transaction before which all of that was written. Rows that a
later transaction wrote are compared again when writes are held back, and then rows are counted on both sides: what is
gone is gone on both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from psycopg import AsyncConnection, sql

from tenantry.adapters.pgvector.store import Place

BUCKETS: Final = 256

# Of the numbers themselves, not of their text, which takes ten times as long.
_HASH: Final = (
    "hashtextextended(id, hashtextextended(quote_nullable(content), hashtextextended(metadata::text,"
    " hash_array_extended(embedding::real[], (extract(epoch FROM created_at) * 1000000)::bigint))))"
)
_BUCKET: Final = f"(hashtext(id) & {BUCKETS - 1})"

_ALL: Final = f"SELECT {_BUCKET} AS bucket, count(*), sum({_HASH}) FROM {{table}} GROUP BY 1"
_SOME: Final = f"SELECT id, {_HASH} FROM {{table}} WHERE {_BUCKET} = ANY(%s)"
_SINCE: Final = f"SELECT id, {_HASH} FROM {{table}} WHERE age(xmin) <= age(%s::text::xid)"
_THESE: Final = f"SELECT id, {_HASH} FROM {{table}} WHERE id = ANY(%s)"
_COUNT: Final = "SELECT count(*) FROM {table}"

Buckets = Mapping[int, tuple[int, Any]]


async def transaction(connection: AsyncConnection[Any]) -> str:
    """Return a transaction id: what is written from now on has this or a later one."""
    cursor = await connection.execute("SELECT pg_current_xact_id()::xid::text")
    (found,) = await cursor.fetchone() or ("",)
    return str(found)


async def buckets(connection: AsyncConnection[Any], place: Place) -> Buckets:
    """Return how many rows each bucket has, and the sum of their hashes."""
    cursor = await connection.execute(sql.SQL(_ALL).format(table=place.table))
    return {bucket: (count, total) for bucket, count, total in await cursor.fetchall()}


def differing(here: Buckets, there: Buckets) -> list[int]:
    """Return the buckets that are not the same."""
    return sorted(bucket for bucket in here.keys() | there.keys() if here.get(bucket) != there.get(bucket))


async def rows_of(connection: AsyncConnection[Any], place: Place, chosen: list[int]) -> dict[str, int]:
    """Return the hash of each row of some buckets."""
    cursor = await connection.execute(sql.SQL(_SOME).format(table=place.table), (chosen,))
    return dict(await cursor.fetchall())


@dataclass(frozen=True, slots=True)
class Compared:
    """That all rows were the same but for what transactions from this one on wrote."""

    since: str


async def difference(
    source: AsyncConnection[Any], target: AsyncConnection[Any], place: Place, compared: Compared
) -> str | None:
    """Return what differs though nobody writes any more; None: nothing does."""
    since = sql.SQL(_SINCE).format(table=place.table)
    changed, many = await asyncio.gather(
        _rows(source, since, compared.since),
        _count(target, place),  # each server does its part at the same time
    )
    these = sql.SQL(_THESE).format(table=place.table)
    there, wanted = await asyncio.gather(_rows(target, these, list(changed)), _count(source, place))
    if changed != there:
        return f"{len(changed.items() ^ there.items())} of the rows that were written last differ"
    return None if wanted == many else f"the source has {wanted} rows, the target {many}"


async def _rows(connection: AsyncConnection[Any], query: sql.Composed, parameter: Any) -> dict[str, int]:
    cursor = await connection.execute(query, (parameter,))
    return dict(await cursor.fetchall())


async def _count(connection: AsyncConnection[Any], place: Place) -> int:
    cursor = await connection.execute(sql.SQL(_COUNT).format(table=place.table))
    (found,) = await cursor.fetchone() or (0,)
    return int(found)
