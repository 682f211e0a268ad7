"""Vector database servers of a simulated world: what is on them outlives the processes that use them.

Each step that changes a server is a write, before and after which the process may die. Of a move, copying is one
step, and what is written at the source from then on is at the target at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tenantry.domain.places import Place, PlaceState, Record
from tenantry.reconcile.mover import Blocked, Busy, Progress
from tenantry.reconcile.ports import Engine
from tests.faults.simulated.faults import Write
from tests.memory_engine import MemoryEngine, MemoryEngines, MemoryServer, MemoryStore

if TYPE_CHECKING:
    from tests.faults.simulated.world import Process


class Servers(MemoryEngines):
    """All servers of a world, and the port `Engines` of its present process.

    following: copies that go on. difference: what a comparison finds, where a test wants a move to wait. busy: how
    many times a writer's transaction does not end, met by a comparison or when writes are to be held back.
    """

    def __init__(self, process: Callable[[], Process]) -> None:
        super().__init__()
        self._process = process
        self.around = self._write
        self.following: set[tuple[str, str, str]] = set()
        self.difference: str | None = None
        self.busy: dict[str, int] = {}
        self.store = MemoryStore(lambda: self.around)

    def _write(self, act: str, tenant: str, shard: str) -> AbstractAsyncContextManager[Any]:
        return self._process().writing(Write(act, "Place", f"{shard}/{tenant}"))

    def mover(self, source: Engine, target: Engine, tenant: str) -> SimulatedMover:
        """Return what moves a tenant between two engines."""
        assert isinstance(source, MemoryEngine)
        assert isinstance(target, MemoryEngine)
        return SimulatedMover(self, source, target, tenant)

    def snapshot(self) -> Any:
        """Return how all servers are."""
        return deepcopy((self.servers, self.following, self.store.exports, self.store.written))

    def restore(self, snapshot: Any) -> None:
        """Go back to how they were."""
        self.servers, self.following, self.store.exports, self.store.written = deepcopy(snapshot)

    def insert(self, tenant: str, shard: str, row: str) -> bool:
        """Write a row as an application does; False where that is not let in."""
        here = self.server(f"memory://{shard}")
        if not takes_writes(here, tenant):
            return False
        here.insert(tenant, row)
        for who, source, target in self.following:
            if (who, source) == (tenant, here.address):
                self.server(target).rows[tenant] = dict(here.rows[tenant])
        return True

    def writable(self) -> Mapping[str, list[str]]:
        """Return where each tenant could write now."""
        found: dict[str, list[str]] = {}
        for address, server in sorted(self.servers.items()):
            for tenant in server.records:
                if takes_writes(server, tenant):
                    found.setdefault(tenant, []).append(address)
        return found


def takes_writes(server: MemoryServer, tenant: str) -> bool:
    """Return whether an application of the tenant could write there now."""
    record = server.records.get(tenant)
    if record is None or tenant not in server.rows:
        return False
    return record.place.state is PlaceState.OWNER and record.place.open


class SimulatedMover:
    """The port `Mover` on two servers in memory."""

    def __init__(self, servers: Servers, source: MemoryEngine, target: MemoryEngine, tenant: str) -> None:
        self._servers, self._source, self._target, self._tenant = servers, source, target, tenant
        self._copy = (tenant, source.server.address, target.server.address)

    async def prepare(self, place: Place) -> None:
        """Copy all rows, and have new ones copied as they come."""
        self._meet("prepare", "max_replication_slots is 4 on the source")
        await self._target.ensure(place)
        async with self._servers.around("copy", self._tenant, self._target.shard):
            self._check_up()
            rows = self._source.server.rows.get(self._tenant, {})
            self._target.server.rows[self._tenant] = dict(rows)
            self._servers.following.add(self._copy)

    async def progress(self) -> Progress:
        """Say that all is there, unless the copying broke off."""
        self._check_up()
        following = self._copy in self._servers.following
        rows = len(self._target.server.rows.get(self._tenant, {}))
        return Progress(rows=rows, lag_bytes=0, copied=following, lost=not following)

    async def index(self) -> bool:
        """Say that the target has what it needs."""
        self._check_up()
        return True

    async def verify(self) -> str | None:
        """Compare."""
        self._check_up()
        self._meet("verify")
        here, there = (engine.server.rows.get(self._tenant) for engine in (self._source, self._target))
        return self._servers.difference if here == there else "the rows differ"

    async def block(self) -> Blocked:
        """Hold writes back at the source."""
        self._meet("block")
        await self._set(PlaceState.BLOCKED, "block")
        self._check_up()
        return Blocked(0.0)

    def _meet(self, step: str, what: str = "a transaction that writes does not end") -> None:
        """Meet what is in the way, such as a writer that does not let go, as often as the test wants."""
        left = self._servers.busy.get(step, 0)
        if left:
            self._servers.busy[step] = left - 1
            raise Busy(what)

    async def unblock(self) -> None:
        """Let writes go on at the source."""
        await self._set(PlaceState.OWNER, "unblock")

    async def activate(self, place: Place) -> None:
        """Let the target take writes."""
        await self._target.ensure(place)

    async def redirect(self) -> None:
        """Have the source send writers on."""
        await self._set(PlaceState.MOVED, "redirect")

    async def detach(self) -> None:
        """End the copying."""
        self._servers.following.discard(self._copy)

    async def clean_target(self) -> None:
        """Have nothing of the move, as if it had never been."""
        self._servers.following.discard(self._copy)
        await self._target.remove(self._tenant)
        await self._set(PlaceState.OWNER, "free")

    async def clean_source(self) -> None:
        """Remove what is left at the source."""
        self._servers.following.discard(self._copy)
        await self._source.remove(self._tenant)

    async def close(self) -> None:
        """Do nothing: there is no connection."""

    async def _set(self, state: PlaceState, act: str) -> None:
        record: Record | None = self._source.server.records.get(self._tenant)
        if record is None or record.place.state is state:
            return
        async with self._servers.around(act, self._tenant, self._source.shard):
            self._source.server.records[self._tenant] = replace(
                record, place=replace(record.place, state=state)
            )

    def _check_up(self) -> None:
        for engine in (self._source, self._target):
            engine._check()
