"""What is measured; each scenario returns seconds, or a rate per second."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import time
from typing import Any

from tenantry.api.plan import Plan
from tenantry.api.tenant import Tenant
from tenantry.desired import children, network
from tenantry.desired.namespace import namespace as build_namespace
from tenantry.desired.owner import Access, Owner
from tenantry.domain.configuration import Configuration, Revision, canonical, resolve
from tests.benchmarks.watcher import Bench
from tests.integration.conftest import is_ready, tenant

Object = dict[str, Any]

LIMIT_SECONDS = 60.0
_numbers = itertools.count(1)


def _names(count: int) -> list[str]:
    return [f"bench{next(_numbers)}" for _ in range(count)]


async def _create(bench: Bench, name: str, plan: str = "pro", **spec: Any) -> float:
    """Create a tenant; return the seconds until a watch shows it Ready."""
    ready = bench.arrival("Tenant", name, is_ready)
    await bench.api.apply(tenant(name, plan=plan, **spec))
    answered = time.monotonic()
    return await asyncio.wait_for(ready, LIMIT_SECONDS) - answered


async def creation_at_a_steady_rate(bench: Bench, count: int) -> list[float]:
    """Create five tenants a second."""
    tasks = []
    begin = time.monotonic()
    for number, name in enumerate(_names(count)):
        await asyncio.sleep(max(0.0, begin + number / 5 - time.monotonic()))
        tasks.append(asyncio.create_task(_create(bench, name)))
    return list(await asyncio.gather(*tasks))


async def tenant_edits(bench: Bench, count: int) -> list[float]:
    """Edit one tenant's override again and again, and wait for each in its tenant-config."""
    (name,) = _names(1)
    await _create(bench, name, overrides={"retrieval": {"topK": 1}})
    taken = []
    for number in range(count):
        top_k = 2 + number % 20
        shown = bench.arrival(
            "ConfigMap", "tenant-config", _shows("retrieval", "topK", top_k), f"tenant-{name}"
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
    names = _names(20)
    await asyncio.gather(*(_create(bench, name, plan=metadata["name"]) for name in names))
    taken = []
    for number in range(count):
        tokens = 2000 + number
        shown = [
            bench.arrival(
                "ConfigMap", "tenant-config", _shows("model", "maxTokens", tokens), f"tenant-{name}"
            )
            for name in names
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
    names = _names(10)
    await asyncio.gather(*(_create(bench, name) for name in names))
    taken = []
    for number in range(count):
        namespace = f"tenant-{names[number // 2 % len(names)]}"
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


async def burst(bench: Bench, count: int) -> float:
    """Create many tenants at once; return tenants a second until the last is Ready."""
    names = _names(count)
    begin = time.monotonic()
    await asyncio.gather(*(_create(bench, name) for name in names))
    return count / (time.monotonic() - begin)


async def bare_client_burst(bench: Bench, count: int) -> float:
    """Write the same objects by server-side apply with no operator; return tenants a second.

    Sixteen tenants at a time, as many as the operator has workers. Not the Tenants themselves, their
    finalizers, statuses and Events, which only the operator writes: the ratio charges it for those.
    """
    plan = Plan.model_validate(await bench.api.get("Plan", "pro"))
    gate = asyncio.Semaphore(16)

    async def one(name: str) -> None:
        async with gate:
            await _write_all(bench, name, plan)

    names = _names(count)
    begin = time.monotonic()
    await asyncio.gather(*(one(name) for name in names))
    return count / (time.monotonic() - begin)


async def _write_all(bench: Bench, name: str, plan: Plan) -> None:
    subject = Tenant.model_validate(tenant(name))
    owner = Owner(name, "00000000-0000-0000-0000-000000000000", f"bare-{name}")
    space = build_namespace(
        owner, pod_security="restricted", labels={}, origin="created", email=f"ops@{name}.example"
    )
    space["metadata"]["labels"] = {"bare": "true"}
    stored = await bench.api.apply(space, manager="bare")
    config = Revision(1, canonical(resolve(subject.spec.overrides, plan.spec).config))
    groups = (
        children.policy_group(owner, subject.spec, plan.spec, Access.OPEN, network.Surroundings()),
        children.config_group(
            owner, subject.spec, "pro", "normal", Configuration(config, (config,)), stored["metadata"]["uid"]
        ),
    )
    for group in groups:
        for wave in group.waves:
            await asyncio.gather(*(bench.api.apply(_bare(manifest), manager="bare") for manifest in wave))


def _bare(manifest: Object) -> Object:
    """Return a child without our marks: the operator must not take it for one of its own."""
    copied = copy.deepcopy(manifest)
    copied["metadata"].pop("labels", None)
    copied["metadata"].pop("annotations", None)
    return copied


def _shows(part: str, field: str, value: Any) -> Any:
    def holds(item: Object | None) -> bool:
        return item is not None and json.loads(item["data"]["config.json"])[part].get(field) == value

    return holds


def _is_open(item: Object | None) -> bool:
    return bool(item and item["spec"].get("ingress"))
