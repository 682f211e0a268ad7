"""Who reaches whom, told by an evaluator that is not ours from the objects on a real API server."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import pytest

from tenantry.api.shard import ShardNetwork
from tenantry.desired.network import shards_egress
from tenantry.desired.owner import Owner
from tenantry.domain import names
from tests.conftest import REPOSITORY, Cluster, embedded
from tests.integration.conftest import (
    Api,
    Object,
    OperatorProcess,
    administrator,
    condition,
    is_ready,
    running,
    tenant,
)
from tests.integration.network_matrix import (
    BY_SETTING,
    BY_SHARD,
    ROWS,
    SCRAPER,
    SETTINGS,
    SHARD,
    Answers,
    Snapshot,
    answers,
    tables,
)

pytestmark = pytest.mark.tool("cyclonus")

DOCUMENT = REPOSITORY / "docs/network.md"
BEGIN, END = "<!-- begin matrix -->\n\n", "\n\n<!-- end matrix -->"
TENANTS: dict[str, Object] = {
    "free": {"plan": "free"},
    "pro": {"plan": "pro"},
    "enterprise": {"plan": "enterprise"},
    "closed": {"plan": "closed"},
    "no plan": {"plan": "not-there"},
    "suspended": {"plan": "enterprise", "suspended": True},
    "archived": {"plan": "enterprise"},
}
"""By column of the tables, what two tenants have in their spec."""
OPEN = ("free", "pro", "enterprise", "closed")
"""Columns of tenants whose access is open."""
CLOSED = {"displayName": "Closed", "rank": 1, "currency": "usd", "resources": {"quota": {"pods": "1"}}}


@pytest.fixture(scope="module")
def own_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane on which the operator is started with other settings, and no other test has tenants."""
    with embedded(tmp_path_factory.mktemp("network-plane"), plans=True) as cluster:
        for name in ("ingress-system", "monitoring", SCRAPER):
            cluster.kubectl("create", "namespace", name)
        yield cluster


@pytest.fixture(scope="module")
async def own_api(own_plane: Cluster) -> AsyncIterator[Api]:
    async with administrator(own_plane) as api:
        yield api


@pytest.fixture(scope="module")
async def snapshots(
    own_plane: Cluster, own_api: Api, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Snapshot, Snapshot, Snapshot]:
    """All tenants as the operator has made them: as it is installed, with SETTINGS, and on a shard."""
    folder = tmp_path_factory.mktemp("network-operator")
    with running(OperatorProcess(own_plane, folder)) as operator:
        await operator.start()
        namespaces = await all_tenants(own_api)
        plain = await snapshot(own_api, namespaces)
        operator.stop()
    with running(OperatorProcess(own_plane, folder, **SETTINGS)) as operator:
        await operator.start()
        await written_anew(own_api, namespaces)
        by_setting = await snapshot(own_api, namespaces)
        operator.stop()
    for column in OPEN:
        for namespace in namespaces[column]:
            await own_api.apply(shard_of(namespace), manager=names.MANAGER)
    return plain, by_setting, await snapshot(own_api, namespaces)


def shard_of(namespace: str) -> Object:
    """Return what lets the tenant of a namespace out to its shard."""
    owner = Owner(namespace.removeprefix("tenant-"), "uid", namespace)
    policy = shards_egress(owner, [(ShardNetwork(cidrs=list(SHARD)), "db.example.com", [5432])])
    assert policy is not None
    return policy


async def all_tenants(api: Api) -> dict[str, tuple[str, ...]]:
    """Create two tenants for each column; return their namespaces."""
    await api.apply(
        {
            "apiVersion": "tenantry.dev/v1alpha1",
            "kind": "Plan",
            "metadata": {"name": "closed"},
            "spec": CLOSED,
        }
    )
    created = {
        column: tuple(f"{column.replace(' ', '-')}-{number}" for number in (1, 2)) for column in TENANTS
    }
    for column, alike in created.items():
        for name in alike:
            await api.apply(tenant(name, **TENANTS[column]))
    for column, alike in created.items():
        for name in alike:
            await api.until("Tenant", name, is_waiting if column == "no plan" else is_ready)
    for name in created["archived"]:
        found = await api.get("Tenant", name) or {}
        await api.delete("Tenant", name)
        await api.until("TenantArchive", names.archive_name(name, found["metadata"]["uid"]), is_kept)
    return {column: tuple(f"tenant-{name}" for name in alike) for column, alike in created.items()}


async def written_anew(api: Api, namespaces: dict[str, tuple[str, ...]]) -> None:
    """Wait until the operator has looked at every Tenant once more."""
    for column, alike in namespaces.items():
        for namespace in alike if column != "archived" else ():
            name = namespace.removeprefix("tenant-")
            await api.patch("Tenant", name, {"spec": {"displayName": "Seen again"}})
            await api.until("Tenant", name, is_waiting if column == "no plan" else is_ready)


async def snapshot(api: Api, tenants: dict[str, tuple[str, ...]]) -> Snapshot:
    namespaces = {each["metadata"]["name"]: each for each in await api.list("Namespace")}
    return Snapshot(namespaces, await api.list("NetworkPolicy"), tenants)


def is_waiting(found: Object | None) -> bool:
    config = condition(found, "ConfigReady")
    return (
        found is not None
        and config is not None
        and config["reason"] == "PlanNotFound"
        and config["observedGeneration"] == found["metadata"]["generation"]
    )


def is_kept(found: Object | None) -> bool:
    return found is not None and (found.get("status") or {}).get("phase") == "Kept"


@pytest.fixture(scope="module")
def matrix(snapshots: tuple[Snapshot, Snapshot, Snapshot]) -> tuple[Answers, Answers, Answers]:
    plain, by_setting, by_shard = snapshots
    return answers(plain), answers(by_setting), answers(by_shard)


# --- the table ---------------------------------------------------------------------------------------------------


def test_the_tables_of_the_docs_are_what_the_cluster_says(
    matrix: tuple[Answers, Answers, Answers], update_docs: bool
) -> None:
    before, begin, rest = DOCUMENT.read_text().partition(BEGIN)
    written, end, after = rest.partition(END)
    found = tables(*matrix)
    assert begin
    assert end
    if update_docs:
        DOCUMENT.write_text(f"{before}{begin}{found}{end}{after}")
        return
    assert written == found, (
        "if this is meant, write them: pytest tests/integration/test_network.py --update-docs"
    )


def test_no_cell_is_true_in_part_only(matrix: tuple[Answers, Answers, Answers]) -> None:
    for found in matrix:
        assert [(row.what, column) for (row, column), answer in found.items() if answer == "some"] == []


def test_a_setting_opens_what_it_names_and_nothing_else(matrix: tuple[Answers, Answers, Answers]) -> None:
    plain, by_setting, _ = matrix
    assert opened(plain, by_setting) == set(product(BY_SETTING, OPEN))


def test_a_shard_opens_its_port_and_nothing_else(matrix: tuple[Answers, Answers, Answers]) -> None:
    _, before, by_shard = matrix
    assert opened(before, by_shard) == set(product(BY_SHARD, OPEN))


def opened(before: Answers, after: Answers) -> set[tuple[str, str]]:
    return {(row.what, column) for row, column in before if before[row, column] != after[row, column]}


# --- a hole shows ------------------------------------------------------------------------------------------------

Edit = Callable[[list[Object]], list[Object]]
"""Takes all policies of one namespace, and returns those that it has instead."""


def with_one_more(**rules: list[Object]) -> Edit:
    spec = {"podSelector": {}, "policyTypes": [each.capitalize() for each in rules], **rules}
    return lambda present: [
        *present,
        {**present[0], "metadata": {**present[0]["metadata"], "name": "x"}, "spec": spec},
    ]


def without(name: str) -> Edit:
    return lambda present: [each for each in present if each["metadata"]["name"] != name]


def with_peers(name: str, way: str, key: str, *peers: Object) -> Edit:
    """Return an edit that gives all rules of one policy other peers."""

    def edit(present: list[Object]) -> list[Object]:
        found = next(each for each in present if each["metadata"]["name"] == name)
        for rule in found["spec"][way]:
            rule[key] = list(peers)
        return present

    return edit


def edited(seen: Snapshot, column: str, edit: Edit) -> Snapshot:
    """Return the cluster with the policies of a column's tenants changed, as somebody could do by hand."""
    policies = copy.deepcopy(seen.policies)
    for namespace in seen.tenants[column]:
        own = [each for each in policies if each["metadata"]["namespace"] == namespace]
        assert own
        policies = [each for each in policies if each["metadata"]["namespace"] != namespace] + edit(own)
    return replace(seen, policies=policies)


OUT = {row.what for row in ROWS if not row.inbound}
IN = {row.what for row in ROWS if row.inbound}
ITS_OWN = "pods of its own namespace"
ANOTHER_TENANT = "pods of another tenant, whatever the plans of both"
EVERY_NAMESPACE: Object = {"namespaceSelector": {}}
EVERY_ADDRESS = ({"ipBlock": {"cidr": "0.0.0.0/0"}}, {"ipBlock": {"cidr": "::/0"}})


class Hole(NamedTuple):
    """A change by hand in a column's tenants, and the rows of both directions that it opens."""

    column: str
    edit: Edit
    out: set[str]
    inward: set[str]


NEW_OUT = OUT - {ITS_OWN, "cluster DNS (`kube-system`, port 53)", "internet, TCP 443"}
NEW_IN = IN - {ITS_OWN, "namespaces that the plan names (`ingress-system`, `monitoring`)"}
TENANT = {ANOTHER_TENANT}
HOLES = {
    # One way is not enough for another tenant: that one's own policies still let nothing out, or in.
    "ingress": Hole("pro", with_one_more(ingress=[{}]), set(), NEW_IN - TENANT),
    "egress": Hole("pro", with_one_more(egress=[{}]), NEW_OUT - TENANT, set()),
    "both": Hole("pro", with_one_more(ingress=[{}], egress=[{}]), NEW_OUT, NEW_IN),
    "suspended without default-deny": Hole("suspended", without(names.DEFAULT_DENY), OUT, IN),
    "archived without default-deny": Hole("archived", without(names.DEFAULT_DENY), OUT, IN),
    "without a plan and default-deny": Hole("no plan", without(names.DEFAULT_DENY), OUT, IN),
    "every namespace": Hole(
        "pro",
        with_peers("tenantry-ingress", "ingress", "from", EVERY_NAMESPACE),
        set(),
        {"a scraper that no plan names (`observability`)", "any other namespace"},
    ),
    "every address": Hole(
        "pro",
        with_peers("tenantry-egress", "egress", "to", *EVERY_ADDRESS),
        {row.what for row in ROWS if not row.inbound and (443, "TCP") in row.ports}
        - {ITS_OWN, ANOTHER_TENANT, "internet, TCP 443"},
        set(),
    ),
}


@pytest.mark.parametrize("hole", HOLES.values(), ids=HOLES)
def test_a_hole_shows(
    hole: Hole, snapshots: tuple[Snapshot, Snapshot, Snapshot], matrix: tuple[Answers, Answers, Answers]
) -> None:
    plain = matrix[0]
    after = answers(edited(snapshots[0], hole.column, hole.edit), [hole.column])
    opened = {row for (row, column), answer in after.items() if answer != plain[row, column]}
    assert {row.what for row in opened if not row.inbound} == hole.out
    assert {row.what for row in opened if row.inbound} == hole.inward
