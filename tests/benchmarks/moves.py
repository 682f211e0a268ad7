"""Live moves of tenants of 20,000 vectors between two servers, each under three writers and a reader.

The operator does them. A few tenants go to and fro, all their rows each time; in the end every acknowledged write
must be there, once.

The pause is the application's: the longest time of any writer from sending a write to its acknowledgement, with
reading the Secret again and connecting anew where the server says so. The same without a move is told beside it.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from dataclasses import dataclass, field

from tenantry.local.postgres import PostgresServer
from tests.benchmarks.shards import add_shard
from tests.integration.application import Application
from tests.integration.conftest import Api, Object, gone, in_phase, is_ready, tenant

ROWS, DIMENSIONS = 20_000, 384
SHARDS = ("shard-a", "shard-b")
TENANTS = 20
QUIET_SECONDS = 0.5
TOGETHER = 1
"""Moves at the same time: as many as the planner begins between two shards."""


@dataclass
class Moved:
    """What was measured, in seconds. pauses: as writers saw them; held: as the operator measured. quiet: no move."""

    pauses: list[float] = field(default_factory=list)
    held: list[float] = field(default_factory=list)
    quiet: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    writes: int = 0
    reads: int = 0


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
        applications = {}
        for name in chosen:
            await api.until("Tenant", name, is_ready, timeout=60)
            applications[name] = Application(api, name, dimensions=DIMENSIONS, rows=ROWS)
            await applications[name].fill()
        waiting = asyncio.Semaphore(TOGETHER)

        async def one(name: str, moves: int) -> None:
            for number in range(moves):
                async with waiting, applications[name] as application:
                    await asyncio.sleep(QUIET_SECONDS)
                    found.quiet.append(application.take_longest())
                    await _move(api, name, SHARDS[(number + 1) % 2], application, found)
                    found.reads += application.reads
            await applications[name].check()

        await asyncio.gather(
            *(one(name, len(range(number, count, len(chosen)))) for number, name in enumerate(chosen))
        )
    return found


async def _move(api: Api, name: str, target: str, application: Application, found: Moved) -> None:
    begin, writes = time.monotonic(), sum(application.written)
    move: Object = {"kind": "TenantMove", "metadata": {"name": name}}
    await api.apply({**move, "spec": {"tenant": name, "targetShard": target}})
    done = await api.until("TenantMove", name, in_phase("Cleaning"), timeout=300)
    found.whole.append(time.monotonic() - begin)
    await application.goes_on(target)
    found.pauses.append(application.take_longest())
    found.held.append(done["status"]["writePauseMs"] / 1000)
    found.writes += sum(application.written) - writes
    # The old place goes at once, and the tenant can come back to it.
    await api.delete("TenantMove", name)
    await api.until("TenantMove", name, gone, timeout=120)
