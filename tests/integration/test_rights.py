"""The operator's rights: the chart grants what it uses, and nothing else.

An operator with the account of the chart goes through all that it can do, on a control plane that writes down each
of its requests.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tenantry.desired.access import cluster_roles
from tenantry.domain import names
from tenantry.local import chart
from tenantry.local.binaries import find_binaries, find_tool
from tenantry.local.control_plane import ControlPlane
from tests.conftest import REPOSITORY, Cluster, installed
from tests.integration.conftest import Api, Object, OperatorProcess, administrator, running
from tests.integration.everything import SHARDS, everything
from tests.integration.rights import RBAC, Account, Atom, Request, granted, policy, requests
from tests.integration.shards import servers_of

ACCOUNT = Account(chart.NAMESPACE, chart.RELEASE)
TENANT_ROLES = {role["metadata"]["name"] for role in cluster_roles()}

SETTLED = {"leases": "leaseNamespace", "secrets": "ownNamespace"}
"""Settings that say in which namespace a resource is."""

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
        assert not atom.resource.startswith(("pods", "serviceaccounts/", "nodes")), atom
        if atom.resource.startswith("secrets"):
            of_its_own = atom == Atom("get", "secrets", namespace=chart.NAMESPACE)
            assert of_its_own or (atom.resource, atom.name) == ("secrets", names.VECTOR_STORE), atom
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
    twice = [str(atom) for atom in atoms if sum(other.covers(atom) for other in atoms) > 1]
    assert twice == []


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"fullnameOverride": "other"},
        {"serviceAccount": {"name": "robot"}},
        {"settings": {"leaseNamespace": "elsewhere"}},
        {"settings": {"ownNamespace": "elsewhere"}},
    ],
    ids=["as it is", "another name", "another account", "another Lease", "other Secrets"],
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
    moved = {resource: values.get("settings", {}).get(name) for resource, name in SETTLED.items()}
    wanted = {
        atom._replace(namespace=moved.get(atom.resource) or atom.namespace)
        if atom.namespace == chart.NAMESPACE
        else atom
        for atom in atoms
    }
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
    async with administrator(audited.cluster) as api:
        yield api


@pytest.fixture(scope="module")
async def account(
    audited: Audited, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OperatorProcess]:
    """An operator with the chart's rights; records of what is purged go at once."""
    process = OperatorProcess(
        audited.cluster,
        tmp_path_factory.mktemp("operator"),
        TENANTRY_ARCHIVE_HISTORY_DAYS="0",
        TENANTRY_SHARD_SECONDS="1",
    )
    with running(process):
        await process.start()
        yield process


@pytest.fixture(scope="module")
async def asked(audited: Audited, admin: Api, account: OperatorProcess) -> list[Request]:
    """All requests of an operator that has done everything it can."""
    with servers_of(*SHARDS) as servers:
        try:
            await everything(admin, account, servers)
        except Exception:
            # What hangs does so for want of a right, if one was refused: then that is what has to be said.
            no_right_is_missing(requests(audited.log))
            raise
    return requests(audited.log)


def no_right_is_missing(asked: Iterable[Request]) -> None:
    refused = {str(request) for request in asked if request.code in (401, 403)}
    missing = sorted(each for each in refused if not _is_among(REFUSED_ON_PURPOSE, each))
    assert not missing, f"the operator lacks a right that it asked for: {'; '.join(missing)}"


def test_no_right_is_missing(asked: list[Request]) -> None:
    no_right_is_missing(asked)


def test_every_right_is_used(asked: list[Request], atoms: list[Atom]) -> None:
    # A 404 is an answer too; what is always refused for another reason is of no use.
    answered = [request for request in asked if request.code < 400 or request.code == 404]
    used = {atom for request in answered for atom in request.needed}
    unused = {atom for atom in atoms if not any(atom.covers(each) for each in used)}
    said = "; ".join(map(str, sorted(unused)))
    assert not said, f"the chart grants what the operator never uses: {said}"


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


# --- the roles of tenants ---------------------------------------------------------------------------------------

VIEWER, APP = "tenantry-tenant-viewer", "tenantry-tenant-app"
HELM = {"app.kubernetes.io/managed-by": "Helm"}


async def roles_amiss(operator: OperatorProcess, count: int) -> None:
    """Wait until the metric says that so many roles are missing or differ."""
    async with asyncio.timeout(60):
        while f"tenantry_roles_amiss {count:.1f}" not in await operator.metrics():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def spoil(api: Api) -> None:
    """Leave the roles as a chart of another version might: one has other rules, one is not there."""
    other = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
    await api.patch("ClusterRole", VIEWER, {"rules": other, "metadata": {"labels": HELM}})
    await api.delete("ClusterRole", APP)


@pytest.mark.usefixtures("asked")
async def test_roles_of_another_version_are_told_and_left(
    audited: Audited, admin: Api, account: OperatorProcess
) -> None:
    await account.start()
    await roles_amiss(account, 0)
    before = len(requests(audited.log))
    await spoil(admin)
    await roles_amiss(account, 2)
    log = account.log.read_text()
    assert f"ClusterRole/{VIEWER} differs" in log
    assert f"ClusterRole/{APP} is missing" in log
    for role in cluster_roles():  # the chart's upgrade
        await admin.apply(role, manager="tenantry-up")
    await roles_amiss(account, 0)
    assert account.stop() == 0
    asked = requests(audited.log)[before:]
    assert not [
        str(each) for each in asked if "clusterroles" in each.uri and each.verb not in ("list", "watch")
    ]
    no_right_is_missing(asked)


@pytest.mark.usefixtures("asked")
async def test_an_administrator_puts_roles_back_and_leaves_the_marks_of_helm(
    audited: Audited, admin: Api, tmp_path: Path
) -> None:
    await spoil(admin)
    as_admin = replace(audited.cluster, operator_kubeconfig=audited.cluster.kubeconfig)
    operator = OperatorProcess(as_admin, tmp_path)
    with running(operator):
        await operator.start()
        wanted = {role["metadata"]["name"]: role["rules"] for role in cluster_roles()}
        for name in (VIEWER, APP):
            await admin.until(
                "ClusterRole", name, lambda found, name=name: found and found["rules"] == wanted[name]
            )
        await roles_amiss(operator, 0)
        assert operator.stop() == 0
    found = await admin.get("ClusterRole", VIEWER) or {}
    assert found["metadata"]["labels"] == {**HELM, names.ROLE: "viewer"}


def _is_among(patterns: tuple[str, ...], text: str) -> bool:
    return any(re.search(pattern, text) for pattern in patterns)
