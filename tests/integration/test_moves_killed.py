"""The operator is killed in each phase of a move, while an application writes and reads; the next one goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from psycopg import AsyncConnection

from tenantry.local.postgres import PostgresServer
from tests.conftest import Cluster, embedded
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

ROWS, DIMENSIONS = 2_000, 8
PHASES = ("Preparing", "Copying", "CatchingUp", "Verifying", "Blocking", "Committed", "Cleaning")


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, PostgresServer]]:
    """Two servers."""
    with servers_of("from", "to") as running_:
        yield running_


@pytest.fixture(scope="module")
async def admin(
    servers: dict[str, PostgresServer], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Api, Cluster]]:
    """A control plane of its own, with both shards."""
    with embedded(tmp_path_factory.mktemp("killed-plane"), plans=True) as cluster:
        async with administrator(cluster) as api:
            await apply_shards(api, servers)
            yield api, cluster


@pytest.fixture(scope="module")
async def operator(
    admin: tuple[Api, Cluster], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OperatorProcess]:
    """The operator, with a tenant for each phase."""
    api, cluster = admin
    folder: Path = tmp_path_factory.mktemp("killed-operator")
    process = OperatorProcess(cluster, folder, TENANTRY_REBALANCE="Off", TENANTRY_LEASE_SECONDS="3")
    with running(process):
        await process.start()
        for phase in PHASES:
            await api.apply(
                tenant(phase.lower(), plan="pro", vectorStore={"dimensions": DIMENSIONS, "shard": "from"})
            )
        yield process


@pytest.mark.parametrize("phase", PHASES)
async def test_a_move_goes_on_after_the_operator_was_killed(
    phase: str, admin: tuple[Api, Cluster], operator: OperatorProcess, servers: dict[str, PostgresServer]
) -> None:
    (api, _), name = admin, phase.lower()
    await api.until("Tenant", name, is_ready, timeout=60)
    application = Application(api, name, dimensions=DIMENSIONS, rows=ROWS)
    await application.fill()
    async with application:
        await application.goes_on("from")
        move: Object = {"kind": "TenantMove", "metadata": {"name": name}}
        await api.apply({**move, "spec": {"tenant": name, "targetShard": "to"}})
        # A short phase may be over before it is looked for.
        seen = PHASES[PHASES.index(phase) :]
        await api.until("TenantMove", name, lambda found: any(in_phase(each)(found) for each in seen))
        if phase == "Cleaning":
            await application.goes_on("to")
            await api.delete("TenantMove", name)  # it does not wait for those who are late then
        operator.kill()
        await operator.start()
        if phase != "Cleaning":
            await api.until("TenantMove", name, in_phase("Cleaning"), timeout=60)
            await application.goes_on("to")
            await api.delete("TenantMove", name)
        await api.until("TenantMove", name, gone, timeout=60)
        await application.goes_on("to")
    found = await api.get("Tenant", name)
    assert found is not None
    assert found["status"]["placement"] == {"shard": "to", "epoch": 2}
    await application.check()
    async with await AsyncConnection.connect(servers["from"].dsn()) as root:
        cursor = await root.execute("SELECT count(*) FROM tenantry.owners WHERE tenant = %s", (name,))
        assert await cursor.fetchone() == (0,)
