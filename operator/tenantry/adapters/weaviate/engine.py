"""Weaviate as the engine of a VectorShard.

A tenant has a native tenant in the collection of its metric (see `schema`), two users with one role that reaches no
further, and a record. There are no transactions: a change is on record as begun before it is made, and what is on
record as begun is done again, by whoever comes next.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from tenantry.adapters.recorded import RecordedEngine
from tenantry.adapters.weaviate import logins, owners, rows, schema
from tenantry.adapters.weaviate.client import Client, parse
from tenantry.adapters.weaviate.logins import SLOTS, Login
from tenantry.adapters.weaviate.owners import Kept, Key
from tenantry.adapters.weaviate.probe import probe
from tenantry.api.shard import EngineKind
from tenantry.domain.fitness import Fitness
from tenantry.domain.places import Place, Record, id_of
from tenantry.domain.vectors import INDEX_ROWS, Shape
from tenantry.reconcile.ports import Unavailable

OBJECT_BYTES: Final = 1000
"""What an object takes beside its vector: the server tells no sizes, so a size is an estimate."""


class WeaviateEngine(RecordedEngine[Kept]):
    """The port `Engine` of one shard on a Weaviate server."""

    def __init__(self, shard: str, address: str) -> None:
        super().__init__(shard, parse(address))
        self._client = Client(self._address)
        self._keys: dict[tuple[str, int], str] = {}

    async def prepare(self) -> Fitness:
        """Look whether the server is fit, and make the collections."""
        return await schema.prepare(self._client)

    async def records(self) -> Sequence[Record]:
        """Return what is on record of every tenant: a request for a thousand of them, and one for the measures."""
        kept = [each async for each in owners.read(self._client)]
        counts = _counts(await self._client.ask("GET", "nodes", output="verbose"))
        found = [self._record(each, counts) for each in kept]
        return sorted(found, key=lambda record: record.place.tenant)

    def access(self, record: Record) -> Mapping[str, str]:
        """Return the contents of the tenant's Secret."""
        place, shape = record.place, record.place.shape
        key = self._keys.get((record.id, place.generation))
        if key is None:
            raise Unavailable(f"the key of {place.tenant} has not been read yet")
        host, port = self.endpoint
        return {
            "engine": EngineKind.WEAVIATE.value,
            "url": self._address.url,
            "host": host,
            "port": str(port),
            "grpcPort": str(self._address.grpc_port),
            "user": logins.user(record.id, place.slot),
            "password": key,
            "collection": schema.VECTORS[shape.metric],
            "tenant": place.tenant,
            "dimensions": str(shape.dimensions),
            "metric": str(shape.metric),
            "type": str(shape.type),
            "shard": self.shard,
            "epoch": str(place.epoch),
            "generation": str(place.generation),
        }

    async def probe(self, record: Record, neighbours: Sequence[Record]) -> Sequence[str]:
        """Try, as the tenant, to read its neighbours' rows."""
        client = Client(self._address, self.access(record)["password"])
        try:
            return await probe(client, Kept(record.place, record.id), neighbours)
        finally:
            await client.close()

    async def close(self) -> None:
        """Give up the connections."""
        await self._client.close()

    # --- a place ----------------------------------------------------------------------------------------------------

    async def _kept(self, tenant: str) -> Kept | None:
        return await owners.find(self._client, tenant)

    async def _write(self, kept: Kept) -> None:
        await owners.write(self._client, kept)

    async def _forget(self, tenant: str) -> None:
        await owners.forget(self._client, tenant)

    def _new(self, place: Place) -> Kept:
        return Kept(place, id_of(place.uid))

    async def _is_sound(self, kept: Kept) -> bool:
        present = await logins.find(self._client, kept.id)
        role = (logins.role(kept.id),)
        for slot in SLOTS:
            login, active = present.get(slot), _lets_in(kept.place, slot)
            if _fits(login, kept.keys.get(slot), _number(kept.place, slot)):
                if login is None or login.active is not active or login.roles != role:
                    return False
            elif slot == kept.place.slot or (login is not None and login.active):
                return False
        return await logins.has_role(self._client, kept) and await self._has_tenant(kept)

    async def _shape(self, kept: Kept | None, wanted: Kept) -> Shape | None:  # noqa: ARG002 - the server knows none
        return kept.place.shape if kept is not None else None

    async def _make(self, kept: Kept | None, wanted: Kept, present: Shape | None) -> Kept:
        if kept is not None and present != wanted.place.shape:
            await self._drop(kept)
        return replace(wanted, keys=await self._open(wanted))

    async def _open(self, kept: Kept) -> Mapping[str, Key]:
        """Have tenant, role and users as they should be, those who are not to be let in first; return the keys."""
        place, client = kept.place, self._client
        present = await logins.find(client, kept.id)
        for slot, login in present.items():
            known = slot == place.slot or _fits(login, kept.keys.get(slot), _number(place, slot))
            if login.active and not (known and _lets_in(place, slot)):
                await logins.set_active(client, kept.id, slot, False)
        if not await self._has_tenant(kept):
            await self._add(kept)
        renewed = not await logins.has_role(client, kept)
        if renewed:
            await logins.set_role(client, kept)
        keys = {}
        for slot in SLOTS:
            key, before = kept.keys.get(slot), present.get(slot)
            fits = _fits(before, key, _number(place, slot))
            if not fits and slot == place.slot:
                key = Key(place.generation, await logins.make_key(client, kept.id, slot, before))
                self._keys[kept.id, key.generation] = key.text
            elif not fits:
                continue  # of credentials that are over, or that somebody removed: nobody can make those again
            assert key is not None  # noqa: S101 - it fits, or was made
            keys[slot] = key
            now = await self._login(kept.id, slot)
            await logins.assign(client, kept.id, slot, replace(now, roles=()) if renewed else now)
            if now.active is not _lets_in(place, slot):
                await logins.set_active(client, kept.id, slot, _lets_in(place, slot))
        return keys

    async def _login(self, id_: str, slot: str) -> Login:
        found = await logins.find_one(self._client, id_, slot)
        if found is None:
            raise Unavailable(f"user {logins.user(id_, slot)} was removed meanwhile")
        return found

    async def _has_tenant(self, kept: Kept) -> bool:
        path = f"schema/{kept.collection}/tenants/{kept.place.tenant}"
        return await self._client.ask("GET", path) is not None

    async def _drop(self, kept: Kept) -> None:
        await self._client.ask("DELETE", f"schema/{kept.collection}/tenants", [kept.place.tenant])

    async def _add(self, kept: Kept) -> None:
        await self._client.ask("POST", f"schema/{kept.collection}/tenants", [{"name": kept.place.tenant}])

    async def _unmake(self, kept: Kept) -> None:
        await logins.remove(self._client, kept.id)
        await self._drop(kept)

    async def _is_empty(self, kept: Kept) -> bool:
        return not await rows.any_there(self._client, kept)

    async def _clear(self, kept: Kept) -> None:
        await self._drop(kept)
        await self._add(kept)

    def _rows(self, kept: Kept) -> AsyncGenerator[bytes, None]:
        return rows.export(self._client, kept)

    async def _put(self, kept: Kept, lines: AsyncIterator[bytes]) -> int:
        return await rows.restore(self._client, kept, lines)

    # --- measures ---------------------------------------------------------------------------------------------------

    async def _measured(self, kept: Kept) -> Record:
        query = {"output": "verbose", "shardName": kept.place.tenant}
        return self._record(kept, _counts(await self._client.ask("GET", f"nodes/{kept.collection}", **query)))

    def _record(self, kept: Kept, counts: Mapping[tuple[str, str], int]) -> Record:
        """Return a record with its measures. The server counts what it has written out, so a minute late."""
        for key in kept.keys.values():
            self._keys[kept.id, key.generation] = key.text
        count = counts.get((kept.collection, kept.place.tenant), 0)
        indexed = count >= INDEX_ROWS
        vector = kept.place.shape.dimensions * 4 * (2 if indexed else 1)
        return Record(
            kept.place, kept.id, count, count * (vector + OBJECT_BYTES), indexed, settled=kept.settled
        )


def _number(place: Place, slot: str) -> int:
    """Return the number of the credentials that a slot is for."""
    return place.generation if slot == place.slot else place.generation - 1


def _lets_in(place: Place, slot: str) -> bool:
    return place.open and (slot == place.slot or place.previous)


def _fits(login: Login | None, key: Key | None, number: int) -> bool:
    """Tell whether a user has the key that is on record, and it is the one of these credentials."""
    return (
        login is not None
        and key is not None
        and key.generation == number
        and bool(login.begins)
        and key.text.startswith(login.begins)
    )


def _counts(said: Any) -> dict[tuple[str, str], int]:
    """Return the number of objects by collection and tenant; of copies on several nodes the highest."""
    counts: dict[tuple[str, str], int] = {}
    for node in (said or {}).get("nodes") or []:
        for shard in node.get("shards") or []:
            where = shard["class"], shard["name"]
            counts[where] = max(counts.get(where, 0), int(shard.get("objectCount") or 0))
    return counts
