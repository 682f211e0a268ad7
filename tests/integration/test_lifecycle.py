"""A tenant's life on a real API server: members, suspension, plans, revisions, deletion, archive, restore, purge."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tenantry.adapters.kubernetes.kinds import OURS
from tenantry.domain import names
from tenantry.reconcile.ports import Refused
from tests.conftest import Kubectl
from tests.integration.access import can, pod
from tests.integration.conftest import (
    MEMBERS,
    PATIENCE_SECONDS,
    Api,
    Object,
    OperatorProcess,
    condition,
    gone,
    in_phase,
    is_ready,
    is_stalled,
    provisioned,
    tenant,
)
from tests.integration.mirror import NAMESPACED, mirror
from tests.integration.mutations import content

pytestmark = pytest.mark.usefixtures("operator")

OWNER, EDITOR, VIEWER, APP = "alice@acme.example", "group:developers", "sa:dashboard", "sa:app"


async def children(api: Api, namespace: str) -> dict[tuple[str, str], Object]:
    """Return our children in a namespace, without what only the API server writes."""
    found = {}
    for kind in NAMESPACED:
        for item in await api.list(kind, namespace, OURS):
            found[kind, item["metadata"]["name"]] = content(item) or {}
    return found


async def enforced(api: Api, namespace: str, quota: str) -> None:
    """Wait until admission knows a quota."""
    await api.until("ResourceQuota", quota, lambda found: found and found["status"].get("hard"), namespace)


async def config(api: Api, namespace: str) -> Object:
    """Return what the tenant's application reads."""
    found = await api.get("ConfigMap", "tenant-config", namespace) or {}
    document: Object = json.loads(found["data"]["config.json"])
    return document


async def archive_of(api: Api, name: str) -> str:
    """Return the name of a tenant's archive to be."""
    found = await api.get("Tenant", name) or {}
    return names.archive_name(name, found["metadata"]["uid"])


# --- members ---------------------------------------------------------------------------------------------------

WRITES = ("create", "update", "patch", "delete", "deletecollection")
NOBODYS = (
    "networkpolicies.networking.k8s.io",
    "resourcequotas",
    "limitranges",
    "rolebindings.rbac.authorization.k8s.io",
    "roles.rbac.authorization.k8s.io",
    "controllerrevisions.apps",
    "endpoints",
    "endpointslices.discovery.k8s.io",
)


async def test_what_members_may_do(api: Api, name: str, kubectl: Kubectl) -> None:
    namespace = await provisioned(api, name)
    for who in (OWNER, EDITOR, VIEWER, APP):
        for what in NOBODYS:
            for verb in WRITES:
                assert not await can(api, who, verb, what, namespace), (who, verb, what)
        for verb, what in (
            ("create", "serviceaccounts/token"),
            ("impersonate", "serviceaccounts"),
            ("update", "namespaces"),
            ("delete", "namespaces"),
            ("bind", "roles.rbac.authorization.k8s.io"),
            ("escalate", "roles.rbac.authorization.k8s.io"),
            ("update", "namespaces/finalize"),
        ):
            assert not await can(api, who, verb, what, namespace), (who, verb, what)
        assert not await can(api, who, "get", "pods", "default"), who
        assert not await can(api, who, "get", "secrets", "default"), who
    for who in (OWNER, EDITOR):
        for what in ("deployments.apps", "pods", "services", "configmaps", "secrets", "jobs.batch"):
            for verb in ("get", *WRITES):
                assert await can(api, who, verb, what, namespace), (who, verb, what)
    assert await can(api, OWNER, "create", "serviceaccounts", namespace)
    assert not await can(api, EDITOR, "create", "serviceaccounts", namespace)
    assert await can(api, VIEWER, "list", "pods", namespace)
    assert not await can(api, VIEWER, "create", "pods", namespace)
    assert not await can(api, VIEWER, "get", "secrets", namespace)
    assert await can(api, APP, "get", "configmaps", namespace, "tenant-config")
    assert not await can(api, APP, "get", "configmaps", namespace, "other")
    assert not await can(api, APP, "list", "pods", namespace)
    answer = kubectl("auth", "can-i", "create", "deployments.apps", "-n", namespace, f"--as={OWNER}")
    assert answer.stdout.strip() == "yes"


async def is_refused(api: Api, kind: str, manifest: Object, why: str) -> None:
    """Check that admission refuses an object, as soon as it sees what the controllers have written."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                await api.create(kind, manifest, dry_run=True)
            except Refused as error:
                if why in str(error):
                    break
            await asyncio.sleep(0.05)
    with pytest.raises(Refused, match=why):
        await api.create(kind, manifest)


async def test_admission_refuses_what_a_plan_does_not_grant(api: Api, name: str) -> None:
    namespace = await provisioned(api, name)
    for quota in (names.QUOTA, names.QUOTA_SYSTEM_CLASSES):
        await enforced(api, namespace, quota)
    await api.until("ServiceAccount", "default", bool, namespace)
    made = await api.create("Pod", pod("fits", namespace))
    assert made["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "500m", "memory": "512Mi"}
    critical = pod("critical", namespace, priorityClassName="system-cluster-critical")
    await is_refused(api, "Pod", critical, f"exceeded quota: {names.QUOTA_SYSTEM_CLASSES}")
    with pytest.raises(Refused, match="violates PodSecurity"):
        await api.create("Pod", pod("host", namespace, hostNetwork=True))
    for kind in ("NodePort", "LoadBalancer"):
        service = {"type": kind, "ports": [{"port": 80}]}
        metadata = {"name": kind.lower(), "namespace": namespace}
        await is_refused(
            api, "Service", {"metadata": metadata, "spec": service}, f"exceeded quota: {names.QUOTA}"
        )
    large = pod("large", namespace)
    large["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "5"}}
    with pytest.raises(Refused, match="maximum cpu usage per Container is 4"):
        await api.create("Pod", large)


# --- suspension ------------------------------------------------------------------------------------------------


async def test_suspension_and_resume(api: Api, name: str, kubectl: Kubectl) -> None:
    namespace = await provisioned(api, name)
    await enforced(api, namespace, names.QUOTA)
    await api.until("ServiceAccount", "default", bool, namespace)
    running = await api.create("Pod", pod("running", namespace))
    before = await children(api, namespace)

    await api.patch("Tenant", name, {"spec": {"suspended": True}})
    found = await api.until("Tenant", name, lambda found: is_ready(found) and condition(found, "Suspended"))
    assert found["status"]["phase"] == "Suspended"
    during = await children(api, namespace)
    allowing = {key for key in before if key[0] == "NetworkPolicy" and key[1] != names.DEFAULT_DENY}
    assert during.keys() == (before.keys() - allowing) | {("ResourceQuota", names.QUOTA_SUSPENDED)}
    assert len(allowing) == 4
    for who in (OWNER, EDITOR, VIEWER):
        assert await can(api, who, "list", "pods", namespace), who
        for verb, what in (("create", "deployments.apps"), ("delete", "pods"), ("get", "secrets")):
            assert not await can(api, who, verb, what, namespace), (who, verb, what)
    answer = kubectl("auth", "can-i", "create", "pods", "-n", namespace, f"--as={OWNER}", check=False)
    assert answer.stdout.strip() == "no"
    await enforced(api, namespace, names.QUOTA_SUSPENDED)
    await is_refused(api, "Pod", pod("new", namespace), f"exceeded quota: {names.QUOTA_SUSPENDED}")
    service = {"metadata": {"name": "new", "namespace": namespace}, "spec": {"ports": [{"port": 80}]}}
    await is_refused(api, "Service", service, f"exceeded quota: {names.QUOTA_SUSPENDED}")
    still = await api.get("Pod", "running", namespace) or {}
    assert still["metadata"]["uid"] == running["metadata"]["uid"]

    await api.patch("Tenant", name, {"spec": {"suspended": False}})
    found = await api.until(
        "Tenant", name, lambda found: is_ready(found) and not condition(found, "Suspended")
    )
    assert found["status"]["phase"] == "Ready"
    assert await children(api, namespace) == before
    assert await can(api, OWNER, "create", "deployments.apps", namespace)


# --- plans and revisions ---------------------------------------------------------------------------------------


async def test_upgrade_and_downgrade(api: Api, name: str) -> None:
    namespace = await provisioned(api, name)
    before = await children(api, namespace)
    for plan, pods, level, model in (
        ("enterprise", "200", "baseline", 4096),
        ("free", "5", "restricted", 512),
    ):
        await api.patch("Tenant", name, {"spec": {"plan": plan}})
        found = await api.until("Tenant", name, is_ready)
        assert found["status"]["plan"] == plan
        now = await children(api, namespace)
        assert now["ResourceQuota", names.QUOTA]["spec"]["hard"]["pods"] == pods
        marked = (await api.get("Namespace", namespace) or {})["metadata"]["labels"]
        assert marked[f"{names.POD_SECURITY}enforce"] == level
        read = await config(api, namespace)
        assert (read["plan"], read["model"]["maxTokens"]) == (plan, model)
    await api.patch("Tenant", name, {"spec": {"plan": "pro"}})
    await api.until("Tenant", name, is_ready)
    after = await children(api, namespace)
    # The configuration is that of revision 1 again, under a number of its own.
    numbered = ("ConfigMap", "ControllerRevision")
    assert {k: v for k, v in after.items() if k[0] not in numbered} == {
        k: v for k, v in before.items() if k[0] not in numbered
    }
    assert [key[1] for key in after if key[0] == "ControllerRevision"] == [
        f"tenant-config-{n}" for n in (1, 2, 3, 4)
    ]


async def test_an_edited_plan_reaches_all_its_tenants(api: Api, name: str, record_property: Any) -> None:
    pro = await api.get("Plan", "pro") or {}
    plan = f"plan-{name}"
    spec = {**pro["spec"], "model": {**pro["spec"]["model"], "name": "first"}}
    await api.apply({"kind": "Plan", "metadata": {"name": plan}, "spec": spec})
    tenants = [f"{name}-{number}" for number in range(20)]
    await asyncio.gather(*(provisioned(api, each, plan=plan, deletionPolicy="Delete") for each in tenants))

    async def reaches_all(
        kind: str, child: str, shows: Callable[[Object], bool], listed: asyncio.Event
    ) -> None:
        reached = set()

        def holds(found: Object | None) -> bool:
            listed.set()
            if found is not None and shows(found):
                reached.add(found["metadata"]["namespace"])
            return reached >= {f"tenant-{each}" for each in tenants}

        await api.until(kind, child, holds)

    def model(found: Object) -> bool:
        return json.loads(found["data"]["config.json"])["model"]["name"] == "second"

    def pods(found: Object) -> bool:
        return bool(found["spec"]["hard"].get("pods") == "7")

    change = {"model": {"name": "second"}, "resources": {"quota": {"pods": "7"}}}
    async with asyncio.TaskGroup() as group:
        for kind, child, shows in (
            ("ConfigMap", "tenant-config", model),
            ("ResourceQuota", names.QUOTA, pods),
        ):
            listed = asyncio.Event()
            group.create_task(reaches_all(kind, child, shows, listed))
            await listed.wait()
        await api.patch("Plan", plan, {"spec": change})
        begin = time.monotonic()
    seconds = time.monotonic() - begin
    record_property("plan_to_20_tenants_seconds", round(seconds, 3))
    print(f"an edited Plan reached 20 tenants in {seconds:.3f} s")
    await asyncio.gather(*(api.until("Tenant", each, is_ready) for each in tenants))
    await asyncio.gather(*(api.delete("Tenant", each) for each in tenants))


async def test_ten_revisions_are_kept_and_any_of_them_can_be_pinned(api: Api, name: str) -> None:
    namespace = await provisioned(api, name)
    for top in range(11, 23):  # revisions 2 to 13
        await api.patch("Tenant", name, {"spec": {"overrides": {"retrieval": {"topK": top}}}})
        await api.until("Tenant", name, is_ready)
    kept = [item["revision"] for item in await api.list("ControllerRevision", namespace)]
    assert sorted(kept) == list(range(4, 14))
    newest = await config(api, namespace)
    assert (newest["revision"], newest["retrieval"]["topK"]) == (13, 22)

    await api.patch("Tenant", name, {"spec": {"configRevision": 5}})
    found = await api.until("Tenant", name, is_ready)
    assert found["status"]["configRevision"] == 5
    rolled_back = await config(api, namespace)
    assert (rolled_back["revision"], rolled_back["retrieval"]["topK"]) == (5, 14)

    await api.patch("Tenant", name, {"spec": {"configRevision": 2}})
    found = await api.until("Tenant", name, is_stalled("RevisionNotFound"))
    assert "spec.configRevision 2" in condition(found, "Stalled")["message"]
    assert await config(api, namespace) == rolled_back

    await api.patch("Tenant", name, {"spec": {"configRevision": None}})
    found = await api.until("Tenant", name, is_ready)
    assert found["status"]["configRevision"] == 13
    assert await config(api, namespace) == newest
    kept = [item["revision"] for item in await api.list("ControllerRevision", namespace)]
    assert sorted(kept) == list(range(4, 14))


# --- deletion with Retain --------------------------------------------------------------------------------------


async def retained(api: Api, name: str, **spec: Any) -> tuple[str, str]:
    """Make a tenant with data of its own and delete it; return its namespace and its archive."""
    namespace = await provisioned(api, name, **spec)
    await api.create("ConfigMap", {"metadata": {"name": "data", "namespace": namespace}, "data": {"a": "1"}})
    archive = await archive_of(api, name)
    await api.delete("Tenant", name)
    await api.until("Tenant", name, gone)
    await api.until("TenantArchive", archive, in_phase("Kept"))
    return namespace, archive


async def data_of(api: Api, namespace: str) -> Any:
    found = await api.get("ConfigMap", "data", namespace)
    return found and found["data"]


async def test_retain_archives_and_cuts_access(api: Api, name: str, kubectl: Kubectl) -> None:
    namespace, archive = await retained(api, name, overrides={"retrieval": {"topK": 9}}, retentionDays=7)
    kept = await api.get("TenantArchive", archive) or {}
    spec = kept["spec"]
    assert (spec["tenant"], spec["namespace"], spec["owner"]) == (
        name,
        namespace,
        {"email": f"ops@{name}.example"},
    )
    assert spec["tenantSpec"]["overrides"]["retrieval"] == {"topK": 9}
    left = datetime.fromisoformat(spec["purgeAfter"]) - datetime.now(UTC)
    assert timedelta(days=6, hours=23) < left < timedelta(days=7)
    assert await data_of(api, namespace) == {"a": "1"}
    present = await children(api, namespace)
    assert [key[1] for key in present if key[0] == "NetworkPolicy"] == [names.DEFAULT_DENY]
    assert {key: item.get("subjects") for key, item in present.items() if key[0] == "RoleBinding"} == {
        ("RoleBinding", f"tenantry-{role}"): None for role in ("owner", "editor", "viewer", "app")
    }
    for who in (OWNER, EDITOR, VIEWER):
        assert not await can(api, who, "list", "pods", namespace), who
    assert not await can(api, APP, "get", "configmaps", namespace, "tenant-config")
    answer = kubectl("auth", "can-i", "get", "pods", "-n", namespace, f"--as={OWNER}", check=False)
    assert answer.stdout.strip() == "no"
    await enforced(api, namespace, names.QUOTA_SUSPENDED)
    await is_refused(api, "Pod", pod("new", namespace), "exceeded quota")


@pytest.mark.parametrize("custom", [False, True], ids=["its usual namespace", "a namespace of another name"])
async def test_a_retained_namespace_stays_closed(api: Api, name: str, custom: bool) -> None:
    chosen = {"namespace": {"name": f"kept-by-{name}"}} if custom else {}
    namespace, archive = await retained(api, name, **chosen)
    marked = content(await api.get("Namespace", namespace))
    group = "rbac.authorization.k8s.io"
    mallory = [{"kind": "User", "name": "mallory", "apiGroup": group}]
    async with mirror(api.client, namespace) as seen:
        wanted = {key: content(item) for key, item in seen.objects.items()}

        async def put_back(what: str, **change: Any) -> None:
            await seen.until(
                lambda objects: {key: content(item) for key, item in objects.items()} == wanted, what
            )
            await api.until("Namespace", namespace, lambda found: content(found) == marked)

        binding = ("RoleBinding", "tenantry-viewer")
        for what, kind, each, change in (
            ("opened to mallory", *binding, {"subjects": mallory}),
            ("opened network", "NetworkPolicy", names.DEFAULT_DENY, {"spec": {"egress": [{}]}}),
            ("lifted quota", "ResourceQuota", names.QUOTA_SUSPENDED, {"spec": {"hard": {"pods": "9"}}}),
        ):
            changed = await api.patch(kind, each, change, namespace)
            await seen.until(
                lambda objects, key=(kind, each), version=int(changed["metadata"]["resourceVersion"]): (
                    int(objects[key]["metadata"]["resourceVersion"]) > version
                ),
                what,
            )
            await put_back(what)
        await api.delete("NetworkPolicy", names.DEFAULT_DENY, namespace)
        await put_back("deleted network policy")
        await api.patch("Namespace", namespace, {"metadata": {"labels": None, "annotations": None}})
        await put_back("stripped namespace")
    assert await data_of(api, namespace) == {"a": "1"}

    if custom:
        # Somebody deletes the namespace itself: nothing is left to keep, and the archive says so.
        await api.delete("Namespace", namespace)
        await api.until("TenantArchive", archive, in_phase("Purged"))


async def test_the_same_owner_gets_everything_back(api: Api, name: str) -> None:
    namespace, archive = await retained(api, name, overrides={"retrieval": {"topK": 9}})
    await api.apply(tenant(name, plan="pro", members=MEMBERS, overrides={"retrieval": {"topK": 10}}))
    found = await api.until("Tenant", name, is_ready)
    assert found["status"]["configRevision"] == 2
    assert await data_of(api, namespace) == {"a": "1"}
    assert await can(api, OWNER, "create", "deployments.apps", namespace)
    assert await can(api, APP, "get", "configmaps", namespace, "tenant-config")
    uid = found["metadata"]["uid"]
    present = await children(api, namespace)
    assert {item["metadata"]["annotations"][names.TENANT_UID] for item in present.values()} == {uid}
    assert ("ResourceQuota", names.QUOTA_SUSPENDED) not in present
    await api.until("TenantArchive", archive, in_phase("Restored"))
    # The old archive has no say over the namespace any more.
    await api.delete("TenantArchive", archive)
    await api.until("TenantArchive", archive, gone)
    assert await data_of(api, namespace) == {"a": "1"}
    assert is_ready(await api.get("Tenant", name))


async def test_deleted_restored_and_deleted_again(api: Api, name: str) -> None:
    namespace, first = await retained(api, name)
    await api.apply(tenant(name, plan="pro", members=MEMBERS))
    await api.until("Tenant", name, is_ready)
    second = await archive_of(api, name)
    await api.delete("Tenant", name)
    await api.until("TenantArchive", second, in_phase("Kept"))
    assert not await can(api, OWNER, "get", "pods", namespace)
    # Only the second one holds the data; to purge the first is to forget a record.
    past = (datetime.now(UTC) - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    await api.patch("TenantArchive", first, {"spec": {"purgeAfter": past}})
    await api.delete("TenantArchive", first)
    await api.until("TenantArchive", first, gone)
    assert await data_of(api, namespace) == {"a": "1"}
    assert in_phase("Kept")(await api.get("TenantArchive", second))
    await api.apply(tenant(name, plan="pro", members=MEMBERS))
    found = await api.until("Tenant", name, is_ready)
    assert found["status"]["configRevision"] == 1
    assert await data_of(api, namespace) == {"a": "1"}


async def test_another_owner_gets_nothing_until_allowed(api: Api, name: str) -> None:
    namespace, archive = await retained(api, name)
    before = await api.get("Namespace", namespace)
    children_before = await children(api, namespace)
    stranger = tenant(name, plan="pro", owner={"email": "new@stranger.example"})
    await api.apply(stranger)
    found = await api.until("Tenant", name, is_stalled("RestoreNotAllowed"))
    assert archive in condition(found, "Stalled")["message"]
    assert "namespace" not in found["status"]
    assert await api.get("Namespace", namespace) == before
    assert await children(api, namespace) == children_before
    assert not await can(api, APP, "get", "configmaps", namespace, "tenant-config")

    stranger["metadata"]["annotations"] = {names.RESTORE_FROM: archive}
    await api.apply(stranger)
    await api.until("Tenant", name, is_ready)
    assert await data_of(api, namespace) == {"a": "1"}
    await api.until("TenantArchive", archive, in_phase("Restored"))


# --- deletion of what there is not -----------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
async def test_a_tenant_that_never_got_a_namespace_goes_at_once(api: Api, name: str, policy: str) -> None:
    theirs = await api.apply({"kind": "Namespace", "metadata": {"name": f"tenant-{name}"}})
    await api.apply(tenant(name, plan="pro", deletionPolicy=policy))
    await api.until("Tenant", name, is_stalled("NamespaceNotOurs"))
    archive = await archive_of(api, name)
    await api.delete("Tenant", name)
    await api.until("Tenant", name, gone)
    assert await api.get("TenantArchive", archive) is None
    now = await api.get("Namespace", f"tenant-{name}") or {}
    assert now["metadata"]["resourceVersion"] == theirs["metadata"]["resourceVersion"]
    await api.delete("Namespace", f"tenant-{name}")


# --- what waits for a namespace to go: all at once, since it takes the namespace controller seconds ---------------


async def held(api: Api, namespace: str) -> None:
    """Put an object into a namespace that keeps it from going."""
    metadata = {"name": "holder", "namespace": namespace, "finalizers": ["hold.example/backup"]}
    await api.create("ConfigMap", {"metadata": metadata})


async def let_go(api: Api, namespace: str) -> None:
    await api.patch("ConfigMap", "holder", {"metadata": {"finalizers": None}}, namespace)


def says(kind: str, *words: str) -> Any:
    """Return a check that a condition's message has these words."""

    def holds(found: Object | None) -> bool:
        message = (condition(found, kind) or {}).get("message", "")
        return all(word in message for word in words)

    return holds


async def a_stranger_of_an_old_name_gets_a_fresh_namespace_after_the_purge(api: Api, name: str) -> None:
    namespace, archive = await retained(api, name)
    uid = (await api.get("Namespace", namespace) or {})["metadata"]["uid"]
    await api.apply(tenant(name, plan="pro", owner={"email": "new@stranger.example"}))
    await api.until("Tenant", name, is_stalled("RestoreNotAllowed"))
    await api.delete("TenantArchive", archive)
    await api.until("Tenant", name, is_ready)
    fresh = await api.get("Namespace", namespace) or {}
    assert fresh["metadata"]["uid"] != uid
    assert await data_of(api, namespace) is None
    await api.until("TenantArchive", archive, gone)


async def retention_ends(api: Api, name: str) -> None:
    namespace, archive = await retained(api, name)
    past = (datetime.now(UTC) - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    await api.patch("TenantArchive", archive, {"spec": {"purgeAfter": past}})
    await api.until("TenantArchive", archive, in_phase("Purged"))
    assert await api.get("Namespace", namespace) is None
    await api.apply(tenant(name, plan="pro", owner={"email": "new@stranger.example"}))
    await api.until("Tenant", name, is_ready)
    assert await data_of(api, namespace) is None


async def retention_of_no_days(api: Api, name: str) -> None:
    namespace = await provisioned(api, name, retentionDays=0)
    archive = await archive_of(api, name)
    await api.delete("Tenant", name)
    await api.until("TenantArchive", archive, in_phase("Purged"))
    assert await api.get("Namespace", namespace) is None


async def a_purge_that_is_held_up_says_by_what(api: Api, name: str) -> None:
    namespace, archive = await retained(api, name)
    await held(api, namespace)
    await api.delete("TenantArchive", archive)
    await api.until("TenantArchive", archive, says("Ready", namespace, "hold.example/backup"))
    await let_go(api, namespace)
    await api.until("TenantArchive", archive, gone)


async def delete_removes_everything_and_archives_nothing(api: Api, name: str) -> None:
    namespace = await provisioned(api, name, deletionPolicy="Delete")
    archive = await archive_of(api, name)
    await api.delete("Tenant", name)
    await api.until("Tenant", name, gone)
    assert await api.get("Namespace", namespace) is None
    assert await api.get("TenantArchive", archive) is None


async def a_deletion_that_is_held_up_says_by_what(api: Api, name: str) -> None:
    namespace = await provisioned(api, name, deletionPolicy="Delete")
    await held(api, namespace)
    await api.delete("Tenant", name)
    found = await api.until("Tenant", name, says("NamespaceReady", namespace, "hold.example/backup"))
    assert found["status"]["phase"] == "Deleting"
    assert condition(found, "Ready")["status"] == "False"
    assert condition(found, "Reconciling")["status"] == "True"
    await let_go(api, namespace)
    await api.until("Tenant", name, gone)


async def the_same_owner_comes_too_late_for_the_old_data(api: Api, name: str) -> None:
    namespace, archive = await retained(api, name)
    uid = (await api.get("Namespace", namespace) or {})["metadata"]["uid"]
    await held(api, namespace)
    await api.delete("TenantArchive", archive)
    await api.until("TenantArchive", archive, says("Ready", "hold.example/backup"))
    await api.apply(tenant(name, plan="pro"))
    await api.until("Tenant", name, says("NamespaceReady", namespace, "hold.example/backup"))
    await let_go(api, namespace)
    await api.until("Tenant", name, is_ready)
    assert (await api.get("Namespace", namespace) or {})["metadata"]["uid"] != uid
    await api.until("TenantArchive", archive, gone)


LEAVING = (
    the_same_owner_comes_too_late_for_the_old_data,
    a_stranger_of_an_old_name_gets_a_fresh_namespace_after_the_purge,
    retention_ends,
    retention_of_no_days,
    a_purge_that_is_held_up_says_by_what,
    delete_removes_everything_and_archives_nothing,
    a_deletion_that_is_held_up_says_by_what,
)


@pytest.fixture(scope="module")
async def leaving(api: Api) -> AsyncIterator[dict[str, asyncio.Task[None]]]:
    """All these stories, each with a tenant of its own, under way."""
    tasks = {
        story.__name__: asyncio.create_task(story(api, f"leaving-{number}"))
        for number, story in enumerate(LEAVING)
    }
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.mark.parametrize("story", [story.__name__ for story in LEAVING])
async def test_leaving(leaving: dict[str, asyncio.Task[None]], story: str) -> None:
    await leaving[story]


# --- every tenant's failure is its own -------------------------------------------------------------------------


async def test_others_do_not_wait_for_a_tenant_in_trouble(
    api: Api, name: str, operator: OperatorProcess, record_property: Any
) -> None:
    attacked = await provisioned(api, f"{name}-attacked")
    stuck = await provisioned(api, f"{name}-stuck")
    await held(api, stuck)
    await api.delete("Namespace", stuck)
    await api.until("Tenant", f"{name}-stuck", says("NamespaceReady", "hold.example/backup"))
    await api.apply({"kind": "Namespace", "metadata": {"name": f"tenant-{name}-theirs"}})
    await api.apply(tenant(f"{name}-theirs", plan="pro"))
    await api.apply(tenant(f"{name}-planless", plan="no-such-plan"))

    async def attack() -> None:
        while True:
            change = {
                "metadata": {"labels": {"drift": str(time.monotonic_ns())}},
                "spec": {"hard": {"pods": "999"}},
            }
            await api.patch("ResourceQuota", names.QUOTA, change, attacked)

    attacker = asyncio.create_task(attack())
    others = [f"{name}-{number}" for number in range(20)]
    begin = time.monotonic()
    await asyncio.gather(*(provisioned(api, each, deletionPolicy="Delete") for each in others))
    seconds = time.monotonic() - begin
    attacker.cancel()
    await asyncio.gather(attacker, return_exceptions=True)
    record_property("20_tenants_beside_trouble_seconds", round(seconds, 3))
    print(f"20 tenants were Ready in {seconds:.3f} s beside one under attack and three in trouble")
    await api.until("Tenant", f"{name}-attacked", is_ready)
    await api.until(
        "ResourceQuota", names.QUOTA, lambda found: found and found["spec"]["hard"]["pods"] == "20", attacked
    )
    await let_go(api, stuck)
    await api.until("Tenant", f"{name}-stuck", is_ready)
    troubled = [f"{name}-{what}" for what in ("attacked", "stuck", "theirs", "planless")]
    await asyncio.gather(
        *(api.patch("Tenant", each, {"spec": {"deletionPolicy": "Delete"}}) for each in troubled)
    )
    await asyncio.gather(*(api.delete("Tenant", each) for each in (*others, *troubled)))
    await api.delete("Namespace", f"tenant-{name}-theirs")
