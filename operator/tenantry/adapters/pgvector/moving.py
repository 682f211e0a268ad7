"""Moves a tenant's place between two PostgreSQL servers by logical replication; the port `Mover`.

    prepare    publication at the source, place and subscription at the target: PostgreSQL copies, and goes on copying
    block      the fence goes up at the source, a marker goes through the replication after the last write, and
               what has changed since the comparison is compared
    activate   the target's place is the tenant's; then `redirect` and `detach` end the source's part

All names come from the tenant's id and the epoch that is left, so that another process finds what one has left.
The schema has the same name on both servers: the target's record takes over the source's id.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any, Final

from psycopg import AsyncConnection, sql
from psycopg.errors import LockNotAvailable, ObjectInUse, UndefinedObject

from tenantry.adapters.pgvector import comparing, fence, owners
from tenantry.adapters.pgvector.comparing import Compared
from tenantry.adapters.pgvector.engine import PgvectorEngine
from tenantry.adapters.pgvector.hardening import MARKERS
from tenantry.adapters.pgvector.store import Place as Site
from tenantry.domain.places import Place, PlaceState, Record
from tenantry.reconcile.mover import Blocked, Busy, Progress
from tenantry.reconcile.ports import Refused, Unavailable

Connection = AsyncConnection[Any]

LOCK_WAIT: Final = "150ms"
"""How long the fence waits for open transactions, while new writers wait behind it."""

GATE_SECONDS: Final = 0.2
"""A marker that takes longer through the replication tells that the target is behind: no writes are held back."""

MARKER_SECONDS: Final = 5.0
COMPARE_SECONDS: Final = 10.0
"""How long a reconcile waits for a comparison; a longer one goes on behind."""

DROP_TRIES: Final = 10

ROUNDS: Final = 5
"""Comparisons of what differed, each after what was on its way has arrived."""

_PENDING: Final = "the rows are being compared"


class PgvectorMover:
    """The move of one tenant."""

    def __init__(self, source: PgvectorEngine, target: PgvectorEngine, tenant: str) -> None:
        self._source, self._target, self._tenant = source, target, tenant

    async def prepare(self, place: Place) -> None:
        """Have everything that a move needs, and copying begin."""
        here = await self._here()
        name, site = _name(here), self._source.site(here)
        async with self._source.connection() as source:
            await _check_wal(source)
            slot = await _slot(source, name)
            await _publish(source, name, site)
        async with self._target.connection() as target:
            subscribed = await _subscribed(target, name)
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
        async with self._source.connection() as source:
            await _publish(source, name, site)
        async with self._target.own_connection() as target:
            # It can be logged in to, and takes no writes but those of the replication until it is the tenant's.
            async with target.transaction():
                await fence.up(target, site)
            await target.execute(sql.SQL("TRUNCATE {}").format(site.table))
            # With `synchronous_commit` what can be seen on the target is on its disk: a target that dies after a
            # marker was seen there still has all that came before it.
            await target.execute(
                sql.SQL(
                    "CREATE SUBSCRIPTION {name} CONNECTION {address} PUBLICATION {name} WITH (slot_name = {slot},"
                    " copy_data = true, streaming = 'parallel', disable_on_error = false, synchronous_commit = 'on')"
                ).format(
                    name=sql.Identifier(name),
                    address=sql.Literal(self._source.address),
                    slot=sql.Identifier(name),
                )
            )

    async def progress(self) -> Progress:
        """Return how far the copy has come."""
        here, there = await self._here(), await self._target.find(self._tenant)
        name = _name(here)
        async with self._source.connection() as source:
            slot = await _slot(source, name)
        async with self._target.connection() as target:
            await _follow(target, name, self._source.address)
            cursor = await target.execute(
                "SELECT count(*), count(*) FILTER (WHERE srsubstate IN ('r', 's')) FROM pg_subscription_rel"
                " JOIN pg_subscription s ON s.oid = srsubid WHERE subname = %s",
                (name,),
            )
            tables, copied = await cursor.fetchone() or (0, 0)
        rows = there.rows if there is not None else 0
        lost = slot is None or tables == 0 or there is None
        return Progress(rows=rows, lag_bytes=slot or 0, copied=tables == copied and not lost, lost=lost)

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
            return _PENDING
        del self._source.behind[key]
        try:
            return task.result()
        except Busy as error:
            return str(error)

    async def _compare(self, here: Record) -> str | None:
        name, site = _name(here), self._source.site(here)
        async with self._source.own_connection() as source, self._target.own_connection() as target:
            compared = Compared(await comparing.transaction(source))
            ours = await comparing.buckets(source, site)
            await _marked(source, target, name, MARKER_SECONDS)
            chosen = comparing.differing(ours, await comparing.buckets(target, site))
            differ: set[str] | None = None
            for _ in range(ROUNDS):
                if not chosen or differ == set():
                    break
                here_rows = await comparing.rows_of(source, site, chosen)
                await _marked(source, target, name, MARKER_SECONDS)
                there_rows = await comparing.rows_of(target, site, chosen)
                now = {row for row, _ in here_rows.items() ^ there_rows.items()}
                # A row that differs each time is no row that was on its way.
                differ = now if differ is None else differ & now
            if differ:
                return f"{len(differ)} rows differ, such as {min(differ)!r}"
            self._source.compared[name] = compared
            return None

    async def block(self) -> Blocked:
        """Hold writes back at the source until all are on the target and compared."""
        here = await self._here()
        name, site = _name(here), self._source.site(here)
        compared = self._source.compared.get(name)
        if compared is None:
            raise Busy("the rows were compared by another process: they are compared again")
        async with self._source.own_connection() as source, self._target.own_connection() as target:
            await _marked(source, target, name, GATE_SECONDS)
            began = time.monotonic()
            number = await _fence_up(source, site, name, self._tenant)
            await _arrived(target, name, number, MARKER_SECONDS)
            found = await comparing.difference(source, target, site, compared)
        if found is not None:
            raise Refused(found)
        return Blocked(time.monotonic() - began)

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
        await self._target.ensure(place)

    async def redirect(self) -> None:
        """Have the source send writers on."""
        here = await self._source.find(self._tenant)
        if here is None or here.place.state is PlaceState.MOVED:
            return
        async with self._source.connection() as source:
            await _set_state(source, self._tenant, PlaceState.MOVED)

    async def detach(self) -> None:
        """End the replication."""
        here = await self._source.find(self._tenant)
        if here is not None:
            await self._detach(_name(here))

    async def clean_target(self) -> None:
        """Remove everything of the move, and let the source go on."""
        here, there = await self._here(), await self._target.find(self._tenant)
        _check_no_owner(there, here.place)
        await self._detach(_name(here))
        if there is not None:
            await self._target.remove(self._tenant)
        await self.unblock()

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
        """Do nothing: the connections are the engines'."""

    async def _here(self) -> Record:
        record = await self._source.find(self._tenant)
        if record is None:
            raise Refused(f"there is no place of {self._tenant} to move")
        return record

    async def _detach(self, name: str) -> None:
        """Drop subscription, slot and publication, each where it is there."""
        self._source.compared.pop(name, None)
        async with self._target.own_connection() as target:
            if await _subscribed(target, name):
                # Without its slot, so that the source need not answer; the slot is dropped there.
                subscription = sql.Identifier(name)
                for statement in (
                    "ALTER SUBSCRIPTION {} DISABLE",
                    "ALTER SUBSCRIPTION {} SET (slot_name = NONE)",
                    "DROP SUBSCRIPTION IF EXISTS {}",
                ):
                    await target.execute(sql.SQL(statement).format(subscription))
            await target.execute(f"DELETE FROM {MARKERS} WHERE move = %s", (name,))
        async with self._source.own_connection() as source:
            await _drop_slot(source, name)
            await source.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(name)))
            await source.execute(f"DELETE FROM {MARKERS} WHERE move = %s", (name,))


def _name(here: Record) -> str:
    return f"tenantry_mv_{here.id}_{here.place.epoch}"


def _check_no_owner(there: Record | None, place: Place) -> None:
    """Raise Refused where what is on the target is no copy: it may be all that there is."""
    if there is not None and there.place.state is not PlaceState.IMPORTING:
        raise Refused(f"the target has a place of {place.tenant} that is {there.place.state}, and no copy")


async def _check_wal(source: Connection) -> None:
    cursor = await source.execute("SELECT current_setting('wal_level')")
    (level,) = await cursor.fetchone() or ("",)
    if level != "logical":
        raise Refused(
            f"wal_level is {level} on the source, and moves need logical: set it and restart the server"
        )


async def _publish(source: Connection, name: str, site: Site) -> None:
    cursor = await source.execute("SELECT 1 FROM pg_publication WHERE pubname = %s", (name,))
    if await cursor.fetchone() is None:
        await source.execute(
            sql.SQL("CREATE PUBLICATION {} FOR TABLE {}, TABLE {} WHERE (move = {})").format(
                sql.Identifier(name), site.table, sql.SQL(MARKERS), sql.Literal(name)
            )
        )


async def _slot(source: Connection, name: str) -> int | None:
    """Return how many bytes of the log a slot has not passed on; None: there is none, or it is lost."""
    cursor = await source.execute(
        "SELECT coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0)::bigint, wal_status"
        " FROM pg_replication_slots WHERE slot_name = %s",
        (name,),
    )
    found = await cursor.fetchone()
    return None if found is None or found[1] == "lost" else max(0, found[0])


async def _drop_slot(source: Connection, name: str) -> None:
    """Drop a slot; who reads it is sent away, and may have come back once before it learned that it is over."""
    for _ in range(DROP_TRIES):
        cursor = await source.execute(
            "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", (name,)
        )
        found = await cursor.fetchone()
        if found is None:
            return
        if found[0] is not None:
            await source.execute("SELECT pg_terminate_backend(%s, 5000)", found)
        with suppress(UndefinedObject, ObjectInUse):
            await source.execute("SELECT pg_drop_replication_slot(%s)", (name,))
    raise Unavailable(f"replication slot {name} is still read")


async def _subscribed(target: Connection, name: str) -> bool:
    cursor = await target.execute(
        "SELECT 1 FROM pg_subscription WHERE subname = %s"
        " AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
        (name,),
    )
    return await cursor.fetchone() is not None


async def _follow(target: Connection, name: str, address: str) -> None:
    """Have a subscription read from where the source is now: its address may have changed meanwhile."""
    cursor = await target.execute("SELECT subconninfo FROM pg_subscription WHERE subname = %s", (name,))
    found = await cursor.fetchone()
    if found is not None and found != (address,):
        await target.execute(
            sql.SQL("ALTER SUBSCRIPTION {} CONNECTION {}").format(sql.Identifier(name), sql.Literal(address))
        )


async def _fence_up(source: Connection, site: Site, name: str, tenant: str) -> int:
    """Hold writes back from here on, and send a marker after the last; return its number.

    Raises Busy where somebody's transaction does not end.
    """
    try:
        async with source.transaction():
            await source.execute(f"SET LOCAL lock_timeout = '{LOCK_WAIT}'")
            await source.execute(sql.SQL("LOCK TABLE ONLY {} IN SHARE ROW EXCLUSIVE MODE").format(site.table))
            await fence.up(source, site)
            await _set_state(source, tenant, PlaceState.BLOCKED)
            return await _send(source, name)
    except LockNotAvailable:
        raise Busy("a transaction that writes does not end") from None


async def _set_state(connection: Connection, tenant: str, state: PlaceState) -> None:
    await connection.execute(
        "UPDATE tenantry.owners SET state = %s, updated_at = now() WHERE tenant = %s AND state <> %s",
        (state, tenant, state),
    )


async def _marked(source: Connection, target: Connection, name: str, patience: float) -> None:
    """Send a marker through the replication: when it is on the target, all that was committed before it is.

    Raises Busy where it does not come in time.
    """
    await _arrived(target, name, await _send(source, name), patience)


async def _send(source: Connection, name: str) -> int:
    cursor = await source.execute(
        f"INSERT INTO {MARKERS} (move, number) SELECT %s, coalesce(max(number), 0) + 1 FROM {MARKERS}"
        " WHERE move = %s RETURNING number",
        (name, name),
    )
    (number,) = await cursor.fetchone() or (0,)
    return int(number)


async def _arrived(target: Connection, name: str, number: int, patience: float) -> None:
    until = time.monotonic() + patience
    while True:
        cursor = await target.execute(
            f"SELECT 1 FROM {MARKERS} WHERE move = %s AND number = %s", (name, number)
        )
        if await cursor.fetchone() is not None:
            return
        if time.monotonic() > until:
            raise Busy("the target is behind")
        await asyncio.sleep(0.002)
