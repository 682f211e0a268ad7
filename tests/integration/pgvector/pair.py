"""A tenant that moves between two real servers, step by step, and an application that goes on writing to it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import AsyncConnection

from tenantry.adapters.pgvector import fence
from tenantry.adapters.pgvector.engine import PgvectorEngine
from tenantry.adapters.pgvector.moving import PgvectorMover
from tenantry.domain.moves import activated, importing
from tenantry.domain.places import Place
from tenantry.domain.vectors import Shape
from tenantry.local.postgres import PostgresServer
from tenantry.reconcile.mover import Busy
from tenantry.reconcile.ports import Refused, Unavailable

ROWS = 500
PATIENCE_SECONDS = 120.0
SHAPE = Shape(8)

_numbers = itertools.count(1)


@dataclass
class Pair:
    """Two servers and the present engines on them."""

    servers: tuple[PostgresServer, PostgresServer]
    engines: list[PgvectorEngine] = field(default_factory=list)
    tenants: list[str] = field(default_factory=list)

    async def connect(self) -> None:
        """Use engines that know nothing, as a fresh process does."""
        await self.close()
        names = ("shard-a", "shard-b")
        self.engines = [
            PgvectorEngine(name, each.dsn()) for name, each in zip(names, self.servers, strict=True)
        ]
        for engine in self.engines:
            await until(engine.prepare)

    async def close(self) -> None:
        for engine in self.engines:
            await engine.close()

    def mover(self, tenant: str) -> PgvectorMover:
        return PgvectorMover(self.engines[0], self.engines[1], tenant)


async def until(step: Callable[[], Awaitable[Any]], holds: Callable[[Any], bool] = lambda _: True) -> Any:
    """Try a step again and again, as the controller does, until what it returns is as it should be."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            with suppress(Unavailable, Busy):
                found = await step()
                if holds(found):
                    return found
            await asyncio.sleep(0.05)


async def admitted(pair: Pair) -> str:
    """Give a tenant a place on the first server, with some rows."""
    tenant = f"mover{next(_numbers)}"
    place = Place(tenant, f"uid-{tenant}", "owner", 1, SHAPE, datetime.now(UTC))
    await pair.engines[0].ensure(place)
    pair.tenants.append(tenant)
    async with pair.engines[0].connection() as connection:
        await connection.execute(
            "INSERT INTO tenantry.vector_8 (tenant_id, id, embedding, content)"
            " SELECT %s, 'seed-' || n, array_fill(n, ARRAY[8])::vector(8), 'seed' FROM generate_series(1, %s) n",
            (tenant, ROWS),
        )
    return tenant


class Load:
    """Three writers and a reader of one tenant; remembers what was acknowledged.

    They find the server that takes writes as an application does: by trying the one they know, and after a redirect
    the other one.
    """

    def __init__(self, pair: Pair, tenant: str) -> None:
        self._pair, self._tenant = pair, tenant
        self.rows: dict[str, str | None] = {f"seed-{n}": "seed" for n in range(1, ROWS + 1)}
        self.unsure: dict[str, set[str | None]] = {}
        self.at = 0
        self.writes = 0
        self.longest = 0.0
        self._stopped = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._connections: dict[int, AsyncConnection[Any]] = {}

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._write(number)) for number in range(3)]
        self._tasks.append(asyncio.create_task(self._read()))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopped.set()
        await asyncio.gather(*self._tasks)

    async def _dsn(self, at: int) -> str:
        # Asked for each time: while it waits, a test may have begun to use other engines.
        record = await until(
            lambda: self._pair.engines[at].find(self._tenant), lambda found: found is not None
        )
        return self._pair.engines[at].access(record)["dsn"]

    async def _connect(self) -> AsyncConnection[Any]:
        return await AsyncConnection.connect(await self._dsn(self.at), autocommit=True)

    async def _write(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        for turn in itertools.count():
            row, content = f"w{number}-{turn % 50}", f"turn {turn}" if turn % 7 else None
            began = loop.time()
            while not await self._try(number, row, content):
                if self._stopped.is_set():
                    break
                await asyncio.sleep(0.005)
            if self._stopped.is_set():
                break
            self.longest = max(self.longest, loop.time() - began)
            await asyncio.sleep(0.002)
        if (connection := self._connections.pop(number, None)) is not None:
            await connection.close()

    async def _try(self, number: int, row: str, content: str | None) -> bool:
        """Write a row once; return whether it was acknowledged."""
        try:
            connection = self._connections.get(number)
            if connection is None or connection.closed:
                connection = await self._connect()
                self._connections[number] = connection
            self.unsure.setdefault(row, {self.rows.get(row)}).add(content)
            await self._one(connection, row, content)
        except psycopg.Error as error:
            if error.sqlstate in (fence.MOVED, fence.HELD) and len(self.unsure[row]) == 2:
                del self.unsure[row]  # it was not taken, for sure
            if error.sqlstate == fence.MOVED:
                self.at = 1
                await self._connections.pop(number).close()
            return False
        except (Unavailable, Refused):
            return False
        self.rows[row] = content
        self.unsure.pop(row, None)
        self.writes += 1
        return True

    async def _one(self, connection: AsyncConnection[Any], row: str, content: str | None) -> None:
        if content is None:
            await connection.execute("DELETE FROM items WHERE id = %s", (row,))
            return
        await connection.execute(
            "INSERT INTO items (id, embedding, content) VALUES (%s, '[1,2,3,4,5,6,7,8]', %s)"
            " ON CONFLICT (tenant_id, id) DO UPDATE SET content = excluded.content",
            (row, content),
        )

    async def _read(self) -> None:
        """Read where writes go; a server that is killed may end it, nothing else."""
        while not self._stopped.is_set():
            with suppress(psycopg.OperationalError, Unavailable, Refused):
                connection = await self._connect()
                async with connection:
                    while not self._stopped.is_set():
                        cursor = await connection.execute("SELECT count(*) FROM items WHERE content = 'seed'")
                        assert await cursor.fetchone() == (ROWS,)
                        await asyncio.sleep(0.01)
            await asyncio.sleep(0.02)

    async def check(self, at: int) -> None:
        """Compare what a server holds with what was acknowledged."""
        async with self._pair.engines[at].connection() as connection:
            cursor = await connection.execute(
                "SELECT id, content FROM tenantry.vector_8 WHERE tenant_id = %s", (self._tenant,)
            )
            found = await cursor.fetchall()
        assert len(found) == len({row for row, _ in found})
        there = dict(found)
        for row in self.rows.keys() | there.keys():
            if row in self.unsure:  # its answer never came
                assert there.get(row) in self.unsure[row] | {self.rows.get(row)}
            else:
                assert there.get(row) == self.rows.get(row), row


STEPS = ("prepare", "copy", "verify", "block", "activate", "redirect", "detach", "clean")


async def take(pair: Pair, tenant: str, step: str) -> None:
    """Take one step of a move to its end, with movers that know nothing."""
    await TAKES[step](pair, tenant)


async def _prepare(pair: Pair, tenant: str) -> None:
    here = await until(lambda: pair.engines[0].find(tenant), lambda item: item is not None)
    await until(lambda: pair.mover(tenant).prepare(importing(here.place)))


async def _copy(pair: Pair, tenant: str) -> None:
    found = await until(lambda: pair.mover(tenant).progress(), lambda item: item.copied or item.lost)
    if found.lost:
        await _prepare(pair, tenant)
        await _copy(pair, tenant)
    await until(lambda: pair.mover(tenant).index(), bool)


async def _verify(pair: Pair, tenant: str) -> None:
    await until(lambda: pair.mover(tenant).verify(), lambda item: item is None)


async def _activate(pair: Pair, tenant: str) -> None:
    there = await until(lambda: pair.engines[1].find(tenant), lambda item: item is not None)
    await until(lambda: pair.mover(tenant).activate(activated(there.place, open_=True)))


async def _redirect(pair: Pair, tenant: str) -> None:
    await until(lambda: pair.mover(tenant).redirect())


async def _detach(pair: Pair, tenant: str) -> None:
    await until(lambda: pair.mover(tenant).detach())


async def _clean(pair: Pair, tenant: str) -> None:
    await until(lambda: pair.mover(tenant).clean_source())


async def held(pair: Pair, tenant: str) -> None:
    """Hold writes back, trying again as the controller does."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            mover = pair.mover(tenant)
            try:
                await mover.block()
            except (Busy, Unavailable):
                with suppress(Unavailable):
                    await pair.mover(tenant).unblock()
                await asyncio.sleep(0.1)
                with suppress(Unavailable, Busy):
                    await pair.mover(tenant).verify()
            else:
                return
            finally:
                await mover.close()


TAKES: dict[str, Callable[[Pair, str], Awaitable[None]]] = {
    "prepare": _prepare,
    "copy": _copy,
    "verify": _verify,
    "block": held,
    "activate": _activate,
    "redirect": _redirect,
    "detach": _detach,
    "clean": _clean,
}


async def writable(pair: Pair, tenant: str) -> list[int]:
    """Return the servers that take a write of the tenant now."""
    found = []
    for number, engine in enumerate(pair.engines):
        record = await engine.find(tenant)
        if record is None or not record.place.open:
            continue
        async with await AsyncConnection.connect(engine.access(record)["dsn"], autocommit=True) as connection:
            with suppress(psycopg.Error):
                await connection.execute("SET default_transaction_isolation = 'repeatable read'")
                await connection.execute("UPDATE items SET content = content WHERE id = 'seed-1'")
                found.append(number)
    return found


LEFT_EMPTY = (
    *("pg_publication", "pg_subscription", "pg_replication_slots"),
    *("tenantry.markers", "tenantry.changes"),
)
