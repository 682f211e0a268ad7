"""How long a user waits for what he asked for; each scenario returns seconds."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from typing import Any

from tests.benchmarks.watcher import Bench
from tests.integration.conftest import is_ready, tenant

Object = dict[str, Any]

LIMIT_SECONDS = 60.0
_numbers = itertools.count(1)


def names(count: int) -> list[str]:
    return [f"bench{next(_numbers)}" for _ in range(count)]


async def create(
    bench: Bench, name: str, plan: str = "pro", *, limit: float = LIMIT_SECONDS, **spec: Any
) -> float:
    """Create a tenant; return the seconds until a watch shows it Ready."""
    ready = bench.arrival("Tenant", name, is_ready)
    await bench.api.apply(tenant(name, plan=plan, **spec))
    answered = time.monotonic()
    return await asyncio.wait_for(ready, limit) - answered


async def creation_at_a_steady_rate(bench: Bench, count: int) -> list[float]:
    """Create five tenants a second."""
    tasks = []
    begin = time.monotonic()
    for number, name in enumerate(names(count)):
        await asyncio.sleep(max(0.0, begin + number / 5 - time.monotonic()))
        tasks.append(asyncio.create_task(create(bench, name)))
    return list(await asyncio.gather(*tasks))


async def tenant_edits(bench: Bench, count: int) -> list[float]:
    """Edit one tenant's override again and again, and wait for each in its tenant-config."""
    (name,) = names(1)
    await create(bench, name, overrides={"retrieval": {"topK": 1}})
    taken = []
    for number in range(count):
        top_k = 2 + number % 20
        shown = bench.arrival(
            "ConfigMap", "tenant-config", shows("retrieval", "topK", top_k), f"tenant-{name}"
        )
        await bench.api.patch("Tenant", name, {"spec": {"overrides": {"retrieval": {"topK": top_k}}}})
        answered = time.monotonic()
        taken.append(await asyncio.wait_for(shown, LIMIT_SECONDS) - answered)
    return taken


async def plan_edits(bench: Bench, count: int) -> list[float]:
    """Edit a plan that twenty tenants are on, and wait for the edit in each of their configurations."""
    plan = await bench.api.get("Plan", "pro")
    assert plan is not None
    metadata = {"name": f"bench-plan-{next(_numbers)}"}
    await bench.api.apply(
        {"apiVersion": plan["apiVersion"], "kind": "Plan", "metadata": metadata, "spec": plan["spec"]}
    )
    chosen = names(20)
    await asyncio.gather(*(create(bench, name, plan=metadata["name"]) for name in chosen))
    taken = []
    for number in range(count):
        tokens = 2000 + number
        shown = [
            bench.arrival("ConfigMap", "tenant-config", shows("model", "maxTokens", tokens), f"tenant-{name}")
            for name in chosen
        ]
        await bench.api.patch("Plan", metadata["name"], {"spec": {"model": {"maxTokens": tokens}}})
        answered = time.monotonic()
        arrived = await asyncio.wait_for(asyncio.gather(*shown), LIMIT_SECONDS)
        taken.extend(moment - answered for moment in arrived)
    return taken


async def drift_repair(bench: Bench, count: int) -> list[float]:
    """Open the deny-all policy and delete the quota in turn, and wait until each is as it was.

    Of ten tenants, since the same change of one and the same child is braked after the twentieth time.
    """
    chosen = names(10)
    await asyncio.gather(*(create(bench, name) for name in chosen))
    taken = []
    for number in range(count):
        namespace = f"tenant-{chosen[number // 2 % len(chosen)]}"
        if number % 2:
            gone = await bench.api.get("ResourceQuota", "tenantry", namespace)
            assert gone is not None
            old = gone["metadata"]["uid"]
            back = bench.arrival(
                "ResourceQuota",
                "tenantry",
                lambda item, old=old: bool(item) and item["metadata"]["uid"] != old,
                namespace,
            )
            await bench.api.delete("ResourceQuota", "tenantry", namespace)
        else:
            opened = bench.arrival("NetworkPolicy", "tenantry-default-deny", _is_open, namespace)
            await bench.api.patch(
                "NetworkPolicy", "tenantry-default-deny", {"spec": {"ingress": [{}]}}, namespace
            )
            await asyncio.wait_for(opened, LIMIT_SECONDS)
            back = bench.arrival(
                "NetworkPolicy", "tenantry-default-deny", lambda item: not _is_open(item), namespace
            )
        answered = time.monotonic()
        taken.append(max(0.0, await asyncio.wait_for(back, LIMIT_SECONDS) - answered))
    return taken


def shows(part: str, field: str, value: Any) -> Any:
    def holds(item: Object | None) -> bool:
        return item is not None and json.loads(item["data"]["config.json"])[part].get(field) == value

    return holds


def _is_open(item: Object | None) -> bool:
    return bool(item and item["spec"].get("ingress"))
