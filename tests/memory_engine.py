"""Vector database servers in memory, behind the ports `Engine` and `Engines`, for tests of the reconciles.

    engines = MemoryEngines()                       one server for each address; the data outlives engines
    server = engines.server("memory://one")         what is on it: records, rows; `down`, `fitness`, `leaks`
    engines.around = lambda act, tenant, shard: ... an async context manager around each write, to fail or to die

A write is one step that a server does whole or not at all. `remove` is two: the rows, and the record last.

`MemoryStore` is the port `Store`: each export is one step too, with `failing` a sentence that it fails with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from tenantry.api.shard import EngineKind
from tenantry.domain.fitness import Fitness
from tenantry.domain.places import Place, Record, outdated
from tenantry.reconcile.exports import Exported, Source, StoreFailed
from tenantry.reconcile.ports import Before, Refused, Unavailable

Row = dict[str, Any]

ROW_BYTES = 1000
"""What a row takes, with its part of the index."""

SCHEME = "memory://"

Around = Callable[[str, str, str], AbstractAsyncContextManager[Any]]
"""What is around a write: act (ensure, index, empty, remove, restore), tenant, shard."""


@dataclass(slots=True)
class MemoryServer:
    """One server. rows: by tenant, then by id. down: it does not answer. leaks: sentences that a probe finds."""

    address: str
    records: dict[str, Record] = field(default_factory=dict)
    rows: dict[str, dict[str, Row]] = field(default_factory=dict)
    down: bool = False
    fitness: Fitness = field(default_factory=lambda: Fitness("Memory 1.0"))
    leaks: list[str] = field(default_factory=list)
    prepared: int = 0

    def insert(self, tenant: str, *ids: str) -> None:
        """Store rows as a tenant's application does; it needs a place that is open."""
        assert self.records[tenant].place.open, f"nobody logs in to the place of {tenant}"
        for name in ids:
            self.rows[tenant][name] = {"id": name, "embedding": [1.0, 2.0, 3.0], "content": f"text of {name}"}

    def measured(self, tenant: str) -> Record:
        """Return a record with the measures of now."""
        count = len(self.rows.get(tenant, {}))
        return replace(self.records[tenant], rows=count, size=count * ROW_BYTES)


class MemoryEngine:
    """The port `Engine` of one shard on a server in memory."""

    def __init__(self, shard: str, server: MemoryServer, around: Callable[[], Around]) -> None:
        self.shard = shard
        self.server = server
        self.closed = False
        self._around = around

    @property
    def endpoint(self) -> tuple[str, int]:
        """Return a host that the address names, and the port of PostgreSQL."""
        return self.server.address.removeprefix(SCHEME), 5432

    @property
    def more_ports(self) -> Sequence[int]:
        """Return none."""
        return ()

    async def prepare(self) -> Fitness:
        """Look whether the server is fit."""
        self._check()
        self.server.prepared += 1
        return self.server.fitness

    async def records(self) -> Sequence[Record]:
        """Return every record, measured now."""
        self._check()
        return [self.server.measured(tenant) for tenant in sorted(self.server.records)]

    async def find(self, tenant: str) -> Record | None:
        """Return one record, measured now."""
        self._check()
        return self.server.measured(tenant) if tenant in self.server.records else None

    async def ensure(self, place: Place, instead_of: Place | None = None) -> Record:
        """Make a place, or change it; rows stay, and so does the id."""
        async with self._writing("ensure", place.tenant):
            server = self.server
            present = server.records.get(place.tenant)
            if outdated(place, present.place if present else None, instead_of):
                raise Unavailable(f"the place of {place.tenant} was changed meanwhile")
            rows = server.rows.setdefault(place.tenant, {})
            if present is not None and present.place.shape != place.shape and rows:
                raise Refused(f"{len(rows)} vectors of {present.place.shape} are stored")
            id_ = present.id if present else hashlib.sha256(place.uid.encode()).hexdigest()[:16]
            server.records[place.tenant] = replace(
                present or Record(place, id_, indexed=False), place=place, id=id_, settled=True
            )
            return server.measured(place.tenant)

    async def remove(self, tenant: str) -> None:
        """Remove rows, then the record; what is gone already is no error."""
        if tenant in self.server.rows:
            async with self._writing("empty", tenant):
                self.server.rows.pop(tenant, None)
        async with self._writing("remove", tenant):
            self.server.records.pop(tenant, None)

    def access(self, record: Record) -> Mapping[str, str]:
        """Return the contents of the Secret: they change with the generation alone."""
        host, port = self.endpoint
        login = f"t_{record.id}_{record.place.slot}"
        return {
            "host": host,
            "port": str(port),
            "username": login,
            "password": f"{login}-{record.place.generation}",
        }

    def logins(self, tenant: str) -> set[str]:
        """Return the passwords that let an application in now."""
        record = self.server.records.get(tenant)
        if record is None or not record.place.open:
            return set()
        generations = {record.place.generation}
        if record.place.previous:
            generations.add(record.place.generation - 1)
        return {
            self.access(replace(record, place=replace(record.place, generation=number)))["password"]
            for number in generations
        }

    async def index(self, tenant: str) -> None:
        """Build the index at once."""
        async with self._writing("index", tenant):
            record = self.server.records.get(tenant)
            if record is not None:
                self.server.records[tenant] = replace(record, indexed=True)

    async def probe(self, record: Record, neighbours: Sequence[Record]) -> Sequence[str]:
        """Find what the test has put there."""
        self._check()
        return tuple(self.server.leaks) if neighbours else ()

    async def export(self, tenant: str) -> AsyncGenerator[bytes, None]:
        """Yield a tenant's rows, a line of JSON each, in the order of their ids."""
        self._check()
        if tenant not in self.server.records:
            raise Refused(f"there is no place of {tenant}")
        for _, row in sorted(self.server.rows.get(tenant, {}).items()):
            self._check()
            yield json.dumps(row, separators=(",", ":")).encode() + b"\n"

    async def restore(self, tenant: str, lines: AsyncIterator[bytes], before: Before | None = None) -> int:
        """Put rows into a place that is there and empty: all of them, or none."""
        self._check()
        if self.server.rows.get(tenant) or tenant not in self.server.records:
            raise Refused(f"the place of {tenant} is not there, or is not empty")
        text = b"".join([piece async for piece in lines])
        rows = [json.loads(line) for line in text.splitlines()]
        if before is not None:
            await before()
        async with self._writing("restore", tenant):
            self.server.rows[tenant] = {row["id"]: row for row in rows}
        return len(rows)

    async def close(self) -> None:
        """Give up the connection."""
        self.closed = True

    def _check(self) -> None:
        if self.closed:
            raise Unavailable("the connection is closed")
        if self.server.down:
            raise Unavailable("connection refused")

    def _writing(self, act: str, tenant: str) -> AbstractAsyncContextManager[Any]:
        self._check()
        return self._around()(act, tenant, self.shard)


class MemoryEngines:
    """The port `Engines`: each address is one server, which is there from the first time that it is named."""

    def __init__(self) -> None:
        self.servers: dict[str, MemoryServer] = {}
        self.opened: list[MemoryEngine] = []
        self.around: Around = lambda *_: nullcontext()

    def server(self, address: str) -> MemoryServer:
        """Return the server at an address."""
        return self.servers.setdefault(address, MemoryServer(address))

    def open(self, shard: str, kind: EngineKind, address: str) -> MemoryEngine:
        """Return an engine at an address. Raises Refused where it is none of this kind."""
        if not address.startswith(SCHEME):
            raise Refused(f"is no address: write {SCHEME}name")
        engine = MemoryEngine(shard, self.server(address), lambda: self.around)
        self.opened.append(engine)
        return engine


class MemoryStore:
    """The port `Store`. exports: by name, each with its lines. written: how often each was made."""

    def __init__(self, around: Callable[[], Around]) -> None:
        self.exports: dict[str, tuple[Exported, bytes]] = {}
        self.written: list[str] = []
        self.failing = ""
        self._around = around

    async def find(self, name: str) -> Exported | None:
        """Return an export."""
        self._check()
        return self.exports[name][0] if name in self.exports else None

    async def put(
        self, source: Source, lines: AsyncGenerator[bytes, None], now: Callable[[], datetime]
    ) -> Exported:
        """Keep an export, unless there is one of that name."""
        async with aclosing(lines):
            self._check()
            if source.name in self.exports:
                return self.exports[source.name][0]
            text = b"".join([piece async for piece in lines])
            digest = hashlib.sha256(text).hexdigest()
            url = f"memory://exports/{source.name}"
            made = Exported(source, url, "rows", text.count(b"\n"), len(text), digest, now())
            async with self._around()("export", source.tenant, source.shard):
                self._check()
                self.exports[source.name] = made, text
                self.written.append(source.name)
            return made

    def rows(self) -> set[str]:
        """Return the ids of all rows in all exports."""
        return {json.loads(line)["id"] for _, text in self.exports.values() for line in text.splitlines()}

    def _check(self) -> None:
        if self.failing:
            raise StoreFailed(self.failing)
