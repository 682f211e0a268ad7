"""What a server has on record of its tenants: a point of collection tenantry_owners for each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final
from uuid import UUID, uuid5

from qdrant_client import models

from tenantry.adapters.qdrant.client import Client, Missing
from tenantry.adapters.qdrant.schema import OWNERS, completed
from tenantry.adapters.recorded import Kept, as_json, from_json

PAGE: Final = 1000

_NAMESPACE: Final = UUID("c2f4b7d0-2d0e-5f3c-9d57-0a6de6f0b1e8")


def point_id(tenant: str) -> str:
    """Return the id of a tenant's record."""
    return str(uuid5(_NAMESPACE, tenant))


async def find(client: Client, tenant: str) -> Kept | None:
    """Return the record of one tenant."""
    try:
        found = await client.ask(lambda server: server.retrieve(OWNERS, [point_id(tenant)]))
    except Missing:
        return None
    return from_json(found[0].payload or {}) if found else None


async def read(client: Client) -> AsyncIterator[Kept]:
    """Yield every record, by pages."""
    after: Any = None
    while True:
        page, after = await client.ask(lambda server: server.scroll(OWNERS, limit=PAGE, offset=after))  # noqa: B023
        for each in page:
            yield from_json(each.payload or {})
        if after is None:
            return


async def write(client: Client, kept: Kept) -> None:
    """Put a record there, over the one before."""
    point = models.PointStruct(id=point_id(kept.place.tenant), vector=[1.0], payload=as_json(kept))
    completed(await client.ask(lambda server: server.upsert(OWNERS, [point], wait=True)))


async def forget(client: Client, tenant: str) -> None:
    """Remove a record."""
    selector = models.PointIdsList(points=[point_id(tenant)])
    completed(await client.ask(lambda server: server.delete(OWNERS, selector, wait=True)))
