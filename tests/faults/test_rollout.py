"""From one version of the operator to the next and back: what the other one left, and both beside each other.

The definitions are the next version's, which an upgrade installs first. The older version is the part of this one
that a test can have different: what it left is written as it would have, and a setting stands for its other defaults.
What Helm does is in tests/integration/test_operations.py, the definitions in test_upgrade.py.
"""

from __future__ import annotations

import asyncio
import copy
import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tenantry.adapters.kubernetes.client import APPLY
from tenantry.adapters.kubernetes.kinds import CHILD_KINDS, KINDS, OURS
from tenantry.domain import names
from tests.conftest import Cluster
from tests.faults.proxy import Proxy, Request
from tests.faults.view import picture
from tests.faults.writers import trespasses
from tests.integration.conftest import Api, Object, OperatorProcess, condition, is_ready, running, tenant
from tests.unit.upgrade.next_version import next_documents

CALM = 60.0
"""Seconds in which everything must have come to its end; nothing is measured here."""

QUIET_SECONDS = 2.0
"""Without a write for so long, all is at rest."""

INSIDE = tuple(kind for kind in CHILD_KINDS if kind.namespaced)
MEMBERS = [{"kind": "User", "name": "alice@old.example", "role": "owner"}]
OLD, KEPT, LOST = "old", "suspended", "forgotten"
OTHER_DEFAULT = {"TENANTRY_DNS_NAMESPACE": "dns-of-another-version"}
"""What makes children differ: the namespace to which the network is open for DNS."""


@pytest.fixture(scope="module", autouse=True)
async def next_definitions(cluster: Cluster, api: Api) -> None:
    for document in next_documents().values():
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=json.dumps(document))
    probe = tenant("probe", tier="premium")
    async with asyncio.timeout(CALM):
        while cluster.kubectl("create", "-f", "-", input=json.dumps(probe), check=False).returncode:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    await api.delete("Tenant", "probe")


def audited(folder: Path) -> Counter[tuple[str, str]]:
    """Return how often each action of each tenant is in the audit log."""
    with sqlite3.connect(folder / "ledger.db") as ledger:
        return Counter(ledger.execute("SELECT tenant, action FROM audit").fetchall())


async def all_of(api: Api, name: str) -> list[Object]:
    """Return a tenant, its namespace and its children."""
    space = f"tenant-{name}"
    found = [(kind.kind, await api.list(kind.kind, space, OURS)) for kind in INSIDE]
    own = [("Tenant", [await api.get("Tenant", name)]), ("Namespace", [await api.get("Namespace", space)])]
    return [{**item, "kind": kind} for kind, items in [*own, *found] for item in items if item is not None]


def uids(items: list[Object]) -> dict[tuple[str, str], str]:
    return {(item["kind"], item["metadata"]["name"]): item["metadata"]["uid"] for item in items}


async def all_ready(api: Api, *tenants: str) -> None:
    for name in tenants:
        await api.until("Tenant", name, is_ready, timeout=CALM)


async def status_by(api: Api, manager: str, name: str, status: Object) -> Object:
    """Write to the status of a Tenant as an operator does, by that field manager."""
    path = KINDS["Tenant"].path(name, subresource="status")
    body = {"apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}}
    query = {"fieldManager": manager, "force": "true"}
    body["status"] = status
    return await api.client.send("PATCH", path, query=query, body=body, content_type=APPLY)


# --- what an older version left -----------------------------------------------------------------------------------


def plain(item: Object) -> Object:
    """An object as its writer applies it."""
    kept = {key: item["metadata"].get(key, {}) for key in ("name", "namespace", "labels", "annotations")}
    rest = {key: value for key, value in item.items() if key not in ("metadata", "status", "apiVersion")}
    return {**rest, "metadata": copy.deepcopy(kept)}


def as_of_old(item: Object) -> Object:
    """A child as an older version made it: other marks, fields that are no more, others that are not yet."""
    old = plain(item)
    old["metadata"]["labels"]["tenantry.dev/version"] = "0.0.9"
    old["metadata"]["annotations"] = {
        **old["metadata"]["annotations"],
        "tenantry.dev/fingerprint": "0123abcd",
    }
    match item["kind"]:
        case "ResourceQuota" if item["metadata"]["name"] == names.QUOTA:
            old["spec"]["hard"] = {**old["spec"]["hard"], "pods": "1", "services": "7"}
        case "NetworkPolicy":
            old["spec"].pop("egress", None)
        case "ConfigMap":
            old["data"]["tenantry.toml"] = "revision = 1"
        case "RoleBinding":
            old.pop("subjects", None)
        case "ControllerRevision":
            old["metadata"]["ownerReferences"] = item["metadata"]["ownerReferences"]
    return old


async def age(api: Api, name: str) -> None:
    """Make everything of a tenant look as an older version left it."""
    for item in await all_of(api, name):
        if item["kind"] in KINDS and item["kind"] not in ("Tenant", "Namespace"):
            await api.apply(as_of_old(item), manager=names.MANAGER)
    await api.delete("NetworkPolicy", names.DEFAULT_DENY, f"tenant-{name}")  # which it did not know


def old_status(revision: int) -> Object:
    said = {"lastTransitionTime": "2026-01-01T00:00:00Z", "message": "", "reason": "Old", "status": "True"}
    return {
        "observedGeneration": 1,
        "configRevision": revision,
        "namespace": f"tenant-{OLD}",
        "conditions": [{**said, "type": kind} for kind in ("Ready", "Synced", "QuotaReady")],
    }


OLD_LEASE = {
    "holderIdentity": "tenantry-7d9f_1",
    "leaseDurationSeconds": 1,
    "renewTime": "2026-01-01T00:00:00.000000Z",
}


async def test_what_an_older_version_left_becomes_what_this_one_makes(
    cluster: Cluster, api: Api, proxy: Proxy, tmp_path: Path
) -> None:
    door = await proxy.door("a", tmp_path)
    operator = OperatorProcess(door, tmp_path)
    with running(operator):
        await operator.start()
        await api.apply(tenant("leaves", plan="pro"))
        for name in (OLD, LOST):
            await api.apply(tenant(name, plan="pro", members=MEMBERS))
        await api.apply(tenant(KEPT, plan="pro", members=MEMBERS, suspended=True))
        await all_ready(api, OLD, LOST, KEPT, "leaves")
        await api.delete("Tenant", "leaves")
        await api.until("Tenant", "leaves", lambda found: found is None, timeout=CALM)
        (archive,) = await api.list("TenantArchive")
        await api.until("TenantArchive", archive["metadata"]["name"], is_ready, timeout=CALM)
        await proxy.quiet(QUIET_SECONDS, "a")
        await stopped(operator)
        before = {name: await all_of(api, name) for name in (OLD, LOST, KEPT)}
        rows = audited(tmp_path)

        for name in before:
            await age(api, name)
        await status_by(api, names.MANAGER, OLD, old_status(1))
        await status_by(api, names.MANAGER, LOST, {})
        of_old = {"apiVersion": "tenantry.dev/v1alpha1", "kind": "TenantArchive", "status": {"phase": "Kept"}}
        of_old["metadata"] = {"name": archive["metadata"]["name"]}
        path = KINDS["TenantArchive"].path(archive["metadata"]["name"], subresource="status")
        query = {"fieldManager": names.MANAGER, "force": "true"}
        await api.client.send("PATCH", path, query=query, body=of_old, content_type=APPLY)
        lease = cluster.settings.get("TENANTRY_LEASE_NAMESPACE", "default")
        await api.delete("Lease", "tenantry-operator", lease)
        metadata = {"name": "tenantry-operator", "namespace": lease}
        await api.create("Lease", {"metadata": metadata, "spec": OLD_LEASE})
        proxy.log.clear()

        await operator.start()
        await all_ready(api, *before)
        await api.until("TenantArchive", archive["metadata"]["name"], is_ready, timeout=CALM)
        await proxy.quiet(QUIET_SECONDS, "a")
        for name, was in before.items():
            now = await all_of(api, name)
            assert picture(now, name) == picture(was, name)
            kept = {ref: uid for ref, uid in uids(was).items() if ref[1] != names.DEFAULT_DENY}
            assert kept.items() <= uids(now).items(), "nothing is made anew"
        assert not [str(item) for item in proxy.writes() if item.verb == "delete"]
        assert audited(tmp_path) == rows, "nobody has done anything"
        assert_bounded(proxy.writes())

        await stopped(operator)
        proxy.log.clear()
        await operator.start()
        await proxy.quiet(QUIET_SECONDS, "a")
        assert [str(item) for item in proxy.writes()] == []
        await leave(api, *before)
        await api.delete("TenantArchive", archive["metadata"]["name"])
        await api.until(
            "TenantArchive", archive["metadata"]["name"], lambda found: found is None, timeout=CALM
        )


def assert_bounded(writes: list[Request]) -> None:
    """Each object is written once, or twice where something has to be taken off it."""
    counted = Counter((item.kind, item.namespace, item.name) for item in writes)
    assert max(counted.values(), default=0) <= 2, counted


async def leave(api: Api, *tenants: str) -> None:
    for name in tenants:
        await api.patch("Tenant", name, {"spec": {"deletionPolicy": "Delete"}})
        await api.delete("Tenant", name)
    for name in tenants:
        await api.until("Tenant", name, lambda found: found is None, timeout=CALM)


# --- both beside each other ---------------------------------------------------------------------------------------


async def open_to(api: Api, name: str) -> str:
    """Return the namespaces to which a tenant's network is open, as text."""
    return json.dumps([item["spec"] for item in await api.list("NetworkPolicy", f"tenant-{name}")])


async def test_two_versions_beside_each_other_and_back(
    cluster: Cluster, api: Api, proxy: Proxy, tmp_path: Path
) -> None:
    shared = {"TENANTRY_STATE_DIR": str(tmp_path)}
    folders = [tmp_path / name for name in ("older", "newer")]
    for folder in folders:
        folder.mkdir()
    older = OperatorProcess(await proxy.door("older", tmp_path), folders[0], **shared)
    newer = OperatorProcess(await proxy.door("newer", tmp_path), folders[1], **shared, **OTHER_DEFAULT)
    tenants = ("first", "second", "third")
    with running(older), running(newer):
        await older.start()
        for name in tenants:
            await api.apply(tenant(name, plan="pro", members=MEMBERS))
        await all_ready(api, *tenants)
        await proxy.quiet(QUIET_SECONDS, "older")
        was = {name: await all_of(api, name) for name in tenants}
        rows = audited(tmp_path)

        await beside(proxy, newer, older)
        await stopped(older)
        await opened(api, OTHER_DEFAULT["TENANTRY_DNS_NAMESPACE"], *tenants)
        await proxy.quiet(QUIET_SECONDS, "newer")
        changed_only(proxy, "newer", tenants)

        said = {"health": "Fine"}
        await api.patch("Tenant", "first", {"metadata": {"annotations": {"tenantry.dev/moved-at": "7"}}})
        await what_only_the_newer_writes(api, "first", said)

        older_again = OperatorProcess(await proxy.door("again", tmp_path), folders[0], **shared)
        with running(older_again):
            await beside(proxy, older_again, newer)
            await stopped(newer)
            await opened(api, '"kube-system"', *tenants)
            await proxy.quiet(QUIET_SECONDS, "again")
            changed_only(proxy, "again", tenants)
            for name in tenants:
                now = await all_of(api, name)
                assert uids(now) == uids(was[name])
                if name != "first":
                    assert picture(now, name) == picture(was[name], name)
            assert audited(tmp_path) == rows, "nobody has edited a tenant"
            assert [str(item) for item in trespasses(proxy.log)] == []

            await api.patch("Tenant", "first", {"spec": {"displayName": "Later"}})
            first = await api.until("Tenant", "first", is_ready, timeout=CALM)
            assert said.items() <= first["status"].items()
            assert first["metadata"]["annotations"]["tenantry.dev/moved-at"] == "7"
            await api.patch(
                "Tenant", "first", {"spec": {"plan": "gone"}}
            )  # what is said of a mistake loses nothing
            first = await api.until(
                "Tenant",
                "first",
                lambda found: (condition(found, "Ready") or {}).get("reason") == "PlanNotFound",
                timeout=CALM,
            )
            assert said.items() <= first["status"].items()
            await leave(api, *tenants)


async def beside(proxy: Proxy, comes: OperatorProcess, leads: OperatorProcess) -> None:
    """Start one that finds another leading: it stands by and writes nothing, and the other has no cause to."""
    since = len(proxy.log)
    await stands_by(comes)
    await asyncio.sleep(
        QUIET_SECONDS
    )  # time in which a process that believes itself alone would have written
    assert [str(item) for item in proxy.log[since:] if item.is_write] == []


async def stands_by(operator: OperatorProcess) -> None:
    """Start a replica that will not lead; on return it has seen the Lease of another."""
    said = operator.log.stat().st_size if operator.log.exists() else 0
    starting = asyncio.create_task(operator.start())
    try:
        async with asyncio.timeout(CALM):
            while operator.process is None or b"On standby" not in operator.log.read_bytes()[said:]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)


async def stopped(operator: OperatorProcess) -> None:
    """Stop a replica as the kubelet does, which takes a proxy that goes on meanwhile."""
    assert await asyncio.to_thread(operator.stop) == 0


async def opened(api: Api, words: str, *tenants: str) -> None:
    async with asyncio.timeout(CALM):
        for name in tenants:
            while words not in await open_to(api, name):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


def changed_only(proxy: Proxy, door: str, tenants: tuple[str, ...]) -> None:
    """What a version does to what another left: the one child that it makes differently, once for each tenant."""
    counted = Counter((item.kind, item.namespace) for item in proxy.writes(door))
    (policies,) = {kind for kind, _ in counted}
    assert (policies, len(counted)) == ("networkpolicies", len(tenants))
    assert_bounded(proxy.writes(door))


async def what_only_the_newer_writes(api: Api, name: str, said: Object) -> None:
    """Write to the status what the newer version would beside all else, by its field managers."""
    present: Any = await api.get("Tenant", name)
    mine = present["status"]
    await status_by(api, names.MANAGER, name, {**mine, "health": said["health"]})
