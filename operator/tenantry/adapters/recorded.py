"""Places on servers that have no transactions: what is begun is on record before it is done, and as done after it.

A record that is not settled tells of a change that was begun, and whoever reads it makes it again. So it is with a
restore that was broken off (`restoring`): what it left is removed before the next one. What a server is told for each
step is the engine's own.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

from tenantry.adapters.addresses import Address
from tenantry.api.tenant import Metric, VectorType
from tenantry.domain.places import Place, PlaceState, Record, outdated
from tenantry.domain.vectors import Shape
from tenantry.reconcile.ports import Before, Refused, Unavailable


@dataclass(frozen=True, slots=True)
class Kept:
    """A record as it is kept. restoring: rows of an export may be there in part."""

    place: Place
    id: str
    settled: bool = True
    restoring: bool = False


K = TypeVar("K", bound=Kept)


def as_json(kept: Kept) -> dict[str, Any]:
    """Return a record as JSON."""
    place, shape = kept.place, kept.place.shape
    return {
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


def from_json(record: Mapping[str, Any]) -> Kept:
    """Return a record that `as_json` has made."""
    place = Place(
        record["tenant"],
        record["uid"],
        record["owner"],
        record["epoch"],
        Shape(record["dimensions"], Metric(record["metric"]), VectorType(record["type"])),
        datetime.fromisoformat(record["since"]),
        PlaceState(record["state"]),
        record["open"],
        record["generation"],
        record["mark"],
        record["previous"],
    )
    return Kept(place, record["id"], record["settled"], record["restoring"])


class RecordedEngine(ABC, Generic[K]):
    """What such engines of the port `Engine` have in common."""

    def __init__(self, shard: str, address: Address) -> None:
        self.shard = shard
        self._address = address
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def endpoint(self) -> tuple[str, int]:
        """Return host and port of the server, as its address has them."""
        return self._address.host, self._address.port

    @property
    def more_ports(self) -> Sequence[int]:
        """Return the port of gRPC."""
        return (self._address.grpc_port,)

    async def find(self, tenant: str) -> Record | None:
        """Return what is on record of one tenant."""
        kept = await self._kept(tenant)
        return await self._measured(kept) if kept is not None else None

    async def ensure(self, place: Place, instead_of: Place | None = None) -> Record:
        """Bring a tenant's place to be as described; one that is so already is not written to."""
        async with self._alone(place.tenant):
            kept = await self._kept(place.tenant)
            if outdated(place, kept.place if kept else None, instead_of):
                raise Unavailable(f"the place of {place.tenant} was changed meanwhile: it is read again")
            wanted = replace(kept, place=place) if kept else self._new(place)
            if kept is None or kept.place != place or not kept.settled or not await self._is_sound(kept):
                present = await self._shape(kept, wanted)
                if present not in (None, place.shape) and not await self._is_empty(kept or wanted):
                    raise Refused(
                        f"the place of {place.tenant} holds vectors of {present} and was asked for {place.shape}: "
                        f"delete the vectors first"
                    )
                await self._write(replace(kept or wanted, settled=False))
                wanted = replace(await self._make(kept, wanted, present), settled=True)
                await self._write(wanted)
            return await self._measured(wanted)

    async def remove(self, tenant: str) -> None:
        """Let nobody in any more, remove a tenant's place, then the record of it."""
        async with self._alone(tenant):
            kept = await self._kept(tenant)
            if kept is not None:
                await self._unmake(kept)
                await self._forget(tenant)

    async def index(self, tenant: str) -> None:
        """Do nothing: the server builds the index by itself, when its collection says so."""

    async def export(self, tenant: str) -> AsyncGenerator[bytes, None]:
        """Yield a tenant's rows, whose place is closed meanwhile."""
        kept = await self._present(tenant)
        async with aclosing(self._rows(kept)) as pieces:
            async for piece in pieces:
                yield piece

    async def restore(self, tenant: str, lines: AsyncIterator[bytes], before: Before | None = None) -> int:
        """Put exported rows into a tenant's place, which must be empty; what is there in part is removed again."""
        async with self._alone(tenant):
            kept = await self._present(tenant)
            if kept.restoring:
                await self._clear(kept)
            elif not await self._is_empty(kept):
                raise Refused(f"the place of {tenant} holds vectors already: delete them first")
            await self._write(replace(kept, restoring=True))
            try:
                count = await self._put(kept, lines)
                if before is not None:
                    await before()
            except BaseException:
                await self._clear(kept)
                await self._write(replace(kept, restoring=False))
                raise
            await self._write(replace(kept, restoring=False))
            return count

    def _alone(self, tenant: str) -> asyncio.Lock:
        """Return what keeps two writes to one place apart: only this process writes."""
        return self._locks.setdefault(tenant, asyncio.Lock())

    async def _present(self, tenant: str) -> K:
        kept = await self._kept(tenant)
        if kept is None:
            raise Refused(f"there is no place of {tenant}")
        return kept

    # --- the engine's own -------------------------------------------------------------------------------------------

    @abstractmethod
    async def _kept(self, tenant: str) -> K | None:
        """Return the record of a tenant."""

    @abstractmethod
    async def _write(self, kept: K) -> None:
        """Put a record there, over the one before."""

    @abstractmethod
    async def _forget(self, tenant: str) -> None:
        """Remove a record."""

    @abstractmethod
    async def _measured(self, kept: K) -> Record:
        """Return a record with its measures."""

    @abstractmethod
    def _new(self, place: Place) -> K:
        """Return the first record of a place."""

    @abstractmethod
    async def _is_sound(self, kept: K) -> bool:
        """Tell whether the server is as a record says."""

    @abstractmethod
    async def _shape(self, kept: K | None, wanted: K) -> Shape | None:
        """Return the shape that a place has on the server; None: there is none."""

    @abstractmethod
    async def _make(self, kept: K | None, wanted: K, present: Shape | None) -> K:
        """Have everything as wanted, those who are not to be let in first; return the record of it.

        present: the shape of what is there. Where it is another one, it is empty.
        """

    @abstractmethod
    async def _unmake(self, kept: K) -> None:
        """Let nobody in any more, and remove the place."""

    @abstractmethod
    async def _is_empty(self, kept: K) -> bool:
        """Tell whether a place holds no vectors."""

    @abstractmethod
    async def _clear(self, kept: K) -> None:
        """Remove all vectors of a place."""

    @abstractmethod
    def _rows(self, kept: K) -> AsyncGenerator[bytes, None]:
        """Yield the rows of a place, as lines of JSON."""

    @abstractmethod
    async def _put(self, kept: K, lines: AsyncIterator[bytes]) -> int:
        """Put rows into a place; return how many."""
