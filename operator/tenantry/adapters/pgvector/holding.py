"""The moment of a move at its two servers: writes are held back, and then go on at the target.

Whatever can be done before the fence goes up is: connections are open, and what has changed since the comparison is
compared as far as it goes. Each step from there on is sent in one piece.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.errors import LockNotAvailable

from tenantry.adapters.pgvector import changes, comparing, fence, replication
from tenantry.adapters.pgvector.comparing import Compared
from tenantry.adapters.pgvector.connections import LONGEST, watched
from tenantry.adapters.pgvector.engine import PgvectorEngine
from tenantry.adapters.pgvector.server import flush, translating
from tenantry.adapters.pgvector.store import Place as Site
from tenantry.domain.places import Place, PlaceState
from tenantry.reconcile.mover import Busy
from tenantry.reconcile.ports import Refused

Connection = AsyncConnection[Any]

GATE_SECONDS: Final = 0.2
"""A marker that takes longer through the replication tells that the target is behind: no writes are held back."""

MARKER_SECONDS: Final = 5.0

ROUNDS: Final = 2
"""Comparisons of what has changed, before writes are held back: the second one finds what came during the first."""

_STATE: Final = "UPDATE tenantry.owners SET state = {state}, updated_at = now() WHERE tenant = {tenant}"


@dataclass(slots=True)
class Lines:
    """Connections that are open before writes are held back. spare: a second one to the target."""

    source: Connection
    target: Connection
    spare: Connection
    stack: AsyncExitStack

    async def close(self) -> None:
        """Give them up."""
        await self.stack.aclose()


async def lines(source: PgvectorEngine, target: PgvectorEngine) -> Lines:
    """Open them."""
    async with AsyncExitStack() as stack:
        here, there, spare = [
            await stack.enter_async_context(each.own_connection()) for each in (source, target, target)
        ]
        return Lines(here, there, spare, stack.pop_all())


class Held:
    """A tenant's writes, held back or about to be. name: of the replication."""

    def __init__(self, lines: Lines, site: Site, name: str) -> None:
        self._lines, self._site, self._name = lines, site, name

    async def hold(self, compared: Compared) -> float:
        """Hold writes back until all are on the target and compared; return for how many seconds they wait by now.

        Raises Busy, and Refused where the two differ.
        """
        source, target = self._lines.source, self._lines.target
        for _ in range(ROUNDS):
            compared.open |= await changes.take(source, self._site, compared.run)
            await replication.marked(source, target, self._name, GATE_SECONDS)
            compared.open = await comparing.still_open(source, target, self._site, compared.open)
        await fence.cancel_vacuum(source, self._site)
        began = time.monotonic()
        number = await self._fence_up()
        (ids, here), _ = await asyncio.gather(
            self._changed(compared), replication.arrived(target, self._name, number, MARKER_SECONDS)
        )
        # What replication applies is on the target's disk somewhat later than it can be seen: it is made to be.
        there, _ = await asyncio.gather(comparing.these(target, self._site, ids), flush(self._lines.spare))
        differ = comparing.unlike(here, there)
        if differ:
            raise Refused(f"{len(differ)} of the rows that were written last differ, such as {min(differ)!r}")
        return time.monotonic() - began

    async def activate(self, place: Place) -> bool:
        """Have the target take writes; False where more than its state is to be changed."""
        flip = sql.SQL(
            _STATE
            + " AND state = 'importing' AND uid = {uid} AND epoch = {epoch} AND generation = {generation}"
            " AND open = {open} RETURNING 1"
        ).format(
            state=sql.Literal(str(place.state)),
            tenant=sql.Literal(place.tenant),
            uid=sql.Literal(place.uid),
            epoch=sql.Literal(place.epoch),
            generation=sql.Literal(place.generation),
            open=sql.Literal(place.open),
        )
        target = self._lines.target
        with translating(), watched(target, LONGEST):
            cursor = await target.execute(flip)
            return await cursor.fetchone() is not None

    async def redirect(self) -> None:
        """Have the source send writers on; that they are sent on is on its disk somewhat later."""
        source, moved = self._lines.source, self._state(PlaceState.MOVED)
        with translating(), watched(source, LONGEST):
            await source.execute(
                sql.SQL("SELECT set_config('synchronous_commit', 'off', true); {}").format(moved)
            )

    async def _fence_up(self) -> int:
        """Hold writes back from here on, and send a marker after the last; return its number.

        Raises Busy where somebody's transaction does not end.
        """
        pieces = [
            sql.SQL(fence.WAIT),
            sql.SQL("LOCK TABLE ONLY {} IN SHARE ROW EXCLUSIVE MODE").format(self._site.table),
            fence.raised(self._site),
            self._state(PlaceState.BLOCKED),
            replication.marker(self._name),
        ]
        try:
            cursor = await self._lines.source.execute(sql.SQL("; ").join(pieces))
        except LockNotAvailable:
            raise Busy("a transaction that writes does not end") from None
        (number,) = await _last(cursor) or (0,)
        return int(number)

    def _state(self, state: PlaceState) -> sql.Composed:
        return sql.SQL(_STATE).format(state=sql.Literal(str(state)), tenant=sql.Literal(self._site.tenant))

    async def _changed(self, compared: Compared) -> tuple[set[str], dict[str, int]]:
        """Return the ids of what has changed, and the rows of those that are there."""
        source = self._lines.source
        ids = compared.open | await changes.listed(source, self._site, compared.run)
        return ids, await comparing.these(source, self._site, ids)


async def _last(cursor: psycopg.AsyncCursor[Any]) -> Any:
    """Return the row that the last of several statements returned."""
    while cursor.nextset():
        pass
    return await cursor.fetchone()
