"""What GitOps and kubectl users are promised, sentence by sentence, on a real API server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import pytest
import yaml

from tenantry.adapters.kubernetes.kinds import CHILD_KINDS, OURS
from tenantry.adapters.ledger import open_ledger
from tenantry.domain.audit import AuditEntry
from tests.conftest import REPOSITORY, Kubectl
from tests.integration.conftest import (
    Api,
    Object,
    OperatorProcess,
    condition,
    is_ready,
    is_stalled,
    tenant,
)
from tests.integration.history import differences, history
from tests.integration.plan_loss import lose_plan
from tests.unit.gitops.argocd import health
from tests.unit.gitops.flux import flux
from tests.unit.gitops.kstatus import Kstatus, kstatus

pytestmark = pytest.mark.usefixtures("operator")

RESOURCES = {"quota": {"pods": "10", "limits.cpu": "4"}}


def plan(name: str, **spec: Any) -> Object:
    return {
        "apiVersion": "tenantry.dev/v1alpha1",
        "kind": "Plan",
        "metadata": {"name": name},
        "spec": {"displayName": name, "rank": 1, "currency": "usd", "resources": RESOURCES, **spec},
    }


@pytest.fixture
async def own_plan(api: Api, name: str) -> AsyncIterator[str]:
    """A Plan of the test's own, which allows an override of topK."""
    chosen = f"plan-{name}"
    await api.apply(plan(chosen, retrieval={"topK": 5}, overridable=["retrieval.topK"]))
    await api.until("Plan", chosen, is_ready)
    yield chosen
    if await api.get("Plan", chosen) is not None:
        await lose_plan(api, chosen)


async def config(api: Api, name: str) -> Object:
    """Return what the tenant's application reads."""
    found = await api.get("ConfigMap", "tenant-config", f"tenant-{name}")
    assert found is not None
    document: Object = json.loads(found["data"]["config.json"])
    return document


def at_generation(item: Object | None, kind: str, status: str) -> bool:
    """Return whether an object has that condition, of its present generation."""
    found = condition(item, kind)
    return (
        item is not None
        and found is not None
        and (found["status"], found["observedGeneration"]) == (status, item["metadata"]["generation"])
    )


async def edit(api: Api, name: str, spec: Object, holds: Callable[[Object | None], Any] = is_ready) -> Object:
    """Change a Tenant as a user does, and wait until it is dealt with."""
    await api.patch("Tenant", name, {"spec": spec})
    found: Object = await api.until("Tenant", name, holds)
    return found


# --- kstatus, kubectl wait, Argo CD, Flux ---------------------------------------------------------------------


async def test_kubectl_wait_returns_when_the_present_spec_is_in_place(
    api: Api, kubectl: Kubectl, plans: None, name: str
) -> None:
    kubectl("apply", "-f", "-", input=yaml.safe_dump(tenant(name, plan="pro")))
    kubectl("wait", "--for=condition=Ready", f"tenant/{name}", "--timeout=20s")
    assert (await config(api, name))["retrieval"]["topK"] == 5
    # It was Ready a moment ago, and that does not count for the edit.
    for wanted in (6, 7, 8):
        change = json.dumps({"spec": {"overrides": {"retrieval": {"topK": wanted}}}})
        kubectl("patch", "tenant", name, "--type=merge", "-p", change)
        kubectl("wait", "--for=condition=Ready", f"tenant/{name}", "--timeout=20s")
        assert (await config(api, name))["retrieval"]["topK"] == wanted


async def test_every_version_of_a_tenant_tells_the_truth(api: Api, plans: None, name: str) -> None:
    async with history(api, "Tenant", name) as versions:
        await api.apply(tenant(name, plan="pro"), manager="argocd-controller")
        await api.until("Tenant", name, is_ready)
        members = [{"kind": "User", "name": "alice@example.com", "role": "owner"}]
        await edit(api, name, {"members": members, "overrides": {"retrieval": {"topK": 9}}})
        await edit(api, name, {"overrides": {"model": {"maxTokens": 9}}}, is_stalled("OverrideNotAllowed"))
        await edit(api, name, {"overrides": {"model": {"maxTokens": None}}})
        await edit(api, name, {"plan": "enterprise"})
        await edit(api, name, {"suspended": True})
        await edit(api, name, {"configRevision": 99}, is_stalled("RevisionNotFound"))
        await edit(api, name, {"configRevision": None, "suspended": False})
        # Faster than the operator can follow: only the last one counts in the end.
        for top_k in range(10, 20):
            await api.patch("Tenant", name, {"spec": {"overrides": {"retrieval": {"topK": top_k}}}})
        await api.until("Tenant", name, is_ready)
    assert (await config(api, name))["retrieval"]["topK"] == 19

    ready = [version for version in versions if is_ready(version)]
    assert len(ready) >= 6
    for version in versions:
        _tells_the_truth(version)
    for version in ready:
        assert await differences(api, version) == [], "Ready before every child was in place"
    for before, after in pairwise(versions):
        _transitions_only_with_status(before, after)


def _tells_the_truth(version: Object) -> None:
    status, generation = version["status"], version["metadata"]["generation"]
    types = [entry["type"] for entry in status["conditions"]]
    assert len(types) == len(set(types))
    assert "Ready" in types
    assert not {"Reconciling", "Stalled"} <= set(types)
    assert "ShardReady" not in types
    # One patch: no condition speaks of another generation than the status as a whole.
    assert {entry["observedGeneration"] for entry in status["conditions"]} == {status["observedGeneration"]}
    assert status["observedGeneration"] <= generation
    for name in ("Reconciling", "Stalled", "Suspended"):
        found = condition(version, name)
        assert found is None or found["status"] == "True"  # taken off, not set to False
    ready = condition(version, "Ready")
    assert ready is not None
    if ready["status"] == "False":
        assert condition(version, "Reconciling") or condition(version, "Stalled")
        assert ready["message"]
    _tools_agree(version, ready["status"] if status["observedGeneration"] == generation else "Unknown")


def _tools_agree(version: Object, ready: str) -> None:
    stalled, suspended = condition(version, "Stalled"), condition(version, "Suspended")
    if ready == "True":
        expected, argo = Kstatus.CURRENT, "Suspended" if suspended else "Healthy"
    elif ready == "False" and stalled:
        expected, argo = Kstatus.FAILED, "Degraded"
    else:
        expected, argo = Kstatus.IN_PROGRESS, "Progressing"
    assert (kstatus(version), flux(version), health(version).status) == (expected, expected, argo)


def _transitions_only_with_status(before: Object, after: Object) -> None:
    for now in after["status"]["conditions"]:
        then = condition(before, now["type"])
        if then is not None and then["status"] == now["status"]:
            assert now["lastTransitionTime"] == then["lastTransitionTime"], now["type"]
        else:
            assert now["lastTransitionTime"] >= after["metadata"]["creationTimestamp"]


def spoiling_policy(name: str, resource: str, group: str, path: str) -> list[Object]:
    """Return an admission policy of somebody else that writes a label into a tenant's objects."""
    own = "name" if resource == "namespaces" else "namespace"
    mine = f"object.metadata.{own} == 'tenant-{name}' || object.metadata.name == 'probe-{name}'"
    rule = {
        "apiGroups": [group],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": [resource],
    }
    expression = f"[JSONPatch{{op: 'add', path: '/metadata/labels/{path}', value: 'privileged'}}]"
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "matchConditions": [{"name": "one-tenant", "expression": mine}],
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
    }
    version = "admissionregistration.k8s.io/v1"
    metadata = {"name": f"spoil-{name}"}
    return [
        {"apiVersion": version, "kind": "MutatingAdmissionPolicy", "metadata": metadata, "spec": spec},
        {
            "apiVersion": version,
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": metadata,
            "spec": {"policyName": f"spoil-{name}"},
        },
    ]


SPOILED = {
    "namespace": ("namespaces", "", "pod-security.kubernetes.io~1enforce", "NamespaceReady"),
    "network": ("networkpolicies", "networking.k8s.io", "mesh", "PolicyReady"),
    "config": ("configmaps", "", "mesh", "ConfigReady"),
}


@pytest.mark.parametrize("what", SPOILED)
async def test_ready_waits_until_every_child_is_as_it_was_written(
    api: Api, kubectl: Kubectl, plans: None, name: str, what: str
) -> None:
    """A retryable error: Ready=False, Reconciling=True, and what the part is."""
    resource, group, path, part = SPOILED[what]
    kubectl("create", "-f", "-", input=yaml.safe_dump_all(spoiling_policy(name, resource, group, path)))
    try:
        await _until_spoiled(kubectl, name, resource, group)
        async with history(api, "Tenant", name) as versions:
            await api.apply(tenant(name, plan="pro"))
            found = await api.until("Tenant", name, lambda item: at_generation(item, "Reconciling", "True"))
    finally:
        kinds = "mutatingadmissionpolicy,mutatingadmissionpolicybinding"
        kubectl("delete", kinds, f"spoil-{name}")
    assert not any(is_ready(version) for version in versions)
    assert condition(found, "Ready")["status"] == "False"  # type: ignore[index]
    assert condition(found, part)["status"] == "False"  # type: ignore[index]
    assert condition(found, "Stalled") is None
    assert "does not stay as it was written" in condition(found, "Ready")["message"]  # type: ignore[index]
    # Nobody has to touch the tenant when the cause is gone.
    await api.until("Tenant", name, is_ready)


async def _until_spoiled(kubectl: Kubectl, name: str, resource: str, group: str) -> None:
    """The API server takes a moment to put an admission policy into effect."""
    kind = {"namespaces": "Namespace", "networkpolicies": "NetworkPolicy", "configmaps": "ConfigMap"}[
        resource
    ]
    probe: Object = {
        "apiVersion": f"{group}/v1" if group else "v1",
        "kind": kind,
        "metadata": {"name": f"probe-{name}", "labels": {"probe": "1"}},
    }
    if kind == "NetworkPolicy":
        probe["spec"] = {"podSelector": {}}
    async with asyncio.timeout(60):
        while True:
            done = kubectl("create", "--dry-run=server", "-ojson", "-f", "-", input=json.dumps(probe))
            if "privileged" in json.loads(done.stdout)["metadata"]["labels"].values():
                return
            await asyncio.sleep(0.1)


# --- the user's mistakes ------------------------------------------------------------------------------------

MISTAKES = {
    "override": (
        {"overrides": {"model": {"maxTokens": 9}}},
        "OverrideNotAllowed",
        ("spec.overrides.model.maxTokens", "remove it", "spec.overridable"),
    ),
    "revision": (
        {"configRevision": 77},
        "RevisionNotFound",
        ("spec.configRevision 77", "choose one of 1", "or remove the field"),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_mistake_is_stalled_and_leaves_the_last_good_configuration(
    api: Api, plans: None, name: str, mistake: str
) -> None:
    spec, reason, words = MISTAKES[mistake]
    await api.apply(tenant(name, plan="pro"))
    await api.until("Tenant", name, is_ready)
    good = await api.get("ConfigMap", "tenant-config", f"tenant-{name}")
    assert good is not None
    # In the same edit as the mistake: somebody joins, who is let in all the same.
    members = [{"kind": "User", "name": "bob@example.com", "role": "editor"}]
    found = await edit(api, name, {**spec, "members": members}, is_stalled(reason))
    ready, stalled = condition(found, "Ready"), condition(found, "Stalled")
    assert ready is not None
    assert stalled is not None
    assert (ready["status"], ready["reason"]) == ("False", reason)
    assert ready["message"] == stalled["message"]
    assert all(word in stalled["message"] for word in words)
    assert condition(found, "Reconciling") is None
    for part, status in (("NamespaceReady", "True"), ("PolicyReady", "True"), ("ConfigReady", "False")):
        assert condition(found, part)["status"] == status  # type: ignore[index]
    binding = await api.get("RoleBinding", "tenantry-editor", f"tenant-{name}")
    assert binding is not None
    assert [subject["name"] for subject in binding["subjects"]] == ["bob@example.com"]
    kept = await api.get("ConfigMap", "tenant-config", f"tenant-{name}")
    assert kept is not None
    assert kept["metadata"]["resourceVersion"] == good["metadata"]["resourceVersion"]
    assert found["status"]["configRevision"] == 1
    assert found["status"]["phase"] == "Degraded"


async def test_a_mistake_from_the_start_does_not_block_the_other_parts(
    api: Api, plans: None, name: str
) -> None:
    await api.apply(tenant(name, plan="free", overrides={"model": {"name": "gpt-4o"}}))
    found = await api.until("Tenant", name, is_stalled("OverrideNotAllowed"))
    namespace = f"tenant-{name}"
    assert await api.get("Namespace", namespace) is not None
    assert {item["metadata"]["name"] for item in await api.list("ResourceQuota", namespace)} == {
        "tenantry",
        "tenantry-system-classes",
    }
    bindings = {item["metadata"]["name"] for item in await api.list("RoleBinding", namespace)}
    assert bindings == {f"tenantry-{role}" for role in ("owner", "editor", "viewer", "app")}
    assert await api.get("NetworkPolicy", "tenantry-default-deny", namespace) is not None
    assert await api.get("ConfigMap", "tenant-config", namespace) is None
    assert "configRevision" not in found["status"]
    await edit(api, name, {"overrides": None})


async def test_two_tenants_that_want_one_namespace_the_older_wins(api: Api, plans: None, name: str) -> None:
    shared = {"namespace": {"name": f"tenant-{name}-shared"}}
    await api.apply(tenant(name, **shared))
    await api.until("Tenant", name, is_ready)
    younger = f"{name}-younger"
    await api.apply(tenant(younger, **shared))
    try:
        found = await api.until("Tenant", younger, is_stalled("NamespaceClaimed"))
        message = condition(found, "Stalled")["message"]  # type: ignore[index]
        assert f"belongs to Tenant {name}" in message
        assert "spec.namespace.name" in message
        assert is_ready(await api.get("Tenant", name))
        namespace = await api.get("Namespace", f"tenant-{name}-shared")
        assert namespace is not None
        assert namespace["metadata"]["labels"]["tenantry.dev/tenant"] == name
    finally:
        await api.delete("Tenant", younger)


async def test_mistakes_are_refused_by_the_api_server_itself(kubectl: Kubectl, name: str) -> None:
    """By CEL in the CRD, with a sentence, and by no webhook that could take the cluster's API down."""
    wrong = tenant(name, members=[{"kind": "Group", "name": "system:masters", "role": "owner"}])
    done = kubectl("apply", "-f", "-", input=yaml.safe_dump(wrong), check=False)
    assert done.returncode != 0
    assert "name must not start with 'system:'" in done.stderr
    for kind in ("validatingwebhookconfigurations", "mutatingwebhookconfigurations"):
        assert kubectl("get", kind, "-o", "name").stdout == ""
    shipped = "\n".join(path.read_text() for path in (REPOSITORY / "manifests").rglob("*.yaml"))
    assert "WebhookConfiguration" not in shipped
    conversions = kubectl("get", "crd", "-o", "jsonpath={.items[*].spec.conversion.strategy}").stdout
    assert set(conversions.split()) == {"None"}


# --- suspension ---------------------------------------------------------------------------------------------


async def test_a_suspension_on_purpose_is_no_fault(api: Api, plans: None, name: str) -> None:
    await api.apply(tenant(name, plan="pro"))
    await api.until("Tenant", name, is_ready)
    found = await edit(api, name, {"suspended": True})
    suspended = condition(found, "Suspended")
    assert suspended is not None
    assert (suspended["status"], suspended["reason"]) == ("True", "Requested")
    assert "spec.suspended" in suspended["message"]
    assert found["status"]["phase"] == "Suspended"
    assert await differences(api, found) == []
    assert (kstatus(found), flux(found), health(found).status) == (
        Kstatus.CURRENT,
        Kstatus.CURRENT,
        "Suspended",
    )
    found = await edit(api, name, {"suspended": False})
    assert condition(found, "Suspended") is None
    assert found["status"]["phase"] == "Ready"


# --- whose fields -------------------------------------------------------------------------------------------

LABELS = {
    "app.kubernetes.io/instance": "tenants",
    "kustomize.toolkit.fluxcd.io/name": "tenants",
    "team": "blue",
}
ANNOTATIONS = {
    "argocd.argoproj.io/tracking-id": "tenants:tenantry.dev/Tenant:default/acme",
    "argocd.argoproj.io/sync-wave": "1",
    "kustomize.toolkit.fluxcd.io/prune": "disabled",
    "kopf.zalando.org/last-handled-configuration": "{}",
}


async def test_users_labels_and_annotations_are_not_copied_to_children(
    api: Api, kubectl: Kubectl, plans: None, name: str
) -> None:
    manifest = tenant(name, plan="pro")
    manifest["metadata"] |= {"labels": LABELS, "annotations": ANNOTATIONS}
    kubectl(
        "apply", "-f", "-", input=yaml.safe_dump(manifest)
    )  # client-side: writes last-applied-configuration
    found = await api.until("Tenant", name, is_ready)
    given = found["metadata"]["annotations"].keys() | found["metadata"]["labels"].keys()
    assert "kubectl.kubernetes.io/last-applied-configuration" in given
    namespace = f"tenant-{name}"
    objects = [await api.get("Namespace", namespace)]
    for kind in CHILD_KINDS:
        if kind.namespaced:
            objects += await api.list(kind.kind, namespace, OURS)
    assert len(objects) > 12
    for item in objects:
        assert item is not None
        metadata = item["metadata"]
        copied = given & (metadata.get("labels", {}).keys() | metadata.get("annotations", {}).keys())
        assert not copied, f"{metadata['name']} carries {copied}"


async def test_the_operator_never_writes_the_spec(api: Api, own_plan: str, name: str) -> None:
    wanted = tenant(name, plan=own_plan, overrides={"retrieval": {"topK": 7}})
    created = await api.apply(wanted, manager="kustomize-controller")
    await api.until("Tenant", name, is_ready)
    await api.patch("Plan", own_plan, {"spec": {"retrieval": {"topK": 6}}})
    await api.until("Plan", own_plan, lambda item: is_ready(item) and item["status"]["tenants"] == 1)
    found = await edit(api, name, {"suspended": True})
    # Defaults were there at once, by the schema; but for the user's own edit nothing has changed since.
    assert created["spec"]["deletionPolicy"] == "Retain"
    assert found["spec"] == {**created["spec"], "suspended": True}
    assert found["metadata"]["generation"] == 2
    for item in (found, await api.get("Plan", own_plan)):
        assert item is not None
        ours = [
            entry for entry in item["metadata"]["managedFields"] if entry["manager"].startswith("tenantry")
        ]
        assert ours
        for entry in ours:
            assert "f:spec" not in entry["fieldsV1"]
            assert entry["fieldsV1"].get("f:metadata", {}).keys() <= {"f:finalizers"}


# --- plans --------------------------------------------------------------------------------------------------


async def test_an_edited_plan_reaches_all_its_tenants(api: Api, own_plan: str, name: str) -> None:
    names = [name, f"{name}-b", f"{name}-c"]
    try:
        for each in names:
            await api.apply(tenant(each, plan=own_plan))
        for each in names:
            await api.until("Tenant", each, is_ready)
        await api.patch(
            "Plan",
            own_plan,
            {"spec": {"limits": {"requestsPerSecond": 33}, "resources": {"quota": {"pods": "11"}}}},
        )
        for each in names:
            await api.until(
                "ConfigMap",
                "tenant-config",
                lambda item: json.loads(item["data"]["config.json"])["limits"].get("requestsPerSecond") == 33,
                f"tenant-{each}",
            )
            await api.until(
                "ResourceQuota",
                "tenantry",
                lambda item: item["spec"]["hard"]["pods"] == "11",
                f"tenant-{each}",
            )
            await api.until("Tenant", each, lambda item: item["status"]["configRevision"] == 2)
    finally:
        for each in names[1:]:
            await api.patch("Tenant", each, {"spec": {"deletionPolicy": "Delete"}})
            await api.delete("Tenant", each)


async def test_a_deleted_plan_leaves_its_tenants_as_they_were(api: Api, own_plan: str, name: str) -> None:
    await api.apply(tenant(name, plan=own_plan))
    ready = await api.until("Tenant", name, is_ready)
    before = await _contents(api, name)
    assert len(before) >= 12
    await lose_plan(api, own_plan)
    found = await api.until("Tenant", name, lambda item: at_generation(item, "Reconciling", "True"))
    reconciling = condition(found, "Reconciling")
    assert reconciling is not None
    assert reconciling["reason"] == "PlanNotFound"
    assert f"spec.plan names plan {own_plan}, which does not exist" in reconciling["message"]
    assert condition(found, "Ready")["status"] == "False"  # type: ignore[index]
    assert condition(found, "ConfigReady")["reason"] == "PlanNotFound"  # type: ignore[index]
    assert found["status"]["configRevision"] == ready["status"]["configRevision"]
    assert await _contents(api, name) == before
    await api.apply(plan(own_plan, retrieval={"topK": 5}, overridable=["retrieval.topK"]))
    await api.until("Tenant", name, is_ready)
    assert await _contents(api, name) == before


async def _contents(api: Api, name: str) -> dict[tuple[str, str], str]:
    """Return the resourceVersion of every child."""
    found = {}
    for kind in CHILD_KINDS:
        if kind.namespaced and kind.kind != "ResourceQuota":
            for item in await api.list(kind.kind, f"tenant-{name}", OURS):
                found[kind.kind, item["metadata"]["name"]] = str(item["metadata"]["resourceVersion"])
    for item in await api.list("ResourceQuota", f"tenant-{name}", OURS):
        # Its counters belong to the quota controller.
        found["ResourceQuota", item["metadata"]["name"]] = json.dumps(item["spec"], sort_keys=True)
    return found


# --- children -----------------------------------------------------------------------------------------------


async def test_children_are_put_back_within_seconds(api: Api, plans: None, name: str) -> None:
    await api.apply(tenant(name, plan="pro"))
    await api.until("Tenant", name, is_ready)
    namespace = f"tenant-{name}"
    good = await api.get("ResourceQuota", "tenantry", namespace)
    assert good is not None
    await api.patch("ResourceQuota", "tenantry", {"spec": {"hard": {"pods": "9999"}}}, namespace)
    await api.until("ResourceQuota", "tenantry", lambda item: item["spec"] == good["spec"], namespace)
    await api.delete("NetworkPolicy", "tenantry-default-deny", namespace)
    await api.until("NetworkPolicy", "tenantry-default-deny", lambda item: item is not None, namespace)


# --- Events and audit ---------------------------------------------------------------------------------------


async def _audit(operator: OperatorProcess, name: str) -> list[AuditEntry]:
    ledger = await open_ledger(f"sqlite:///{operator.state_dir / 'ledger.db'}")
    try:
        return list(reversed(await ledger.audit.entries(name, None, 100)))
    finally:
        await ledger.close()


async def _events(api: Api, name: str, count: int) -> list[Object]:
    """Await so many Events about a Tenant, one that repeats as often as it counts: they come beside the reconcile."""
    found: dict[str, Object] = {}
    query = {"watch": "true", "fieldSelector": f"involvedObject.kind=Tenant,involvedObject.name={name}"}
    async with (
        asyncio.timeout(60),
        api.client.stream("/api/v1/namespaces/default/events", query, 60) as events,
    ):
        async for event in events:
            found[event["object"]["metadata"]["name"]] = event["object"]
            if sum(item["count"] for item in found.values()) == count:
                break
    return [item for item in found.values() for _ in range(item["count"])]


async def test_every_change_that_matters_is_an_event_and_an_audit_row(
    api: Api, kubectl: Kubectl, operator: OperatorProcess, own_plan: str, name: str
) -> None:
    await api.apply(tenant(name, plan=own_plan), manager="argocd-controller")
    await api.until("Tenant", name, is_ready)
    await edit(api, name, {"displayName": "Acme Corp"})
    await edit(api, name, {"suspended": True})
    await edit(api, name, {"suspended": False})
    await edit(api, name, {"overrides": {"retrieval": {"topK": 9}}})
    await edit(api, name, {"configRevision": 1})
    await edit(api, name, {"configRevision": None})
    await edit(api, name, {"plan": "pro"})
    await api.patch(
        "ConfigMap", "tenant-config", {"data": {"revision": "5"}}, f"tenant-{name}", manager="mallory"
    )
    await api.until(
        "ConfigMap", "tenant-config", lambda item: item["data"]["revision"] != "5", f"tenant-{name}"
    )
    await edit(api, name, {"overrides": {"model": {"maxTokens": 9}}}, is_stalled("OverrideNotAllowed"))

    expected = ["Created", "ConfigChanged", "SpecChanged", "Suspended", "Resumed"]
    expected += ["SpecChanged", "ConfigChanged", "SpecChanged", "ConfigRolledBack"]
    expected += ["SpecChanged", "ConfigChanged", "PlanChanged", "ConfigChanged", "Repaired", "SpecChanged"]
    rows = await _audit(operator, name)
    assert [row.action for row in rows] == expected
    who = {row.action: row.actor for row in rows}
    assert (rows[0].actor, who["Suspended"], who["Repaired"]) == (
        "argocd-controller",
        "kubectl-edit",
        "mallory",
    )
    renamed = rows[2]
    assert renamed.before is not None
    assert renamed.after is not None
    assert (renamed.before.get("displayName"), renamed.after["displayName"]) == (None, "Acme Corp")
    assert renamed.message == "set spec.displayName"
    assert rows[0].at <= rows[-1].at

    # That the first configuration is in effect is said with Ready.
    events = await _events(api, name, len(expected) + 1)
    reasons = [event["reason"] for event in events]
    assert sorted(reasons) == sorted(["Ready", *expected[:1], *expected[2:], "OverrideNotAllowed"])
    suspended = next(event for event in events if event["reason"] == "Suspended")
    assert suspended["message"] == "kubectl-edit changed spec.suspended from false to true"
    warnings = {event["reason"] for event in events if event["type"] == "Warning"}
    assert warnings == {"Repaired", "OverrideNotAllowed"}
    shown = kubectl("events", "--for", f"tenant/{name}").stdout
    assert all(reason in shown for reason in set(expected))
    described = kubectl("describe", "tenant", name).stdout
    assert "Events:" in described
    assert "Repaired" in described.split("Events:")[1]


async def test_an_edited_plan_is_an_event_and_an_audit_row(
    api: Api, kubectl: Kubectl, operator: OperatorProcess, own_plan: str
) -> None:
    await api.until("Plan", own_plan, is_ready)
    await api.patch("Plan", own_plan, {"spec": {"limits": {"burst": 7}}})
    await api.until("Plan", own_plan, is_ready)
    ledger = await open_ledger(f"sqlite:///{operator.state_dir / 'ledger.db'}")
    try:
        rows = [row for row in await ledger.audit.entries(None, None, 1000) if row.name == own_plan]
    finally:
        await ledger.close()
    assert [row.action for row in reversed(rows)] == ["Created", "SpecChanged"]
    assert rows[0].message == "set spec.limits.burst to 7"
    async with asyncio.timeout(60):
        while "SpecChanged" not in kubectl("events", "--for", f"plan/{own_plan}").stdout:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


# --- kubectl ------------------------------------------------------------------------------------------------


async def test_the_columns_of_kubectl_get(api: Api, kubectl: Kubectl, plans: None, name: str) -> None:
    await api.apply(tenant(name, plan="pro"))
    await api.until("Tenant", name, is_ready)
    await api.until("Plan", "pro", lambda item: item["status"]["tenants"] >= 1)

    header, row = kubectl("get", "tenants", name).stdout.splitlines()
    assert header.split() == ["NAME", "PLAN", "PHASE", "NAMESPACE", "SHARD", "READY", "AGE"]
    assert row.split()[:5] == [name, "pro", "Ready", f"tenant-{name}", "True"]  # no shard yet
    header, row = kubectl("get", "tn", name, "-o", "wide").stdout.splitlines()
    assert header.split() == ["NAME", "PLAN", "PHASE", "NAMESPACE", "SHARD", "READY", "AGE", "MESSAGE"]
    assert row.rstrip().endswith(f"namespace tenant-{name}, plan pro, configuration revision 1")
    header, row = kubectl("get", "plans", "pro").stdout.splitlines()
    assert header.split() == ["NAME", "PRICE", "TENANTS", "AGE"]
    assert row.split()[:2] == ["pro", "99.00"]
    assert int(row.split()[2]) >= 1
    assert f"tenant.tenantry.dev/{name}" in kubectl("get", "tenantry", "-o", "name").stdout
