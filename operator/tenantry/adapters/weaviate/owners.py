"""What a server has on record of its tenants: an object of collection TenantryOwners for each.

The API keys of a tenant's users are in it, since the server makes them and tells each once. So whoever reads that
collection, or a backup of the server, has all tenants' keys; as with pgvector, where the key of all passwords is in a
table.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID, uuid5

import orjson

from tenantry.adapters import recorded
from tenantry.adapters.weaviate.client import Client
from tenantry.adapters.weaviate.schema import OWNERS, VECTORS
from tenantry.reconcile.ports import Unavailable

PAGE: Final = 1000

_NAMESPACE: Final = UUID("0f6f1f0e-8f9d-5c39-9a43-5d1f8f0c7a11")


@dataclass(frozen=True, slots=True)
class Key:
    """What an application logs in with as one of the two users: the number of the credentials, and the API key."""

    generation: int
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Kept(recorded.Kept):
    """A record as it is kept. keys: by slot."""

    keys: Mapping[str, Key] = field(default_factory=dict)

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
    keys = {slot: [key.generation, key.text] for slot, key in kept.keys.items()}
    record = {**recorded.as_json(kept), "keys": keys}
    properties = {"tenant": kept.place.tenant, "record": orjson.dumps(record).decode()}
    await put(client, [{"class": OWNERS, "id": object_id(kept.place.tenant), "properties": properties}])


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
    record = orjson.loads(found["properties"]["record"])
    keys = {slot: Key(*key) for slot, key in record["keys"].items()}
    common = recorded.from_json(record)
    return Kept(common.place, common.id, common.settled, common.restoring, keys)
