"""A tenant with vectors from its first row to its export and back, with the operator as a process."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from tenantry.adapters.exports import FsspecStore
from tenantry.local.postgres import PostgresServer
from tests.conftest import Cluster, embedded
from tests.integration.buckets import bucket_in
from tests.integration.conftest import (
    Api,
    OperatorProcess,
    administrator,
    gone,
    is_ready,
    running,
    tenant,
)

pytestmark = pytest.mark.tool("versitygw")

OWN = "tenantry-system"
SHARD = "purged-shard"
NAME = "purged"


@pytest.fixture(scope="module")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane of its own: with a shard in it, every tenant of any other test would be placed there."""
    with embedded(tmp_path_factory.mktemp("purge-plane"), plans=True) as cluster:
        yield cluster


@pytest.fixture(scope="module")
async def api(control_plane: Cluster) -> AsyncIterator[Api]:
    """A client as its administrator."""
    async with administrator(control_plane) as client:
        yield client


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(durable=False) as started:
        yield started


@pytest.fixture
async def shard(api: Api, server: PostgresServer) -> None:
    await api.apply({"kind": "Namespace", "metadata": {"name": OWN}})
    metadata = {"name": SHARD, "namespace": OWN}
    await api.apply({"kind": "Secret", "metadata": metadata, "stringData": {"dsn": server.dsn()}})
    spec = {"engine": "pgvector", "connection": {"secretRef": {"name": SHARD}}}
    await api.apply({"kind": "VectorShard", "metadata": {"name": SHARD}, "spec": spec})
    return


async def application(api: Api, query: str) -> list[tuple[object, ...]]:
    """Run a query as the tenant's application does, by what the Secret says."""
    secret = await api.get("Secret", "vector-store", f"tenant-{NAME}")
    assert secret is not None
    dsn = base64.b64decode(secret["data"]["dsn"]).decode()
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        cursor = await connection.execute(query)
        return await cursor.fetchall() if cursor.description else []


@pytest.fixture(params=["a folder", "a bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A store, and its credentials in the environment."""
    if request.param == "a folder":
        yield f"file://{tmp_path}/exports"
        return
    with bucket_in(tmp_path / "store", monkeypatch) as url:
        yield url


async def test_what_is_purged_is_in_the_store_and_comes_back(
    api: Api, server: PostgresServer, shard: None, control_plane: Cluster, tmp_path: Path, store: str
) -> None:
    with running(OperatorProcess(control_plane, tmp_path, TENANTRY_EXPORT_URL=store)) as operator:
        await operator.start()
        await api.apply(tenant(NAME, plan="pro", vectorStore={"dimensions": 3}))
        await api.until("Tenant", NAME, is_ready, timeout=60)
        insert = "INSERT INTO items (id, embedding) SELECT n, ARRAY[n, 1, 2]::vector FROM generate_series(1, 500) n"
        await application(api, insert)
        await api.delete("Tenant", NAME)
        await api.until("Tenant", NAME, gone, timeout=60)
        (archive,) = [item for item in await api.list("TenantArchive") if item["spec"]["tenant"] == NAME]
        await api.delete("TenantArchive", archive["metadata"]["name"])
        await api.until("TenantArchive", archive["metadata"]["name"], gone, timeout=60)
        (made,) = await asyncio.to_thread(FsspecStore(store).list)
        assert (made.source.tenant, made.rows) == (NAME, 500)
        await api.apply(tenant(NAME, plan="pro", vectorStore={"dimensions": 3}))
        await api.until("Tenant", NAME, is_ready, timeout=60)
        assert await application(api, "SELECT count(*) FROM items") == [(0,)]
        environment = {**os.environ, "KUBECONFIG": control_plane.kubeconfig}
        command = (sys.executable, "-m", "tenantry", "restore", made.url, "--tenant", NAME)
        process = await asyncio.create_subprocess_exec(*command, env=environment)
        assert await process.wait() == 0
        assert await application(api, "SELECT count(*) FROM items") == [(500,)]
        # Whoever deletes it with all that it has leaves nothing, and no export either.
        await api.patch("Tenant", NAME, {"spec": {"deletionPolicy": "Delete"}})
        await api.delete("Tenant", NAME)
        await api.until("Tenant", NAME, gone, timeout=60)
        assert await asyncio.to_thread(FsspecStore(store).list) == [made]
        async with await psycopg.AsyncConnection.connect(server.dsn()) as connection:
            cursor = await connection.execute("SELECT tenant FROM tenantry.owners")
            assert await cursor.fetchall() == []
        await api.until("VectorShard", SHARD, lambda found: found["status"]["tenants"] == 0, timeout=60)
        assert await asyncio.to_thread(operator.stop) == 0
