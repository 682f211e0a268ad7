"""What happened while the operator was down is made good when it starts; a kill in the middle does no harm.

Each story is a generator: until its first `yield` the operator runs, until the second it is down, then it runs
again. All stories share one stop and one start.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tenantry.domain import names
from tenantry.reconcile.ports import Refused
from tests.conftest import Cluster, embedded
from tests.integration.access import can
from tests.integration.conftest import (
    MEMBERS,
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
    tenant,
)
from tests.integration.mirror import Key, mirror
from tests.integration.mutations import content
from tests.integration.plan_loss import lose_plan

OWNER = "alice@acme.example"

Story = AsyncGenerator[None, None]


@pytest.fixture(scope="module")
def own_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane on which no other test runs an operator."""
    with embedded(tmp_path_factory.mktemp("own-plane"), plans=True) as cluster:
        yield cluster


@pytest.fixture(scope="module")
async def own_api(own_plane: Cluster) -> AsyncIterator[Api]:
    async with administrator(own_plane) as api:
        yield api


@pytest.fixture(scope="module")
async def own_operator(
    own_plane: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OperatorProcess]:
    """An operator that tests stop, kill and start again; its ledger stays."""
    process = OperatorProcess(own_plane, tmp_path_factory.mktemp("own-operator"))
    with running(process):
        await process.start()
        yield process


async def archived(api: Api, name: str) -> tuple[str, str]:
    """Have a tenant with data of its own archived; return its namespace and its archive."""
    namespace = await provisioned(api, name)
    await api.create("ConfigMap", {"metadata": {"name": "data", "namespace": namespace}, "data": {"a": "1"}})
    found = await api.get("Tenant", name) or {}
    archive = names.archive_name(name, found["metadata"]["uid"])
    await api.delete("Tenant", name)
    await api.until("Tenant", name, gone)
    await api.until("TenantArchive", archive, in_phase("Kept"))
    return namespace, archive


async def children(api: Api, namespace: str) -> dict[str, Object]:
    """Return our children in a namespace by kind and name, without what only the API server writes."""
    async with mirror(api.client, namespace) as seen:
        return _ours(seen.objects)


async def settled(api: Api, namespace: str, holds: Callable[[dict[str, Object]], bool]) -> None:
    """Wait until something holds of our children in a namespace."""
    async with mirror(api.client, namespace) as seen:
        await seen.until(lambda objects: holds(_ours(objects)), f"the children in {namespace}")


def _ours(objects: dict[Key, Object]) -> dict[str, Object]:
    return {
        f"{kind}/{name}": content(item) or {}
        for (kind, name), item in objects.items()
        if item["metadata"].get("labels", {}).get(names.MANAGED_BY) == names.MANAGER
    }


def audit(operator: OperatorProcess, tenant_name: str) -> Counter[str]:
    """Return how often each action is in the audit log about a tenant, repairs aside."""
    with sqlite3.connect(f"file:{operator.state_dir / 'ledger.db'}?mode=ro", uri=True) as connection:
        rows = connection.execute(
            "SELECT action FROM audit WHERE tenant = ? AND action != 'Repaired'", (tenant_name,)
        ).fetchall()
    connection.close()
    return Counter(action for (action,) in rows)


async def created(api: Api, operator: OperatorProcess) -> Story:
    yield
    await api.apply(tenant("created", plan="pro", members=MEMBERS))
    yield
    await api.until("Tenant", "created", is_ready)
    assert len(await children(api, "tenant-created")) == 15
    assert audit(operator, "created") == {"Created": 1, "ConfigChanged": 1}


async def edited(api: Api, operator: OperatorProcess) -> Story:
    namespace = await provisioned(api, "edited")
    yield
    await api.patch("Tenant", "edited", {"spec": {"plan": "enterprise"}})
    await api.patch("Tenant", "edited", {"spec": {"members": []}})
    yield
    found = await api.until("Tenant", "edited", is_ready)
    assert found["status"]["plan"] == "enterprise"
    assert not await can(api, OWNER, "get", "pods", namespace)
    assert audit(operator, "edited") == {"Created": 1, "ConfigChanged": 2, "PlanChanged": 1}


async def suspended(api: Api, operator: OperatorProcess) -> Story:
    namespace = await provisioned(api, "suspended")
    yield
    await api.patch("Tenant", "suspended", {"spec": {"suspended": True}})
    yield
    await api.until("Tenant", "suspended", in_phase("Suspended"))
    assert not await can(api, OWNER, "create", "pods", namespace)
    assert "NetworkPolicy/tenantry-same-namespace" not in await children(api, namespace)
    assert audit(operator, "suspended")["Suspended"] == 1


async def resumed(api: Api, operator: OperatorProcess) -> Story:
    namespace = await provisioned(api, "resumed")
    before = await children(api, namespace)
    await api.patch("Tenant", "resumed", {"spec": {"suspended": True}})
    await api.until("Tenant", "resumed", in_phase("Suspended"))
    yield
    await api.patch("Tenant", "resumed", {"spec": {"suspended": False}})
    yield
    await api.until("Tenant", "resumed", is_ready)
    assert await children(api, namespace) == before
    assert audit(operator, "resumed") == {"Created": 1, "ConfigChanged": 1, "Suspended": 1, "Resumed": 1}


async def deleted_to_retain(api: Api, operator: OperatorProcess) -> Story:
    namespace = await provisioned(api, "retained")
    found = await api.get("Tenant", "retained") or {}
    archive = names.archive_name("retained", found["metadata"]["uid"])
    await api.create("ConfigMap", {"metadata": {"name": "data", "namespace": namespace}, "data": {"a": "1"}})
    yield
    await api.delete("Tenant", "retained")
    yield
    await api.until("Tenant", "retained", gone)
    await api.until("TenantArchive", archive, in_phase("Kept"))
    assert (await api.get("ConfigMap", "data", namespace) or {})["data"] == {"a": "1"}
    assert not await can(api, OWNER, "get", "pods", namespace)
    assert audit(operator, "retained") == {"Created": 1, "ConfigChanged": 1, "Archived": 1}


async def deleted_for_good(api: Api, operator: OperatorProcess) -> Story:
    namespace = await provisioned(api, "removed", deletionPolicy="Delete")
    yield
    await api.delete("Tenant", "removed")
    yield
    await api.until("Tenant", "removed", gone)
    assert await api.get("Namespace", namespace) is None
    assert not [item for item in await api.list("TenantArchive") if item["spec"]["tenant"] == "removed"]
    assert audit(operator, "removed") == {"Created": 1, "ConfigChanged": 1, "Deleted": 1}


async def archive_deleted(api: Api, operator: OperatorProcess) -> Story:
    namespace, archive = await archived(api, "purged")
    yield
    await api.delete("TenantArchive", archive)
    yield
    await api.until("TenantArchive", archive, gone)
    assert await api.get("Namespace", namespace) is None
    assert audit(operator, "purged") == {
        "Created": 1,
        "ConfigChanged": 1,
        "Archived": 1,
        "Purging": 1,
        "Purged": 1,
    }


async def retention_ended(api: Api, operator: OperatorProcess) -> Story:
    namespace, archive = await archived(api, "expired")
    soon = datetime.now(UTC) + timedelta(seconds=60)
    await api.patch("TenantArchive", archive, {"spec": {"purgeAfter": soon.isoformat()}})
    yield
    past = datetime.now(UTC) - timedelta(seconds=1)
    await api.patch("TenantArchive", archive, {"spec": {"purgeAfter": past.isoformat()}})
    yield
    await api.until("TenantArchive", archive, in_phase("Purged"))
    assert await api.get("Namespace", namespace) is None
    assert audit(operator, "expired")["Purged"] == 1


async def retention_ends_soon(api: Api, operator: OperatorProcess) -> Story:
    """The timer of a start must be set for archives that nobody touches any more."""
    namespace, archive = await archived(api, "expiring")
    yield
    soon = datetime.now(UTC) + timedelta(seconds=30)
    await api.patch("TenantArchive", archive, {"spec": {"purgeAfter": soon.isoformat()}})
    yield
    found = await api.until("TenantArchive", archive, in_phase("Purged"))
    assert datetime.now(UTC) > soon
    assert found is not None
    assert await api.get("Namespace", namespace) is None


async def restored(api: Api, operator: OperatorProcess) -> Story:
    namespace, archive = await archived(api, "restored")
    yield
    await api.apply(tenant("restored", plan="pro", members=MEMBERS))
    yield
    await api.until("Tenant", "restored", is_ready)
    await api.until("TenantArchive", archive, in_phase("Restored"))
    assert (await api.get("ConfigMap", "data", namespace) or {})["data"] == {"a": "1"}
    assert await can(api, OWNER, "create", "pods", namespace)
    assert audit(operator, "restored")["Restored"] == 1


async def recreated_by_a_stranger(api: Api, operator: OperatorProcess) -> Story:
    namespace, archive = await archived(api, "stranger")
    yield
    await api.apply(tenant("stranger", plan="pro", owner={"email": "new@stranger.example"}))
    await api.delete("TenantArchive", archive)
    yield
    await api.until("Tenant", "stranger", is_ready)
    assert await api.get("ConfigMap", "data", namespace) is None


async def drifted(api: Api, operator: OperatorProcess) -> Story:
    namespace = await provisioned(api, "drifted")
    before = await children(api, namespace)
    marked = content(await api.get("Namespace", namespace))
    yield
    group = "rbac.authorization.k8s.io"
    mallory = {"subjects": [{"kind": "User", "name": "mallory", "apiGroup": group}]}
    await api.patch("RoleBinding", "tenantry-viewer", mallory, namespace)
    unlabelled = {
        "metadata": {"labels": None, "annotations": None},
        "spec": {"egress": [{}], "ingress": [{}]},
    }
    await api.patch("NetworkPolicy", names.DEFAULT_DENY, unlabelled, namespace)
    await api.patch(
        "ConfigMap", "tenant-config", {"immutable": True, "data": {"config.json": "{}"}}, namespace
    )
    await api.delete("ResourceQuota", names.QUOTA, namespace)
    await api.delete("ControllerRevision", "tenant-config-1", namespace)
    surplus = {"name": "surplus", "namespace": namespace, "labels": {names.MANAGED_BY: names.MANAGER}}
    await api.create("NetworkPolicy", {"metadata": surplus, "spec": {"podSelector": {}, "ingress": [{}]}})
    await api.patch("Namespace", namespace, {"metadata": {"labels": None, "annotations": None}})
    yield

    def numberless(found: dict[str, Object]) -> dict[str, Object]:
        return {
            key: item for key, item in found.items() if not key.startswith(("ConfigMap", "ControllerRev"))
        }

    await api.until("Namespace", namespace, lambda found: content(found) == marked)
    await settled(api, namespace, lambda found: numberless(found) == numberless(before))
    await api.until("ConfigMap", "tenant-config", lambda found: found and "immutable" not in found, namespace)
    read = await api.get("ConfigMap", "tenant-config", namespace) or {}
    assert json.loads(read["data"]["config.json"])["retrieval"]["topK"] == 5
    assert not await can(api, "mallory", "get", "pods", namespace)
    await api.until("Tenant", "drifted", is_ready)


async def namespace_deleted(api: Api, operator: OperatorProcess) -> Story:
    namespace = await provisioned(api, "bereft")
    before = await children(api, namespace)
    yield
    await api.delete("Namespace", namespace)
    await api.until("Namespace", namespace, gone)
    yield
    await api.until("Namespace", namespace, bool)
    await settled(api, namespace, lambda found: len(found) == len(before))
    await api.until("Tenant", "bereft", is_ready)
    assert await can(api, OWNER, "create", "pods", namespace)


async def _plan(api: Api, name: str) -> None:
    pro = await api.get("Plan", "pro") or {}
    await api.apply({"kind": "Plan", "metadata": {"name": name}, "spec": pro["spec"]})


async def plan_edited(api: Api, operator: OperatorProcess) -> Story:
    await _plan(api, "to-edit")
    namespace = await provisioned(api, "follower", plan="to-edit")
    yield
    await api.patch("Plan", "to-edit", {"spec": {"resources": {"quota": {"pods": "7"}}}})
    yield
    await api.until(
        "ResourceQuota", names.QUOTA, lambda found: found["spec"]["hard"]["pods"] == "7", namespace
    )
    await api.until("Tenant", "follower", is_ready)


async def plan_deleted(api: Api, operator: OperatorProcess) -> Story:
    await _plan(api, "to-delete")
    namespace = await provisioned(api, "planless", plan="to-delete")
    before = await children(api, namespace)
    await api.until("Plan", "to-delete", lambda found: (found.get("status") or {}).get("tenants") == 1)
    yield
    with pytest.raises(Refused, match="is used by 1 tenant"):
        await api.delete("Plan", "to-delete")
    await lose_plan(api, "to-delete")
    yield

    def missed(found: Object | None) -> bool:
        return (
            "to-delete" in (condition(found, "Ready") or {}).get("message", "")
            and (condition(found, "ConfigReady") or {}).get("status") == "False"
        )

    await api.until("Tenant", "planless", missed)
    assert await children(api, namespace) == before


async def status_lost(api: Api, operator: OperatorProcess) -> Story:
    await provisioned(api, "forgotten")
    yield
    wiped = {"status": {"phase": None, "namespace": None, "configRevision": None, "conditions": []}}
    await api.patch("Tenant", "forgotten", wiped, subresource="status")
    yield
    found = await api.until("Tenant", "forgotten", is_ready)
    assert (found["status"]["phase"], found["status"]["configRevision"]) == ("Ready", 1)
    assert audit(operator, "forgotten") == {"Created": 1, "ConfigChanged": 1}


def rivals(first: str, second: str) -> Callable[[Api, OperatorProcess], Story]:
    """Two tenants that want one namespace, created one after the other."""

    async def story(api: Api, operator: OperatorProcess) -> Story:
        namespace = {"name": f"of-{first}-or-{second}"}
        yield
        older = await api.apply(tenant(first, plan="pro", namespace=namespace))
        # The API server's times have seconds only.
        later = datetime.fromisoformat(older["metadata"]["creationTimestamp"]) + timedelta(seconds=1)
        await asyncio.sleep(max(0.0, (later - datetime.now(UTC)).total_seconds()))
        await api.apply(tenant(second, plan="pro", namespace=namespace))
        yield
        await api.until("Tenant", first, is_ready)
        found = await api.until("Tenant", second, is_stalled("NamespaceClaimed"))
        assert f"Tenant {first}" in condition(found, "Stalled")["message"]
        assert audit(operator, second) == {"Created": 1}

    return story


async def released(api: Api, operator: OperatorProcess) -> Story:
    metadata = {"name": "legacy", "labels": {"team": "x"}, "annotations": {names.ADOPTABLE_BY: "adopter"}}
    before = await api.apply({"kind": "Namespace", "metadata": metadata})
    adoption = {"name": "legacy", "adoption": "IfMarked"}
    await provisioned(api, "adopter", namespace=adoption, deletionPolicy="Delete")
    yield
    await api.delete("Tenant", "adopter")
    yield
    await api.until("Tenant", "adopter", gone)
    now = await api.get("Namespace", "legacy")
    assert content(now) == content(before)
    assert await children(api, "legacy") == {}


async def marked(api: Api, operator: OperatorProcess) -> Story:
    await api.apply({"kind": "Namespace", "metadata": {"name": "waiting"}})
    adoption = {"name": "waiting", "adoption": "IfMarked"}
    await api.apply(tenant("suitor", plan="pro", namespace=adoption))
    await api.until("Tenant", "suitor", is_stalled("NamespaceNotMarked"))
    yield
    await api.patch("Namespace", "waiting", {"metadata": {"annotations": {names.ADOPTABLE_BY: "suitor"}}})
    yield
    await api.until("Tenant", "suitor", is_ready)
    assert audit(operator, "suitor") == {"Created": 1, "Adopted": 1, "ConfigChanged": 1}


STORIES: dict[str, Callable[[Api, OperatorProcess], Story]] = {
    "created": created,
    "edited": edited,
    "suspended": suspended,
    "resumed": resumed,
    "deleted, to be retained": deleted_to_retain,
    "deleted for good": deleted_for_good,
    "archive deleted": archive_deleted,
    "retention ended": retention_ended,
    "retention ends soon after": retention_ends_soon,
    "restored": restored,
    "recreated by a stranger": recreated_by_a_stranger,
    "children drifted": drifted,
    "namespace deleted": namespace_deleted,
    "plan edited": plan_edited,
    "plan deleted": plan_deleted,
    "status lost": status_lost,
    "two rivals, in the order of their names": rivals("rival-a", "rival-b"),
    "two rivals, against the order of their names": rivals("rival-z", "rival-y"),
    "adopted namespace released": released,
    "namespace marked": marked,
}


@pytest.fixture(scope="module")
async def told(own_api: Api, own_operator: OperatorProcess) -> AsyncIterator[dict[str, Story]]:
    """All stories after the second start of the operator."""
    stories = {title: story(own_api, own_operator) for title, story in STORIES.items()}
    await asyncio.gather(*(anext(story) for story in stories.values()))
    assert own_operator.stop() == 0
    await asyncio.gather(*(anext(story) for story in stories.values()))
    await own_operator.start()
    yield stories
    await asyncio.gather(*(story.aclose() for story in stories.values()), return_exceptions=True)


@pytest.mark.parametrize("title", STORIES)
async def test_while_the_operator_was_down(told: dict[str, Story], title: str) -> None:
    with pytest.raises(StopAsyncIteration):
        await anext(told[title])


# --- killed in the middle --------------------------------------------------------------------------------------


async def count(
    api: Api, holds: Callable[[Object], bool], prefix: str, wanted: int, kind: str = "Tenant"
) -> None:
    """Wait until something holds of so many objects."""
    async with asyncio.timeout(60):
        while True:
            found = [item for item in await api.list(kind) if item["metadata"]["name"].startswith(prefix)]
            if len([item for item in found if holds(item)]) >= wanted:
                return
            await asyncio.sleep(0.2)


async def end(operator: OperatorProcess, how: signal.Signals) -> None:
    """End it in a thread, so that requests go on being sent meanwhile."""
    if how is signal.SIGKILL:
        await asyncio.to_thread(operator.kill)
    else:
        assert await asyncio.to_thread(operator.stop) == 0


async def stream(api: Api, prefix: str, stop: asyncio.Event) -> list[str]:
    """Apply some forty tenants, five at a time, the last five after `stop`; return their names.

    However fast the operator and the machine are, it then ends with work before it.
    """
    tenants: list[str] = []
    last = False
    while not last:
        if len(tenants) >= 35:
            await stop.wait()
        last = stop.is_set()
        five = [f"{prefix}-{len(tenants) + number}" for number in range(5)]
        await asyncio.gather(*(api.apply(tenant(each, plan="pro", members=MEMBERS)) for each in five))
        tenants += five
    return tenants


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "kill -9"])
async def test_a_burst_survives_the_end_of_the_operator(
    own_api: Api, own_operator: OperatorProcess, told: dict[str, Story], how: signal.Signals
) -> None:
    api, prefix = own_api, f"burst-{how.name.lower()}"
    if own_operator.process is None or own_operator.process.poll() is not None:
        await own_operator.start()  # where the case before this one failed half-way
    ended = asyncio.Event()
    burst = asyncio.create_task(stream(api, prefix, ended))
    await count(api, is_ready, prefix, 10)
    await end(own_operator, how)
    ended.set()
    tenants = await burst
    ready = [item for item in await api.list("Tenant") if is_ready(item)]
    assert len([item for item in ready if item["metadata"]["name"] in tenants]) <= len(tenants) - 5
    await own_operator.start()
    await count(api, is_ready, prefix, len(tenants))
    for each in tenants:
        present = await children(api, f"tenant-{each}")
        assert len(present) == 15, sorted(present)
        assert audit(own_operator, each) == {"Created": 1, "ConfigChanged": 1}, each

    leave = asyncio.create_task(_delete_all(api, tenants))
    await count(api, lambda _: True, prefix, 3, "TenantArchive")
    await end(own_operator, how)
    await leave
    await own_operator.start()
    await count(api, in_phase("Kept"), prefix, len(tenants), "TenantArchive")
    await asyncio.gather(*(api.until("Tenant", each, gone) for each in tenants))
    archives = Counter(item["spec"]["tenant"] for item in await api.list("TenantArchive"))
    for each in tenants:
        assert archives[each] == 1
        assert audit(own_operator, each) == {"Created": 1, "ConfigChanged": 1, "Archived": 1}, each
        assert not await can(api, OWNER, "get", "pods", f"tenant-{each}")


async def _delete_all(api: Api, tenants: list[str]) -> None:
    await asyncio.gather(*(api.delete("Tenant", each) for each in tenants))
