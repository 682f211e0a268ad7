"""Qdrant as the engine of a VectorShard. It was never run against a Qdrant server: see docs/shards.md.

A tenant has a collection of its own (`schema`), tokens that reach no further (`logins`), and a record (`owners`).
There are no transactions: a change is on record as begun before it is made, and what is on record as begun is done
again, by whoever comes next.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Final

from tenantry.adapters.qdrant import fitness, logins, owners, rows, schema
from tenantry.adapters.qdrant.client import Client, parse
from tenantry.adapters.qdrant.probe import probe
from tenantry.adapters.qdrant.schema import ELEMENT_BYTES, collection
from tenantry.adapters.recorded import Kept, RecordedEngine
from tenantry.api.shard import EngineKind
from tenantry.domain.fitness import Fitness
from tenantry.domain.places import Place, Record, id_of
from tenantry.domain.vectors import INDEX_ROWS, Shape
from tenantry.reconcile.ports import Unavailable

POINT_BYTES: Final = 1000
"""What a point takes beside its vector: the server tells no sizes, so a size is an estimate."""


class QdrantEngine(RecordedEngine[Kept]):
    """The port `Engine` of one shard on a Qdrant server."""

    def __init__(self, shard: str, address: str) -> None:
        super().__init__(shard, parse(address))
        self._client = Client(self._address)
        self._prepared = False

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

    async def probe(self, record: Record, neighbours: Sequence[Record]) -> Sequence[str]:
        """Try, as the tenant, to read its neighbours' rows."""
        client = Client(self._address, self.access(record)["password"])
        try:
            return await probe(client, record, neighbours)
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
        present = await logins.present(self._client, kept.id)
        if present != logins.wanted(kept.place, kept.id):
            return False
        return await schema.shape_of(self._client, kept.id) == kept.place.shape

    async def _shape(self, kept: Kept | None, wanted: Kept) -> Shape | None:  # noqa: ARG002 - the server knows
        return await schema.shape_of(self._client, wanted.id)

    async def _make(self, kept: Kept | None, wanted: Kept, present: Shape | None) -> Kept:  # noqa: ARG002
        id_, shape = wanted.id, wanted.place.shape
        logged_in = logins.wanted(wanted.place, id_)
        let_in = await logins.present(self._client, id_)
        if let_in - logged_in:
            await logins.close(self._client, id_, logged_in)
        if present is not None and present != shape:
            await schema.drop(self._client, id_)
        if present != shape:
            await schema.make(self._client, id_, shape)
        if logged_in - let_in:
            await logins.open_(self._client, id_, logged_in)
        return wanted

    async def _unmake(self, kept: Kept) -> None:
        await logins.close(self._client, kept.id, set())
        await schema.drop(self._client, kept.id)

    async def _is_empty(self, kept: Kept) -> bool:
        return not await schema.count(self._client, kept.id)

    async def _clear(self, kept: Kept) -> None:
        await schema.drop(self._client, kept.id)
        await schema.make(self._client, kept.id, kept.place.shape)

    def _rows(self, kept: Kept) -> AsyncGenerator[bytes, None]:
        return rows.export(self._client, kept)

    async def _put(self, kept: Kept, lines: AsyncIterator[bytes]) -> int:
        return await rows.restore(self._client, kept, lines)

    # --- measures ---------------------------------------------------------------------------------------------------

    async def _measured(self, kept: Kept) -> Record:
        return _record(kept, await schema.count(self._client, kept.id))


def _record(kept: Kept, count: int) -> Record:
    """Return a record with its measures. When the server has built an index it tells for each segment only."""
    indexed = count >= INDEX_ROWS
    shape = kept.place.shape
    vector = shape.dimensions * ELEMENT_BYTES[shape.type] * (2 if indexed else 1)
    return Record(kept.place, kept.id, count, count * (vector + POINT_BYTES), indexed, settled=kept.settled)
