"""Shards as the operator's process sees them: what a start waits for, and whom a change of one wakes."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

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
    provisioned,
    running,
)

TENANTS = tuple(f"t{number}" for number in range(12))
SPEC: Object = {"engine": "pgvector", "connection": {"secretRef": {"name": "nowhere"}}}


@pytest.fixture(scope="module")
def own_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane of which no other test's tenants wait for a shard."""
    with embedded(tmp_path_factory.mktemp("shards-plane"), plans=True) as cluster:
        yield cluster


@pytest.fixture(scope="module")
async def own_api(own_plane: Cluster) -> AsyncIterator[Api]:
    async with administrator(own_plane) as api:
        yield api


@pytest.fixture(scope="module")
async def own_operator(
    own_plane: Cluster, own_api: Api, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OperatorProcess]:
    """An operator with tenants, and no shard yet."""
    process = OperatorProcess(own_plane, tmp_path_factory.mktemp("shards-operator"))
    with running(process):
        await process.start()
        await asyncio.gather(*(provisioned(own_api, name) for name in TENANTS))
        yield process


def shard_ready(reason: str | None) -> Callable[[Object | None], bool]:
    """Return a check for the reason of ShardReady; None: that there is no such condition."""

    def holds(found: Object | None) -> bool:
        said = condition(found, "ShardReady")
        return (said or {}).get("reason") == reason

    return holds


async def everybody(api: Api, reason: str | None) -> None:
    for name in TENANTS:
        await api.until("Tenant", name, shard_ready(reason))


async def writes(operator: OperatorProcess) -> Counter[str]:
    """Return how many requests went out that write, by method."""
    pattern = r'^tenantry_api_requests_total\{code="\d+",verb="(\w+)"\} (\S+)$'
    counts: Counter[str] = Counter()
    for verb, value in re.findall(pattern, await operator.metrics(), re.MULTILINE):
        if verb not in ("GET", "WATCH"):
            counts[verb] += int(float(value))
    return counts


async def looks(operator: OperatorProcess, kind: str) -> int:
    """Return how often objects of a kind were reconciled."""
    pattern = rf'^tenantry_reconcile_duration_seconds_count\{{kind="{kind}",outcome="\w+"\}} (\S+)$'
    return sum(int(float(value)) for value in re.findall(pattern, await operator.metrics(), re.MULTILINE))


async def test_a_start_writes_nothing_where_all_is_as_it_was(
    own_api: Api, own_operator: OperatorProcess
) -> None:
    """A tenant that is looked at before its shards would say so, and say something else a moment later."""
    await own_api.apply({"kind": "VectorShard", "metadata": {"name": "nowhere"}, "spec": SPEC})
    await own_api.until("VectorShard", "nowhere", is_stalled("SecretNotFound"))
    for name in TENANTS:
        await own_api.until(
            "Tenant",
            name,
            lambda found: "does not exist" in str((condition(found, "ShardReady") or {}).get("message")),
        )
    versions = {
        each["metadata"]["name"]: each["metadata"]["resourceVersion"] for each in await own_api.list("Tenant")
    }
    assert own_operator.stop() == 0
    await own_operator.start()
    async with asyncio.timeout(60):
        while await looks(own_operator, "Tenant") < len(TENANTS):  # noqa: ASYNC110 - the metrics tell nobody
            await asyncio.sleep(0.05)
    assert await looks(own_operator, "VectorShard") >= 1
    assert await writes(own_operator) == Counter()
    assert versions == {
        each["metadata"]["name"]: each["metadata"]["resourceVersion"] for each in await own_api.list("Tenant")
    }
    await own_api.delete("VectorShard", "nowhere")
    await everybody(own_api, None)


async def test_a_shard_that_comes_and_goes_concerns_every_tenant_without_a_place(
    own_api: Api, own_operator: OperatorProcess
) -> None:
    await everybody(own_api, None)
    await own_api.apply({"kind": "VectorShard", "metadata": {"name": "nowhere"}, "spec": SPEC})
    await everybody(own_api, "ShardUnknown")
    await own_api.delete("VectorShard", "nowhere")
    await everybody(own_api, None)
    for name in TENANTS:
        await own_api.until("Tenant", name, is_ready)


async def test_a_move_is_looked_at_when_it_is_made_and_when_it_is_aborted(
    own_api: Api, own_operator: OperatorProcess
) -> None:
    spec = {"tenant": TENANTS[0], "targetShard": "elsewhere"}
    await own_api.apply({"kind": "TenantMove", "metadata": {"name": "away"}, "spec": spec})
    await own_api.until("TenantMove", "away", is_stalled("ShardNotFound"))
    await own_api.patch("TenantMove", "away", {"spec": {"abort": True}})
    await own_api.until("TenantMove", "away", in_phase("Aborted"))
    await own_api.delete("TenantMove", "away")
    await own_api.until("TenantMove", "away", gone)
