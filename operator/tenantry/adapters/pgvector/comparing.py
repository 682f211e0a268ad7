"""Compares a tenant's rows on two servers: all of them while writes go on, and what has changed since in no time.

`Compared` is what was found equal. Writers put on a list what they change from then on (`changes`); that is compared
again, most of it before writes are held back, and the rest while they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
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
_THESE: Final = f"SELECT id, {_HASH} FROM {{table}} WHERE tenant_id = %s AND id = ANY(%s)"

Buckets = Mapping[int, tuple[int, Any]]


@dataclass(slots=True)
class Compared:
    """That all rows were the same but for those on a list of changes, and for `open`: ids taken off it."""

    run: str
    open: set[str] = field(default_factory=set)


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


async def these(connection: AsyncConnection[Any], place: Place, ids: Set[str]) -> dict[str, int]:
    """Return the hash of each row of some that is there."""
    if not ids:
        return {}
    query = sql.SQL(_THESE).format(table=place.table)
    cursor = await connection.execute(query, (place.tenant, list(ids)))
    return dict(await cursor.fetchall())


def unlike(here: Mapping[str, int], there: Mapping[str, int]) -> set[str]:
    """Return the ids of rows that are not the same on both sides, or on one side only."""
    return {row for row, _ in here.items() ^ there.items()}


async def still_open(
    source: AsyncConnection[Any], target: AsyncConnection[Any], place: Place, ids: Set[str]
) -> set[str]:
    """Return which of some rows are not the same now; while writes go on they may only be on their way."""
    return unlike(*await asyncio.gather(these(source, place, ids), these(target, place, ids)))
