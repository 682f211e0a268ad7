"""What a server has on record of its tenants: a point of collection tenantry_owners for each.

Qdrant has no transactions. A change of a place is put on record as begun (`settled` is false) before anything of it
is done, and as done after all of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid5

from qdrant_client import models

from tenantry.adapters.qdrant.client import Client, Missing
from tenantry.adapters.qdrant.schema import OWNERS, completed
from tenantry.api.tenant import Metric, VectorType
from tenantry.domain.places import Place, PlaceState
from tenantry.domain.vectors import Shape

PAGE: Final = 1000

_NAMESPACE: Final = UUID("c2f4b7d0-2d0e-5f3c-9d57-0a6de6f0b1e8")


@dataclass(frozen=True, slots=True)
class Kept:
    """A record as it is kept. restoring: rows of an export may be there in part."""

    place: Place
    id: str
    settled: bool = True
    restoring: bool = False


def point_id(tenant: str) -> str:
    """Return the id of a tenant's record."""
    return str(uuid5(_NAMESPACE, tenant))


async def find(client: Client, tenant: str) -> Kept | None:
    """Return the record of one tenant."""
    try:
        found = await client.ask(lambda server: server.retrieve(OWNERS, [point_id(tenant)]))
    except Missing:
        return None
    return _read(found[0].payload or {}) if found else None


async def read(client: Client) -> AsyncIterator[Kept]:
    """Yield every record, by pages."""
    after: Any = None
    while True:
        page, after = await client.ask(lambda server: server.scroll(OWNERS, limit=PAGE, offset=after))  # noqa: B023
        for each in page:
            yield _read(each.payload or {})
        if after is None:
            return


async def write(client: Client, kept: Kept) -> None:
    """Put a record there, over the one before."""
    place, shape = kept.place, kept.place.shape
    payload = {
        "tenant": place.tenant,
        "id": kept.id,
        "uid": place.uid,
        "owner": place.owner,
        "epoch": place.epoch,
        "dimensions": shape.dimensions,
        "metric": str(shape.metric),
        "type": str(shape.type),
        "since": place.since.isoformat(),
        "state": str(place.state),
        "open": place.open,
        "generation": place.generation,
        "mark": place.mark,
        "previous": place.previous,
        "settled": kept.settled,
        "restoring": kept.restoring,
    }
    point = models.PointStruct(id=point_id(place.tenant), vector=[1.0], payload=payload)
    completed(await client.ask(lambda server: server.upsert(OWNERS, [point], wait=True)))


async def forget(client: Client, tenant: str) -> None:
    """Remove a record."""
    selector = models.PointIdsList(points=[point_id(tenant)])
    completed(await client.ask(lambda server: server.delete(OWNERS, selector, wait=True)))


def _read(payload: dict[str, Any]) -> Kept:
    place = Place(
        payload["tenant"],
        payload["uid"],
        payload["owner"],
        payload["epoch"],
        Shape(payload["dimensions"], Metric(payload["metric"]), VectorType(payload["type"])),
        datetime.fromisoformat(payload["since"]),
        PlaceState(payload["state"]),
        payload["open"],
        payload["generation"],
        payload["mark"],
        payload["previous"],
    )
    return Kept(place, payload["id"], payload["settled"], payload["restoring"])
