"""The policies themselves: they compile, they know whom to trust, and they cost next to nothing."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tenantry.domain import names
from tenantry.local import chart
from tenantry.local.binaries import find_tool
from tests.conftest import REPOSITORY, Cluster
from tests.integration.attacks.actors import Actor, Answer, Request
from tests.integration.attacks.conftest import NAMESPACE, Scene
from tests.integration.attacks.requests import delete, get, patch, post
from tests.integration.conftest import Api, condition, is_ready, is_stalled, tenant

Object = dict[str, Any]

POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"


async def policies(api: Api) -> list[Object]:
    answer = await api.client.send("GET", POLICIES)
    return [item for item in answer["items"] if item["metadata"]["name"].startswith("tenantry-")]


async def test_the_api_server_finds_no_fault_with_the_expressions(scene: Scene, api: Api) -> None:
    found = await policies(api)
    assert len(found) == 10
    for policy in found:
        async with asyncio.timeout(60):
            while policy.get("status", {}).get("observedGeneration") != policy["metadata"]["generation"]:
                await asyncio.sleep(0.1)
                policy = await api.client.send("GET", f"{POLICIES}/{policy['metadata']['name']}")
        assert policy["status"]["typeChecking"] == {}, policy["metadata"]["name"]
        assert policy["spec"]["failurePolicy"] == "Fail"
        for validation in policy["spec"]["validations"]:
            assert validation["reason"] == "Forbidden"
            assert validation["messageExpression"]


def _admission(**values: Any) -> list[Object]:
    everything = chart.render(
        find_tool("helm", print),
        REPOSITORY / "helm/tenantry",
        {"ledger": {"ephemeral": True}, "admission": values},
    )
    return [each for each in everything if each["apiVersion"].startswith("admissionregistration.k8s.io/")]


def test_without_admission_there_are_no_policies() -> None:
    assert _admission(enabled=False) == []
    assert len(_admission()) == 20


@pytest.fixture
async def configured(control_plane: Cluster) -> AsyncIterator[Callable[..., None]]:
    """Set values of the chart's admission; afterwards it is as it was."""

    def configure(**values: Any) -> None:
        for document in _admission(**values):
            control_plane.kubectl(
                "apply",
                "--server-side",
                "--force-conflicts",
                "--field-manager=tenantry-up",
                "-f",
                "-",
                input=json.dumps(document),
            )

    yield configure
    configure()


async def until(actor: Actor, request: Request, holds: Callable[[Answer], bool]) -> None:
    """Send a request without effect until the answer is as it should be: policies are taken up a second later."""
    for _ in range(200):
        answer = await actor.send(request.rehearsed())
        if holds(answer):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{actor.name}: {request}: {answer.status} {answer.message}")


def refused(answer: Answer) -> bool:
    return "denied request: " in answer.message


def granted(answer: Answer) -> bool:
    return answer.ok


async def test_who_is_named_is_trusted(scene: Scene, configured: Callable[..., None]) -> None:
    controller, editor = scene.actors["controller"], scene.actors["editor"]
    change = patch("networkpolicies", NAMESPACE, "tenantry-default-deny", {"spec": {"egress": [{}]}})
    lowered = {"metadata": {"labels": {f"{names.POD_SECURITY}enforce": "privileged"}}}
    relabelled = patch("namespaces", "", NAMESPACE, lowered)
    for request in (change, relabelled):
        await until(controller, request, refused)
    configured(trusted={"users": [controller.name], "groups": []})
    for request in (change, relabelled):
        await until(controller, request, granted)
    configured(trusted={"users": [], "groups": ["system:serviceaccounts:mesh"]})
    for request in (change, relabelled):
        await until(controller, request, granted)
    configured()
    for request in (change, relabelled):
        await until(controller, request, refused)

    held = post("configmaps", NAMESPACE, "held", {"data": {}}, finalizers=["argocd.example/resources"])
    await until(editor, held, refused)
    configured(finalizers=["argocd.example/resources"])
    await until(editor, held, granted)
    other = post("configmaps", NAMESPACE, "held", {"data": {}}, finalizers=["attack.example/hold"])
    assert refused(await editor.send(other.rehearsed()))


async def test_whoever_may_update_every_tenant_is_trusted(scene: Scene) -> None:
    """A platform administrator needs not be named; one who may update a single Tenant is none."""
    controller, admin = scene.actors["controller"], scene.admin
    group = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": "controller", "namespace": "mesh"}
    change = patch("resourcequotas", NAMESPACE, names.QUOTA, {"spec": {"hard": {"pods": "100"}}})
    rule: Object = {"apiGroups": ["tenantry.dev"], "resources": ["tenants"], "verbs": ["update"]}
    binding = {
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "attack-platform"},
        "subjects": [subject],
    }
    try:
        one = {"rules": [{**rule, "resourceNames": ["acme"]}]}
        assert (await admin.send(post("clusterroles", "", "attack-platform", one))).ok
        assert (await admin.send(post("clusterrolebindings", "", "attack-platform", binding))).ok
        assert refused(await controller.send(change.rehearsed()))
        assert (await admin.send(patch("clusterroles", "", "attack-platform", {"rules": [rule]}))).ok
        await until(controller, change, granted)
    finally:
        await admin.send(delete("clusterrolebindings", "", "attack-platform"))
        await admin.send(delete("clusterroles", "", "attack-platform"))
    await until(controller, change, refused)


async def test_a_plan_in_use_is_not_deleted_by_anybody(scene: Scene, api: Api) -> None:
    pro = await api.get("Plan", "pro")
    assert pro is not None
    await api.apply({"kind": "Plan", "metadata": {"name": "in-use"}, "spec": pro["spec"]})
    await api.apply(tenant("user-of-plan", plan="in-use"))
    try:
        await api.until("Tenant", "user-of-plan", is_ready)
        await api.until(
            "Plan", "in-use", lambda found: ((found or {}).get("status") or {}).get("tenants") == 1
        )
        answer = await scene.admin.send(delete("plans", "", "in-use"))
        assert answer.status == 403
        assert (
            "Plan in-use is used by 1 tenant: see kubectl get tenants --field-selector status.plan=in-use. "
            "Move them to another plan first."
        ) in answer.message
        listed = await scene.admin.send(get("tenants", fieldSelector="status.plan=in-use"))
        assert [item["metadata"]["name"] for item in listed.body["items"]] == ["user-of-plan"]
        await api.patch("Tenant", "user-of-plan", {"spec": {"plan": "pro"}})
        await api.until("Plan", "in-use", lambda found: not (found or {}).get("status", {}).get("tenants"))
    finally:
        await api.patch("Tenant", "user-of-plan", {"spec": {"plan": "pro", "deletionPolicy": "Delete"}})
        await api.delete("Tenant", "user-of-plan")
    answer = await scene.admin.send(delete("plans", "", "in-use"))
    assert answer.ok, answer.message


async def test_a_shard_in_use_is_not_deleted_by_anybody(scene: Scene, api: Api) -> None:
    secret = {"secretRef": {"name": "in-use", "key": "dsn"}}
    spec = {"engine": "pgvector", "connection": secret, "cordoned": True}
    shard = await api.apply({"kind": "VectorShard", "metadata": {"name": "in-use"}, "spec": spec})

    async def count(tenants: int) -> None:
        """Say how many there are, as nobody but the operator may, which counts anew at its next look."""
        await api.patch("VectorShard", "in-use", {"status": {"tenants": tenants}}, subresource="status")

    try:
        await api.until("VectorShard", "in-use", is_stalled("SecretNotFound"))
        async with asyncio.timeout(60):
            while True:
                await count(2)
                answer = await scene.admin.send(delete("vectorshards", "", "in-use").rehearsed())
                if answer.status == 403:
                    break
        assert (
            "VectorShard in-use holds the vectors of 2 tenants: see kubectl get tenants --field-selector "
            "status.placement.shard=in-use. Set spec.drain: true and wait until they have moved."
        ) in answer.message
        assert (await scene.admin.send(get("tenants", fieldSelector="status.placement.shard=in-use"))).ok
    finally:
        await count(0)
    answer = await scene.admin.send(delete("vectorshards", "", "in-use"))
    assert answer.ok, answer.message
    assert answer.body["details"]["uid"] == shard["metadata"]["uid"]
    # With a shard there, each tenant waited for a place on one.
    await api.until("Tenant", "acme", lambda found: is_ready(found) and not condition(found, "ShardReady"))


async def test_a_namespace_with_a_hostile_pod_can_still_be_deleted(scene: Scene, api: Api) -> None:
    """Objects that own each other and are deleted in the foreground do not hold it up."""
    name = "circular"
    members = [{"kind": "User", "name": scene.actors["editor"].name, "role": "editor"}]
    await api.apply(tenant(name, plan="pro", members=members, deletionPolicy="Delete"))
    await api.until(
        "RoleBinding", "tenantry-editor", lambda item: bool(item and item["subjects"]), f"tenant-{name}"
    )
    editor, uids = scene.actors["editor"], {}
    await until(editor, post("configmaps", f"tenant-{name}", "one", {"data": {}}), granted)
    for each in ("one", "two"):
        made = await editor.send(
            post("configmaps", f"tenant-{name}", each, {"data": {}}, finalizers=["foregroundDeletion"])
        )
        assert made.ok, made.message
        uids[each] = made.body["metadata"]["uid"]
    for each, other in (("one", "two"), ("two", "one")):
        owner = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": other,
            "uid": uids[other],
            "blockOwnerDeletion": True,
        }
        changed = await editor.send(
            patch("configmaps", f"tenant-{name}", each, {"metadata": {"ownerReferences": [owner]}})
        )
        assert changed.ok, changed.message
    await api.delete("Tenant", name)
    await api.until("Namespace", f"tenant-{name}", lambda item: item is None, timeout=60)


async def test_the_policies_cost_the_operator_next_to_nothing(scene: Scene, api: Api) -> None:
    """The API server's own measure of how long it asks whether a policy concerns a write, over all writes so far."""
    text = await _metrics(scene.admin)
    pattern = r"^apiserver_admission_match_condition_evaluation_seconds_(\w+)\{([^}]*)\} (\S+)$"
    asked, fast = 0.0, 0.0
    for what, labels, value in re.findall(pattern, text, re.MULTILINE):
        if 'name="tenantry-children"' in labels:
            asked += float(value) if what == "count" else 0
            fast += float(value) if what == "bucket" and 'le="0.001"' in labels else 0
    assert asked > 50
    print(
        f"of {asked:.0f} writes to children {fast / asked:.0%} were let through or not within a millisecond"
    )
    assert fast > 0


async def _metrics(admin: Actor) -> str:
    return (await admin.send(Request("GET", "/metrics"))).message
