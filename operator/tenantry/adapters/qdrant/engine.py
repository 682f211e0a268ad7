"""Qdrant as the engine of a VectorShard. It was never run against a Qdrant server: see docs/shards.md.

A tenant has a collection of its own (`schema`), tokens that reach no further (`logins`), and a record (`owners`).
There are no transactions: a change is on record as begun before it is made, and what is on record as begun is done
again, by whoever comes next.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final
from weakref import WeakValueDictionary

from tenantry.adapters.qdrant import fitness, logins, owners, rows, schema
from tenantry.adapters.qdrant.client import Client, parse
from tenantry.adapters.qdrant.owners import Kept
from tenantry.adapters.qdrant.probe import probe
from tenantry.adapters.qdrant.schema import ELEMENT_BYTES, collection
from tenantry.api.shard import EngineKind
from tenantry.domain.fitness import Fitness
from tenantry.domain.places import Place, Record, id_of, outdated
from tenantry.domain.vectors import INDEX_ROWS, Shape
from tenantry.reconcile.ports import Before, Refused, Unavailable

POINT_BYTES: Final = 1000
"""What a point takes beside its vector: the server tells no sizes, so a size is an estimate."""


class QdrantEngine:
    """The port `Engine` of one shard on a Qdrant server."""

    def __init__(self, shard: str, address: str) -> None:
        self.shard = shard
        self._address = parse(address)
        self._client = Client(self._address)
        self._prepared = False
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def endpoint(self) -> tuple[str, int]:
        """Return host and port of the server, as its address has them."""
        return self._address.host, self._address.port

    @property
    def more_ports(self) -> Sequence[int]:
        """Return the port of gRPC, by which applications may speak to it."""
        return (self._address.grpc_port,)

    async def prepare(self) -> Fitness:
        """Look whether the server is fit, and make the operator's own collections."""
        found = await fitness.prepare(self._client, self._address)
        self._prepared = self._prepared or found.unfit is None
        return found

    async def records(self) -> Sequence[Record]:
        """Return what is on record of every tenant: a request for a thousand of them, and one for the measures."""
        kept = [each async for each in owners.read(self._client)]
        counts = await schema.counts(self._client)
        found = [_record(each, counts.get(collection(each.id), 0)) for each in kept]
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
                present = await schema.shape_of(self._client, wanted.id)
                await self._refuse_with_rows(wanted, present)
                await owners.write(self._client, replace(kept or wanted, settled=False))
                await self._make(wanted, present)
                wanted = replace(wanted, settled=True)
                await owners.write(self._client, wanted)
            return await self._measured(wanted)

    async def remove(self, tenant: str) -> None:
        """Let nobody in any more, remove a tenant's place, then the record of it."""
        async with self._alone(tenant):
            kept = await owners.find(self._client, tenant)
            if kept is not None:
                await logins.close(self._client, kept.id, set())
                await schema.drop(self._client, kept.id)
                await owners.forget(self._client, tenant)

    def access(self, record: Record) -> Mapping[str, str]:
        """Return the contents of the tenant's Secret."""
        if not self._prepared:
            raise Unavailable("the server has not been prepared yet")
        place, shape = record.place, record.place.shape
        host, port = self.endpoint
        return {
            "engine": EngineKind.QDRANT.value,
            "url": self._address.url,
            "host": host,
            "port": str(port),
            "grpcPort": str(self._address.grpc_port),
            "user": logins.login(record.id, place.generation),
            "password": logins.token(self._address.key, record.id, place.generation),
            "collection": collection(record.id),
            "tenant": place.tenant,
            "dimensions": str(shape.dimensions),
            "metric": str(shape.metric),
            "type": str(shape.type),
            "shard": self.shard,
            "epoch": str(place.epoch),
            "generation": str(place.generation),
        }

    async def index(self, tenant: str) -> None:
        """Do nothing: the server builds the index by itself, at the size that its collection says."""

    async def probe(self, record: Record, neighbours: Sequence[Record]) -> Sequence[str]:
        """Try, as the tenant, to read its neighbours' rows."""
        client = Client(self._address, self.access(record)["password"])
        try:
            return await probe(client, record, neighbours)
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
            elif await schema.count(self._client, kept.id):
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
        present = await logins.present(self._client, kept.id)
        if present != logins.wanted(kept.place, kept.id):
            return False
        return await schema.shape_of(self._client, kept.id) == kept.place.shape

    async def _make(self, kept: Kept, present: Shape | None) -> None:
        """Have logins and collection as they should be, those who are not to be let in first. present: its shape."""
        wanted = logins.wanted(kept.place, kept.id)
        let_in = await logins.present(self._client, kept.id)
        if let_in - wanted:
            await logins.close(self._client, kept.id, wanted)
        if present is not None and present != kept.place.shape:
            await schema.drop(self._client, kept.id)
        if present != kept.place.shape:
            await schema.make(self._client, kept.id, kept.place.shape)
        if wanted - let_in:
            await logins.open_(self._client, kept.id, wanted)

    async def _empty(self, kept: Kept) -> None:
        await schema.drop(self._client, kept.id)
        await schema.make(self._client, kept.id, kept.place.shape)

    async def _refuse_with_rows(self, kept: Kept, present: Shape | None) -> None:
        """Raise Refused where the collection is of another shape and not empty."""
        if present in (None, kept.place.shape) or not await schema.count(self._client, kept.id):
            return
        raise Refused(
            f"the place of {kept.place.tenant} holds vectors of {present} and was asked for {kept.place.shape}: "
            f"delete the vectors first"
        )

    # --- measures ---------------------------------------------------------------------------------------------------

    async def _measured(self, kept: Kept) -> Record:
        return _record(kept, await schema.count(self._client, kept.id))


def _record(kept: Kept, count: int) -> Record:
    """Return a record with its measures. When the server has built an index it tells for each segment only."""
    indexed = count >= INDEX_ROWS
    shape = kept.place.shape
    vector = shape.dimensions * ELEMENT_BYTES[shape.type] * (2 if indexed else 1)
    return Record(kept.place, kept.id, count, count * (vector + POINT_BYTES), indexed, settled=kept.settled)
