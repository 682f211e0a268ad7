"""The kinds are upgraded under a running operator: objects of this version live on under the schema of the next."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tenantry.local import crds
from tests.conftest import REPOSITORY, Cluster
from tests.integration.conftest import (
    Api,
    Object,
    OperatorProcess,
    administrator,
    is_ready,
    is_stalled,
    running,
    tenant,
)
from tests.integration.releases import CRD_CHART, Helm, helm_plane, install, installed, operator_of
from tests.unit.upgrade.next_version import FREEZE, TIER, next_documents

PLANS = str(REPOSITORY / "manifests/samples/plans.yaml")


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Helm]]:
    """Both charts installed in this version."""
    with helm_plane(tmp_path_factory.mktemp("upgrade-plane")) as (cluster, helm):
        install(cluster, helm, "--set=ledger.ephemeral=true")
        cluster.kubectl("apply", "--server-side", "-f", PLANS)
        yield cluster, helm


@pytest.fixture(scope="module")
async def api(plane: tuple[Cluster, Helm]) -> AsyncIterator[Api]:
    async with administrator(plane[0]) as api:
        yield api


@pytest.fixture(scope="module")
async def operator(
    plane: tuple[Cluster, Helm], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OperatorProcess]:
    """The operator of this version, all the time."""
    cluster, helm = plane
    process = operator_of(cluster, installed(helm), tmp_path_factory.mktemp("upgrade-operator"))
    with running(process):
        await process.start()
        yield process


async def objects_of_this_version(api: Api) -> dict[str, Object]:
    """One object of each kind, each with a status, by kind and name."""
    members = [{"kind": "User", "name": "alice@old.example", "role": "owner"}]
    await api.apply(tenant("old", plan="pro", members=members, vectorStore={"dimensions": 8, "metric": "l2"}))
    await api.until("Tenant", "old", is_ready)
    await api.apply(tenant("gone"))
    await api.until("Tenant", "gone", is_ready)
    await api.delete("Tenant", "gone")
    await api.until("Tenant", "gone", lambda found: found is None)
    (archive,) = await api.list("TenantArchive")
    kept = "TenantArchive", archive["metadata"]["name"]
    await api.until(*kept, lambda found: found and found.get("status", {}).get("phase") == "Kept")
    await api.until("Plan", "pro", lambda found: found and found["status"].get("tenants") == 1)
    wanted = [("Tenant", "old"), ("Plan", "pro"), kept]
    return {f"{kind}/{name}": await api.get(kind, name) or {} for kind, name in wanted}


def next_chart(folder: Path) -> Path:
    """The chart of the kinds as the next version has it."""
    chart = folder / "tenantry-crds"
    shutil.copytree(CRD_CHART, chart)
    for name, document in next_documents().items():
        (chart / "templates" / name).write_text(crds.as_template(crds.dump(crds.kept(document))))
    about = (chart / "Chart.yaml").read_text()
    (chart / "Chart.yaml").write_text(about.replace("ersion: 0.1.0", "ersion: 0.2.0"))
    return chart


def with_defaults_of_the_next_version(manifest: Object) -> Object:
    """What the API server says of an object that nobody has written since."""
    if manifest["kind"] != "Tenant":
        return manifest
    spec, status = {**manifest["spec"], "tier": TIER}, {**manifest["status"], "health": "Unknown"}
    return {**manifest, "spec": spec, "status": status}


async def upgraded(plane: tuple[Cluster, Helm], folder: Path, api: Api) -> dict[str, Object]:
    """Upgrade the kinds; return the objects from before."""
    before = await objects_of_this_version(api)
    plane[1]("upgrade", "tenantry-crds", str(next_chart(folder)))
    await api.until("Tenant", "old", lambda found: found and found["spec"].get("tier") == TIER)
    return before


async def test_objects_live_on_under_the_next_schema_and_the_operator_goes_on(
    plane: tuple[Cluster, Helm], operator: OperatorProcess, api: Api, tmp_path: Path
) -> None:
    before = await upgraded(plane, tmp_path, api)

    after = {key: await api.get(*key.split("/")) or {} for key in before}
    assert after == {key: with_defaults_of_the_next_version(each) for key, each in before.items()}

    await an_old_client_applies_as_before(plane[0], api, before["Tenant/old"])
    await the_operator_goes_on(api)
    await what_the_operator_does_not_know_stops_nobody(api)
    await it_starts_anew(operator, api)
    await the_kinds_go_back(plane, api)


async def an_old_client_applies_as_before(cluster: Cluster, api: Api, old: Object) -> None:
    """Strict manifests of this version are taken, change nothing, and take no new field away."""
    await api.patch("Tenant", "old", {"spec": {"tier": "premium"}})
    changed = await api.until("Tenant", "old", is_ready)
    members = [{"kind": "User", "name": "alice@old.example", "role": "owner"}]
    same = tenant("old", plan="pro", members=members, vectorStore={"dimensions": 8, "metric": "l2"})
    applied = await api.apply(same)
    assert applied["metadata"]["generation"] == changed["metadata"]["generation"]
    assert applied["spec"] == {**old["spec"], "tier": "premium"}
    cluster.kubectl("apply", "--server-side", "--validate=strict", "-f", PLANS)


async def the_operator_goes_on(api: Api) -> None:
    await api.patch("Tenant", "old", {"spec": {"displayName": "Older"}})
    found = await api.until("Tenant", "old", is_ready)
    assert found["spec"]["tier"] == "premium"
    assert found["status"]["health"] == "Unknown", "a field of the status that is another's stays"
    await api.apply(tenant("new", tier="premium"))
    await api.until("Tenant", "new", is_ready)


async def what_the_operator_does_not_know_stops_nobody(api: Api) -> None:
    """A value of the next version is for its operator: this one says so and leaves the tenant as it is."""
    namespace = (await api.get("Namespace", "tenant-old") or {})["metadata"]
    await api.patch("Tenant", "old", {"spec": {"deletionPolicy": FREEZE}})
    stalled = await api.until("Tenant", "old", is_stalled("InvalidSpec"))
    (message,) = (each["message"] for each in stalled["status"]["conditions"] if each["type"] == "Stalled")
    assert "spec.deletionPolicy" in message
    assert (await api.get("Namespace", "tenant-old") or {})["metadata"]["uid"] == namespace["uid"]
    await api.patch("Tenant", "new", {"spec": {"displayName": "Newer"}})
    await api.until("Tenant", "new", is_ready)


async def it_starts_anew(operator: OperatorProcess, api: Api) -> None:
    assert operator.stop() == 0
    await operator.start()
    await api.patch("Tenant", "old", {"spec": {"deletionPolicy": "Delete"}})
    await api.until("Tenant", "old", is_ready)


async def the_kinds_go_back(plane: tuple[Cluster, Helm], api: Api) -> None:
    """A rollback of the kinds drops what only the next version knew, and nothing else."""
    before: Any = await api.get("Tenant", "old")
    plane[1]("rollback", "tenantry-crds", "1")
    await api.until("Tenant", "old", lambda found: found and "tier" not in found["spec"])
    await api.patch("Tenant", "old", {"spec": {"displayName": "Oldest"}})
    after = await api.until("Tenant", "old", is_ready)
    assert json.dumps(after["spec"], sort_keys=True) == json.dumps(
        {key: value for key, value in {**before["spec"], "displayName": "Oldest"}.items() if key != "tier"},
        sort_keys=True,
    )
