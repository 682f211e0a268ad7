"""Live moves of tenants of 20,000 vectors between two servers, by the operator, while an application writes to each.

A few tenants go to and fro, all their rows each time.

The pause is the application's: the longest time from sending a write to its acknowledgement, with reading the Secret
again and connecting anew where the server says so. The same without a move is told beside it.
"""

from __future__ import annotations

import asyncio
import base64
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import AsyncConnection

from tenantry.domain import names
from tenantry.local.postgres import PostgresServer
from tests.benchmarks.shards import add_shard
from tests.integration.conftest import Api, Object, gone, in_phase, is_ready, tenant

ROWS, DIMENSIONS = 20_000, 384
SHARDS = ("shard-a", "shard-b")
TENANTS = 20
TOGETHER = 1
"""Moves at the same time: as many as the planner begins between two shards."""

_FILL = (
    "INSERT INTO items (id, embedding, content)"
    " SELECT 'row-' || n, array_fill(random()::real, ARRAY[%s])::vector, repeat('text ', 20)"
    " FROM generate_series(1, %s) n"
)


@dataclass
class Moved:
    """What was measured, in seconds. pauses: as writers saw them; held: as the operator measured. quiet: no move."""

    pauses: list[float] = field(default_factory=list)
    held: list[float] = field(default_factory=list)
    quiet: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    writes: int = 0


async def measure(api: Api, count: int) -> Moved:
    """Do so many moves."""
    found = Moved()
    with ExitStack() as stack:
        servers = {name: stack.enter_context(PostgresServer()) for name in SHARDS}
        for name, server in servers.items():
            await add_shard(api, name, server)
        chosen = [f"mover-{number}" for number in range(min(count, TENANTS))]
        for name in chosen:
            given = {"dimensions": DIMENSIONS, "shard": SHARDS[0]}
            await api.apply(tenant(name, plan="pro", vectorStore=given))
        for name in chosen:
            await api.until("Tenant", name, is_ready, timeout=60)
            async with await AsyncConnection.connect((await secret(api, name))["dsn"]) as connection:
                await connection.execute(_FILL, (DIMENSIONS, ROWS))
        waiting = asyncio.Semaphore(TOGETHER)

        async def one(name: str, moves: int) -> None:
            for number in range(moves):
                async with waiting:
                    await _move(api, name, SHARDS[(number + 1) % 2], found)

        await asyncio.gather(
            *(one(name, len(range(number, count, len(chosen)))) for number, name in enumerate(chosen))
        )
    return found


async def secret(api: Api, name: str) -> dict[str, str]:
    """Return what the application is given."""
    found = await api.get("Secret", names.VECTOR_STORE, f"tenant-{name}")
    assert found is not None
    return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}


async def _move(api: Api, name: str, target: str, found: Moved) -> None:
    writer = Writer(api, name, target)
    task = asyncio.create_task(writer.run())
    await asyncio.sleep(0.5)
    found.quiet.append(writer.take_longest())
    begin = time.monotonic()
    move: Object = {"kind": "TenantMove", "metadata": {"name": name}}
    await api.apply({**move, "spec": {"tenant": name, "targetShard": target}})
    done = await api.until("TenantMove", name, in_phase("Cleaning"), timeout=300)
    found.whole.append(time.monotonic() - begin)
    await asyncio.wait_for(writer.at_target.wait(), 30)
    writer.stopped = True
    await task
    found.pauses.append(writer.take_longest())
    found.held.append(done["status"]["writePauseMs"] / 1000)
    found.writes += writer.written
    # The old place goes at once, and the tenant can come back to it.
    await api.delete("TenantMove", name)
    await api.until("TenantMove", name, gone, timeout=120)


class Writer:
    """Writes a row every few milliseconds, wherever the Secret says."""

    def __init__(self, api: Api, name: str, target: str) -> None:
        self._api, self._name, self._target = api, name, target
        self.stopped = False
        self.at_target = asyncio.Event()
        self.written = 0
        self._longest = 0.0

    def take_longest(self) -> float:
        """Return the longest write since the last time."""
        longest, self._longest = self._longest, 0.0
        return longest

    async def run(self) -> None:
        """Write until stopped."""
        connection: AsyncConnection[Any] | None = None
        given: dict[str, str] = {}
        while not self.stopped:
            begin = time.monotonic()
            while not self.stopped:
                with suppress(psycopg.Error):
                    if connection is None:
                        given = await secret(self._api, self._name)
                        connection = await AsyncConnection.connect(given["dsn"], autocommit=True)
                    await connection.execute(
                        "INSERT INTO items (id, embedding) VALUES (%s, array_fill(1::real, ARRAY[%s])::vector)",
                        (f"{self._target}-{begin}", DIMENSIONS),
                    )
                    break
                if connection is not None:
                    await connection.close()
                    connection = None
                await asyncio.sleep(0.005)
            self.written += 1
            self._longest = max(self._longest, time.monotonic() - begin)
            if given.get("shard") == self._target:
                self.at_target.set()
            await asyncio.sleep(0.005)
        if connection is not None:
            await connection.close()
