"""Hostile documents that an API server lets in, with the real operator: Ready, or Stalled in clear words.

After every case a tenant beside them gets an edit through, and the operator has said nothing that it did not expect;
after all of them nothing is left of what was let in.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY, Cluster
from tests.faults.hostile import MEANT, MEGABYTE, TEXTS, Object, archive, members, of_plan, tenant, written
from tests.faults.innocent import (
    CALM,
    OURS,
    an_edit_gets_through,
    applied,
    beside,
    complaints_in,
    leave,
    others,
    remove_archives,
    remove_plans,
)
from tests.faults.largest import largest_plan, largest_tenant
from tests.integration.conftest import Api, OperatorProcess, condition, is_ready, is_stalled


@pytest.fixture(scope="module")
async def operator(
    cluster: Cluster, api: Api, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OperatorProcess]:
    async with beside(cluster, api, tmp_path_factory.mktemp("operator")) as process:
        yield process


@pytest.fixture(autouse=True)
async def nobody_else_notices(api: Api, operator: OperatorProcess) -> AsyncIterator[None]:
    said = operator.log.stat().st_size
    yield
    await an_edit_gets_through(api)
    await asyncio.gather(*(leave(api, name) for name in await others(api)))
    complaints = complaints_in(operator.log, said)
    assert not complaints, "\n".join(complaints)


async def all_ready(api: Api, *names: str) -> list[Any]:
    """Wait until all are Ready; return them."""
    return [await api.until("Tenant", name, is_ready, timeout=CALM) for name in names]


async def test_yaml_means_what_yaml_says(cluster: Cluster, api: Api) -> None:
    names = [f"meant-{number}" for number in range(len(MEANT))]
    lines = [
        written(lines, f"name: {name}") for name, (lines, _, _) in zip(names, MEANT.values(), strict=True)
    ]
    code, stderr = applied(cluster, "---\n".join(lines))
    assert code == 0, stderr
    for case, found in zip(MEANT, await all_ready(api, *names), strict=True):
        _, field, value = MEANT[case]
        assert (case, found["spec"][field]) == (case, value)


async def test_names_at_the_limit_become_tenants(cluster: Cluster, api: Api) -> None:
    names = ["h" * 56, "1", "4711", "xn--mller-kva"]
    unnamed = {**tenant(""), "metadata": {"generateName": "hostile-"}}
    code, stderr = applied(
        cluster, yaml.safe_dump_all([*(tenant(name) for name in names), unnamed]), "create"
    )
    assert code == 0, stderr
    found = await others(api)
    assert len(found) == len(names) + 1
    await all_ready(api, *found)


async def test_any_text_reaches_the_application_as_it_is(api: Api) -> None:
    """As JSON: YAML, which kubectl applies, has no way to say some of these."""
    names = {f"text-{number}": said for number, said in enumerate(TEXTS.values())}
    for name, said in names.items():
        plan = of_plan(overridable=["model.systemPrompt"], displayName=said)
        await api.create("Plan", {**plan, "metadata": {"name": name}})
        more = {"members": members(said, said + " "), "overrides": {"model": {"systemPrompt": said}}}
        await api.create("Tenant", tenant(name, plan=name, displayName=said, **more))
    await all_ready(api, *names)
    for name, said in names.items():
        config: Any = await api.get("ConfigMap", "tenant-config", f"tenant-{name}")
        (settings,) = (json.loads(each) for each in config["data"].values() if "systemPrompt" in each)
        assert settings["model"]["systemPrompt"] == said
        binding: Any = await api.get("RoleBinding", "tenantry-viewer", f"tenant-{name}")
        assert {subject["name"] for subject in binding["subjects"]} == {said, said + " "}
    await asyncio.gather(*(leave(api, name) for name in names))
    await remove_plans(api, *names)


async def test_members_are_compared_by_their_bytes(cluster: Cluster, api: Api) -> None:
    """Names that look alike are people that are not: nothing folds them into one."""
    names = {"\u00e9", "e\u0301", "\u212b", "\u00c5", "ivy", "\u0456vy", "ivy\u200b", "IVY"}
    code, stderr = applied(cluster, tenant("alike", members=members(*names)))
    assert code == 0, stderr
    await all_ready(api, "alike")
    binding: Any = await api.get("RoleBinding", "tenantry-viewer", "tenant-alike")
    assert {subject["name"] for subject in binding["subjects"]} == names


async def test_all_at_its_limit_is_let_in_and_becomes_ready(cluster: Cluster, api: Api) -> None:
    """What rules cost at runtime is bounded: nobody reads of a cost budget that they have never heard of."""
    for document in (largest_plan(), largest_tenant()):
        code, stderr = applied(cluster, document)
        assert code == 0, stderr
    name = largest_tenant()["metadata"]["name"]
    await all_ready(api, name)
    await leave(api, name)
    await remove_plans(api, largest_plan()["metadata"]["name"])


@pytest.mark.parametrize("size", [MEGABYTE, 3 * MEGABYTE // 2])
async def test_an_archive_of_that_size_is_looked_after(cluster: Cluster, api: Api, size: int) -> None:
    code, stderr = applied(cluster, archive(tenantSpec={"padding": "x" * size}))
    assert code == 0, stderr
    await api.until("TenantArchive", "hostile-1f0c9a2e", is_ready, timeout=CALM)
    await remove_archives(api, ["hostile-1f0c9a2e"])


ODD_ARCHIVES: dict[str, Object] = {
    "of a spec of text": {"tenantSpec": {"namespace": "text"}},
    "of a spec of lists": {"tenantSpec": {"namespace": [], "owner": [[]]}},
    "of a deep spec": {"tenantSpec": json.loads('{"a":' * 300 + "1" + "}" * 300)},
    "of a spec of large numbers": {"tenantSpec": {"a": 10**30, "b": -(10**30), "c": 1e300}},
    "of kube-system": {"namespace": "kube-system"},
    "of the innocent's namespace": {"namespace": "tenant-innocent"},
    "of no namespace's name": {"namespace": "../\U0001f600?a=b#c"},
    "of no tenant's name": {"tenant": "../\U0001f600?a=b#c"},
    "of long ago": {"purgeAfter": "1970-01-01T00:00:00Z"},
    "for ever": {"purgeAfter": "9998-12-31T00:00:00Z"},
}


async def test_an_archive_that_no_operator_wrote_purges_nothing(cluster: Cluster, api: Api) -> None:
    before = {item["metadata"]["uid"] for item in await api.list("Namespace", selector=OURS)}
    written = {f"odd-{number}": archive(**spec) for number, spec in enumerate(ODD_ARCHIVES.values())}
    items = [{**document, "metadata": {"name": name}} for name, document in written.items()]
    code, stderr = applied(cluster, {"apiVersion": "v1", "kind": "List", "items": items})
    assert code == 0, stderr
    for name, case in zip(written, ODD_ARCHIVES, strict=True):
        if case != "of long ago":  # which is gone again at once
            await api.until("TenantArchive", name, is_ready, timeout=CALM)
    await remove_archives(api, written)
    assert before <= {item["metadata"]["uid"] for item in await api.list("Namespace")}


# --- metadata and status that others write ------------------------------------------------------------------------


async def test_a_hundred_finalizers_of_others_hold_the_object_and_nothing_of_ours(api: Api) -> None:
    document = tenant("held", deletionPolicy="Delete")
    document["metadata"]["finalizers"] = [f"example.com/finalizer-{number}" for number in range(100)]
    await api.create("Tenant", document)
    await api.until("Tenant", "held", is_ready, timeout=CALM)
    await api.delete("Tenant", "held")
    held = await api.until(
        "Tenant", "held", lambda found: "tenantry.dev/cleanup" not in str(found), timeout=CALM
    )
    assert len(held["metadata"]["finalizers"]) == 100
    assert await api.get("Namespace", "tenant-held") is None
    await api.patch("Tenant", "held", {"metadata": {"finalizers": None}})


async def test_an_owner_that_never_was_takes_the_tenant_along_and_not_its_data(api: Api) -> None:
    """Garbage collection deletes what such a reference names an owner of: a deletion as any other."""
    document = tenant("owned")
    nobody = {"apiVersion": "v1", "kind": "Namespace", "name": "nobody", "uid": "no-such-uid"}
    document["metadata"]["ownerReferences"] = [
        nobody,
        {**nobody, "apiVersion": "x.example/v9", "kind": "Odd", "uid": "2"},
    ]
    await api.create("Tenant", document)
    await api.until("Tenant", "owned", is_ready, timeout=CALM)
    await api.patch("Tenant", "owned", {"metadata": {"ownerReferences": [nobody]}})
    await api.until("Tenant", "owned", lambda found: found is None, timeout=CALM)
    (kept,) = await api.list("TenantArchive")
    assert await api.get("Namespace", "tenant-owned") is not None
    await api.delete("TenantArchive", kept["metadata"]["name"])
    await api.until("TenantArchive", kept["metadata"]["name"], lambda found: found is None, timeout=CALM)


def said(time: str, kind: str = "Ready", message: str = "") -> Object:
    return {"type": kind, "status": "False", "reason": "Said", "message": message, "lastTransitionTime": time}


NOW = "2026-01-01T00:00:00Z"
STATUSES: dict[str, Object] = {
    "no conditions": {"conditions": []},
    "before the first year": {"conditions": [said("0000-01-01T00:00:00Z")]},
    "before it in UTC": {"conditions": [said("0001-01-01T00:00:00+14:00")]},
    "an offset of days": {"conditions": [said("2026-01-01T00:00:00+99:99")]},
    "small letters": {"conditions": [said("2026-01-01t00:00:00z")]},
    "yet to come": {"conditions": [said("9999-12-31T23:59:59Z")]},
    "another's condition": {"conditions": [said("0000-01-01T00:00:00Z", "Other")]},
    "a megabyte": {"conditions": [said(NOW, f"Other{number}", "x" * 32768) for number in range(28)]},
    "lies": {
        "observedGeneration": 2**63 - 1,
        "configRevision": 2**63 - 1,
        "namespace": "kube-system",
        "plan": "\U0001f600",
        "phase": "Deleting",
        "placement": {"shard": "nowhere", "epoch": 2**63 - 1},
    },
    "below zero": {"observedGeneration": -9, "configRevision": -9},
}


async def test_a_status_that_somebody_else_wrote_stops_nobody(api: Api) -> None:
    """Also after a restart, as the unit tests of unreadable objects have it."""
    names = {f"status-{number}": status for number, status in enumerate(STATUSES.values())}
    for name in names:
        await api.apply(tenant(name, plan="pro"))
    before = await all_ready(api, *names)
    for name, status in names.items():
        await api.patch("Tenant", name, {"status": status}, subresource="status", manager="hacker")
        await api.patch("Tenant", name, {"spec": {"displayName": "Later"}})
    for name, was, found in zip(names, before, await all_ready(api, *names), strict=True):
        assert (found["status"]["namespace"], found["status"]["plan"]) == (f"tenant-{name}", "pro")
        assert found["status"]["configRevision"] == was["status"]["configRevision"]


# --- many at once -------------------------------------------------------------------------------------------------


async def test_a_hundred_bad_tenants_do_not_hold_up_a_good_one(cluster: Cluster, api: Api) -> None:
    names = [f"bad-{number}" for number in range(100)]
    crowd = [tenant(name, namespace={"name": "tenant-innocent"}) for name in names]
    code, stderr = applied(cluster, yaml.safe_dump_all(crowd))
    assert code == 0, stderr
    await an_edit_gets_through(api)
    for name in names:
        stalled = await api.until("Tenant", name, is_stalled("NamespaceClaimed"), timeout=CALM)
    assert said_of(stalled) == (
        "namespace tenant-innocent belongs to Tenant innocent: create this one again with another spec.namespace.name"
    )
    await an_edit_gets_through(api)
    await asyncio.gather(*(api.delete("Tenant", name) for name in names))


# --- what another schema let in -----------------------------------------------------------------------------------


@contextmanager
def without_rules(cluster: Cluster) -> Iterator[None]:
    """For a while the API server takes anything for a spec."""
    for kind in ("tenants", "plans"):
        document = yaml.safe_load((REPOSITORY / f"crds/{kind}.yaml").read_text())
        schema = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        schema.pop("x-kubernetes-validations")
        schema["properties"]["spec"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        document["spec"]["versions"][0].pop("selectableFields", None)
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=json.dumps(document))
    try:
        yield
    finally:
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(REPOSITORY / "crds"))


FREE = {"deletionPolicy": "Delete"}
NOT_OF_THIS_SCHEMA: dict[str, tuple[Object, str, Object]] = {
    "king": (
        {"members": members("bob", role="king")},
        "spec.members.0.role: Input should be 'owner', 'editor' or 'viewer', not 'king'",
        {"members": []},
    ),
    "policy": (
        {"deletionPolicy": "Freeze"},
        "spec.deletionPolicy: Input should be 'Retain' or 'Delete', not 'Freeze'",
        FREE,
    ),
}
"""By name: what the spec holds, what is said of it, and a patch that corrects it.

Values and no types: a field never gets another type, and an API server writes no object any more that has one.
"""

DECIDES = ("policy",)
"""Where what is not understood says what becomes of the data."""


async def test_what_another_schema_let_in_is_named_and_can_leave(
    cluster: Cluster, api: Api, operator: OperatorProcess
) -> None:
    """Tenants that were Ready before, and so have something to leave behind."""
    for name in NOT_OF_THIS_SCHEMA:
        await api.apply(tenant(name, **FREE))
    await all_ready(api, *NOT_OF_THIS_SCHEMA)
    with without_rules(cluster):
        for name, (spec, _, _) in NOT_OF_THIS_SCHEMA.items():
            document = {**tenant(name), "spec": {**tenant(name)["spec"], **FREE, **spec}}
            await _at_last(cluster, document)
        await _at_last(cluster, {**of_plan(podSecurity="loose"), "metadata": {"name": "loose"}})
    for name, (_, words, _) in NOT_OF_THIS_SCHEMA.items():
        stalled = await api.until("Tenant", name, is_stalled("InvalidSpec"), timeout=CALM)
        assert said_of(stalled).startswith(words)
    stalled = await api.until("Plan", "loose", is_stalled("InvalidSpec"), timeout=CALM)
    assert said_of(stalled).startswith("spec.podSecurity: Input should be")
    assert operator.stop() == 0
    await operator.start()
    await an_edit_gets_through(api)
    await asyncio.gather(*(api.delete("Tenant", name) for name in NOT_OF_THIS_SCHEMA))
    await api.delete("Plan", "loose")
    for name in DECIDES:
        waits = await api.until(
            "Tenant", name, lambda found: "take its finalizer" in str(found), timeout=CALM
        )
        assert condition(waits, "Stalled")["reason"] == "InvalidSpec"  # type: ignore[index]
        await api.patch("Tenant", name, {"spec": copy.deepcopy(NOT_OF_THIS_SCHEMA[name][2])})
    for name in NOT_OF_THIS_SCHEMA:
        await api.until("Tenant", name, lambda found: found is None, timeout=CALM)


def said_of(item: Object) -> str:
    """Return what a user reads of an object that is Stalled."""
    return str((condition(item, "Stalled") or {})["message"])


async def _at_last(cluster: Cluster, document: Object) -> None:
    """Apply what the API server takes as soon as it serves the changed definition."""
    async with asyncio.timeout(CALM):
        while applied(cluster, document)[0] != 0:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
