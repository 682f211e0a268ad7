"""A tenant's points as lines of JSON, out of the server and back.

The lines are those of any engine (see `adapters.pgvector.exporting`), so an export goes back into another one too:

    {"id": "…", "embedding": [0.1, …], "content": "…", "metadata": {…}, "created_at": "…", "labels": ["…"],
     "payload": {…}}

A point's id on the server is a number or a UUID. A row with any other id has a UUID that is made of it, and the id
itself is `key` of the payload. `payload` is what an application has put there besides; other engines leave it out.
A point without `created_at` is of the moment of its export: the server does not know. Where vectors compare by
cosine, the server keeps them at length one, and that is what comes out.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid5

import orjson
from qdrant_client import models

from tenantry.adapters.lines import split
from tenantry.adapters.qdrant.client import Client
from tenantry.adapters.qdrant.schema import collection, completed, count
from tenantry.adapters.recorded import Kept
from tenantry.reconcile.ports import Refused

PAGE: Final = 500

BATCH: Final = 200

BATCH_BYTES: Final = 8 << 20
"""A server takes requests of 32 MiB at most, if nothing else is set."""

_KEYS: Final = UUID("d9b4a3b8-58a1-5b0f-a7be-2c1e8d3f6a07")

_MEMBERS: Final = {"content": str, "metadata": dict, "created_at": str, "labels": list}
"""What an export has a place of its own for, by the type that it has there."""


def point_id(key: str) -> int | str:
    """Return the id of a point: the application's own where the server takes it as it is, else one made of it."""
    if key.isascii() and key.isdecimal() and str(int(key)) == key and int(key) < 1 << 64:
        return int(key)
    try:
        return key if str(UUID(key)) == key else str(uuid5(_KEYS, key))
    except ValueError:
        return str(uuid5(_KEYS, key))


async def export(client: Client, kept: Kept) -> AsyncGenerator[bytes, None]:
    """Yield a tenant's rows, page by page by id. The server has no snapshots: nobody is to write meanwhile."""
    now, after, name = datetime.now(UTC).isoformat(), None, collection(kept.id)
    while True:
        page, after = await client.ask(
            lambda server: server.scroll(name, limit=PAGE, offset=after, with_vectors=True)  # noqa: B023
        )
        if page:
            yield b"".join(orjson.dumps(_line(each, now, kept)) + b"\n" for each in page)
        if after is None:
            return


async def restore(client: Client, kept: Kept, lines: AsyncIterator[bytes]) -> int:
    """Put exported rows into a tenant's place, batch by batch; return how many. Raises Refused or Unavailable."""
    rows = size = 0
    batch: list[models.PointStruct] = []
    async for line in split(lines):
        rows += 1
        size += len(line)
        batch.append(_point(line, rows, kept))
        if len(batch) == BATCH or size >= BATCH_BYTES:
            await _put(client, kept, batch)
            batch, size = [], 0
    if batch:
        await _put(client, kept, batch)
    present = await count(client, kept.id)
    if present != rows:
        raise Refused(f"{rows} rows of the export have {present} ids: this is no export")
    return rows


async def _put(client: Client, kept: Kept, batch: list[models.PointStruct]) -> None:
    completed(await client.ask(lambda server: server.upsert(collection(kept.id), batch, wait=True)))


def _line(point: models.Record, now: str, kept: Kept) -> dict[str, Any]:
    payload = dict(point.payload or {})
    id_ = str(point.id)
    key = payload.get("key")
    if isinstance(key, str) and key != id_ and str(point_id(key)) == id_:
        id_ = key
        del payload["key"]
    own = {
        name: payload.pop(name)
        for name, kind in _MEMBERS.items()
        if isinstance(payload.get(name), kind) and payload[name] != []
    }
    line = {
        "id": id_,
        "embedding": _embedding(point, kept),
        "content": own.pop("content", ""),
        "metadata": own.pop("metadata", {}),
        "created_at": own.pop("created_at", now),
        **own,
    }
    return {**line, "payload": payload} if payload else line


def _embedding(point: models.Record, kept: Kept) -> list[Any]:
    vector = point.vector
    if isinstance(vector, dict):
        others = sorted(set(vector) - {""})
        if others:
            raise Refused(
                f"points of {kept.place.tenant} have vectors named {', '.join(others)}, which no export can hold: "
                f"delete those, and keep them elsewhere"
            )
        vector = vector.get("")  # type: ignore[assignment]
    return list(vector or [])


def _point(line: bytes, number: int, kept: Kept) -> models.PointStruct:
    try:
        row = orjson.loads(line)
        key, vector = str(row["id"]), [float(each) for each in row["embedding"]]
        rest = dict(row.get("payload") or {})
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"line {number} is no row of an export: {type(error).__name__}: {error}") from error
    # A point may have no vector.
    if vector and len(vector) != kept.place.shape.dimensions:
        raise Refused(
            f"line {number} has a vector of {len(vector)} dimensions, and the place is for {kept.place.shape}"
        )
    id_ = point_id(key)
    own = {name: row[name] for name in _MEMBERS if row.get(name) is not None}
    # What was of another type than the format has it, is in the rest.
    payload = {**own, **({} if str(id_) == key else {"key": key}), **rest}
    return models.PointStruct(id=id_, vector=vector or {}, payload=payload)
