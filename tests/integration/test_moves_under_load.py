"""Moves to and fro, each under three writers and a reader: nothing is lost or done twice, and no read fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tenantry.local.postgres import PostgresServer
from tests.conftest import embedded
from tests.integration.application import Application
from tests.integration.conftest import (
    Api,
    Object,
    OperatorProcess,
    administrator,
    gone,
    in_phase,
    is_ready,
    running,
    tenant,
)
from tests.integration.shards import apply_shards, servers_of

SHARDS = ("shard-a", "shard-b")
TENANTS, MOVES = 10, 20
"""Of each tenant so many moves. `make bench` does 200 of 20,000 rows, with the same applications."""

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, PostgresServer]]:
    """Two servers that wait for the disk."""
    with servers_of(*SHARDS, durable=True) as started:
        yield started


@pytest.fixture(scope="module")
async def api(
    servers: dict[str, PostgresServer], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Api]:
    """A control plane of its own, with both shards and an operator that plans no moves."""
    with embedded(tmp_path_factory.mktemp("moves-plane"), plans=True) as cluster:
        folder: Path = tmp_path_factory.mktemp("moves-operator")
        operator = OperatorProcess(cluster, folder, TENANTRY_REBALANCE="Off")
        async with administrator(cluster) as api:
            await apply_shards(api, servers)
            with running(operator):
                await operator.start()
                yield api


async def test_moves_under_load_lose_nothing(api: Api) -> None:
    async def to_and_fro(name: str) -> None:
        await api.apply(tenant(name, plan="pro", vectorStore={"dimensions": 8, "shard": SHARDS[0]}))
        await api.until("Tenant", name, is_ready, timeout=60)
        application = Application(api, name)
        await application.fill()
        async with application:
            for number in range(MOVES):
                await moved(api, application, name, SHARDS[(number + 1) % 2])
        await application.check()
        assert application.reads > MOVES
        found = await api.get("Tenant", name)
        assert found is not None
        assert found["status"]["placement"] == {"shard": SHARDS[MOVES % 2], "epoch": MOVES + 1}

    await asyncio.gather(*(to_and_fro(f"mover-{number}") for number in range(TENANTS)))


async def moved(api: Api, application: Application, name: str, target: str) -> None:
    """Have a tenant moved, and nothing left of the move."""
    move: Object = {"kind": "TenantMove", "metadata": {"name": name}}
    await api.apply({**move, "spec": {"tenant": name, "targetShard": target}})
    await api.until("TenantMove", name, in_phase("Cleaning"), timeout=400)
    await application.goes_on(target)
    await api.delete("TenantMove", name)
    await api.until("TenantMove", name, gone, timeout=60)
