"""Live moves of tenants of 20,000 vectors between two servers, by the operator, while an application writes to each.

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
from tests.integration.conftest import Api, in_phase, is_ready, tenant

ROWS, DIMENSIONS = 20_000, 384
TOGETHER = 2
"""Moves at the same time; both servers and all else are on this machine."""

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
    """Move so many tenants, each once."""
    found = Moved()
    with ExitStack() as stack:
        source, target = (stack.enter_context(PostgresServer()) for _ in range(2))
        await add_shard(api, "from", source)
        await add_shard(api, "to", target)
        await api.patch("VectorShard", "to", {"spec": {"cordoned": True}})
        chosen = [f"mover-{number}" for number in range(count)]
        for name in chosen:
            await api.apply(tenant(name, plan="pro", vectorStore={"dimensions": DIMENSIONS}))
        for name in chosen:
            await api.until("Tenant", name, is_ready, timeout=60)
            async with await AsyncConnection.connect((await secret(api, name))["dsn"]) as connection:
                await connection.execute(_FILL, (DIMENSIONS, ROWS))
        await api.patch("VectorShard", "to", {"spec": {"cordoned": False}})
        waiting = asyncio.Semaphore(TOGETHER)

        async def one(name: str) -> None:
            async with waiting:
                await _move(api, name, found)

        await asyncio.gather(*map(one, chosen))
    return found


async def secret(api: Api, name: str) -> dict[str, str]:
    """Return what the application is given."""
    found = await api.get("Secret", names.VECTOR_STORE, f"tenant-{name}")
    assert found is not None
    return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}


async def _move(api: Api, name: str, found: Moved) -> None:
    writer = Writer(api, name)
    task = asyncio.create_task(writer.run())
    await asyncio.sleep(0.5)
    found.quiet.append(writer.take_longest())
    begin = time.monotonic()
    await api.apply(
        {"kind": "TenantMove", "metadata": {"name": name}, "spec": {"tenant": name, "targetShard": "to"}}
    )
    done = await api.until("TenantMove", name, in_phase("Cleaning"), timeout=300)
    found.whole.append(time.monotonic() - begin)
    await asyncio.wait_for(writer.at_target.wait(), 30)
    writer.stopped = True
    await task
    found.pauses.append(writer.take_longest())
    found.held.append(done["status"]["writePauseMs"] / 1000)
    found.writes += writer.written


class Writer:
    """Writes a row every few milliseconds, wherever the Secret says."""

    def __init__(self, api: Api, name: str) -> None:
        self._api, self._name = api, name
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
                        (f"new-{self.written}", DIMENSIONS),
                    )
                    break
                if connection is not None:
                    await connection.close()
                    connection = None
                await asyncio.sleep(0.005)
            self.written += 1
            self._longest = max(self._longest, time.monotonic() - begin)
            if given.get("shard") == "to":
                self.at_target.set()
            await asyncio.sleep(0.005)
        if connection is not None:
            await connection.close()
