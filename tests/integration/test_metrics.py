"""What a running operator tells Prometheus: as documented, and all that the alerts ask for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import REPOSITORY, Cluster, embedded
from tests.integration.conftest import (
    Api,
    OperatorProcess,
    administrator,
    is_ready,
    is_stalled,
    running,
    tenant,
)
from tests.integration.shards import apply_shards, servers_of

DOCUMENTED = REPOSITORY / "docs/metrics.md"
ALERTS = REPOSITORY / "helm/tenantry/files/alerts.yaml"

Families = dict[str, Metric]


async def families(operator: OperatorProcess) -> Families:
    """Return what is told by the names of docs/metrics.md: those of the series, of a histogram without suffix."""
    found = text_string_to_metric_families(await operator.metrics())
    return {f"{one.name}_total" if one.type == "counter" else one.name: one for one in found}


async def until(operator: OperatorProcess, holds: Callable[[Families], Any]) -> Families:
    """Scrape until something holds."""
    async with asyncio.timeout(60):
        while not holds(found := await families(operator)):  # noqa: ASYNC110 - a scrape wakes nobody
            await asyncio.sleep(0.05)
    return found


def labels_of(metric: Metric) -> set[str]:
    return {label for sample in metric.samples for label in sample.labels} - {"le"}


def documented() -> dict[str, tuple[str, set[str]]]:
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| ([^|]*) \| [^|]{10,} \|$", DOCUMENTED.read_text(), re.MULTILINE
    )
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


@pytest.fixture
async def own_plane(tmp_path: Path) -> AsyncIterator[tuple[Api, OperatorProcess]]:
    """A control plane of its own with a shard, where every tenant has a place, and the operator on it."""
    folder = tmp_path / "operator"
    folder.mkdir()
    with embedded(tmp_path, plans=True) as cluster, servers_of("shard-a") as servers:
        async with administrator(cluster) as api:
            await apply_shards(api, servers)
            with running(OperatorProcess(cluster, folder, TENANTRY_SHARD_SECONDS="1")) as process:
                await process.start()
                yield api, process


async def test_docs_list_exactly_the_metrics_that_a_busy_operator_exposes(
    own_plane: tuple[Api, OperatorProcess],
) -> None:
    api, busy = own_plane
    await api.apply(tenant("acme", plan="pro"))
    await api.until("Tenant", "acme", is_ready)
    await api.delete("ResourceQuota", "tenantry", "tenant-acme")
    await api.until("ResourceQuota", "tenantry", lambda quota: quota is not None, "tenant-acme")
    await api.apply(tenant("acme", plan="free", overrides={"model": {"name": "gpt-4o"}}))
    await api.until("Tenant", "acme", is_stalled("OverrideNotAllowed"))
    exposed = await until(
        busy, lambda found: stalled(found).get("OverrideNotAllowed") and all(of_shard(found).values())
    )
    found = {name: (one.type, labels_of(one)) for name, one in exposed.items()}
    assert found == documented()
    assert len(of_shard(exposed)) == 3


def of_shard(found: Families) -> dict[str, float]:
    """Return what is told of the one shard."""
    told = {name: one.samples for name, one in found.items() if name.startswith("tenantry_shard_")}
    assert {one.labels["shard"] for samples in told.values() for one in samples} <= {"shard-a"}
    return {name: sum(one.value for one in samples) for name, samples in told.items()}


def stalled(found: Families) -> dict[str, float]:
    samples = found["tenantry_tenants_not_ready"].samples
    return {one.labels["reason"]: one.value for one in samples if one.labels["state"] == "stalled"}


def test_alerts_ask_only_for_metrics_and_labels_that_are_documented() -> None:
    known = documented()
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        names = {re.sub("_(bucket|count)$", "", name) for name in re.findall(r"tenantry_\w+", rule["expr"])}
        assert names, rule["alert"]
        assert names <= known.keys(), rule["alert"]
        asked = set(re.findall(r"(\w+)=~?\"", rule["expr"]))
        for listed in re.findall(r"by \(([^)]*)\)", rule["expr"]):
            asked |= set(listed.split(", "))
        labels = set().union(*(known[name][1] for name in names))
        assert asked - {"cluster", "le"} <= labels, rule["alert"]


async def test_watches_are_counted_among_the_requests(operator: OperatorProcess) -> None:
    def watches(found: Families) -> float:
        requests = found["tenantry_api_requests_total"].samples
        counts = {(one.labels["verb"], one.labels["code"]): one.value for one in requests}
        return counts.get(("WATCH", "200"), 0.0)

    await until(operator, lambda found: watches(found) >= 8)  # one for each kind of child


async def test_who_loses_the_lease_tells_no_more_what_it_knew(
    control_plane: Cluster, api: Api, plans: None, operator: OperatorProcess, name: str
) -> None:
    await api.apply(tenant(name, plan="pro"))
    await api.until("Tenant", name, is_ready)
    await until(operator, lambda found: found["tenantry_tenants"].samples)
    namespace = control_plane.settings["TENANTRY_LEASE_NAMESPACE"]
    thief = {"holderIdentity": "thief", "leaseDurationSeconds": 300}
    await api.patch("Lease", "tenantry-operator", {"spec": thief}, namespace)
    standby = await until(operator, lambda found: only(found["tenantry_leader"]) == 0)
    standby = await until(operator, lambda found: only(found["tenantry_synced"]) == 0)
    assert standby["tenantry_tenants"].samples == []
    assert standby["tenantry_tenants_not_ready"].samples == []
    assert standby["tenantry_list_age_seconds"].samples == []
    assert only(standby["tenantry_queue_depth"]) == 0
    assert await probe(operator) == "standby\n"
    left = {"holderIdentity": "", "leaseDurationSeconds": 1}
    await api.patch("Lease", "tenantry-operator", {"spec": left}, namespace)
    back = await until(operator, lambda found: only(found["tenantry_synced"]) == 1)
    assert only(back["tenantry_leader"]) == 1
    assert back["tenantry_tenants"].samples


def only(metric: Metric) -> float:
    assert len(metric.samples) == 1
    return metric.samples[0].value


async def probe(operator: OperatorProcess) -> str:
    url = f"http://127.0.0.1:{operator.port}/readyz"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.text()
