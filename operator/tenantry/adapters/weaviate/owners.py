"""What a server has on record of its tenants: an object of collection TenantryOwners for each.

The API keys of a tenant's users are in it, since the server makes them and tells each once. So whoever reads that
collection, or a backup of the server, has all tenants' keys; as with pgvector, where the key of all passwords is in a
table.

Weaviate has no transactions. A change of a place is put on record as begun (`settled` is false) before anything of it
is done, and as done after all of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid5

import orjson

from tenantry.adapters.weaviate.client import Client
from tenantry.adapters.weaviate.schema import OWNERS, VECTORS
from tenantry.api.tenant import Metric, VectorType
from tenantry.domain.places import Place, PlaceState
from tenantry.domain.vectors import Shape
from tenantry.reconcile.ports import Unavailable

PAGE: Final = 1000

_NAMESPACE: Final = UUID("0f6f1f0e-8f9d-5c39-9a43-5d1f8f0c7a11")


@dataclass(frozen=True, slots=True)
class Key:
    """What an application logs in with as one of the two users: the number of the credentials, and the API key."""

    generation: int
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Kept:
    """A record as it is kept. keys: by slot. restoring: rows of an export may be there in part."""

    place: Place
    id: str
    keys: Mapping[str, Key] = field(default_factory=dict)
    settled: bool = True
    restoring: bool = False

    @property
    def collection(self) -> str:
        """Return the collection that the tenant's vectors are in."""
        return VECTORS[self.place.shape.metric]


def object_id(tenant: str) -> str:
    """Return the id of a tenant's record."""
    return str(uuid5(_NAMESPACE, tenant))


async def find(client: Client, tenant: str) -> Kept | None:
    """Return the record of one tenant."""
    found = await client.ask("GET", f"objects/{OWNERS}/{object_id(tenant)}")
    return _read(found) if found else None


async def read(client: Client) -> AsyncIterator[Kept]:
    """Yield every record, by pages."""
    after = ""
    while True:
        query = {"class": OWNERS, "limit": PAGE, **({"after": after} if after else {})}
        page = (await client.ask("GET", "objects", **query) or {}).get("objects") or []
        for each in page:
            yield _read(each)
        if len(page) < PAGE:
            return
        after = page[-1]["id"]


async def write(client: Client, kept: Kept) -> None:
    """Put a record there, over the one before."""
    place, shape = kept.place, kept.place.shape
    record = {
        "id": kept.id,
        "uid": place.uid,
        "owner": place.owner,
        "epoch": place.epoch,
        "shape": [shape.dimensions, shape.metric, shape.type],
        "since": place.since.isoformat(),
        "state": place.state,
        "open": place.open,
        "generation": place.generation,
        "mark": place.mark,
        "previous": place.previous,
        "keys": {slot: [key.generation, key.text] for slot, key in kept.keys.items()},
        "settled": kept.settled,
        "restoring": kept.restoring,
    }
    properties = {"tenant": place.tenant, "record": orjson.dumps(record).decode()}
    await put(client, [{"class": OWNERS, "id": object_id(place.tenant), "properties": properties}])


async def forget(client: Client, tenant: str) -> None:
    """Remove a record."""
    await client.ask("DELETE", f"objects/{OWNERS}/{object_id(tenant)}")


async def put(client: Client, objects: list[dict[str, Any]]) -> None:
    """Store objects, over those of the same ids. Raises Unavailable where one of them was not stored."""
    answers = await client.ask("POST", "batch/objects", {"objects": objects})
    for each in answers or []:
        errors = ((each.get("result") or {}).get("errors") or {}).get("error") or []
        if errors:
            raise Unavailable(f"an object was not stored: {errors[0].get('message', '')}")


def _read(found: Mapping[str, Any]) -> Kept:
    properties = found["properties"]
    record = orjson.loads(properties["record"])
    dimensions, metric, type_ = record["shape"]
    place = Place(
        properties["tenant"],
        record["uid"],
        record["owner"],
        record["epoch"],
        Shape(dimensions, Metric(metric), VectorType(type_)),
        datetime.fromisoformat(record["since"]),
        PlaceState(record["state"]),
        record["open"],
        record["generation"],
        record["mark"],
        record["previous"],
    )
    keys = {slot: Key(*key) for slot, key in record["keys"].items()}
    return Kept(place, record["id"], keys, record["settled"], record["restoring"])
