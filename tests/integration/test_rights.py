"""The operator's rights: the chart grants what it uses, and nothing else.

An operator with the account of the chart goes through all that it can do, on a control plane that writes down each
of its requests.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tenantry.adapters.kubernetes.client import Client, configure
from tenantry.adapters.kubernetes.kinds import OURS
from tenantry.desired.access import cluster_roles
from tenantry.domain import names
from tenantry.local import chart
from tenantry.local.binaries import find_binaries, find_tool
from tenantry.local.control_plane import ControlPlane
from tests.conftest import REPOSITORY, Cluster, installed
from tests.integration.conftest import Api, Object, OperatorProcess, is_ready, running, tenant
from tests.integration.mirror import NAMESPACED
from tests.integration.rights import RBAC, Account, Atom, Request, granted, policy, requests

ACCOUNT = Account(chart.NAMESPACE, chart.RELEASE)
MEMBERS = [
    {"kind": "User", "name": "alice@acme.example", "role": "owner"},
    {"kind": "Group", "name": "developers", "role": "editor"},
    {"kind": "ServiceAccount", "name": "dashboard", "role": "viewer"},
]
TENANT_ROLES = {role["metadata"]["name"] for role in cluster_roles()}

REFUSED_ON_PURPOSE: tuple[str, ...] = ()
"""Patterns of requests that may be answered 403; each needs a reason."""

FROM_ANYBODY = (
    # Which versions of our kinds are served; to every authenticated user by the ClusterRole system:discovery.
    r"^GET /(api|apis|version)(\?.*)?$",
    r"^GET /(api|apis/[a-z0-9.-]+)/v[a-z0-9]+(\?.*)?$",
    # What it may do itself, where a ClusterRole is amiss; by system:basic-user.
    r"^POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews$",
)
"""Requests that need no right of the chart: what every account may ask."""


def render(**values: Any) -> list[Object]:
    helm = find_tool("helm", print)
    return chart.render(helm, REPOSITORY / "helm/tenantry", {"ledger": {"ephemeral": True}, **values})


# --- what is granted -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rendered() -> list[Object]:
    return render()


@pytest.fixture(scope="module")
def atoms(rendered: list[Object]) -> list[Atom]:
    found = granted(rendered, ACCOUNT)
    assert found
    return found


def test_no_right_is_a_wildcard_or_a_way_to_more_rights(atoms: list[Atom]) -> None:
    for atom in atoms:
        assert "*" not in "".join(atom), atom
        assert atom.verb not in ("escalate", "impersonate", "approve", "sign", "deletecollection"), atom
        assert not atom.resource.startswith(("secrets", "pods", "serviceaccounts/", "nodes")), atom
        if atom.resource.startswith(("clusterroles", "roles", "clusterrolebindings")):
            reads = atom.resource == "clusterroles" and atom.verb in ("list", "watch")
            assert reads or atom.verb == "bind", atom
        if atom.group == "admissionregistration.k8s.io":
            pytest.fail(f"the operator could switch off what guards its tenants: {atom}")


def test_it_binds_the_four_roles_of_tenants_and_no_others(atoms: list[Atom]) -> None:
    assert {atom for atom in atoms if atom.verb == "bind"} == {
        Atom("bind", "clusterroles", RBAC, name) for name in TENANT_ROLES
    }


def test_nothing_is_granted_twice(atoms: list[Atom]) -> None:
    twice = {
        str(atom)
        for atom in atoms
        if sum(other.covers(atom) for other in atoms if other.verb == atom.verb) > 1
    }
    # In the Lease's namespace RBAC needs a rule without a name for `create`, which covers no other verb.
    assert twice == set()


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"fullnameOverride": "other"},
        {"serviceAccount": {"name": "robot"}},
        {"settings": {"leaseNamespace": "elsewhere"}},
    ],
    ids=["as it is", "another name", "another account", "another Lease"],
)
def test_every_binding_is_to_the_account_that_the_pods_run_as(values: Object, atoms: list[Atom]) -> None:
    documents = render(**values)
    (deployment,) = (each for each in documents if each["kind"] == "Deployment")
    account = Account(chart.NAMESPACE, deployment["spec"]["template"]["spec"]["serviceAccountName"])
    bindings = [each for each in documents if each["kind"].endswith("RoleBinding")]
    subject = {"kind": "ServiceAccount", "name": account.name, "namespace": account.namespace}
    assert all(binding["subjects"] == [subject] for binding in bindings)
    bound = {(each["roleRef"]["kind"], each["roleRef"]["name"]) for each in bindings}
    roles = {(each["kind"], each["metadata"]["name"]) for each in documents if each["kind"].endswith("Role")}
    assert roles - bound == {("ClusterRole", name) for name in TENANT_ROLES}
    moved = values.get("settings", {}).get("leaseNamespace", chart.NAMESPACE)
    wanted = {atom._replace(namespace=moved) if atom.namespace == chart.NAMESPACE else atom for atom in atoms}
    assert set(granted(documents, account)) == wanted


# --- what is used ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Audited:
    """A cluster whose API server writes down the operator's requests."""

    cluster: Cluster
    log: Path


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    folder = tmp_path_factory.mktemp("audited")
    binaries = find_binaries(print)
    (folder / "audit-policy.yaml").write_text(policy(ACCOUNT))
    plane = ControlPlane(folder, durable=False, binaries=binaries, audit_policy=folder / "audit-policy.yaml")
    with plane:
        cluster = installed(Cluster(str(plane.kubeconfig), str(binaries.kubectl)), folder)
        cluster.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "manifests/samples/plans.yaml"))
        yield Audited(cluster, plane.audit_log)


@pytest.fixture(scope="module")
async def admin(audited: Audited) -> AsyncIterator[Api]:
    client = Client(await configure(audited.cluster.kubeconfig, None))
    yield Api(client)
    await client.close()


@pytest.fixture(scope="module")
async def account(
    audited: Audited, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OperatorProcess]:
    """An operator with the chart's rights; records of what is purged go at once."""
    process = OperatorProcess(
        audited.cluster, tmp_path_factory.mktemp("operator"), TENANTRY_ARCHIVE_HISTORY_DAYS="0"
    )
    with running(process):
        await process.start()
        yield process


def gone(found: Object | None) -> bool:
    return found is None


def in_phase(phase: str) -> Callable[[Object | None], bool]:
    return lambda found: found is not None and (found.get("status") or {}).get("phase") == phase


async def provisioned(api: Api, name: str, **spec: Any) -> str:
    await api.apply(tenant(name, **{"plan": "pro", "members": MEMBERS, **spec}))
    found = await api.until("Tenant", name, is_ready, timeout=30)
    return str(found["status"]["namespace"])


async def edit(api: Api, name: str, **spec: Any) -> None:
    await api.patch("Tenant", name, {"spec": spec})
    await api.until("Tenant", name, is_ready)


async def edits(api: Api) -> None:
    """Plans, overrides, more revisions than are kept, a rollback, suspension and resume."""
    await provisioned(api, "edits")
    await edit(api, "edits", plan="enterprise")
    await edit(api, "edits", plan="pro")
    for top in range(11, 23):
        await edit(api, "edits", overrides={"retrieval": {"topK": top}})
    await edit(api, "edits", configRevision=10)
    await edit(api, "edits", suspended=True)
    await edit(api, "edits", suspended=False)


async def drift(api: Api) -> None:
    """One child of every kind gets what no apply takes off, and is deleted."""
    namespace = await provisioned(api, "drift")
    for kind in NAMESPACED:
        child = next(iter(await api.list(kind, namespace, OURS)))["metadata"]["name"]
        for _ in range(2):  # the second time, the Event of the first one counts on
            changed = await api.patch(kind, child, {"metadata": {"labels": {"surplus": "x"}}}, namespace)
            version = int(changed["metadata"]["resourceVersion"])
            await api.until(
                kind,
                child,
                lambda found, version=version: (
                    found
                    and int(found["metadata"]["resourceVersion"]) > version
                    and "surplus" not in found["metadata"]["labels"]
                ),
                namespace,
            )
        await api.delete(kind, child, namespace)
        await api.until(kind, child, bool, namespace)
    await api.patch("Namespace", namespace, {"metadata": {"labels": {names.TENANT: "other"}}})
    await api.until(
        "Namespace", namespace, lambda found: found["metadata"]["labels"][names.TENANT] == "drift"
    )


async def ruined(api: Api) -> None:
    """While the operator is down, so that it finds them so: a revision that is going but is held, and a binding in
    the place of ours to another role, which no request can change."""
    namespace = "tenant-drift"
    (revision,) = await api.list("ControllerRevision", namespace)
    hold = {"metadata": {"finalizers": ["hold.example/backup"]}}
    await api.patch("ControllerRevision", revision["metadata"]["name"], hold, namespace)
    await api.delete("ControllerRevision", revision["metadata"]["name"], namespace)
    found = await api.get("RoleBinding", "tenantry-viewer", namespace) or {}
    metadata = {key: found["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
    await api.delete("RoleBinding", "tenantry-viewer", namespace)
    other = {"apiGroup": RBAC, "kind": "ClusterRole", "name": "view"}
    await api.create("RoleBinding", {"metadata": metadata, "roleRef": other})


async def put_right(api: Api) -> None:
    """What was ruined is as it was."""

    def bound(found: Object | None) -> bool:
        return found is not None and found["roleRef"]["name"] == "tenantry-tenant-viewer"

    def whole(found: Object | None) -> bool:
        return found is not None and "deletionTimestamp" not in found["metadata"]

    await api.until("RoleBinding", "tenantry-viewer", bound, "tenant-drift")
    await api.until("ControllerRevision", "tenant-config-1", whole, "tenant-drift")


async def adoption(api: Api) -> None:
    """A namespace of somebody else is taken over, and given back."""
    metadata = {"name": "legacy", "annotations": {names.ADOPTABLE_BY: "adopts"}}
    await api.apply({"kind": "Namespace", "metadata": metadata})
    place = {"name": "legacy", "adoption": "IfMarked"}
    await provisioned(api, "adopts", namespace=place, deletionPolicy="Delete")
    await api.delete("Tenant", "adopts")
    await api.until("Tenant", "adopts", gone)
    for kind in NAMESPACED:
        assert await api.list(kind, "legacy", OURS) == []


async def archived(api: Api, name: str) -> tuple[str, str]:
    """Delete a tenant that is retained; return its namespace and its archive."""
    namespace = await provisioned(api, name)
    archive = names.archive_name(name, (await api.get("Tenant", name) or {})["metadata"]["uid"])
    await api.delete("Tenant", name)
    await api.until("Tenant", name, gone)
    await api.until("TenantArchive", archive, in_phase("Kept"))
    return namespace, archive


async def restored_and_purged(api: Api) -> None:
    """Deleted, taken back, deleted again, and purged because somebody deletes the archive."""
    _, first = await archived(api, "back")
    namespace, second = await archived(api, "back")
    await api.until("TenantArchive", first, in_phase("Restored"))
    for archive in (first, second):
        await api.delete("TenantArchive", archive)
        await api.until("TenantArchive", archive, gone)
    await api.until("Namespace", namespace, gone)


async def expired(api: Api) -> None:
    """Retention ends; the archive stays as a record, here for no time at all."""
    namespace, archive = await archived(api, "expired")
    past = (datetime.now(UTC) - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    await api.patch("TenantArchive", archive, {"spec": {"purgeAfter": past}})
    await api.until("Namespace", namespace, gone)
    await api.until("TenantArchive", archive, gone)


async def deleted(api: Api) -> None:
    """Deleted with everything, at once; and a Plan that nobody is on."""
    pro = await api.get("Plan", "pro") or {}
    await api.apply({"kind": "Plan", "metadata": {"name": "short"}, "spec": pro["spec"]})
    await provisioned(api, "deleted", plan="short", deletionPolicy="Delete")
    await api.delete("Tenant", "deleted")
    await api.until("Namespace", "tenant-deleted", gone)
    await api.until("Tenant", "deleted", gone)
    # One in use is not deleted; and who is on it is counted a moment later.
    await api.until("Plan", "short", lambda found: found["status"]["tenants"] == 0)
    await api.delete("Plan", "short")


@pytest.fixture(scope="module")
async def asked(audited: Audited, admin: Api, account: OperatorProcess) -> list[Request]:
    """All requests of an operator that has done everything it can, was killed, started again and stopped."""
    try:
        async with asyncio.TaskGroup() as group:
            for story in (edits, drift, adoption, restored_and_purged, expired, deleted):
                group.create_task(story(admin), name=story.__name__)
    except ExceptionGroup:
        # What hangs does so for want of a right, if one was refused: that is what has to be said.
        assert _refused(requests(audited.log)) == []
        raise
    account.kill()
    await ruined(admin)
    await account.start()
    await put_right(admin)
    assert account.stop() == 0
    return requests(audited.log)


def test_every_right_is_used(asked: list[Request], atoms: list[Atom]) -> None:
    # A 404 is an answer too; what is always refused for another reason is of no use.
    used = {atom for request in asked if request.code < 400 or request.code == 404 for atom in request.needed}
    unused = [str(atom) for atom in atoms if not any(atom.covers(each) for each in used)]
    assert unused == []


def test_no_right_is_missing(asked: list[Request]) -> None:
    assert _refused(asked) == []


def test_all_else_is_what_every_account_may_ask(asked: list[Request], atoms: list[Atom]) -> None:
    """Nothing rests on a binding that happens to be in this cluster and not in another."""
    ours = f'to ServiceAccount "{ACCOUNT.name}/{ACCOUNT.namespace}"'
    others = {request for request in asked if not request.by.endswith(ours)}
    known = {"get": "GET", "create": "POST"}
    strange = [
        str(request)
        for request in others
        if not _is_among(FROM_ANYBODY, f"{known.get(request.verb, request.verb)} {request.uri}")
    ]
    assert strange == []
    for request in set(asked) - others:
        assert all(any(atom.covers(each) for atom in atoms) for each in request.needed), str(request)


def _refused(asked: Iterable[Request]) -> list[str]:
    listed = {str(request) for request in asked if request.code in (401, 403)}
    return sorted(each for each in listed if not _is_among(REFUSED_ON_PURPOSE, each))


def _is_among(patterns: tuple[str, ...], text: str) -> bool:
    return any(re.search(pattern, text) for pattern in patterns)
