"""The operator is killed in each phase of a move, while an application writes and reads; the next one goes on."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from tenantry.adapters.pgvector import fence
from tenantry.domain import names
from tenantry.local import chart
from tenantry.local.postgres import PostgresServer
from tests.conftest import Cluster, embedded
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

ROWS, DIMENSIONS = 2_000, 8
PHASES = ("Preparing", "Copying", "CatchingUp", "Verifying", "Blocking", "Committed", "Cleaning")

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, PostgresServer]]:
    """Two servers."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(PostgresServer(durable=False)) for name in ("from", "to")}


@pytest.fixture(scope="module")
async def admin(
    servers: dict[str, PostgresServer], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Api, Cluster]]:
    """A control plane of its own, with both shards."""
    with embedded(tmp_path_factory.mktemp("killed-plane"), plans=True) as cluster:
        async with administrator(cluster) as api:
            for name, server in servers.items():
                metadata = {"name": name, "namespace": chart.NAMESPACE}
                await api.apply({"kind": "Secret", "metadata": metadata, "stringData": {"dsn": server.dsn()}})
                spec: Object = {
                    "engine": "pgvector",
                    "connection": {"secretRef": {"name": name, "key": "dsn"}},
                }
                await api.apply({"kind": "VectorShard", "metadata": {"name": name}, "spec": spec})
            yield api, cluster


@pytest.fixture(scope="module")
async def operator(
    admin: tuple[Api, Cluster], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OperatorProcess]:
    """The operator, with a tenant for each phase."""
    api, cluster = admin
    folder: Path = tmp_path_factory.mktemp("killed-operator")
    process = OperatorProcess(cluster, folder, TENANTRY_REBALANCE="Off")
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
    application = Application(api, name)
    await application.fill()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(application.write())
        tasks.create_task(application.read())
        await application.goes_on("from")
        move: Object = {"kind": "TenantMove", "metadata": {"name": name}}
        await api.apply({**move, "spec": {"tenant": name, "targetShard": "to"}})
        await api.until("TenantMove", name, in_phase(phase), timeout=60)
        if phase == "Cleaning":
            await api.delete("TenantMove", name)  # it does not wait for those who are late then
        operator.kill()
        await operator.start()
        if phase != "Cleaning":
            await api.until("TenantMove", name, in_phase("Cleaning"), timeout=60)
            await application.goes_on("to")
            await api.delete("TenantMove", name)
        await api.until("TenantMove", name, gone, timeout=60)
        await application.goes_on("to")
        application.stopped = True
    found = await api.get("Tenant", name)
    assert found is not None
    assert found["status"]["placement"] == {"shard": "to", "epoch": 2}
    assert await application.stored() == (application.written, str(application.written))
    async with await AsyncConnection.connect(servers["from"].dsn()) as root:
        cursor = await root.execute("SELECT count(*) FROM tenantry.owners WHERE tenant = %s", (name,))
        assert await cursor.fetchone() == (0,)


class Application:
    """Writes and reads where the Secret says. Each write adds a row and is counted in another: none is done twice."""

    _WRITE = (
        "WITH added AS (INSERT INTO items (id, embedding) VALUES (%s, array_fill(1::real, ARRAY[8])::vector))"
        " UPDATE items SET content = (content::int + 1)::text WHERE id = 'counter'"
    )

    def __init__(self, api: Api, name: str) -> None:
        self._api, self._name = api, name
        self.stopped = False
        self.written = 0
        self._shard = ""
        self._news = asyncio.Event()

    async def fill(self) -> None:
        """Store rows before anything moves."""
        async with await AsyncConnection.connect((await self._secret())["dsn"]) as connection:
            await connection.execute(
                "INSERT INTO items (id, embedding, content) SELECT 'seed-' || n, array_fill(n, ARRAY[8])::vector,"
                " 'seed' FROM generate_series(1, %s) n",
                (ROWS,),
            )
            await connection.execute(
                "INSERT INTO items (id, embedding, content) VALUES"
                " ('counter', array_fill(0, ARRAY[8])::vector, '0')"
            )

    async def write(self) -> None:
        """Write until stopped; only what says that it was not done is done again."""
        while not self.stopped:
            given = await self._secret()
            async with await AsyncConnection.connect(given["dsn"], autocommit=True) as connection:
                try:
                    while not self.stopped:
                        await connection.execute(self._WRITE, (f"new-{self.written}",))
                        self.written += 1
                        self._shard = given["shard"]
                        self._news.set()
                        await asyncio.sleep(0.002)
                except psycopg.Error as error:
                    if error.sqlstate not in (fence.MOVED, fence.HELD):
                        raise
            await asyncio.sleep(0.02)

    async def read(self) -> None:
        """Read until stopped, each time as the Secret says; no read fails, and none finds less than all."""
        while not self.stopped:
            async with await AsyncConnection.connect((await self._secret())["dsn"]) as connection:
                cursor = await connection.execute("SELECT count(*) FROM items WHERE content = 'seed'")
                assert await cursor.fetchone() == (ROWS,)
            await asyncio.sleep(0.01)

    async def goes_on(self, shard: str) -> None:
        """Wait until writes are acknowledged by a shard."""
        before = self.written
        async with asyncio.timeout(60):
            while self._shard != shard or self.written < before + 20:
                self._news.clear()
                await self._news.wait()

    async def stored(self) -> tuple[int, Any]:
        """Return how many rows were written, and how many were counted."""
        async with await AsyncConnection.connect((await self._secret())["dsn"]) as connection:
            cursor = await connection.execute(
                "SELECT count(*) FILTER (WHERE id ^@ 'new-'), max(content) FILTER (WHERE id = 'counter') FROM items"
            )
            found = await cursor.fetchone()
            assert found is not None
            return found

    async def _secret(self) -> dict[str, str]:
        found = await self._api.get("Secret", names.VECTOR_STORE, f"tenant-{self._name}")
        assert found is not None
        return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}
