"""The replication that a move works by: publication and slot at the source, subscription at the target, markers.

A marker is a row that goes through the replication: when it is on the target, so is all that was committed before it.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any, Final

from psycopg import AsyncConnection, sql
from psycopg.errors import ObjectInUse, QueryCanceled, UndefinedObject

from tenantry.adapters.pgvector.hardening import MARKERS
from tenantry.adapters.pgvector.store import Place
from tenantry.reconcile.mover import Busy
from tenantry.reconcile.ports import Refused, Unavailable

Connection = AsyncConnection[Any]

DROP_TRIES: Final = 10

POLL_SECONDS: Final = 0.002

_NAMES: Final = f"""
SELECT subname FROM pg_subscription WHERE subname ^@ %(prefix)s UNION
SELECT slot_name FROM pg_replication_slots WHERE slot_name ^@ %(prefix)s AND database = current_database() UNION
SELECT pubname FROM pg_publication WHERE pubname ^@ %(prefix)s UNION
SELECT move FROM {MARKERS} WHERE move ^@ %(prefix)s
"""

RESERVE: Final = 2
"""So many of each thing that a server has few of stay free for the copies of tables: moves hold one as long as they
last, and would wait for each other for good."""

_SOURCE_ROOM: Final = """
SELECT name, setting::int,
    setting::int - CASE name WHEN 'max_replication_slots' THEN slots ELSE greatest(slots, senders) END
FROM pg_settings,
    (SELECT count(*) AS slots FROM pg_replication_slots),
    (SELECT count(*) AS senders FROM pg_stat_replication)
WHERE name IN ('max_replication_slots', 'max_wal_senders')
"""

_TARGET_ROOM: Final = """
SELECT name, setting::int, setting::int
    - greatest(moves, CASE name WHEN 'max_logical_replication_workers' THEN workers ELSE origins END)
FROM pg_settings,
    (SELECT count(*) AS moves FROM pg_subscription WHERE subenabled),
    (SELECT count(pid) AS workers FROM pg_stat_subscription),
    (SELECT count(*) AS origins FROM pg_replication_origin)
WHERE name = 'max_logical_replication_workers' OR name = CASE
    WHEN current_setting('server_version_num')::int < 180000 THEN 'max_replication_slots'
    ELSE 'max_active_replication_origins' END
"""

HOLD_WAIT: Final = "30s"
"""How long the source may take to begin keeping what is written; a reconcile takes a minute at most."""


def name_of(id_: str, epoch: int) -> str:
    """Return what everything of a move is called, by the id of the place and the epoch that it leaves."""
    return f"{_prefix(id_)}{epoch}"


def _prefix(id_: str) -> str:
    return f"tenantry_mv_{id_}_"


async def check_wal(source: Connection) -> None:
    """Raise Refused where a server keeps too little in its log for replication."""
    cursor = await source.execute("SELECT current_setting('wal_level')")
    (level,) = await cursor.fetchone() or ("",)
    if level != "logical":
        raise Refused(
            f"wal_level is {level} on the source, and moves need logical: set it and restart the server"
        )


async def check_source(source: Connection) -> None:
    """Raise Busy where as many moves go on from a server as it has room for."""
    await _check_room(source, "source", _SOURCE_ROOM)


async def check_target(target: Connection) -> None:
    """Raise Busy where as many moves go on to a server as it has room for."""
    await _check_room(target, "target", _TARGET_ROOM)


async def _check_room(server: Connection, where: str, question: str) -> None:
    cursor = await server.execute(question)
    for name, setting, free in await cursor.fetchall():
        if free <= RESERVE:
            raise Busy(f"{name} is {setting} on the {where}, and all but {max(0, free)} are in use")


async def publish(source: Connection, name: str, place: Place) -> None:
    """Have a publication of the tenant's table and of the move's markers."""
    cursor = await source.execute("SELECT 1 FROM pg_publication WHERE pubname = %s", (name,))
    if await cursor.fetchone() is None:
        await source.execute(
            sql.SQL("CREATE PUBLICATION {} FOR TABLE {}, TABLE {} WHERE (move = {})").format(
                sql.Identifier(name), place.table, sql.SQL(MARKERS), sql.Literal(name)
            )
        )


async def hold(source: Connection, name: str) -> None:
    """Have the source keep what is written from now on, by a slot. Raises Unavailable where that takes too long.

    It waits for all transactions of the server that are older. The subscription could make the slot, but would wait
    in a transaction of the target then: two moves in opposite directions would wait for each other for good.
    """
    try:
        async with source.transaction():
            await source.execute(f"SET LOCAL statement_timeout = '{HOLD_WAIT}'")
            await source.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (name,))
    except QueryCanceled:
        raise Unavailable("transactions on the source are older than the move, and do not end") from None


async def slot(source: Connection, name: str) -> int | None:
    """Return how many bytes of the log a slot has not passed on; None: there is none, or it is lost."""
    cursor = await source.execute(
        "SELECT coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0)::bigint, wal_status"
        " FROM pg_replication_slots WHERE slot_name = %s",
        (name,),
    )
    found = await cursor.fetchone()
    return None if found is None or found[1] == "lost" else max(0, found[0])


async def drop_slot(source: Connection, name: str) -> None:
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


async def end(server: Connection, name: str) -> None:
    """Drop what a server has of a move: its subscription, slot, publication and markers."""
    if await subscribed(server, name):
        # Without its slot, so that the source need not answer; the slot is dropped there.
        for statement in (
            "ALTER SUBSCRIPTION {} DISABLE",
            "ALTER SUBSCRIPTION {} SET (slot_name = NONE)",
            "DROP SUBSCRIPTION IF EXISTS {}",
        ):
            await server.execute(sql.SQL(statement).format(sql.Identifier(name)))
    await drop_slot(server, name)
    await server.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(name)))
    await server.execute(f"DELETE FROM {MARKERS} WHERE move = %s", (name,))


async def end_all(server: Connection, id_: str) -> None:
    """Drop what a server has of any move of a place: of one that nobody sees to any more too."""
    cursor = await server.execute(_NAMES, {"prefix": _prefix(id_)})
    for (found,) in await cursor.fetchall():
        await end(server, found)


async def subscribe(target: Connection, name: str, address: str) -> None:
    """Have a server begin to copy, and go on copying; the source has the slot already.

    While it copies, what it commits is on its disk: that a table is copied must not be forgotten once the slot by
    which it was copied is dropped at the source. `relax` ends that.
    """
    await target.execute(
        sql.SQL(
            "CREATE SUBSCRIPTION {name} CONNECTION {address} PUBLICATION {name} WITH (slot_name = {name},"
            " create_slot = false, copy_data = true, streaming = 'parallel', disable_on_error = false,"
            " synchronous_commit = 'on')"
        ).format(name=sql.Identifier(name), address=sql.Literal(address))
    )


async def relax(target: Connection, name: str) -> None:
    """Have a copy that is complete go on without waiting for the disk at each commit, one after the other.

    What it applies can then be seen before it is on the disk (`server.flush` sees to that): a target that dies is
    sent again what it has lost.
    """
    cursor = await target.execute(
        "SELECT 1 FROM pg_subscription WHERE subname = %s AND subsynccommit <> 'off'", (name,)
    )
    if await cursor.fetchone() is not None:
        await target.execute(
            sql.SQL("ALTER SUBSCRIPTION {} SET (synchronous_commit = 'off')").format(sql.Identifier(name))
        )


async def subscribed(target: Connection, name: str) -> bool:
    """Tell whether a server has the subscription."""
    cursor = await target.execute(
        "SELECT 1 FROM pg_subscription WHERE subname = %s"
        " AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
        (name,),
    )
    return await cursor.fetchone() is not None


async def follow(target: Connection, name: str, address: str) -> None:
    """Have a subscription read from where the source is now: its address may have changed meanwhile."""
    cursor = await target.execute("SELECT subconninfo FROM pg_subscription WHERE subname = %s", (name,))
    found = await cursor.fetchone()
    if found is not None and found != (address,):
        await target.execute(
            sql.SQL("ALTER SUBSCRIPTION {} CONNECTION {}").format(sql.Identifier(name), sql.Literal(address))
        )


async def marked(source: Connection, target: Connection, name: str, patience: float) -> None:
    """Send a marker through the replication: when it is on the target, all that was committed before it is.

    Raises Busy where it does not come in time.
    """
    cursor = await source.execute(marker(name))
    (number,) = await cursor.fetchone() or (0,)
    await arrived(target, name, int(number), patience)


def marker(name: str) -> sql.Composed:
    """Return the statement that sends a marker, and returns its number."""
    return sql.SQL(
        f"INSERT INTO {MARKERS} (move, number) SELECT {{name}}, coalesce(max(number), 0) + 1 FROM {MARKERS}"
        " WHERE move = {name} RETURNING number"
    ).format(name=sql.Literal(name))


async def arrived(target: Connection, name: str, number: int, patience: float) -> None:
    """Wait until a marker is on the target. Raises Busy."""
    until = time.monotonic() + patience
    while True:
        cursor = await target.execute(
            f"SELECT 1 FROM {MARKERS} WHERE move = %s AND number = %s", (name, number)
        )
        if await cursor.fetchone() is not None:
            return
        if time.monotonic() > until:
            raise Busy("the target is behind")
        await asyncio.sleep(POLL_SECONDS)
