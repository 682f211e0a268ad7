"""Moves a tenant's place between two PostgreSQL servers by logical replication; the port `Mover`.

    prepare    publication at the source, place and subscription at the target: PostgreSQL copies, and goes on copying
    verify     all rows are compared, and writers list what they change from then on
    block      the fence goes up at the source, a marker goes through the replication after the last write, and
               what is on that list is compared (`holding`)
    activate   the target's place is the tenant's; then `redirect` and `detach` end the source's part

All names come from the tenant's id and the epoch that is left, so that another process finds what one has left.
The schema has the same name on both servers: the target's record takes over the source's id.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from psycopg import AsyncConnection, sql

from tenantry.adapters.pgvector import changes, comparing, fence, owners, replication
from tenantry.adapters.pgvector.comparing import Compared
from tenantry.adapters.pgvector.engine import PgvectorEngine
from tenantry.adapters.pgvector.holding import MARKER_SECONDS, Held, Lines, lines
from tenantry.adapters.pgvector.server import flush, translating
from tenantry.domain.places import Place, PlaceState, Record
from tenantry.reconcile.mover import Blocked, Busy, Progress
from tenantry.reconcile.ports import Refused

Connection = AsyncConnection[Any]

COMPARE_SECONDS: Final = 10.0
"""How long a reconcile waits for a comparison; a longer one goes on behind."""


class PgvectorMover:
    """The move of one tenant."""

    def __init__(self, source: PgvectorEngine, target: PgvectorEngine, tenant: str) -> None:
        self._source, self._target, self._tenant = source, target, tenant
        self._lines: Lines | None = None
        self._held: Held | None = None

    async def prepare(self, place: Place) -> None:
        """Have everything that a move needs, and copying begin."""
        here = await self._here()
        name, site = _name(here), self._source.site(here)
        async with self._source.connection() as source:
            await replication.check_wal(source)
            slot = await replication.slot(source, name)
            if slot is None:
                await replication.check_source(source)
            await replication.publish(source, name, site)
        async with self._target.connection() as target:
            subscribed = await replication.subscribed(target, name)
            if not subscribed:
                await replication.check_target(target)
        if slot is not None and subscribed:
            return
        # Half of it is left by a process that died, or lost: all of it is made anew.
        await self._detach(name)
        there = await self._target.find(self._tenant)
        _check_no_owner(there, place)
        if there is not None and there.id != here.id:
            await self._target.remove(self._tenant)
        async with self._target.connection() as target:
            await owners.write(target, place, here.id)
        await self._target.ensure(place)
        async with self._source.own_connection() as source:
            await replication.publish(source, name, site)
            await replication.hold(source, name)
        async with self._target.own_connection() as target:
            # It can be logged in to, and takes no writes but those of the replication until it is the tenant's.
            async with target.transaction():
                await fence.up(target, site)
            await target.execute(sql.SQL("TRUNCATE {}").format(site.table))
            await replication.subscribe(target, name, self._source.address)

    async def progress(self) -> Progress:
        """Return how far the copy has come."""
        here, there = await self._here(), await self._target.find(self._tenant)
        name = _name(here)
        async with self._source.connection() as source:
            slot = await replication.slot(source, name)
        async with self._target.connection() as target:
            await replication.follow(target, name, self._source.address)
            cursor = await target.execute(
                "SELECT count(*), count(*) FILTER (WHERE srsubstate IN ('r', 's')) FROM pg_subscription_rel"
                " JOIN pg_subscription s ON s.oid = srsubid WHERE subname = %s",
                (name,),
            )
            tables, done = await cursor.fetchone() or (0, 0)
            lost = slot is None or tables == 0 or there is None
            copied = tables == done and not lost
            if copied:
                await replication.relax(target, name)
        rows = there.rows if there is not None else 0
        return Progress(rows=rows, lag_bytes=slot or 0, copied=copied, lost=lost)

    async def index(self) -> bool:
        """Have the target build the index that the source has; it goes on behind."""
        here, there = await self._here(), await self._target.find(self._tenant)
        if there is None or not here.indexed or there.indexed:
            return True
        task = self._target.behind.get(self._tenant)
        if task is None or task.done():
            self._target.behind[self._tenant] = asyncio.create_task(self._index())
            if task is not None:
                task.result()
        return False

    async def _index(self) -> None:
        await self._target.index(self._tenant)

    async def verify(self) -> str | None:
        """Compare both while writes go on; what takes long goes on behind."""
        here = await self._here()
        key = f"compare {_name(here)}"
        task = self._source.behind.get(key)
        if task is None:
            task = self._source.behind[key] = asyncio.create_task(self._compare(here))
        done, _ = await asyncio.wait([task], timeout=COMPARE_SECONDS)
        if not done:
            raise Busy("the rows are being compared")
        del self._source.behind[key]
        return task.result()

    async def _compare(self, here: Record) -> str | None:
        name, site = _name(here), self._source.site(here)
        async with self._source.own_connection() as source, self._target.own_connection() as target:
            self._source.compared.pop(name, None)
            run = await changes.begin(source, site)
            ours = await comparing.buckets(source, site)
            await replication.marked(source, target, name, MARKER_SECONDS)
            chosen = comparing.differing(ours, await comparing.buckets(target, site))
            if chosen:
                here_rows = await comparing.rows_of(source, site, chosen)
                await replication.marked(source, target, name, MARKER_SECONDS)
                differ = comparing.unlike(here_rows, await comparing.rows_of(target, site, chosen))
                # What was written meanwhile is on the list, and compared again when writes are held back.
                differ -= await changes.listed(source, site, run)
                if differ:
                    return f"{len(differ)} rows differ, such as {min(differ)!r}"
            await flush(target)
            self._source.compared[name] = Compared(run)
            return None

    async def block(self) -> Blocked:
        """Hold writes back at the source until all are on the target and compared."""
        here = await self._here()
        name = _name(here)
        # Used once: a try that fails may have taken from the list of changes what it did not come to compare.
        compared = self._source.compared.pop(name, None)
        if compared is None:
            raise Busy("the rows were compared by another process: they are compared again")
        await self.close()
        self._lines = await lines(self._source, self._target)
        self._held = Held(self._lines, self._source.site(here), name)
        with translating():
            return Blocked(await self._held.hold(compared))

    async def unblock(self) -> None:
        """Let writes go on at the source."""
        here = await self._source.find(self._tenant)
        if here is None or here.place.state not in (PlaceState.BLOCKED, PlaceState.OWNER):
            return
        async with self._source.connection() as source:
            await _set_state(source, self._tenant, PlaceState.OWNER)
            await fence.down(source, self._source.site(here))

    async def activate(self, place: Place) -> None:
        """Have the target take writes."""
        if self._held is None or not await self._held.activate(place):
            await self._target.ensure(place)

    async def redirect(self) -> None:
        """Have the source send writers on."""
        if self._held is not None:
            await self._held.redirect()
            return
        here = await self._source.find(self._tenant)
        if here is None or here.place.state is PlaceState.MOVED:
            return
        async with self._source.connection() as source:
            await _set_state(source, self._tenant, PlaceState.MOVED)

    async def detach(self) -> None:
        """End the replication, and what holds writes back at the target."""
        here = await self._source.find(self._tenant)
        if here is None:
            return
        async with self._source.connection() as source:
            # Once more: that the source sends writers on is on its disk from here on.
            await source.execute(
                "UPDATE tenantry.owners SET updated_at = now() WHERE tenant = %s", (self._tenant,)
            )
            await changes.forget(source, self._source.site(here))
        await self._detach(_name(here))
        async with self._target.connection() as target:
            await fence.down(target, self._source.site(here))

    async def clean_target(self) -> None:
        """Remove everything of the move, and let the source go on."""
        here, there = await self._here(), await self._target.find(self._tenant)
        _check_no_owner(there, here.place)
        await self._detach(_name(here))
        if there is not None:
            await self._target.remove(self._tenant)
        await self.unblock()
        async with self._source.connection() as source:
            await changes.end(source, self._source.site(here))

    async def clean_source(self) -> None:
        """Remove what is left at the source, and of the move."""
        here = await self._source.find(self._tenant)
        if here is None:
            return
        await self._detach(_name(here))
        if here.place.state is not PlaceState.MOVED:
            raise Refused(f"the place of {self._tenant} is {here.place.state} there, and not moved")
        await self._source.remove(self._tenant)

    async def close(self) -> None:
        """Give up the connections that are held."""
        lines, self._lines, self._held = self._lines, None, None
        if lines is not None:
            await lines.close()

    async def _here(self) -> Record:
        record = await self._source.find(self._tenant)
        if record is None:
            raise Refused(f"there is no place of {self._tenant} to move")
        return record

    async def _detach(self, name: str) -> None:
        """Drop subscription, slot and publication, each where it is there."""
        self._source.compared.pop(name, None)
        async with self._target.own_connection() as target:
            await replication.end(target, name)
        async with self._source.own_connection() as source:
            await replication.end(source, name)


def _name(here: Record) -> str:
    return replication.name_of(here.id, here.place.epoch)


def _check_no_owner(there: Record | None, place: Place) -> None:
    """Raise Refused where what is on the target is no copy: it may be all that there is."""
    if there is not None and there.place.state is not PlaceState.IMPORTING:
        raise Refused(
            f"the target has a place of {place.tenant} that is {there.place.state}, and no copy: status.leftovers of "
            f"the VectorShard tells more"
        )


async def _set_state(connection: Connection, tenant: str, state: PlaceState) -> None:
    await connection.execute(
        "UPDATE tenantry.owners SET state = %s, updated_at = now() WHERE tenant = %s AND state <> %s",
        (state, tenant, state),
    )
