"""A tenant on Weaviate, end to end: a real API server, the operator, a Weaviate server, its own client library."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from weaviate.collections import CollectionAsync

from tenantry.adapters.exports import FsspecStore
from tenantry.domain import names
from tenantry.local import chart
from tests.conftest import Cluster, embedded
from tests.integration.conftest import (
    Api,
    Object,
    OperatorProcess,
    administrator,
    condition,
    gone,
    is_ready,
    is_stalled,
    running,
    tenant,
)
from tests.integration.engines import weaviate
from tests.integration.engines.rig import Application, Denied
from tests.integration.engines.weaviate import WeaviateApplication, WeaviateRig
from tests.integration.shards import shard

pytestmark = pytest.mark.tool("weaviate-server")

SHARD, OTHER = "shard-w", "shard-v"
NAMES = ("acme", "umbrella")
VECTORS: Object = {"plan": "pro", "vectorStore": {"dimensions": 3}}


@pytest.fixture(scope="module")
def rig() -> Iterator[WeaviateRig]:
    """One server."""
    yield from weaviate.rigs()


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane of its own: with a shard in it every tenant has to do with it."""
    with embedded(tmp_path_factory.mktemp("weaviate-plane"), plans=True) as cluster:
        yield cluster


@pytest.fixture(scope="module")
async def api(plane: Cluster, rig: WeaviateRig) -> AsyncIterator[Api]:
    """A client as its administrator, with the shard applied."""
    async with administrator(plane) as api:
        metadata = {"name": SHARD, "namespace": chart.NAMESPACE}
        await api.apply({"kind": "Secret", "metadata": metadata, "stringData": {"dsn": rig.address()}})
        await api.apply(shard(SHARD, engine="weaviate"))
        yield api


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where vectors of purged tenants go."""
    return tmp_path_factory.mktemp("exports").as_uri()


@pytest.fixture(scope="module", autouse=True)
async def operator(
    plane: Cluster, api: Api, rig: WeaviateRig, store: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OperatorProcess]:
    """The operator, with two tenants that have a vector each."""
    process = OperatorProcess(
        plane,
        tmp_path_factory.mktemp("weaviate-operator"),
        TENANTRY_SHARD_SECONDS="1",
        TENANTRY_CREDENTIAL_GRACE_SECONDS="2",
        TENANTRY_EXPORT_URL=store,
    )
    with running(process):
        await process.start()
        for name in NAMES:
            await api.apply(tenant(name, **VECTORS))
        for name in NAMES:
            await api.until("Tenant", name, is_ready, timeout=60)
            await insert(rig, await access(api, name), f"of-{name}")
        yield process
    assert "Traceback" not in process.log.read_text()


async def access(api: Api, name: str) -> dict[str, str]:
    """Return what the tenant's Secret says."""
    found = await api.get("Secret", names.VECTOR_STORE, f"tenant-{name}")
    assert found is not None
    return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}


async def insert(rig: WeaviateRig, given: dict[str, str], *ids: str) -> None:
    async with rig.application(given) as application:
        await application.insert(ids)


async def stored(rig: WeaviateRig, given: dict[str, str]) -> list[str]:
    async with rig.application(given) as application:
        return await application.ids()


async def test_every_tenant_has_a_place_and_is_alone_there(api: Api, rig: WeaviateRig) -> None:
    for name in NAMES:
        assert await stored(rig, await access(api, name)) == [f"of-{name}"]
        await api.until(
            "Tenant",
            name,
            lambda found: (condition(found, "IsolationVerified") or {}).get("status") == "True",
            timeout=60,
        )
    given = await access(api, "acme")
    async with weaviate.connected(given) as client:
        its: CollectionAsync[Any, Any] = client.collections.use(given["collection"]).with_tenant("umbrella")
        application: Application = WeaviateApplication(its)
        with pytest.raises(Denied):
            await application.ids()
    found = await api.until(
        "VectorShard", SHARD, lambda found: found and found["status"].get("tenants") == len(NAMES)
    )
    assert found["status"]["server"] == "Weaviate 1.35.2"
    assert condition(found, "Balanced") is None


async def test_both_ports_of_the_server_are_let_through(api: Api) -> None:
    policy = await api.get("NetworkPolicy", names.SHARD_EGRESS, "tenant-acme")
    given = await access(api, "acme")
    assert policy is not None
    (rule,) = policy["spec"]["egress"]
    assert {port["port"] for port in rule["ports"]} == {int(given["port"]), int(given["grpcPort"])}


async def test_credentials_are_replaced_without_an_outage(api: Api, rig: WeaviateRig) -> None:
    before = await access(api, "acme")
    await api.patch("Tenant", "acme", {"metadata": {"annotations": {names.ROTATE: "1"}}})
    await api.until(
        "Secret",
        names.VECTOR_STORE,
        lambda found: found is not None and base64.b64decode(found["data"]["generation"]) == b"2",
        "tenant-acme",
    )
    after = await access(api, "acme")
    assert after["password"] != before["password"]
    assert await stored(rig, after) == ["of-acme"]
    async with asyncio.timeout(60):
        while await is_let_in(rig, before):  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.2)
    assert await stored(rig, after) == ["of-acme"]


async def is_let_in(rig: WeaviateRig, given: dict[str, str]) -> bool:
    try:
        await stored(rig, given)
    except Denied:
        return False
    return True


async def test_a_suspended_tenant_is_let_in_no_more_until_it_is_resumed(api: Api, rig: WeaviateRig) -> None:
    for suspended in (True, False):
        await api.patch("Tenant", "umbrella", {"spec": {"suspended": suspended}})
        await api.until("Tenant", "umbrella", is_ready)
        assert await is_let_in(rig, await access(api, "umbrella")) is not suspended


async def test_a_move_is_refused_in_a_sentence(api: Api) -> None:
    await api.apply(shard(OTHER))
    spec = {"tenant": "acme", "targetShard": OTHER}
    await api.apply({"kind": "TenantMove", "metadata": {"name": "acme-away"}, "spec": spec})
    found = await api.until("TenantMove", "acme-away", is_stalled("EngineCannotMove"))
    assert (condition(found, "Stalled") or {})["message"] == (
        f"spec.targetShard: VectorShard {SHARD} is of engine weaviate, and tenants are moved between shards of "
        f"engine pgvector only: delete this move"
    )
    await api.delete("TenantMove", "acme-away")
    await api.until("TenantMove", "acme-away", gone)
    await api.delete("VectorShard", OTHER)


async def test_what_is_purged_is_in_the_store_and_comes_back(
    api: Api, rig: WeaviateRig, plane: Cluster, store: str
) -> None:
    rows = [f"row-{number}" for number in range(600)]
    await api.apply(tenant("bluth", **VECTORS))
    await api.until("Tenant", "bluth", is_ready)
    await insert(rig, await access(api, "bluth"), *rows)
    await api.delete("Tenant", "bluth")
    await api.until("Tenant", "bluth", gone)
    (archive,) = [item for item in await api.list("TenantArchive") if item["spec"]["tenant"] == "bluth"]
    await api.delete("TenantArchive", archive["metadata"]["name"])
    await api.until("TenantArchive", archive["metadata"]["name"], gone, timeout=60)
    (made,) = await asyncio.to_thread(FsspecStore(store).list)
    assert (made.source.tenant, made.rows) == ("bluth", len(rows))
    await api.apply(tenant("bluth", **VECTORS))
    await api.until("Tenant", "bluth", is_ready)
    assert await stored(rig, await access(api, "bluth")) == []
    assert await run(plane, Path.cwd(), "restore", made.url, "--tenant", "bluth") == 0
    assert await stored(rig, await access(api, "bluth")) == sorted(rows)


async def run(plane: Cluster, folder: Path, *arguments: str) -> int:
    """Run the command as a platform engineer does; return its exit code."""
    environment = {**os.environ, "KUBECONFIG": plane.kubeconfig}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tenantry", *arguments), env=environment, cwd=folder
    )
    return await process.wait()
