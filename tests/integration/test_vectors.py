"""Tenants with vectors, end to end: a real API server, the operator, two PostgreSQL servers, applications."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from tenantry.domain import names
from tenantry.domain.vectors import INDEX_ROWS
from tenantry.local.postgres import PostgresServer
from tenantry.local.processes import kill
from tests.conftest import Cluster, embedded
from tests.integration.conftest import (
    Api,
    Object,
    OperatorProcess,
    administrator,
    condition,
    gone,
    in_phase,
    is_ready,
    is_stalled,
    running,
    tenant,
)
from tests.integration.shards import address, apply_shards, servers_of, shard

SHARDS = ("shard-a", "shard-b")
LOOK_SECONDS = "1"
TENANTS = ("acme", "umbrella", "bluth", "stark")
VECTORS: Object = {"plan": "pro", "vectorStore": {"dimensions": 3}}


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, PostgresServer]]:
    """Two servers with pgvector."""
    with servers_of(*SHARDS) as servers:
        yield servers


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane of its own: with shards in it every tenant has to do with them."""
    with embedded(tmp_path_factory.mktemp("vectors-plane"), plans=True) as cluster:
        yield cluster


@pytest.fixture(scope="module")
async def admin(plane: Cluster, servers: dict[str, PostgresServer]) -> AsyncIterator[Api]:
    """A client, with both shards applied."""
    async with administrator(plane) as api:
        await apply_shards(api, servers)
        yield api


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where vectors of purged tenants go."""
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module", autouse=True)
async def operator_with_shards(
    plane: Cluster, admin: Api, exports: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OperatorProcess]:
    """The operator, with four tenants that have places."""
    process = OperatorProcess(
        plane,
        tmp_path_factory.mktemp("vectors-operator"),
        TENANTRY_SHARD_SECONDS=LOOK_SECONDS,
        TENANTRY_CREDENTIAL_GRACE_SECONDS="15",
        TENANTRY_EXPORT_URL=exports.as_uri(),
    )
    with running(process):
        await process.start()
        for name in TENANTS:
            await admin.apply(tenant(name, **VECTORS))
        for name in TENANTS:
            await admin.until("Tenant", name, is_ready)
        yield process


async def secret(api: Api, name: str) -> dict[str, str]:
    """Return what an application of the tenant is given."""
    found = await api.get("Secret", names.VECTOR_STORE, f"tenant-{name}")
    assert found is not None
    return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}


async def connect(api: Api, name: str) -> AsyncConnection[Any]:
    """Connect as an application of the tenant does."""
    return await AsyncConnection.connect((await secret(api, name))["dsn"], autocommit=True)


async def insert(api: Api, name: str, *rows: str) -> None:
    async with await connect(api, name) as connection:
        for row in rows:
            await connection.execute(
                "INSERT INTO items (id, embedding, content) VALUES (%s, '[1,2,3]', %s)", (row, f"of {name}")
            )


async def stored(api: Api, name: str) -> set[str]:
    async with await connect(api, name) as connection:
        cursor = await connection.execute("SELECT id FROM items")
        return {row for (row,) in await cursor.fetchall()}


def has(type_: str, status: str) -> Callable[[Object | None], bool]:
    """Return a check for a condition's status."""
    return lambda found: (condition(found, type_) or {}).get("status") == status


async def test_every_tenant_has_a_place_and_is_alone_there(admin: Api) -> None:
    for name in TENANTS:
        await insert(admin, name, f"{name}-1", f"{name}-2")
    for name in TENANTS:
        assert await stored(admin, name) == {f"{name}-1", f"{name}-2"}
        found = await admin.until("Tenant", name, has("IsolationVerified", "True"))
        assert found["status"]["placement"]["epoch"] == 1
        assert has("ShardReady", "True")(found)


async def test_shards_tell_how_they_stand(admin: Api) -> None:
    for name in SHARDS:
        found = await admin.until(
            "VectorShard", name, lambda item: is_ready(item) and item and "storage" in item["status"]
        )
        assert "pgvector 0.8" in found["status"]["server"]
        assert float(found["status"]["share"]) >= 0
        assert found["status"]["endpoint"].startswith("127.0.0.1:")
    async with asyncio.timeout(60):  # each look counts, and writes what it counted
        while sum(item["status"]["tenants"] for item in await admin.list("VectorShard")) != len(TENANTS):  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def test_credentials_are_replaced_while_applications_go_on(admin: Api) -> None:
    before = await secret(admin, "acme")
    async with await connect(admin, "acme") as old:
        await admin.patch("Tenant", "acme", {"metadata": {"annotations": {names.ROTATE: "1"}}})
        await admin.until(
            "Secret",
            names.VECTOR_STORE,
            lambda found: found and found["data"]["password"] != _encoded(before["password"]),
            "tenant-acme",
        )
        await old.execute("SELECT count(*) FROM items")  # goes on
        assert await stored(admin, "acme") == {"acme-1", "acme-2"}
        await ended(old)  # when the grace is over
    with pytest.raises(psycopg.OperationalError):
        await AsyncConnection.connect(before["dsn"])


async def ended(connection: AsyncConnection[Any]) -> None:
    """Wait until the server has ended a session."""
    async with asyncio.timeout(60):
        while True:
            try:
                await connection.execute("SELECT pg_sleep(0.05)")
            except psycopg.Error:
                return


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def test_who_is_suspended_is_out_until_it_is_over(admin: Api) -> None:
    async with await connect(admin, "umbrella") as connection:
        await admin.patch("Tenant", "umbrella", {"spec": {"suspended": True}})
        await admin.until("Tenant", "umbrella", in_phase("Suspended"))
        with pytest.raises(psycopg.Error):
            await connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        await connect(admin, "umbrella")
    await admin.patch("Tenant", "umbrella", {"spec": {"suspended": False}})
    await admin.until("Tenant", "umbrella", in_phase("Ready"))
    assert await stored(admin, "umbrella") == {"umbrella-1", "umbrella-2"}


async def test_a_secret_that_is_deleted_comes_back_the_same(admin: Api) -> None:
    before = await secret(admin, "acme")
    await admin.delete("Secret", names.VECTOR_STORE, "tenant-acme")
    await admin.until("Secret", names.VECTOR_STORE, lambda found: found is not None, "tenant-acme")
    assert await secret(admin, "acme") == before


async def test_a_tenant_that_grows_gets_an_index_while_it_goes_on(admin: Api) -> None:
    await admin.apply(tenant("grower", **VECTORS))
    await admin.until("Tenant", "grower", is_ready)
    async with await connect(admin, "grower") as connection:
        await connection.execute(
            "INSERT INTO items (id, embedding) SELECT n, ARRAY[n, 1, 2]::vector FROM generate_series(1, %s) n",
            (INDEX_ROWS + 1,),
        )
        query = "SELECT id FROM items WHERE tenant_id = 'grower' ORDER BY embedding <=> '[7,1,2]' LIMIT 1"
        async with asyncio.timeout(60):
            while True:
                cursor = await connection.execute(f"EXPLAIN {query}")
                if any("items_embedding" in line for (line,) in await cursor.fetchall()):
                    break
                await connection.execute("SELECT pg_sleep(0.1)")
        cursor = await connection.execute(query)
        assert await cursor.fetchone() == ("7",)
    await admin.patch("Tenant", "grower", {"spec": {"deletionPolicy": "Delete"}})
    await admin.delete("Tenant", "grower")
    await admin.until("Tenant", "grower", gone, timeout=60)


async def test_isolation_that_somebody_breaks_is_told(admin: Api, servers: dict[str, PostgresServer]) -> None:
    place = await admin.get("Tenant", "stark")
    assert place is not None
    on = servers[place["status"]["placement"]["shard"]]
    async with await AsyncConnection.connect(on.dsn(), autocommit=True) as root:
        await root.execute("GRANT SELECT ON tenantry.vector_3 TO PUBLIC")
        await root.execute("GRANT USAGE ON SCHEMA tenantry TO PUBLIC")
        found = await admin.until("Tenant", "stark", has("IsolationVerified", "False"), timeout=60)
        assert condition(found, "Ready")["reason"] == "LeakFound"  # type: ignore[index]
        await root.execute("REVOKE SELECT ON tenantry.vector_3 FROM PUBLIC")
        await root.execute("REVOKE USAGE ON SCHEMA tenantry FROM PUBLIC")
    await admin.until("Tenant", "stark", has("IsolationVerified", "True"), timeout=60)
    for name in TENANTS:
        await admin.until("Tenant", name, is_ready, timeout=60)


async def test_a_deleted_tenant_comes_back_with_its_vectors(admin: Api) -> None:
    await admin.delete("Tenant", "bluth")
    await admin.until("Tenant", "bluth", gone)
    await admin.apply(tenant("bluth", **VECTORS))
    await admin.until("Tenant", "bluth", is_ready)
    assert await stored(admin, "bluth") == {"bluth-1", "bluth-2"}


async def test_a_purge_exports_and_removes(
    admin: Api, exports: Path, servers: dict[str, PostgresServer]
) -> None:
    await admin.apply(tenant("leaver", **VECTORS))
    await admin.until("Tenant", "leaver", is_ready)
    await insert(admin, "leaver", "one", "two", "three")
    uid = (await admin.get("Tenant", "leaver") or {})["metadata"]["uid"]
    await admin.delete("Tenant", "leaver")
    await admin.until("Tenant", "leaver", gone)
    archive = names.archive_name("leaver", uid)
    await admin.patch("TenantArchive", archive, {"spec": {"purgeAfter": "2020-01-01T00:00:00Z"}})
    found = await admin.until("TenantArchive", archive, in_phase("Purged"), timeout=60)
    (export,) = found["status"]["exports"]
    assert export["rows"] == 3
    assert any(path.name.startswith("manifest") for path in exports.rglob("*"))
    for server in servers.values():
        async with await AsyncConnection.connect(server.dsn()) as root:
            cursor = await root.execute("SELECT count(*) FROM tenantry.owners WHERE tenant = 'leaver'")
            assert await cursor.fetchone() == (0,)


async def test_a_tenant_that_is_deleted_for_good_leaves_nothing(
    admin: Api, servers: dict[str, PostgresServer]
) -> None:
    await admin.apply(tenant("goner", **VECTORS, deletionPolicy="Delete"))
    await admin.until("Tenant", "goner", is_ready)
    await insert(admin, "goner", "one")
    await admin.delete("Tenant", "goner")
    await admin.until("Tenant", "goner", gone, timeout=60)
    for server in servers.values():
        async with await AsyncConnection.connect(server.dsn()) as root:
            cursor = await root.execute("SELECT count(*) FROM tenantry.owners WHERE tenant = 'goner'")
            assert await cursor.fetchone() == (0,)


async def test_a_shard_without_its_secret_says_so(admin: Api) -> None:
    await admin.apply(shard("shard-x"))
    await admin.until("VectorShard", "shard-x", is_stalled("SecretNotFound"))
    for name in TENANTS:
        await admin.until("Tenant", name, is_ready)
    await admin.delete("VectorShard", "shard-x")
    await admin.until("VectorShard", "shard-x", gone)


async def test_a_server_that_stops_concerns_its_own_tenants_alone(
    admin: Api, servers: dict[str, PostgresServer]
) -> None:
    found = [await admin.get("Tenant", name) for name in TENANTS]
    places = {item["metadata"]["name"]: item["status"]["placement"]["shard"] for item in found if item}
    down = places[TENANTS[0]]
    stop(servers[down])
    for name, where in places.items():
        if where == down:
            await admin.until("Tenant", name, has("ShardReady", "False"))
        else:
            assert is_ready(await admin.get("Tenant", name))
    await admin.until("VectorShard", down, has("Ready", "False"))
    await admin.apply(tenant("newcomer", **VECTORS))
    new = await admin.until("Tenant", "newcomer", is_ready)
    assert new["status"]["placement"]["shard"] != down
    servers[down].start()
    await admin.apply(address(down, servers[down]))
    for name in TENANTS:
        await admin.until("Tenant", name, is_ready, timeout=60)
        assert await stored(admin, name) == {f"{name}-1", f"{name}-2"}


def stop(server: PostgresServer) -> None:
    """Kill a server's processes with no chance to clean up; its data stays."""
    kill(server.processes())


async def test_a_tenant_moves_while_its_application_writes(
    admin: Api, servers: dict[str, PostgresServer]
) -> None:
    found = await admin.get("Tenant", "acme")
    assert found is not None
    source = found["status"]["placement"]["shard"]
    (target,) = set(SHARDS) - {source}
    application = asyncio.create_task(write_until_moved(admin, "acme", source))
    move = {"kind": "TenantMove", "metadata": {"name": "acme-moves"}}
    await admin.apply({**move, "spec": {"tenant": "acme", "targetShard": target}})
    done = await admin.until("TenantMove", "acme-moves", in_phase("Cleaning"), timeout=180)
    acknowledged = await application
    assert done["status"]["source"] == source
    assert done["status"].get("writePauseMs", 0) >= 0
    moved = await admin.until(
        "Tenant", "acme", lambda item: is_ready(item) and item["status"]["placement"]["shard"] == target
    )
    assert moved["status"]["placement"] == {"shard": target, "epoch": 2}
    assert (await secret(admin, "acme"))["shard"] == target
    assert await stored(admin, "acme") == {"acme-1", "acme-2"} | acknowledged
    await admin.delete("TenantMove", "acme-moves")
    await admin.until("TenantMove", "acme-moves", gone, timeout=60)
    async with await AsyncConnection.connect(servers[source].dsn()) as root:
        cursor = await root.execute("SELECT count(*) FROM tenantry.owners WHERE tenant = 'acme'")
        assert await cursor.fetchone() == (0,)


async def write_until_moved(api: Api, name: str, source: str) -> set[str]:
    """Write as an application does, following the Secret, until some writes have gone to another shard."""
    acknowledged: set[str] = set()
    elsewhere = number = 0
    async with asyncio.timeout(120):
        while elsewhere < 20:
            given = await secret(api, name)
            with suppress(psycopg.Error):
                async with await AsyncConnection.connect(given["dsn"], autocommit=True) as connection:
                    while elsewhere < 20:
                        number += 1
                        row = f"moving-{number}"
                        await connection.execute(
                            "INSERT INTO items (id, embedding) VALUES (%s, '[1,2,3]')", (row,)
                        )
                        acknowledged.add(row)
                        elsewhere += given["shard"] != source
    return acknowledged
