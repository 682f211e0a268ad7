"""The chapter of docs/operations.md on shards that are lost or set back, with real servers and vectors in them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from tenantry.domain import names
from tenantry.local.postgres import PostgresServer
from tenantry.local.processes import kill
from tests.conftest import embedded
from tests.integration.conftest import (
    Api,
    Object,
    OperatorProcess,
    administrator,
    gone,
    is_ready,
    is_stalled,
    running,
    tenant,
)
from tests.integration.guide import PAGE, Reader, blocks
from tests.integration.shards import address, apply_shards, contents_of, secret_of, servers_of

SHARDS = ("shard-a", "shard-b")


@dataclass
class Site:
    """A cluster with two shards, an administrator who reads the guide, and the operator."""

    api: Api
    operator: OperatorProcess
    servers: dict[str, PostgresServer]
    reader: Reader

    def follow(self, *blocks: str) -> str:
        """Run blocks of the guide, which speaks of shard-a."""
        self.reader.environment["SHARD_DSN"] = self.servers["shard-a"].dsn()
        return self.reader.follow(*blocks)

    async def secret_is_put_back(self) -> None:
        """Follow the guide where the address of the server has changed, and wait until that is seen."""
        self.follow("shard-secret")
        address = self.servers["shard-a"].dsn().rpartition("@")[2].partition("/")[0]
        await self.api.until(
            "VectorShard",
            "shard-a",
            lambda found: is_ready(found) and found["status"]["endpoint"] == address,
            timeout=60,
        )

    async def settle(self, name: str, shard: str = "shard-a", **spec: Any) -> None:
        """Have a tenant on a shard, with one row."""
        where = {"dimensions": 3, "shard": shard}
        await self.api.apply(tenant(name, plan="pro", vectorStore=where, **spec))
        await self.api.until("Tenant", name, is_ready)
        await self.insert(name, f"first of {name}")

    async def connect(self, name: str) -> AsyncConnection[Any]:
        """Connect as an application of the tenant does, which reads its Secret until that leads to a server."""

        def leads(found: Object | None) -> bool:
            given = contents_of(found) if found else {}
            return bool(given) and f":{given['port']}/" in self.servers[given["shard"]].dsn()

        found = await self.api.until("Secret", names.VECTOR_STORE, leads, f"tenant-{name}")
        return await AsyncConnection.connect(contents_of(found)["dsn"], autocommit=True)

    async def insert(self, name: str, row: str) -> None:
        async with await self.connect(name) as connection:
            await connection.execute("INSERT INTO items (id, embedding) VALUES (%s, '[1,2,3]')", (row,))

    async def rows(self, name: str) -> set[str]:
        async with await self.connect(name) as connection:
            cursor = await connection.execute("SELECT id FROM items")
            return {row for (row,) in await cursor.fetchall()}


@pytest.fixture
def servers() -> Iterator[dict[str, PostgresServer]]:
    """Two servers, one of which will be lost."""
    with servers_of(*SHARDS) as servers:
        yield servers


@asynccontextmanager
async def site_in(folder: Path, servers: dict[str, PostgresServer]) -> AsyncIterator[Site]:
    """A cluster in which nothing of ours is but the kinds and plans; the operator does not run yet."""
    (folder / "operator").mkdir(parents=True)
    with embedded(folder / "plane", plans=True) as cluster:
        programs = {"kubectl": Path(cluster.kubectl_program), "psql": servers["shard-a"].program("psql")}
        reader = Reader(folder / "reader", programs, {"KUBECONFIG": cluster.kubeconfig})
        operator = OperatorProcess(cluster, folder / "operator", TENANTRY_SHARD_SECONDS="1")
        async with administrator(cluster) as api:
            with running(operator):
                yield Site(api, operator, servers, reader)


@pytest.fixture
async def site(tmp_path: Path, servers: dict[str, PostgresServer]) -> AsyncIterator[Site]:
    """Everything, running."""
    async with site_in(tmp_path / "first", servers) as made:
        await apply_shards(made.api, servers)
        await made.operator.start()
        yield made


def copied(source: Path, to: Path) -> None:
    """Copy a server's data, whose owner it keeps."""
    subprocess.run(["cp", "-a", str(source), str(to)], check=True)


def on(shard: str, epoch: int) -> Any:
    """Return a check that a tenant is Ready there."""
    place = {"shard": shard, "epoch": epoch}
    return lambda found: is_ready(found) and found["status"].get("placement") == place


def left_over(*places: str) -> Any:
    """Return a check that a shard says of these places that nobody uses them."""

    def holds(found: Object | None) -> bool:
        told = found["status"].get("leftovers", []) if found else []
        return [item["place"] for item in told] == [*places]

    return holds


async def test_a_secret_that_is_lost_and_a_server_that_moved(site: Site) -> None:
    """Applications go on meanwhile; nothing is lost."""
    await site.settle("acme")
    await site.api.delete("Secret", "shard-a", "tenantry-system")
    await site.api.until("VectorShard", "shard-a", is_stalled("SecretNotFound"))
    await site.api.until("Tenant", "acme", lambda found: not is_ready(found))
    await site.insert("acme", "meanwhile")
    server = site.servers["shard-a"]
    kill(server.processes())
    server.start()  # listens elsewhere
    await site.secret_is_put_back()
    await site.api.until("Tenant", "acme", is_ready)
    assert await site.rows("acme") == {"first of acme", "meanwhile"}
    assert "acme" in site.follow("places")


async def test_a_server_is_set_back_to_a_backup(site: Site, tmp_path: Path) -> None:
    for name in ("acme", "moves", "leaves"):
        await site.settle(name, deletionPolicy="Delete")
    server = site.servers["shard-a"]
    kill(server.processes())
    backup = server.folder / "backup"
    copied(server.folder / "data", backup)
    server.start()
    await site.secret_is_put_back()
    for name in ("acme", "moves", "leaves"):
        await site.api.until("Tenant", name, is_ready)
    given = await secret_of(site.api, "acme")

    await site.insert("acme", "second of acme")
    await site.settle("late")
    await site.api.patch("Tenant", "moves", {"spec": {"vectorStore": {"shard": "shard-b"}}})
    await site.api.until("Tenant", "moves", on("shard-b", 2), timeout=60)
    await site.api.until(
        "Secret", names.VECTOR_STORE, lambda found: contents_of(found)["epoch"] == "2", "tenant-moves"
    )
    await site.insert("moves", "second of moves")
    await site.api.delete("Tenant", "leaves")
    await site.api.until("Tenant", "leaves", gone)

    kill(server.processes())
    shutil.rmtree(server.folder / "data")
    copied(backup, server.folder / "data")
    server.start()
    await site.secret_is_put_back()
    for name in ("acme", "late", "moves"):
        await site.api.until("Tenant", name, is_ready)
    assert await site.rows("acme") == {"first of acme"}
    after = await secret_of(site.api, "acme")
    assert [after[key] for key in ("user", "password")] == [given[key] for key in ("user", "password")]
    assert await site.rows("late") == set()
    await site.insert("late", "again")
    assert await site.rows("moves") == {"first of moves", "second of moves"}
    left = site.follow("places")
    assert "leaves" in left
    await site.api.until("VectorShard", "shard-a", left_over("leaves@1", "moves@1"))
    await site.api.delete("TenantMove", "moves-e1")  # it would wait a quarter of an hour for late readers
    await site.api.until("TenantMove", "moves-e1", gone)
    asked = {"metadata": {"annotations": {names.REMOVE_LEFTOVERS: "moves@1"}}}
    await site.api.patch("VectorShard", "shard-a", asked)
    await site.api.until("VectorShard", "shard-a", left_over("leaves@1"))
    await site.api.patch("Tenant", "moves", {"spec": {"vectorStore": {"shard": "shard-a"}}})
    await site.api.until("Tenant", "moves", on("shard-a", 3), timeout=60)
    assert await site.rows("moves") == {"first of moves", "second of moves"}


async def test_a_server_is_lost_without_a_backup(site: Site) -> None:
    await site.settle("acme")
    await site.settle("other", "shard-b")
    server = site.servers["shard-a"]
    kill(server.processes())
    shutil.rmtree(server.folder / "data")
    server.start()
    await site.secret_is_put_back()
    await site.api.until("Tenant", "acme", on("shard-a", 1))
    assert await site.rows("acme") == set()
    await site.insert("acme", "again")
    assert await site.rows("other") == {"first of other"}


async def test_a_backup_is_restored_into_an_empty_cluster(site: Site, tmp_path: Path) -> None:
    for name, shard in zip(("acme", "other"), SHARDS, strict=True):
        await site.settle(name, shard)
    before = await secret_of(site.api, "acme")
    saved = [line for line in blocks(PAGE.read_text())["backup"].splitlines() if "kubectl get" in line]
    site.reader.run("\n".join(["mkdir backup", *(line for line in saved if "revisions" not in line)]))
    assert site.operator.stop() == 0
    async with site_in(tmp_path / "second", site.servers) as second:
        shutil.copytree(site.reader.checkout / "backup", second.reader.checkout / "backup")
        for name, server in site.servers.items():
            await second.api.apply(address(name, server))
        second.reader.run("kubectl create -f backup/namespaces.yaml -f backup/tenants.yaml")
        second.follow("restore-shards")
        await second.operator.start()
        for name, shard in zip(("acme", "other"), SHARDS, strict=True):
            await second.api.until("Tenant", name, on(shard, 1), timeout=60)
            assert await second.rows(name) == {f"first of {name}"}
        after = await secret_of(second.api, "acme")
        assert after["password"] != before["password"]
        with pytest.raises(psycopg.OperationalError):
            await AsyncConnection.connect(before["dsn"])


async def test_a_tenant_that_was_given_another_place_finds_its_own_again(site: Site) -> None:
    """Restored in the wrong order: the Tenant before the VectorShard that has its vectors."""
    await site.settle("acme")
    assert site.operator.stop() == 0
    shard = await site.api.get("VectorShard", "shard-a") or {}
    await site.api.patch("VectorShard", "shard-a", {"status": {"tenants": 0}}, subresource="status")
    await site.api.delete("VectorShard", "shard-a")
    await site.api.patch("Tenant", "acme", {"metadata": {"finalizers": None}})
    await site.api.delete("Tenant", "acme")
    await site.operator.start()
    await site.api.apply(tenant("acme", plan="pro", vectorStore={"dimensions": 3}))
    await site.api.until("Tenant", "acme", on("shard-b", 1))
    await site.api.apply({key: shard[key] for key in ("kind", "spec")} | {"metadata": {"name": "shard-a"}})
    await site.api.until("VectorShard", "shard-a", is_ready)
    assert await site.rows("acme") == set()
    site.follow("look-again")
    await site.api.until("Tenant", "acme", on("shard-a", 1))
    assert await site.rows("acme") == {"first of acme"}
    await site.api.until("VectorShard", "shard-b", left_over("acme@1"))
    assert "acme@1 owner, 0 rows: Tenant acme is on VectorShard shard-a" in site.follow("leftover-places")
    await site.api.until("VectorShard", "shard-b", left_over())
    assert await site.rows("acme") == {"first of acme"}
