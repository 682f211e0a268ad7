"""PostgreSQL with pgvector as the engine of a VectorShard.

What a tenant has on a server is described by `domain.places.Place` and made in one transaction, its record with it.
Only what must be seen by others before goes ahead: a password that is taken away ends its sessions first, so that no
crash leaves a session that the record does not allow.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any
from urllib.parse import quote, urlencode

from psycopg import AsyncConnection

from tenantry.adapters.pgvector import (
    credentials,
    exporting,
    fence,
    hardening,
    inspection,
    owners,
    replication,
    store,
)
from tenantry.adapters.pgvector.comparing import Compared
from tenantry.adapters.pgvector.connections import Connections
from tenantry.adapters.pgvector.credentials import Key
from tenantry.adapters.pgvector.inspection import Login
from tenantry.adapters.pgvector.probe import probe
from tenantry.adapters.pgvector.server import examine, parts
from tenantry.api.shard import EngineKind
from tenantry.domain.fitness import Fitness, unfit
from tenantry.domain.places import Place, PlaceState, Record, id_of, outdated
from tenantry.reconcile.ports import Before, Refused, Unavailable

Connection = AsyncConnection[Any]


class PgvectorEngine:
    """The port `Engine` of one shard on a PostgreSQL server."""

    def __init__(self, shard: str, address: str) -> None:
        self.shard = shard
        self.address = address
        self._parts = parts(address)
        self._connections = Connections(address)
        self._prepared: tuple[Any, ...] | None = None
        self._key: Key | None = None
        self.behind: dict[str, asyncio.Task[str | None]] = {}
        self.compared: dict[str, Compared] = {}

    @property
    def endpoint(self) -> tuple[str, int]:
        """Return host and port of the server, as its address has them."""
        return self._parts["host"], int(self._parts["port"])

    @property
    def more_ports(self) -> Sequence[int]:
        """Return none."""
        return ()

    def connection(self) -> AbstractAsyncContextManager[Connection]:
        """Give one of a few connections, for some seconds."""
        return self._connections.use()

    def own_connection(self) -> AbstractAsyncContextManager[Connection]:
        """Give a connection for what takes long."""
        return self._connections.own()

    def site(self, record: Record) -> store.Place:
        """Return a place by the names that it has on the server."""
        return store.Place(record.place.tenant, record.id, record.place.shape)

    async def prepare(self) -> Fitness:
        """Look whether the server is fit, and close what tells tenants of each other: once for each start of it."""
        async with self.connection() as connection:
            facts = await examine(connection)
            fitness = Fitness(str(facts), unfit(facts))
            if fitness.unfit is not None:
                return fitness
            start = (facts.version, facts.vector, *await _identity(connection))
            if self._prepared != start:
                await hardening.prepare(connection)
                self._key = await credentials.load_key(connection)
                self._prepared = start
            return fitness

    async def records(self) -> Sequence[Record]:
        """Return what is on record of every tenant, by one query."""
        async with self.connection() as connection:
            return await owners.read(connection)

    async def find(self, tenant: str) -> Record | None:
        """Return what is on record of one tenant."""
        async with self.connection() as connection:
            return await owners.find(connection, tenant)

    async def ensure(self, place: Place, instead_of: Place | None = None) -> Record:
        """Bring a tenant's place to be as described; one that is so already is not written to."""
        async with self.connection() as connection:
            record = await owners.find(connection, place.tenant)
            if outdated(place, record.place if record else None, instead_of):
                raise _changed(place)
            id_ = record.id if record is not None else id_of(place.uid)
            site = store.Place(place.tenant, id_, place.shape)
            passwords = self._passwords(place, id_)
            logins = await inspection.logins(connection, site)
            stale = [slot for slot in store.LOGINS if _must_close(logins[slot], passwords[slot])]
            sound = await inspection.is_sound(connection, site)
            due = {slot: word for slot, word in passwords.items() if word and not _has(logins[slot], word)}
            if record is not None and record.place == place and sound and not stale and not due:
                # A try before this one may have come so far and no further.
                await _let_pass(connection, site, place, instead_of)
                return record
            if stale:
                await store.close_logins(connection, site, stale)
            if not sound:
                await store.finish_detaching(connection, site)
            async with connection.transaction():
                await hardening.lock(connection)
                if instead_of is not None:
                    await _check_still(connection, instead_of)
                if record is None:
                    await _check_nowhere_else(connection, site)
                await _reshape(connection, site, record)
                if not sound:
                    await store.provision(connection, site)
                for slot, password in due.items():
                    await store.set_password(connection, site, slot, password)
                await owners.write(connection, place, id_)
            await _let_pass(connection, site, place, instead_of)
            return await _written(connection, place)

    async def remove(self, tenant: str) -> None:
        """End a tenant's sessions and remove its place, then the record of it."""
        async with self.connection() as connection:
            record = await owners.find(connection, tenant)
            if record is not None:
                await replication.end_all(connection, record.id)
                await store.remove(connection, self.site(record))
                await owners.forget(connection, tenant)

    def access(self, record: Record) -> Mapping[str, str]:
        """Return the contents of the tenant's Secret."""
        place, site = record.place, self.site(record)
        user, password = site.login(place.slot), self._password(record.id, place.generation)
        host, port = self.endpoint
        return {
            "engine": EngineKind.PGVECTOR.value,
            "dsn": self._dsn(user, password),
            "host": host,
            "port": str(port),
            "database": self._parts["dbname"],
            "user": user,
            "password": password,
            "tenant": place.tenant,
            "table": store.TABLE,
            "dimensions": str(place.shape.dimensions),
            "metric": str(place.shape.metric),
            "type": str(place.shape.type),
            "shard": self.shard,
            "epoch": str(place.epoch),
            "generation": str(place.generation),
        }

    async def index(self, tenant: str) -> None:
        """Build the approximate index of a tenant; one that is half built is built anew."""
        record = await self.find(tenant)
        if record is not None:
            async with self.own_connection() as connection:
                await store.build_index(connection, self.site(record))

    async def probe(self, record: Record, neighbours: Sequence[Record]) -> Sequence[str]:
        """Try, as the tenant, to read its neighbours' rows."""
        password = self._password(record.id, record.place.generation)
        return await probe(self.address, password, record, [self.site(other) for other in neighbours])

    async def export(self, tenant: str) -> AsyncGenerator[bytes, None]:
        """Yield a tenant's rows as they are at one moment, over a connection of its own."""
        site = await self._present(tenant)
        async with (
            self.own_connection() as connection,
            aclosing(exporting.export(connection, site)) as pieces,
        ):
            async for piece in pieces:
                yield piece

    async def restore(self, tenant: str, lines: AsyncIterator[bytes], before: Before | None = None) -> int:
        """Put exported rows into a tenant's place, which must be empty."""
        site = await self._present(tenant)
        async with self.own_connection() as connection:
            return await exporting.restore(connection, site, lines, before)

    async def _present(self, tenant: str) -> store.Place:
        record = await self.find(tenant)
        if record is None:
            raise Refused(f"there is no place of {tenant}")
        return self.site(record)

    async def close(self) -> None:
        """Give up the connections."""
        for task in self.behind.values():
            task.cancel()
        await asyncio.gather(*self.behind.values(), return_exceptions=True)
        await self._connections.close()

    def _password(self, id_: str, generation: int) -> str:
        if self._key is None:
            raise Unavailable("the server has not been prepared yet")
        return self._key.password(id_, generation)

    def _passwords(self, place: Place, id_: str) -> dict[str, str | None]:
        """Return the password that each login is to have; None: it is to be closed."""
        wanted = credentials.wanted(place)
        return {slot: self._password(id_, number) if number else None for slot, number in wanted.items()}

    def _dsn(self, user: str, password: str) -> str:
        """Return the address for an application, which encrypts the line as the operator does."""
        host, port = self.endpoint
        bracketed = f"[{host}]" if ":" in host else host
        mode = self._parts.get("sslmode")
        options = f"?{urlencode({'sslmode': mode})}" if mode else ""
        database = quote(self._parts["dbname"], safe="")
        return f"postgresql://{user}:{quote(password, safe='')}@{bracketed}:{port}/{database}{options}"


def _changed(place: Place) -> Unavailable:
    return Unavailable(f"the place of {place.tenant} was changed meanwhile: it is read again")


async def _let_pass(
    connection: Connection, site: store.Place, place: Place, instead_of: Place | None
) -> None:
    """Let writes pass where a place takes them; one that is written instead of another may be moving."""
    if place.state is PlaceState.OWNER and instead_of is None:
        await fence.down(connection, site)


async def _check_still(connection: Connection, place: Place) -> None:
    """Raise Unavailable where another place is on record; else none is, until the end of the transaction.

    A move holds writes back without waiting for the lock of the catalogue.
    """
    now = await owners.find(connection, place.tenant, lock=True)
    if now is None or now.place != place:
        raise _changed(place)


async def _written(connection: Connection, place: Place) -> Record:
    found = await owners.find(connection, place.tenant)
    if found is None:
        raise Unavailable(f"the record of {place.tenant} was removed meanwhile")
    return found


async def _check_nowhere_else(connection: Connection, site: store.Place) -> None:
    if await inspection.is_elsewhere(connection, site):
        raise Refused(
            f"another database of the server has a place of {site.tenant}, and roles are common to all: use one "
            f"server for each VectorShard"
        )


async def _identity(connection: Connection) -> tuple[Any, ...]:
    """Return what tells one start of a server from any other."""
    cursor = await connection.execute(
        "SELECT (SELECT system_identifier FROM pg_control_system()), pg_postmaster_start_time()"
    )
    return await cursor.fetchone() or ()


async def _reshape(connection: Connection, site: store.Place, record: Record | None) -> None:
    """Drop the table of another shape where it is empty. Raises Refused where it is not."""
    if record is None or record.place.shape == site.shape:
        return
    if not await store.clear(connection, site):
        raise Refused(
            f"the place of {site.tenant} holds vectors of {record.place.shape} and was asked for {site.shape}: "
            f"delete the vectors first"
        )


def _has(login: Login, password: str) -> bool:
    return login.open and credentials.fits(login.verifier, password)


def _must_close(login: Login, password: str | None) -> bool:
    """Tell whether somebody may be in by a login, or get in, who is not to be."""
    in_use = login.open or login.sessions > 0
    return in_use and (password is None or not _has(login, password))
