"""Install, upgrade, back up, restore, move and remove, by the very commands of docs/operations.md.

Each story has a control plane of its own, and the operator runs as the chart's account with the chart's settings.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tenantry.adapters.kubernetes.client import MERGE
from tenantry.adapters.kubernetes.kinds import KINDS, OURS
from tenantry.domain import names
from tenantry.local import chart, kubeconfig
from tenantry.local.binaries import find_binaries, find_tool
from tenantry.local.control_plane import ControlPlane
from tenantry.local.kubectl import Kubectl as LocalKubectl
from tenantry.local.postgres import PostgresServer
from tenantry.reconcile.ports import Refused
from tests.conftest import REPOSITORY, Cluster
from tests.integration import estate
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
    running,
    tenant,
)
from tests.integration.estate import archive_of, put_data, state
from tests.integration.guide import Reader
from tests.integration.mirror import NAMESPACED

pytestmark = pytest.mark.timeout(300)

OWNER = "alice@acme.example"


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A server for ledgers."""
    with PostgresServer(durable=False) as server:
        yield server


class _Pod(OperatorProcess):
    """A process that is ready also as a standby."""

    async def _answers(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"http://127.0.0.1:{self.port}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False


@dataclass
class Site:
    """A cluster, an administrator who reads the guide, and what the operator is given."""

    folder: Path
    plane: ControlPlane
    reader: Reader
    api: Api
    operators: AsyncExitStack

    async def operator(self) -> OperatorProcess:
        """Run what the Deployment in the cluster would run, as its account and with its settings and secret.

        Returns when the kubelet would call it ready: it leads, or stands by.
        """
        as_admin = LocalKubectl(self.plane.binaries.kubectl, self.plane.kubeconfig, {})
        deployment = as_admin.json("get", "deployment", "tenantry", "--namespace=tenantry-system")
        who = chart.account([deployment])
        path = self.folder / "operator.kubeconfig"
        token = chart.token(as_admin, who)
        kubeconfig.write_as(path, self.plane.kubeconfig, who.name, {"token": token})
        variables = {**who.variables, **_secrets(as_admin, deployment)}
        cluster = Cluster(str(self.plane.kubeconfig), "", str(path), variables)
        process = _Pod(cluster, Path(tempfile.mkdtemp(dir=self.folder)))
        self.operators.enter_context(running(process))
        await process.start()
        return process

    def audit(self, name: str) -> list[Object]:
        """Return the rows of the audit log about a tenant, oldest first, as the command tells them."""
        rows: list[Object] = json.loads(
            self.reader.run(f"tenantry audit --tenant {name} --limit 1000 -o json")
        )
        return rows[::-1]


def _secrets(kubectl: LocalKubectl, deployment: Object) -> dict[str, str]:
    """Return the variables of the Deployment that come out of Secrets."""
    found = {}
    for variable in deployment["spec"]["template"]["spec"]["containers"][0]["env"]:
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        if reference is not None:
            secret = kubectl.json("get", "secret", reference["name"], "--namespace=tenantry-system")
            found[variable["name"]] = base64.b64decode(secret["data"][reference["key"]]).decode()
    return found


@asynccontextmanager
async def site(folder: Path, postgres: PostgresServer) -> AsyncIterator[Site]:
    """Start a control plane with nothing in it."""
    folder.mkdir(exist_ok=True)
    binaries = find_binaries(print)
    programs = {
        "kubectl": binaries.kubectl,
        "helm": find_tool("helm", print),
        "tenantry": REPOSITORY / ".venv/bin/tenantry",
        **{name: postgres.program(name) for name in ("psql", "pg_dump", "pg_restore")},
    }
    with ControlPlane(folder / "plane", durable=False, binaries=binaries) as plane:
        admin = postgres.dsn()
        variables = {
            "KUBECONFIG": str(plane.kubeconfig),
            "ADMIN_DATABASE_URL": admin,
            "TENANTRY_DATABASE_URL": f"postgresql://tenantry:change-me@{admin.split('@')[1].split('/')[0]}/tenantry",
        }
        cluster = Cluster(str(plane.kubeconfig), str(binaries.kubectl))
        async with administrator(cluster) as api, AsyncExitStack() as operators:
            yield Site(folder, plane, Reader(folder, programs, variables), api, operators)


@pytest.fixture
async def empty(tmp_path: Path, postgres: PostgresServer) -> AsyncIterator[Site]:
    """A cluster with nothing in it, and a server without the database."""
    async with site(tmp_path / "first", postgres) as made:
        yield made
    _drop(made)


@pytest.fixture
async def second(tmp_path: Path, postgres: PostgresServer) -> AsyncIterator[Site]:
    """Another empty cluster, with the same database server."""
    async with site(tmp_path / "second", postgres) as made:
        yield made


@pytest.fixture
async def installed(empty: Site) -> Site:
    """A cluster where the guide was followed up to its first plans."""
    empty.reader.follow("database", "secret", "install")
    LocalKubectl(empty.plane.binaries.kubectl, empty.plane.kubeconfig, {}).wait_established("crd", "--all")
    empty.reader.run("kubectl apply --server-side -f manifests/samples/plans.yaml")
    return empty


def _drop(site: Site) -> None:
    """Remove the database and its role, whoever is connected."""
    drop = "psql \"$ADMIN_DATABASE_URL\" --command='DROP {} IF EXISTS tenantry{}'"
    site.reader.run("\n".join([drop.format("DATABASE", " WITH (FORCE)"), drop.format("ROLE", "")]))


# --- install, daily work, upgrade, uninstall -------------------------------------------------------------------


async def test_from_install_to_uninstall(empty: Site) -> None:
    guide, api = empty.reader, empty.api
    guide.follow("database", "secret", "install")
    operator = await empty.operator()
    assert "acme" in guide.follow("first-tenant")
    assert operator.port
    assert guide.follow("leader").strip()

    assert "acme" in guide.follow("why")
    await api.apply(tenant("lost", plan="no-such-plan", overrides={"model": {"name": "x"}}))
    await api.apply({"kind": "Namespace", "metadata": {"name": "tenant-taken"}})
    await api.apply(tenant("taken"))
    await api.until("Tenant", "taken", is_stalled("NamespaceNotOurs"))
    assert guide.follow("stalled").split() == ["NAME", "REASON", "taken", "NamespaceNotOurs"]
    await api.delete("Tenant", "lost")
    await api.delete("Tenant", "taken")
    assert "tenantry-suspended" not in guide.follow("limits")
    guide.follow("suspend")
    assert await api.get("ResourceQuota", names.QUOTA_SUSPENDED, "tenant-acme")
    guide.follow("resume", "revisions")
    await api.patch("Tenant", "acme", {"spec": {"configRevision": None}})

    await put_data(api, "tenant-acme")
    assert "acme" in guide.follow("delete")
    guide.follow("undelete")
    assert await api.get("ConfigMap", "data", "tenant-acme")
    await api.delete("TenantArchive", await archive_of(api, "acme"))
    guide.follow("owner")
    guide.follow("delete", "keep-longer")
    kept = await api.get("TenantArchive", await archive_of(api, "acme")) or {}
    assert kept["spec"]["purgeAfter"] == "2099-01-01T00:00:00Z"
    guide.follow("purge")
    assert await api.get("Namespace", "tenant-acme") is None
    told = guide.follow("audit")
    for action in ("Created", "Suspended", "Resumed", "Archived", "Restored", "Purged"):
        assert action in told
    assert "SpecChanged" in [row["action"] for row in empty.audit("acme")]

    await api.apply(tenant("gone"))
    await api.until("Tenant", "gone", is_ready)
    guide.follow("uninstall-everything")
    operator.kill()
    guide.follow("drop-database")
    left = [item["metadata"]["name"] for item in await api.list("Namespace")]
    assert not [name for name in left if name.startswith("tenant-") and name != "tenant-taken"]
    assert (
        guide.run("kubectl get crd,clusterrole,validatingadmissionpolicy -o name | grep tenantry || true")
        == ""
    )


async def test_two_replicas_upgrade_and_roll_back_without_a_gap(installed: Site) -> None:
    """A new process stands by before the old one ends, as in the Deployment's rollout; tenants come all the time."""
    guide, api = installed.reader, installed.api
    old = [await installed.operator(), await installed.operator()]
    longest = 0.0
    for number, command in enumerate(["upgrade", "upgrade", "rollback"]):
        guide.follow(command)
        for leaving in old[:2]:
            old.append(await installed.operator())
            await asyncio.to_thread(leaving.stop)
            name = f"during-{number}-{len(old)}"
            began = datetime.now(UTC)
            await api.apply(tenant(name, plan="pro"))
            await api.until("Tenant", name, is_ready)
            longest = max(longest, (datetime.now(UTC) - began).total_seconds())
        old = old[2:]
    print(f"at most {longest:.1f} s from a Tenant to Ready while one process takes over from another")
    for item in await api.list("Tenant"):
        rows = [row["action"] for row in installed.audit(item["metadata"]["name"])]
        assert rows == ["Created", "ConfigChanged"]


async def test_kustomize_installs_the_same(empty: Site) -> None:
    empty.reader.follow("database", "install-kustomize")
    await empty.operator()
    empty.reader.follow("first-tenant")


# --- backup and restore ----------------------------------------------------------------------------------------


async def by_kubectl(first: Site, second: Site) -> None:
    """Follow the guide."""
    shutil.copytree(first.reader.checkout / "backup", second.reader.checkout / "backup")
    second.reader.follow("restore-objects")


async def by_velero(first: Site, second: Site) -> None:
    """Bring everything back as Velero does: names, labels, annotations; then managed fields, where that works."""
    second.reader.run(
        "helm install tenantry-crds helm/tenantry-crds --create-namespace -n tenantry-system --wait"
    )
    namespaces = await first.api.list("Namespace", selector=OURS)
    for item in namespaces:
        await second.api.create("Namespace", _as_velero(item), "velero-server")
    for item in namespaces:
        for kind in NAMESPACED:
            for child in await first.api.list(kind, item["metadata"]["name"], OURS):
                await _restore(second.api, kind, child)
    for kind in ("Plan", "TenantArchive", "Tenant"):
        for item in await first.api.list(kind):
            await _restore(second.api, kind, item)


async def _restore(api: Api, kind: str, item: Object) -> None:
    made = await api.create(kind, _as_velero(item), "velero-server")
    metadata = made["metadata"]
    taken = {key: item["metadata"][key] for key in ("managedFields", "finalizers") if key in item["metadata"]}
    path = KINDS[kind].path(metadata["name"], metadata.get("namespace", ""))
    try:
        await api.client.send("PATCH", path, body={"metadata": taken}, content_type=MERGE)
    except Refused:
        # Of these the API server compares the data byte by byte, and spells them anew; Velero only warns.
        assert kind == "ControllerRevision"


def _as_velero(item: Object) -> Object:
    kept = ("name", "namespace", "labels", "annotations")
    metadata = {key: value for key, value in item["metadata"].items() if key in kept}
    rest = {key: value for key, value in item.items() if key not in ("metadata", "status")}
    return {**rest, "metadata": metadata}


@pytest.mark.parametrize("restore", [by_kubectl, by_velero])
async def test_a_backup_is_restored_into_an_empty_cluster(
    installed: Site, second: Site, restore: Any
) -> None:
    operator = await installed.operator()
    await estate.settle(installed.api)
    before = await state(installed.api)
    installed.reader.follow("backup")
    rows = {name: installed.audit(name) for name in before.tenants}
    assert operator.stop() == 0

    await restore(installed, second)
    _drop(installed)
    second.reader.follow("database")
    shutil.copytree(
        installed.reader.checkout / "backup", second.reader.checkout / "backup", dirs_exist_ok=True
    )
    second.reader.follow("restore-ledger", "restore-operator")
    await second.operator()
    await estate.all_settled(second.api)
    # What tenants keep in their namespaces is for another tool; here it comes when their limits stand.
    for namespace in before.inside.data:
        await put_data(second.api, namespace)
    after = await state(second.api)
    assert _without_children(after) == _without_children(before)
    _children_are_back(before.inside.children, after.inside.children)
    assert after.tenants["pinned"]["configRevision"] == 2
    await _uids_are_new(second.api, before)
    for name in before.tenants:
        told = second.audit(name)
        assert told[: len(rows[name])] == rows[name], "the past is there"
        fresh = [row["action"] for row in told[len(rows[name]) :]]
        assert fresh == (["Created"] if name == "stranger" else ["Restored", "Created", "ConfigChanged"])
    await _lives_on(second.api)


def _without_children(state: estate.State) -> estate.State:
    return replace(state, inside=replace(state.inside, children={}))


def _children_are_back(before: Mapping[str, Object], after: Mapping[str, Object]) -> None:
    """Compare all children. Of an archive's only what keeps it closed comes back, and revisions without owner."""
    closed = tuple(f"tenant-{name}/" for name in estate.ARCHIVED)
    lost = before.keys() - after.keys()
    assert [name for name in lost if not name.startswith(closed)] == []
    changed = {}
    for name, now in after.items():
        was = before.get(name)
        if was is not None and name.startswith(closed) and "/ControllerRevision/" in name:
            was = {**was, "metadata": {**was["metadata"], "ownerReferences": []}}
            now = {**now, "metadata": {**now["metadata"], "ownerReferences": []}}
        if now != was:
            changed[name] = (was, now)
    assert changed == {}


async def _uids_are_new(api: Api, before: estate.State) -> None:
    """Everything belongs to the Tenants of this cluster, and no revision waits for the garbage collector."""
    for item in await api.list("Tenant"):
        name, uid = item["metadata"]["name"], item["metadata"]["uid"]
        if name == "stranger":
            continue
        namespace = await api.get("Namespace", before.tenants[name]["namespace"]) or {}
        assert namespace["metadata"]["annotations"][names.TENANT_UID] == uid
        for kind in NAMESPACED:
            for child in await api.list(kind, namespace["metadata"]["name"], OURS):
                assert child["metadata"]["annotations"][names.TENANT_UID] == uid
                for owner in child["metadata"].get("ownerReferences", []):
                    assert owner["uid"] == namespace["metadata"]["uid"]


async def _lives_on(api: Api) -> None:
    """Restore, purge, refusal, pins, release and deletion work as they did."""
    assert await can(api, OWNER, "create", "pods", "tenant-plain")
    assert not await can(api, OWNER, "get", "pods", "tenant-archived")
    await api.patch("Tenant", "pinned", {"spec": {"configRevision": None}})
    found = await api.until("Tenant", "pinned", is_ready)
    assert found["status"]["configRevision"] == 3

    await api.apply(tenant("archived", plan="pro", members=MEMBERS))
    await api.until("Tenant", "archived", is_ready)
    assert await api.get("ConfigMap", "data", "tenant-archived")
    await api.until("TenantArchive", await archive_of(api, "archived"), in_phase("Restored"))

    purged = await archive_of(api, "to-purge")
    await api.delete("TenantArchive", purged)
    await api.until("TenantArchive", purged, gone, timeout=60)
    assert await api.get("Namespace", "tenant-to-purge") is None

    message = condition(await api.get("Tenant", "stranger"), "Stalled")["message"]
    assert await archive_of(api, "stranger") in message

    await api.patch("Tenant", "plain", {"spec": {"deletionPolicy": "Delete"}})
    await api.patch("Tenant", "adopter", {"spec": {"deletionPolicy": "Delete"}})
    for name in ("plain", "adopter"):
        await api.until("Tenant", name, is_ready)
        await api.delete("Tenant", name)
    for name in ("plain", "adopter"):
        await api.until("Tenant", name, gone, timeout=60)
    assert await api.get("Namespace", "tenant-plain") is None
    legacy = await api.get("Namespace", "legacy") or {}
    assert legacy["metadata"]["labels"] == {"kubernetes.io/metadata.name": "legacy", "team": "legacy"}
    assert not [key for key in legacy["metadata"]["annotations"] if key != names.ADOPTABLE_BY]


async def test_etcd_set_back_to_an_older_snapshot_than_the_ledger(installed: Site) -> None:
    api, plane = installed.api, installed.plane
    operator = await installed.operator()
    await estate.settle(api)
    before = await state(api)
    assert operator.stop() == 0
    data = plane.state_dir / "etcd"
    plane.stop()
    shutil.copytree(data, plane.state_dir / "snapshot")
    plane.start()

    operator = await installed.operator()
    await _undone_later(api)
    plane.stop()
    shutil.rmtree(data)
    (plane.state_dir / "snapshot").rename(data)
    plane.start()
    installed.reader.follow("restart")
    recorded = {name: installed.audit(name) for name in before.tenants}

    # While the API server was away it has lost the Lease; it begins anew by itself.
    await estate.all_settled(api)
    assert await state(api) == before
    assert {name: installed.audit(name) for name in before.tenants} == recorded, "nothing new has happened"
    # Generations come again with other content, and each is on record.
    await api.patch("Tenant", "plain", {"spec": {"displayName": "After"}})
    await api.until("Tenant", "plain", is_ready)
    (row,) = installed.audit("plain")[len(recorded["plain"]) :]
    assert (row["action"], row["after"]["displayName"]) == ("SpecChanged", "After")
    await api.delete("Tenant", "suspended")
    await api.until("Tenant", "suspended", gone)
    assert [row["action"] for row in installed.audit("suspended")].count("Archived") == 2
    assert await api.get("Tenant", "too-late") is None
    await api.apply(tenant("too-late", plan="pro"))
    await api.until("Tenant", "too-late", is_ready)
    assert operator.stop() == 0


async def _undone_later(api: Api) -> None:
    """Do what the snapshot does not know: edits, a new tenant, deletions, a purge, a restore."""
    for name in ("Before 1", "Before 2"):
        await api.patch("Tenant", "plain", {"spec": {"displayName": name}})
        await api.until("Tenant", "plain", is_ready)
    await api.apply(tenant("too-late", plan="pro"))
    await api.until("Tenant", "too-late", is_ready)
    await api.patch("Tenant", "custom", {"spec": {"deletionPolicy": "Delete"}})
    for name in ("suspended", "custom"):
        await api.delete("Tenant", name)
        await api.until("Tenant", name, gone, timeout=60)
    purged = await archive_of(api, "to-purge")
    await api.delete("TenantArchive", purged)
    await api.until("TenantArchive", purged, gone, timeout=60)
    await api.apply(tenant("archived", plan="pro"))
    await api.until("Tenant", "archived", is_ready)


@pytest.mark.parametrize("older", [False, True], ids=["lost", "older"])
async def test_without_its_ledger_the_operator_goes_on(installed: Site, older: bool) -> None:
    api, guide = installed.api, installed.reader
    operator = await installed.operator()
    await estate.settle(api)
    guide.follow("backup")
    await api.patch("Tenant", "plain", {"spec": {"displayName": "Not in the backup"}})
    await api.until("Tenant", "plain", is_ready)
    before = await state(api)
    versions = {
        item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in await api.list("Tenant")
    }
    assert operator.stop() == 0
    _drop(installed)
    guide.follow("database")
    if older:
        guide.follow("restore-ledger")
    guide.follow("restart-for-ledger")
    await installed.operator()
    await api.patch("Tenant", "plain", {"spec": {"displayName": "After"}})
    await api.until("Tenant", "plain", is_ready)
    await estate.all_settled(api)
    after = await state(api)
    assert {**after.tenants, "plain": None} == {**before.tenants, "plain": None}
    assert after.inside == before.inside
    for item in await api.list("Tenant"):
        name = item["metadata"]["name"]
        assert name == "plain" or item["metadata"]["resourceVersion"] == versions[name], "nothing was written"
    row = installed.audit("plain")[-1]
    assert row["action"] == "SpecChanged"
    assert row["after"]["displayName"] == "After"
    assert (row["before"] is None) is not older


# --- uninstall -------------------------------------------------------------------------------------------------


async def test_the_operator_taken_away_and_back(installed: Site) -> None:
    api, guide = installed.api, installed.reader
    operator = await installed.operator()
    await estate.settle(api)
    before = await state(api)
    assert operator.stop() == 0
    told = guide.follow("uninstall-operator")
    assert "tenantry-tenant-owner" in told, "helm says what it keeps"
    assert await state(api) == before
    assert await can(api, OWNER, "create", "pods", "tenant-plain"), "members keep their access"
    assert await can(api, "sa:app", "get", "configmaps", "tenant-plain", names.CONFIG_MAP)
    recorded = {name: installed.audit(name) for name in before.tenants}
    await api.delete("ResourceQuota", names.QUOTA, "tenant-plain")

    guide.follow("install")
    await installed.operator()
    await api.until("ResourceQuota", names.QUOTA, bool, "tenant-plain")
    await estate.all_settled(api)
    assert await state(api) == before
    assert {name: installed.audit(name) for name in before.tenants} == recorded


async def test_the_operator_and_its_kinds_taken_away_and_back(installed: Site) -> None:
    api, guide = installed.api, installed.reader
    operator = await installed.operator()
    await estate.settle(api)
    await api.delete("Tenant", "stranger")  # so that all can become Ready
    await api.until("Tenant", "stranger", gone)
    before = await state(api)
    assert operator.stop() == 0
    guide.follow("backup", "uninstall-kinds")
    left = {item["metadata"]["name"] for item in await api.list("Namespace", selector=OURS)}
    assert left == before.inside.namespaces.keys()
    assert await can(api, OWNER, "create", "pods", "tenant-plain")

    guide.follow("return-with-kinds")
    await installed.operator()
    guide.follow("all-ready")
    await api.until("TenantArchive", await archive_of(api, "returned"), in_phase("Restored"))
    for name in estate.ARCHIVED:
        await api.until("TenantArchive", await archive_of(api, name), in_phase("Kept"))
    assert await state(api) == before


# --- in the wrong order ----------------------------------------------------------------------------------------


async def test_tenants_deleted_after_the_operator(installed: Site) -> None:
    api, guide = installed.api, installed.reader
    operator = await installed.operator()
    await estate.settle(api)
    assert operator.stop() == 0
    guide.follow("uninstall-operator")
    guide.run("kubectl delete tenants --all --wait=false")
    assert "plain" in guide.follow("what-holds")
    assert len(await api.list("Tenant")) == len(estate.READY) + 1, "they hang"

    guide.follow("install")
    await installed.operator()
    for name in (*estate.READY, "stranger"):
        await api.until("Tenant", name, gone, timeout=60)
    # An archive says that it is kept a moment after its tenant has gone.
    async with asyncio.timeout(60):
        while await kept(api) != {*estate.READY, *estate.ARCHIVED}:  # noqa: ASYNC110 - of many objects
            await asyncio.sleep(0.1)
    assert await api.get("ConfigMap", "data", "tenant-plain")


async def kept(api: Api) -> set[str]:
    """Return the former tenants whose archives say that they are kept."""
    return {item["spec"]["tenant"] for item in await api.list("TenantArchive") if in_phase("Kept")(item)}


async def test_tenants_let_go_without_an_operator(installed: Site) -> None:
    api, guide = installed.api, installed.reader
    operator = await installed.operator()
    await estate.settle(api)
    before = await state(api)
    assert operator.stop() == 0
    guide.follow("uninstall-operator")
    guide.run("kubectl delete tenants --all --wait=false")
    guide.follow("let-go")
    assert await api.list("Tenant") == []
    assert await estate.inside(api) == before.inside
    origins = {line.split()[0]: line.split()[2] for line in guide.follow("leftovers").splitlines()[1:]}
    assert origins["legacy"] == "adopted"
    assert {origin for name, origin in origins.items() if name != "legacy"} == {"created"}
    guide.follow("clean-adopted")
    legacy = await api.get("Namespace", "legacy") or {}
    assert legacy["metadata"]["labels"] == {"kubernetes.io/metadata.name": "legacy", "team": "legacy"}
    assert not [key for key in legacy["metadata"]["annotations"] if key != names.ADOPTABLE_BY]
    for kind in NAMESPACED:
        assert await api.list(kind, "legacy", OURS) == []
    assert await api.get("ConfigMap", "data", "legacy")


@pytest.mark.parametrize("running_still", [True, False], ids=["operator runs", "operator is gone"])
async def test_the_kinds_were_deleted(installed: Site, running_still: bool) -> None:
    api, guide = installed.api, installed.reader
    operator = await installed.operator()
    await estate.settle(api)
    await api.delete("Tenant", "stranger")
    await api.patch("Tenant", "plain", {"spec": {"deletionPolicy": "Delete"}})
    await api.until("Tenant", "plain", is_ready)
    await api.until("Tenant", "stranger", gone)
    before = await state(api)
    if not running_still:
        assert operator.stop() == 0
    guide.run("kubectl delete --wait=false -f crds/")
    if running_still:
        for name in estate.READY:
            found = await api.until("Tenant", name, lambda found: condition(found, "Stalled"))
            assert condition(found, "Stalled")["reason"] == "KindDeleted"
        for name in estate.ARCHIVED:
            await api.until(
                "TenantArchive", await archive_of(api, name), lambda found: condition(found, "Stalled")
            )
    assert await estate.inside(api) == before.inside
    guide.follow("rescue")
    if running_still:
        # As the Deployment's pods are; one whose kinds are gone long enough has ended by itself, to be started anew.
        assert operator.stop() in (0, 1)
    guide.follow("rescue-back")
    await installed.operator()
    guide.follow("all-ready")
    for name in estate.ARCHIVED:
        await api.until("TenantArchive", await archive_of(api, name), in_phase("Kept"))
    expected = dict(before.archives)
    if running_still:
        # A record that holds nothing more goes with its kind; the audit log has it.
        del expected[next(name for name in expected if name.startswith("returned-"))]
    else:
        await api.until("TenantArchive", await archive_of(api, "returned"), in_phase("Restored"))
    assert await state(api) == replace(before, archives=expected)
