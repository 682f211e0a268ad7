"""Weaviate as the engine of a VectorShard.

A tenant has a native tenant in the collection of its metric (see `schema`), two users with one role that reaches no
further, and a record. There are no transactions: a change is on record as begun before it is made, and what is on
record as begun is done again, by whoever comes next.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final
from weakref import WeakValueDictionary

from tenantry.adapters.weaviate import logins, owners, rows, schema
from tenantry.adapters.weaviate.client import Client, parse
from tenantry.adapters.weaviate.logins import SLOTS, Login
from tenantry.adapters.weaviate.owners import Kept, Key
from tenantry.adapters.weaviate.probe import probe
from tenantry.api.shard import EngineKind
from tenantry.domain.fitness import Fitness
from tenantry.domain.places import Place, Record, id_of, outdated
from tenantry.domain.vectors import INDEX_ROWS
from tenantry.reconcile.ports import Before, Refused, Unavailable

OBJECT_BYTES: Final = 1000
"""What an object takes beside its vector: the server tells no sizes, so a size is an estimate."""


class WeaviateEngine:
    """The port `Engine` of one shard on a Weaviate server."""

    def __init__(self, shard: str, address: str) -> None:
        self.shard = shard
        self._address = parse(address)
        self._client = Client(self._address)
        self._keys: dict[tuple[str, int], str] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def endpoint(self) -> tuple[str, int]:
        """Return host and port of the server, as its address has them."""
        return self._address.host, self._address.port

    @property
    def more_ports(self) -> Sequence[int]:
        """Return the port of gRPC, by which applications search."""
        return (self._address.grpc_port,)

    async def prepare(self) -> Fitness:
        """Look whether the server is fit, and make the collections."""
        return await schema.prepare(self._client)

    async def records(self) -> Sequence[Record]:
        """Return what is on record of every tenant: a request for a thousand of them, and one for the measures."""
        kept = [each async for each in owners.read(self._client)]
        counts = _counts(await self._client.ask("GET", "nodes", output="verbose"))
        found = [self._record(each, counts) for each in kept]
        return sorted(found, key=lambda record: record.place.tenant)

    async def find(self, tenant: str) -> Record | None:
        """Return what is on record of one tenant."""
        kept = await owners.find(self._client, tenant)
        return await self._measured(kept) if kept is not None else None

    async def ensure(self, place: Place) -> Record:
        """Bring a tenant's place to be as described; one that is so already is not written to."""
        async with self._alone(place.tenant):
            kept = await owners.find(self._client, place.tenant)
            if outdated(place, kept.place if kept else None):
                raise Unavailable(f"the place of {place.tenant} was changed meanwhile: it is read again")
            wanted = replace(kept, place=place) if kept else Kept(place, id_of(place.uid))
            if kept is None or kept.place != place or not kept.settled or not await self._is_sound(kept):
                if kept is not None and kept.place.shape != place.shape:
                    await self._refuse_with_rows(kept, place)
                await owners.write(self._client, replace(kept or wanted, settled=False))
                if kept is not None and kept.place.shape != place.shape:
                    await self._drop(kept)
                wanted = replace(wanted, settled=True, keys=await self._make(wanted))
                await owners.write(self._client, wanted)
            return await self._measured(wanted)

    async def remove(self, tenant: str) -> None:
        """Let nobody in any more, remove a tenant's place, then the record of it."""
        async with self._alone(tenant):
            kept = await owners.find(self._client, tenant)
            if kept is not None:
                await logins.remove(self._client, kept.id)
                await self._drop(kept)
                await owners.forget(self._client, tenant)

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

    async def index(self, tenant: str) -> None:
        """Do nothing: the server builds the index by itself, at the number of rows that its collection says."""

    async def probe(self, record: Record, neighbours: Sequence[Record]) -> Sequence[str]:
        """Try, as the tenant, to read its neighbours' rows."""
        client = Client(self._address, self.access(record)["password"])
        try:
            return await probe(client, Kept(record.place, record.id), neighbours)
        finally:
            await client.close()

    async def export(self, tenant: str) -> AsyncGenerator[bytes, None]:
        """Yield a tenant's rows, whose place is closed meanwhile."""
        kept = await self._present(tenant)
        async with aclosing(rows.export(self._client, kept)) as pieces:
            async for piece in pieces:
                yield piece

    async def restore(self, tenant: str, lines: AsyncIterator[bytes], before: Before | None = None) -> int:
        """Put exported rows into a tenant's place, which must be empty; what is there in part is removed again."""
        async with self._alone(tenant):
            kept = await self._present(tenant)
            if kept.restoring:
                await self._empty(kept)
            elif await rows.any_there(self._client, kept):
                raise Refused(f"the place of {tenant} holds vectors already: delete them first")
            await owners.write(self._client, replace(kept, restoring=True))
            try:
                count = await rows.restore(self._client, kept, lines)
                if before is not None:
                    await before()
            except BaseException:
                await self._empty(kept)
                await owners.write(self._client, replace(kept, restoring=False))
                raise
            await owners.write(self._client, replace(kept, restoring=False))
            return count

    async def close(self) -> None:
        """Give up the connections."""
        await self._client.close()

    # --- a place ----------------------------------------------------------------------------------------------------

    def _alone(self, tenant: str) -> asyncio.Lock:
        """Return what keeps two writes to one place apart: only this process writes."""
        return self._locks.setdefault(tenant, asyncio.Lock())

    async def _present(self, tenant: str) -> Kept:
        kept = await owners.find(self._client, tenant)
        if kept is None:
            raise Refused(f"there is no place of {tenant}")
        return kept

    async def _is_sound(self, kept: Kept) -> bool:
        """Tell whether the server is as its record says."""
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

    async def _make(self, kept: Kept) -> Mapping[str, Key]:
        """Have tenant, role and users as they should be, those who are not to be let in first; return the keys."""
        place, client = kept.place, self._client
        present = await logins.find(client, kept.id)
        for slot, login in present.items():
            known = slot == place.slot or _fits(login, kept.keys.get(slot), _number(place, slot))
            if login.active and not (known and _lets_in(place, slot)):
                await logins.set_active(client, kept.id, slot, False)
        if not await self._has_tenant(kept):
            await client.ask("POST", f"schema/{kept.collection}/tenants", [{"name": place.tenant}])
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

    async def _empty(self, kept: Kept) -> None:
        await self._drop(kept)
        await self._client.ask("POST", f"schema/{kept.collection}/tenants", [{"name": kept.place.tenant}])

    async def _refuse_with_rows(self, kept: Kept, place: Place) -> None:
        if await rows.any_there(self._client, kept):
            raise Refused(
                f"the place of {place.tenant} holds vectors of {kept.place.shape} and was asked for {place.shape}: "
                f"delete the vectors first"
            )

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
