"""`tenantry rebalance`, as a platform engineer uses it: a real API server, and two databases of a real PostgreSQL."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from psycopg import AsyncConnection, sql

from tenantry.adapters.pgvector.hardening import prepare
from tenantry.local.postgres import PostgresServer
from tests.conftest import Cluster, embedded
from tests.integration.conftest import Api, administrator, tenant
from tests.integration.pgvector.conftest import Connection, admit

NAMESPACE = "rebalance-shards"
FULL, EMPTY = "rebalance-full", "rebalance-empty"
TENANTS = [f"evened-{number}" for number in range(4)]
FIRST, LAST = TENANTS[0], TENANTS[-1]
"""Who moves: of equals, the first and the last."""

ROWS = 500


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def plan(self) -> dict[str, Any]:
        """The plan as JSON. Shards of other tests are not read: their Secrets are elsewhere."""
        plan: dict[str, Any] = json.loads(self.out)
        assert self.code == (3 if plan["unread"] or plan["stuck"] else 0), self.err
        return plan

    @property
    def steps(self) -> dict[str, dict[str, Any]]:
        return {step["tenant"]: step for step in self.plan["steps"]}


@dataclass(frozen=True)
class Command:
    """`tenantry rebalance` with the kubeconfig of a platform engineer."""

    kubeconfig: str

    async def __call__(self, *arguments: str, namespace: str = NAMESPACE) -> Answer:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TENANTRY_")}
        settings = {"TENANTRY_OWN_NAMESPACE": namespace, "KUBECONFIG": self.kubeconfig}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tenantry", "rebalance", *arguments),
            env={**environment, **settings},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return Answer(process.returncode or 0, out.decode(), err.decode())


@pytest.fixture(scope="module")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane of its own: another test's operator would move these tenants."""
    with embedded(tmp_path_factory.mktemp("rebalance-plane")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
async def api(control_plane: Cluster) -> AsyncIterator[Api]:
    """A client as its administrator."""
    async with administrator(control_plane) as client:
        yield client


@pytest.fixture
def rebalance(control_plane: Cluster) -> Command:
    return Command(control_plane.kubeconfig)


async def database(server: PostgresServer, admin: Connection, name: str) -> Connection:
    await admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    connection = await AsyncConnection.connect(server.dsn(name), autocommit=True)
    await prepare(connection)
    return connection


@pytest.fixture(scope="module")
async def shards(
    api: Api, server: PostgresServer, admin: Connection, control_plane: Cluster
) -> AsyncIterator[None]:
    """Four tenants of one size on one shard, and a shard without any."""
    await api.apply({"kind": "Namespace", "metadata": {"name": NAMESPACE}})
    for name in (FULL, EMPTY):
        metadata = {"name": name, "namespace": NAMESPACE}
        await api.apply({"kind": "Secret", "metadata": metadata, "stringData": {"dsn": server.dsn(name)}})
        spec = {"engine": "pgvector", "connection": {"secretRef": {"name": name}}}
        await api.apply({"kind": "VectorShard", "metadata": {"name": name}, "spec": spec})
    full, empty = await database(server, admin, FULL), await database(server, admin, EMPTY)
    for name in TENANTS:
        place = await admit(full, name)
        await full.execute(
            "INSERT INTO tenantry.vector_3 (tenant_id, id, embedding, content)"
            " SELECT %s, 'row-' || n, ARRAY[n, 1, 2]::vector(3), repeat('x', 100) FROM generate_series(1, %s) n",
            (place.tenant, ROWS),
        )
        await api.apply(tenant(name))
        status = json.dumps({"status": {"placement": {"shard": FULL, "epoch": 3}}})
        patch = (
            "patch",
            "tenant",
            name,
            "--subresource=status",
            "--field-manager=tenantry-placement",
            "--type=merge",
            "--patch",
            status,
        )
        await asyncio.to_thread(control_plane.kubectl, *patch)
    yield
    await full.close()
    await empty.close()


async def ours(api: Api) -> list[str]:
    """Names of the moves of these tenants."""
    moves = await api.list("TenantMove")
    return sorted(move["metadata"]["name"] for move in moves if move["spec"]["tenant"] in TENANTS)


async def test_a_dry_run_shows_the_plan_and_creates_nothing(
    api: Api, shards: None, rebalance: Command
) -> None:
    answer = await rebalance("--dry-run", "-o", "json")
    assert list(answer.steps) == [FIRST, LAST]
    step = answer.steps[FIRST]
    assert (step["from"], step["to"], step["reason"]) == (FULL, EMPTY, "Rebalance")
    assert (step["state"], step["move"]) == ("planned", f"{FIRST}-e3")
    assert step["bytes"] > ROWS * 100
    assert answer.steps[LAST]["waits"] == f"for TenantMove {FIRST}-e3 on {FULL}"
    after = {share["shard"]: share["after"] for share in answer.plan["shards"]}
    assert after[FULL] == after[EMPTY] == answer.plan["movedBytes"]
    assert answer.plan["lowerBoundBytes"] <= answer.plan["movedBytes"]
    assert await ours(api) == []


async def test_people_get_tables_and_programs_csv(api: Api, shards: None, rebalance: Command) -> None:
    table = (await rebalance("--dry-run")).out
    assert f"{FIRST}-e3" in table
    assert "lower bound" in table
    rows = list(csv.DictReader(io.StringIO((await rebalance("--dry-run", "-o", "csv")).out)))
    assert [(row["tenant"], row["state"]) for row in rows] == [
        (FIRST, "planned"),
        (LAST, "waiting"),
    ]


async def test_theta_decides_what_is_even_enough(api: Api, shards: None, rebalance: Command) -> None:
    assert (await rebalance("--dry-run", "-o", "json", "--theta", "1")).steps == {}
    assert (await rebalance("--dry-run", "--theta", "2")).code == 2


async def test_without_the_secrets_there_is_no_plan_for_their_shards(
    api: Api, shards: None, rebalance: Command
) -> None:
    answer = await rebalance("--dry-run", "-o", "json", namespace="default")
    assert answer.steps == {}
    unread = {item["shard"]: item["reason"] for item in answer.plan["unread"]}
    assert f"Secret {FULL} in namespace default" in unread[FULL]
    assert "TENANTRY_OWN_NAMESPACE" in unread[FULL]


async def test_what_may_begin_is_created_once(api: Api, shards: None, rebalance: Command) -> None:
    first = await rebalance("-o", "json")
    assert first.steps[FIRST]["state"] == "created"
    assert await ours(api) == [f"{FIRST}-e3"]
    move = await api.get("TenantMove", f"{FIRST}-e3")
    assert move is not None
    assert move["spec"] == {
        "tenant": FIRST,
        "targetShard": EMPTY,
        "reason": "Rebalance",
        "abort": False,
    }
    again = await rebalance("-o", "json")
    assert again.steps[LAST]["waits"] == f"for TenantMove {FIRST}-e3 on {FULL}"
    assert await ours(api) == [f"{FIRST}-e3"]


async def test_without_a_cluster_one_line_says_so(rebalance: Command) -> None:
    answer = await Command("/nowhere/kubeconfig")("--dry-run")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("error: no kubeconfig at /nowhere/kubeconfig")
    assert len(answer.err.splitlines()) == 1
