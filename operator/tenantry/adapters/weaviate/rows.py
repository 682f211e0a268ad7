"""A tenant's objects as lines of JSON, out of the server and back.

The lines are those of any engine (see `adapters.pgvector.exporting`), so an export goes back into another one too:

    {"id": "…", "embedding": [0.1, …], "content": "…", "metadata": {…}, "created_at": "…", "labels": ["…"]}

An object's id on the server is a UUID; the application's own may be any text and is its property `key`. Where it has
none the UUID is its id.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid5

import orjson

from tenantry.adapters.lines import split
from tenantry.adapters.weaviate.client import Client
from tenantry.adapters.weaviate.owners import Kept, put
from tenantry.reconcile.ports import Refused

PAGE: Final = 500

BATCH: Final = 200

_KEYS: Final = UUID("7f1a2a76-1a6c-5b3d-8d0e-2b6d5f1c9e42")


def object_id(key: str) -> str:
    """Return the UUID of an object: the application's own id where it is one, else one that is made of it."""
    try:
        return str(UUID(key))
    except ValueError:
        return str(uuid5(_KEYS, key))


async def any_there(client: Client, kept: Kept) -> bool:
    """Tell whether a tenant has any object."""
    said = await client.ask(
        "GET", "objects", **{"class": kept.collection, "tenant": kept.place.tenant, "limit": 1}
    )
    return bool((said or {}).get("objects"))


async def export(client: Client, kept: Kept) -> AsyncGenerator[bytes, None]:
    """Yield a tenant's rows, page by page by id. The server has no snapshots: nobody is to write meanwhile."""
    after = ""
    while True:
        query = {
            "class": kept.collection,
            "tenant": kept.place.tenant,
            "limit": PAGE,
            "include": "vector",
            **({"after": after} if after else {}),
        }
        page = (await client.ask("GET", "objects", **query) or {}).get("objects") or []
        if page:
            yield b"".join(orjson.dumps(_line(each)) + b"\n" for each in page)
        if len(page) < PAGE:
            return
        after = page[-1]["id"]


async def restore(client: Client, kept: Kept, lines: AsyncIterator[bytes]) -> int:
    """Put exported rows into a tenant's place, batch by batch; return how many. Raises Refused or Unavailable."""
    rows, batch = 0, []
    async for line in split(lines):
        rows += 1
        batch.append(_object(line, rows, kept))
        if len(batch) == BATCH:
            await put(client, batch)
            batch = []
    if batch:
        await put(client, batch)
    return rows


def _line(found: dict[str, Any]) -> dict[str, Any]:
    properties = found.get("properties") or {}
    created = datetime.fromtimestamp(found.get("creationTimeUnix", 0) / 1000, UTC)
    line = {
        "id": properties.get("key") or found["id"],
        "embedding": found.get("vector") or [],
        "content": properties.get("content") or "",
        "metadata": _metadata(properties.get("metadata")),
        "created_at": created.isoformat(),
    }
    return {**line, "labels": properties["labels"]} if properties.get("labels") else line


def _metadata(text: str | None) -> Any:
    """Return what an application has put there: JSON as it should be, any other text as it is."""
    try:
        return orjson.loads(text) if text else {}
    except orjson.JSONDecodeError:
        return text


def _object(line: bytes, number: int, kept: Kept) -> dict[str, Any]:
    try:
        row = orjson.loads(line)
        key, vector = str(row["id"]), [float(each) for each in row["embedding"]]
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"line {number} is no row of an export: {type(error).__name__}: {error}") from error
    if len(vector) != kept.place.shape.dimensions:
        raise Refused(
            f"line {number} has a vector of {len(vector)} dimensions, and the place is for {kept.place.shape}"
        )
    metadata = row.get("metadata")
    properties = {
        "key": key,
        "content": row.get("content") or "",
        "metadata": metadata if isinstance(metadata, str) else orjson.dumps(metadata or {}).decode(),
        "labels": row.get("labels") or [],
    }
    where = {"class": kept.collection, "tenant": kept.place.tenant, "id": object_id(key)}
    return {**where, "vector": vector, "properties": properties}
