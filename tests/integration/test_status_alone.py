"""Promises that need a cluster to themselves: before the operator runs, a short wait, and nothing written at rest."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tenantry.adapters.kubernetes.client import APPLY
from tenantry.adapters.kubernetes.kinds import CHILD_KINDS, KINDS, OWN_KINDS
from tenantry.adapters.kubernetes.objects import ApiObjects
from tenantry.adapters.kubernetes.seen import Seen
from tenantry.adapters.ledger import open_ledger
from tenantry.domain.observed import Observed
from tenantry.reconcile.ports import Context, Policy
from tenantry.reconcile.result import Key
from tenantry.reconcile.tenant import reconcile
from tenantry.runtime.operator import SystemClock
from tests.conftest import REPOSITORY, Cluster, embedded
from tests.integration.conftest import (
    Api,
    Object,
    OperatorProcess,
    administrator,
    condition,
    is_ready,
    is_stalled,
    running,
    tenant,
)
from tests.integration.history import history
from tests.unit.gitops.argocd import HEALTH_LUA, health
from tests.unit.gitops.flux import flux
from tests.unit.gitops.kstatus import Kstatus, kstatus

PLAN_GRACE_SECONDS = 10
RELIST_SECONDS = 0.3
WRITES = frozenset({"APPLY", "PATCH", "PUT", "POST", "DELETE", "DELETECOLLECTION"})


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane on which no other test's operator runs."""
    with embedded(tmp_path_factory.mktemp("alone")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
async def alone(cluster: Cluster) -> AsyncIterator[Api]:
    """A client as the administrator of that cluster."""
    async with administrator(cluster) as api:
        yield api


@pytest.fixture
async def hasty(
    cluster: Cluster, alone: Api, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OperatorProcess]:
    """An operator that waits two seconds for a Plan, and lists everything three times a second."""
    cluster.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "manifests/samples/plans.yaml"))
    process = OperatorProcess(
        cluster,
        tmp_path_factory.mktemp("hasty"),
        TENANTRY_PLAN_GRACE_SECONDS=str(PLAN_GRACE_SECONDS),
        TENANTRY_RELIST_SECONDS=str(RELIST_SECONDS),
    )
    with running(process):
        await process.start()
        yield process
        process.stop()


def plan(name: str) -> Object:
    resources = {"quota": {"pods": "10"}}
    spec = {"displayName": name, "rank": 1, "currency": "usd", "resources": resources}
    return {"apiVersion": "tenantry.dev/v1alpha1", "kind": "Plan", "metadata": {"name": name}, "spec": spec}


# --- before the operator ------------------------------------------------------------------------------------


async def test_a_new_object_is_never_taken_for_a_ready_one(cluster: Cluster, alone: Api) -> None:
    for item in (tenant("early"), plan("early")):
        cluster.kubectl("create", "-f", "-", input=yaml.safe_dump(item))
        kind = item["kind"]
        found = await alone.get(kind, "early")
        assert found is not None
        assert found["status"]["observedGeneration"] == -1
        ready = condition(found, "Ready")
        assert ready is not None
        assert (ready["status"], ready["message"]) == ("Unknown", "Waiting for the operator")
        judged = (kstatus(found), flux(found), health(found).status)
        assert judged == (Kstatus.IN_PROGRESS, Kstatus.IN_PROGRESS, "Progressing")
        waited = cluster.kubectl(
            "wait", "--for=condition=Ready", f"{kind}/early", "--timeout=300ms", check=False
        )
        assert waited.returncode != 0
    header, row = cluster.kubectl("get", "tenants", "early").stdout.splitlines()
    assert header.split() == ["NAME", "PLAN", "PHASE", "NAMESPACE", "SHARD", "READY", "AGE"]
    assert row.split()[:3] == ["early", "Pending", "Unknown"]
    assert "Waiting for the operator" in cluster.kubectl("get", "tenants", "early", "-owide").stdout


# --- a Plan that comes later --------------------------------------------------------------------------------


def waits_for_plan(item: Object | None) -> bool:
    found = condition(item, "Reconciling")
    return found is not None and found["reason"] == "PlanNotFound"


async def test_a_plan_that_comes_later_in_the_same_sync(alone: Api, hasty: OperatorProcess) -> None:
    async with history(alone, "Tenant", "patient") as versions:
        await alone.apply(tenant("patient", plan="later"))
        await alone.until("Tenant", "patient", waits_for_plan)
        await alone.apply(plan("later"))
        await alone.until("Tenant", "patient", is_ready)
    assert not any(condition(version, "Stalled") for version in versions)


async def test_a_plan_that_does_not_come_is_stalled_until_it_does(alone: Api, hasty: OperatorProcess) -> None:
    async with history(alone, "Tenant", "left") as versions:
        await alone.apply(tenant("left", plan="much-later"))
        waiting = await alone.until("Tenant", "left", waits_for_plan)
        assert condition(waiting, "Ready")["status"] == "False"  # type: ignore[index]
        stalled = await alone.until(
            "Tenant", "left", is_stalled("PlanNotFound"), timeout=PLAN_GRACE_SECONDS + 3
        )
        assert condition(stalled, "Reconciling") is None
        message = condition(stalled, "Stalled")["message"]  # type: ignore[index]
        assert "spec.plan names plan much-later" in message
        assert "apply a Plan of that name, or name another" in message
        await alone.apply(plan("much-later"))
        await alone.until("Tenant", "left", is_ready)
    for version in versions:
        assert not (condition(version, "Stalled") and condition(version, "Reconciling"))
    # The re-lists in between wrote nothing: new, finalizer, waiting, stalled, ready.
    assert len(versions) == 5


# --- at rest ------------------------------------------------------------------------------------------------


def _samples(metrics: str, name: str) -> Iterator[tuple[dict[str, str], float]]:
    for line in metrics.splitlines():
        if line.startswith(f"{name}{{"):
            labels, value = line.rsplit(" ", 1)
            yield dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)


async def _of_operator(operator: OperatorProcess) -> Counter[str]:
    counts: Counter[str] = Counter()
    for labels, value in _samples(await operator.metrics(), "tenantry_api_requests_total"):
        counts[labels["verb"]] += int(value)
    return counts


async def _looked_at(operator: OperatorProcess) -> int:
    """Return how often a Tenant was reconciled."""
    name = "tenantry_reconcile_duration_seconds_count"
    found = _samples(await operator.metrics(), name)
    return int(sum(value for labels, value in found if labels["kind"] == "Tenant"))


def _of_server(cluster: Cluster) -> Counter[tuple[str, str]]:
    """Count the API server's requests by verb and resource, for all that the operator could ever write.

    The quota controller's own writes go to a subresource that we never touch.
    """
    ours = {kind.plural for kind in KINDS.values()} | {"events"}
    counts: Counter[tuple[str, str]] = Counter()
    metrics = cluster.kubectl("get", "--raw", "/metrics").stdout
    for labels, value in _samples(metrics, "apiserver_request_total"):
        foreign = (labels["resource"], labels["subresource"]) == ("resourcequotas", "status")
        if labels["resource"] in ours and not foreign:
            counts[labels["verb"], labels["resource"]] += int(value)
    return counts


async def _versions(api: Api) -> dict[tuple[str, str, str], str]:
    found = {}
    for kind in (*OWN_KINDS, *CHILD_KINDS):
        for item in await api.list(kind.kind):
            metadata = item["metadata"]
            where = metadata.get("namespace", "")
            # A quota's counters belong to the quota controller.
            version = str(item["spec"]) if kind.kind == "ResourceQuota" else metadata["resourceVersion"]
            found[kind.kind, where, metadata["name"]] = version
    return found


async def _quiet(operator: OperatorProcess) -> None:
    """Wait until no write has gone out for a second and a half: longer than a Plan waits to count its tenants."""
    loop = asyncio.get_running_loop()
    before, since = await _of_operator(operator), loop.time()
    async with asyncio.timeout(60):
        while loop.time() - since < 1.5:
            await asyncio.sleep(0.1)
            now = await _of_operator(operator)
            if any(now[verb] != before[verb] for verb in WRITES):
                before, since = now, loop.time()


async def _sow(api: Api) -> None:
    """Twenty tenants of all sorts: ready, suspended, wrong, without a plan, with a condition of somebody else."""
    sorts: list[dict[str, Any]] = [
        {"plan": "pro"},
        {"plan": "free", "suspended": True},
        {"plan": "free", "overrides": {"model": {"name": "gpt-4o"}}},
        {"plan": "nowhere"},
        {"plan": "enterprise", "configRevision": 5},
    ]
    for number in range(20):
        await api.apply(tenant(f"rest-{number}", **sorts[number % len(sorts)]))
    for number in range(20):
        wait = (is_ready, is_ready, is_stalled("OverrideNotAllowed"), is_stalled("PlanNotFound"))
        holds = (*wait, is_stalled("RevisionNotFound"))[number % len(sorts)]
        await api.until("Tenant", f"rest-{number}", holds)


async def test_at_rest_it_writes_nothing(cluster: Cluster, alone: Api, hasty: OperatorProcess) -> None:
    await _sow(alone)
    await _quiet(hasty)
    operator, server, versions = await _of_operator(hasty), _of_server(cluster), await _versions(alone)
    looked_at = await _looked_at(hasty)
    async with asyncio.timeout(60):
        while await _looked_at(hasty) < looked_at + 6 * 20:  # noqa: ASYNC110 - all, at six full lists
            await asyncio.sleep(0.1)

    spent = await _of_operator(hasty)
    spent.subtract(operator)
    assert not {verb: count for verb, count in spent.items() if verb in WRITES and count}
    seen = _of_server(cluster)
    seen.subtract(server)
    assert not {key: count for key, count in seen.items() if key[0] in WRITES and count}
    assert await _versions(alone) == versions


async def test_what_others_write_into_the_status_is_neither_fought_nor_trusted(
    alone: Api, hasty: OperatorProcess
) -> None:
    """A condition of another controller stays, and costs no write; one of ours that somebody bent is put right."""
    await alone.apply(tenant("shared", plan="pro"))
    await alone.until("Tenant", "shared", is_ready)
    theirs = {
        "type": "BackedUp",
        "status": "True",
        "reason": "Done",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    body = {
        "apiVersion": "tenantry.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": "shared"},
        "status": {"conditions": [theirs]},
    }
    path = KINDS["Tenant"].path("shared", subresource="status")
    query = {"fieldManager": "backup-operator"}
    await alone.client.send("PATCH", path, query=query, body=body, content_type=APPLY)
    await _quiet(hasty)
    found = await alone.get("Tenant", "shared")
    assert condition(found, "BackedUp") == theirs
    assert is_ready(found)

    await alone.patch("Tenant", "shared", {"status": {"phase": "Deleting"}}, subresource="status")
    await alone.until("Tenant", "shared", lambda item: item["status"]["phase"] == "Ready")
    assert condition(await alone.get("Tenant", "shared"), "BackedUp") == theirs


# --- what only a newer operator understands ---------------------------------------------------------------------


@pytest.fixture
def loosened(cluster: Cluster) -> Iterator[None]:
    """The schema of another version, which allows a deletionPolicy that this operator does not know."""
    path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/deletionPolicy/enum/-"
    patch = json.dumps([{"op": "add", "path": path, "value": "Later"}])
    cluster.kubectl("patch", "crd", "tenants.tenantry.dev", "--type=json", "-p", patch)
    yield
    cluster.kubectl(
        "apply", "--server-side", "--force-conflicts", "-f", str(REPOSITORY / "crds/tenants.yaml")
    )


async def test_a_value_of_another_version_is_stalled_and_changes_nothing(
    cluster: Cluster, alone: Api, hasty: OperatorProcess, loosened: None
) -> None:
    await alone.apply(tenant("newer", plan="pro"))
    ready = await alone.until("Tenant", "newer", is_ready)
    async with asyncio.timeout(60):
        newer = yaml.safe_dump(tenant("newer", plan="pro", deletionPolicy="Later"))
        # The API server takes a moment to serve a changed schema.
        while cluster.kubectl("apply", "--server-side", "-f", "-", input=newer, check=False).returncode:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    found = await alone.until("Tenant", "newer", is_stalled("InvalidSpec"))
    assert "spec.deletionPolicy" in condition(found, "Stalled")["message"]  # type: ignore[index]
    assert found["status"]["phase"] == "Degraded"
    for field in ("namespace", "plan", "configRevision"):
        assert found["status"][field] == ready["status"][field]
    await alone.apply(tenant("newer", plan="pro", deletionPolicy="Delete"))
    await alone.until("Tenant", "newer", is_ready)


async def test_argo_cds_own_config_map_takes_the_patch(cluster: Cluster, alone: Api) -> None:
    """With the very command that the file gives; what stands in the ConfigMap already stays."""
    cluster.kubectl("create", "namespace", "argocd")
    cluster.kubectl(
        "create", "configmap", "argocd-cm", "-n", "argocd", "--from-literal=url=https://cd.example.com"
    )
    file = REPOSITORY / "manifests/argocd/argocd-cm.yaml"
    cluster.kubectl("patch", "configmap", "argocd-cm", "-n", "argocd", "--patch-file", str(file))
    found = await alone.get("ConfigMap", "argocd-cm", "argocd")
    assert found is not None
    assert found["data"].pop("url") == "https://cd.example.com"
    assert set(found["data"].values()) == {HEALTH_LUA}
    assert len(found["data"]) == len(OWN_KINDS)


# --- a bug --------------------------------------------------------------------------------------------------


class Defective(Seen):
    """What a bug anywhere in a reconcile comes to."""

    def namespace(self, name: str) -> Observed | None:
        raise KeyError("no such thing")


class Nobody:
    """Watches no metrics."""

    def became_ready(self, seconds: float) -> None: ...

    def repaired(self, kind: str) -> None: ...


async def test_a_bug_is_a_retryable_error_with_a_condition(
    cluster: Cluster, alone: Api, tmp_path: Path
) -> None:
    """A tenant that was Ready does not stay so while nobody can look after it."""
    cluster.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "manifests/samples/plans.yaml"))
    await alone.apply(tenant("unlucky", plan="pro"))
    ledger = await open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    try:
        for seen in (Seen("free", lambda *_: None), Defective("free", lambda *_: None)):
            for item in await alone.list("Plan"):
                seen.saw({**item, "kind": "Plan", "apiVersion": "tenantry.dev/v1alpha1"})
            objects = ApiObjects(alone.client, lambda: True, seen.wrote, lambda *_: None)
            cx = Context(objects, seen, ledger.audit, SystemClock(), Policy(), Nobody())
            if isinstance(seen, Defective):
                assert is_ready(await alone.get("Tenant", "unlucky"))
                with pytest.raises(KeyError):  # the queue logs it and backs off
                    await reconcile(Key("Tenant", "unlucky"), cx)
            else:
                await reconcile(Key("Tenant", "unlucky"), cx)
    finally:
        await ledger.close()
    found = await alone.get("Tenant", "unlucky")
    assert found is not None
    reconciling, ready = condition(found, "Reconciling"), condition(found, "Ready")
    assert reconciling is not None
    assert ready is not None
    assert (ready["status"], ready["reason"]) == ("False", "InternalError")
    assert "its log says more (KeyError: 'no such thing')" in reconciling["message"]
    assert (found["status"]["phase"], found["status"]["configRevision"]) == ("Degraded", 1)
    assert (kstatus(found), flux(found), health(found).status) == (
        Kstatus.IN_PROGRESS,
        Kstatus.IN_PROGRESS,
        "Progressing",
    )
