"""Hostile documents on a real API server with the real operator: refused in clear words, or Stalled in clear words.

After every case a tenant beside them gets an edit through, the operator has said nothing that it did not expect, and
nothing is left of what was let in.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY, Cluster
from tests.faults.hostile import (
    MEANT,
    MEGABYTE,
    REFUSED,
    TEXTS,
    Document,
    Object,
    archive,
    members,
    of_plan,
    tenant,
    text,
    written,
)
from tests.faults.largest import largest_plan, largest_tenant
from tests.integration.conftest import Api, OperatorProcess, condition, is_ready, is_stalled, running

CALM = 60.0
"""Seconds in which everything must have come to its end; nothing is measured here."""

API_SERVERS_OWN = ("some validation rules were not checked", "<nil>:")
"""What an API server adds to a refusal by itself."""

RECONNECTS = re.compile(r" ERROR +kopf\._cogs\.clients\.watching: Request attempt #")
"""What Kopf says when the API server serves a changed definition."""

edits = itertools.count(1)


@pytest.fixture(scope="module")
async def operator(
    cluster: Cluster, api: Api, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OperatorProcess]:
    """The operator, and a tenant that has done nothing."""
    process = OperatorProcess(cluster, tmp_path_factory.mktemp("operator"))
    with running(process):
        await process.start()
        await api.apply(tenant("innocent", plan="pro", members=members("ivy")))
        await api.until("Tenant", "innocent", is_ready, timeout=CALM)
        yield process


@pytest.fixture(autouse=True)
async def nobody_else_notices(api: Api, operator: OperatorProcess) -> AsyncIterator[None]:
    said = operator.log.stat().st_size
    yield
    await an_edit_gets_through(api)
    names = {item["metadata"]["name"] for item in await api.list("Tenant")} - {"innocent"}
    await asyncio.gather(*(leave(api, name) for name in names))
    assert await api.list("TenantArchive") == []
    complaints = complaints_in(operator.log, said)
    assert not complaints, "\n".join(complaints)


async def an_edit_gets_through(api: Api) -> None:
    name = f"Edit {next(edits)}"
    await api.patch("Tenant", "innocent", {"spec": {"displayName": name}})
    await api.until("Tenant", "innocent", is_ready, timeout=CALM)


def complaints_in(log: Path, start: int) -> list[str]:
    """Return what the operator has logged since as an error, but for what Kopf says of a changed definition."""
    lines = log.read_bytes()[start:].decode().splitlines()
    bad = [line for line in lines if re.search(r" ERROR | CRITICAL |^Traceback|^  File ", line)]
    return [line for line in bad if not RECONNECTS.search(line)]


async def leave(api: Api, name: str) -> None:
    """Delete a tenant with all that it has; its finalizer must not hold it."""
    found = await api.get("Tenant", name)
    if found is not None and "deletionTimestamp" not in found["metadata"]:
        await api.patch("Tenant", name, {"spec": {"deletionPolicy": "Delete"}})
        await api.delete("Tenant", name)
    await api.until("Tenant", name, lambda found: found is None, timeout=CALM)
    await api.until("Namespace", f"tenant-{name}", lambda found: found is None, timeout=CALM)


def applied(cluster: Cluster, document: Document, verb: str = "apply") -> tuple[int, str]:
    """Give a document to kubectl; return its exit code and what a user reads of its errors."""
    flags = ["--server-side"] if verb == "apply" else []
    done = cluster.kubectl(verb, *flags, "-f", "-", input=text(document), check=False)
    return done.returncode, done.stderr


# --- refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", REFUSED)
async def test_refused_in_words_that_name_the_field(cluster: Cluster, api: Api, case: str) -> None:
    code, stderr = applied(cluster, REFUSED[case].document)
    assert code != 0, "let in"
    for words in REFUSED[case].words:
        assert words in stderr
    assert not re.search(r"cost budget|panic|goroutine|Internal error", stderr, re.IGNORECASE)
    listed = [await api.list(kind) for kind in ("Tenant", "TenantArchive", "Plan")]
    names = {item["metadata"]["name"] for items in listed for item in items}
    assert names == {"innocent", "free", "pro", "enterprise"}


async def test_one_bad_document_among_good_ones_is_refused_alone(cluster: Cluster, api: Api) -> None:
    items = [tenant("one"), tenant("two", plan="No Plan"), tenant("three")]
    code, stderr = applied(cluster, {"apiVersion": "v1", "kind": "List", "items": items})
    assert code != 0
    (line,) = [line for line in stderr.splitlines() if not any(words in line for words in API_SERVERS_OWN)]
    assert line.startswith(
        'The Tenant "two" is invalid: spec.plan: Invalid value: "No Plan": must be a name of a-z'
    )
    for name in ("one", "three"):
        await api.until("Tenant", name, is_ready, timeout=CALM)


# --- let in -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", MEANT)
async def test_yaml_means_what_yaml_says(cluster: Cluster, api: Api, case: str) -> None:
    lines, field, value = MEANT[case]
    code, stderr = applied(cluster, written(lines))
    assert code == 0, stderr
    found = await api.until("Tenant", "hostile", is_ready, timeout=CALM)
    assert found["spec"][field] == value


@pytest.mark.parametrize("name", ["h" * 56, "1", "4711", "xn--mller-kva"])
async def test_names_at_the_limit_become_tenants(cluster: Cluster, api: Api, name: str) -> None:
    code, stderr = applied(cluster, tenant(name))
    assert code == 0, stderr
    await api.until("Tenant", name, is_ready, timeout=CALM)


async def test_a_name_that_the_api_server_chooses(cluster: Cluster, api: Api) -> None:
    document = tenant("hostile")
    document["metadata"] = {"generateName": "hostile-"}
    code, stderr = applied(cluster, document, "create")
    assert code == 0, stderr
    (name,) = {item["metadata"]["name"] for item in await api.list("Tenant")} - {"innocent"}
    await api.until("Tenant", name, is_ready, timeout=CALM)


@pytest.mark.parametrize("case", TEXTS)
async def test_any_text_reaches_the_application_as_it_is(api: Api, case: str) -> None:
    """As JSON: YAML, which kubectl applies, has no way to say some of these."""
    said = TEXTS[case]
    await api.create("Plan", of_plan(overridable=["model.systemPrompt"], displayName=said))
    people = members(said, said + " ")
    prompt = {"model": {"systemPrompt": said}}
    await api.create(
        "Tenant", tenant("hostile", plan="hostile", displayName=said, members=people, overrides=prompt)
    )
    await api.until("Tenant", "hostile", is_ready, timeout=CALM)
    config: Any = await api.get("ConfigMap", "tenant-config", "tenant-hostile")
    (settings,) = (json.loads(each) for each in config["data"].values() if "systemPrompt" in each)
    assert settings["model"]["systemPrompt"] == said
    binding: Any = await api.get("RoleBinding", "tenantry-viewer", "tenant-hostile")
    assert {subject["name"] for subject in binding["subjects"]} == {said, said + " "}
    await leave(api, "hostile")
    await api.delete("Plan", "hostile")


async def test_members_are_compared_by_their_bytes(cluster: Cluster, api: Api) -> None:
    """Names that look alike are people that are not: nothing folds them into one."""
    names = {"\u00e9", "e\u0301", "\u212b", "\u00c5", "ivy", "\u0456vy", "ivy\u200b", "IVY"}
    code, stderr = applied(cluster, tenant("hostile", members=members(*names)))
    assert code == 0, stderr
    await api.until("Tenant", "hostile", is_ready, timeout=CALM)
    binding: Any = await api.get("RoleBinding", "tenantry-viewer", "tenant-hostile")
    assert {subject["name"] for subject in binding["subjects"]} == names


async def test_all_at_its_limit_is_let_in_and_becomes_ready(cluster: Cluster, api: Api) -> None:
    """What rules cost at runtime is bounded: nobody reads of a cost budget that they have never heard of."""
    for document in (largest_plan(), largest_tenant()):
        code, stderr = applied(cluster, document)
        assert code == 0, stderr
    name = largest_tenant()["metadata"]["name"]
    await api.until("Tenant", name, is_ready, timeout=CALM)
    await leave(api, name)
    await api.delete("Plan", largest_plan()["metadata"]["name"])


@pytest.mark.parametrize("size", [MEGABYTE, 3 * MEGABYTE // 2])
async def test_an_archive_of_that_size_is_looked_after(cluster: Cluster, api: Api, size: int) -> None:
    code, stderr = applied(cluster, archive(tenantSpec={"padding": "x" * size}))
    assert code == 0, stderr
    await api.until("TenantArchive", "hostile-1f0c9a2e", is_ready, timeout=CALM)
    await api.delete("TenantArchive", "hostile-1f0c9a2e")
    await api.until("TenantArchive", "hostile-1f0c9a2e", lambda found: found is None, timeout=CALM)


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


@pytest.mark.parametrize("case", ODD_ARCHIVES)
async def test_an_archive_that_no_operator_wrote_purges_nothing(
    cluster: Cluster, api: Api, case: str
) -> None:
    before = {item["metadata"]["uid"] for item in await api.list("Namespace")}
    code, stderr = applied(cluster, archive(**ODD_ARCHIVES[case]))
    assert code == 0, stderr
    if case != "of long ago":  # which is gone again at once
        await api.until("TenantArchive", "hostile-1f0c9a2e", is_ready, timeout=CALM)
    await api.delete("TenantArchive", "hostile-1f0c9a2e")
    await api.until("TenantArchive", "hostile-1f0c9a2e", lambda found: found is None, timeout=CALM)
    assert before <= {item["metadata"]["uid"] for item in await api.list("Namespace")}


# --- metadata and status that others write ------------------------------------------------------------------------


async def test_a_thousand_field_managers_at_a_time_of_no_calendar(api: Api) -> None:
    document = tenant("hostile")
    document["metadata"]["annotations"] = {f"example.com/{number}": "x" for number in range(1000)}
    document["metadata"]["managedFields"] = [
        {
            "manager": f"manager-{number}",
            "operation": "Apply",
            "apiVersion": "tenantry.dev/v1alpha1",
            "time": "0000-01-01T00:00:00Z" if number % 2 else "9999-12-31T23:59:59Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:annotations": {f"f:example.com/{number}": {}}}},
        }
        for number in range(1000)
    ]
    await api.create("Tenant", document)
    found = await api.until("Tenant", "hostile", is_ready, timeout=CALM)
    assert len(found["metadata"]["managedFields"]) > 1000
    await api.patch("Tenant", "hostile", {"spec": {"plan": "gone"}})
    await api.until("Tenant", "hostile", lambda found: condition(found, "Reconciling"), timeout=CALM)


async def test_a_hundred_finalizers_of_others_hold_the_object_and_nothing_of_ours(api: Api) -> None:
    document = tenant("hostile", deletionPolicy="Delete")
    document["metadata"]["finalizers"] = [f"example.com/finalizer-{number}" for number in range(100)]
    await api.create("Tenant", document)
    await api.until("Tenant", "hostile", is_ready, timeout=CALM)
    await api.delete("Tenant", "hostile")
    held = await api.until(
        "Tenant", "hostile", lambda found: "tenantry.dev/cleanup" not in str(found), timeout=CALM
    )
    assert len(held["metadata"]["finalizers"]) == 100
    assert await api.get("Namespace", "tenant-hostile") is None
    await api.patch("Tenant", "hostile", {"metadata": {"finalizers": None}})


async def test_an_owner_that_never_was_takes_the_tenant_along_and_not_its_data(api: Api) -> None:
    """Garbage collection deletes what such a reference names an owner of: a deletion as any other."""
    document = tenant("hostile")
    nobody = {"apiVersion": "v1", "kind": "Namespace", "name": "nobody", "uid": "no-such-uid"}
    document["metadata"]["ownerReferences"] = [
        nobody,
        {**nobody, "apiVersion": "x.example/v9", "kind": "Odd", "uid": "2"},
    ]
    await api.create("Tenant", document)
    await api.until("Tenant", "hostile", is_ready, timeout=CALM)
    await api.patch("Tenant", "hostile", {"metadata": {"ownerReferences": [nobody]}})
    await api.until("Tenant", "hostile", lambda found: found is None, timeout=CALM)
    (kept,) = await api.list("TenantArchive")
    assert await api.get("Namespace", "tenant-hostile") is not None
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


@pytest.mark.parametrize("case", STATUSES)
async def test_a_status_that_somebody_else_wrote_stops_nobody(api: Api, case: str) -> None:
    """Also after a restart, as the unit tests of unreadable objects have it."""
    await api.apply(tenant("hostile", plan="pro"))
    ready = await api.until("Tenant", "hostile", is_ready, timeout=CALM)
    await api.patch("Tenant", "hostile", {"status": STATUSES[case]}, subresource="status", manager="hacker")
    await api.patch("Tenant", "hostile", {"spec": {"displayName": "Later"}})
    found = await api.until("Tenant", "hostile", is_ready, timeout=CALM)
    assert (found["status"]["namespace"], found["status"]["plan"]) == ("tenant-hostile", "pro")
    assert found["status"]["configRevision"] == ready["status"]["configRevision"]


# --- many at once -------------------------------------------------------------------------------------------------


async def test_a_hundred_bad_tenants_do_not_hold_up_a_good_one(cluster: Cluster, api: Api) -> None:
    names = [f"bad-{number}" for number in range(100)]
    crowd = [tenant(name, namespace={"name": "tenant-innocent"}) for name in names]
    code, stderr = applied(cluster, yaml.safe_dump_all(crowd))
    assert code == 0, stderr
    await an_edit_gets_through(api)
    for name in names:
        stalled = await api.until("Tenant", name, is_stalled("NamespaceClaimed"), timeout=CALM)
    assert condition(stalled, "Stalled")["message"] == (  # type: ignore[index]
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
    "dimensions": (
        {"vectorStore": {"dimensions": "many"}},
        "spec.vectorStore.dimensions: Input should be a valid integer",
        {},
    ),
    "policy": (
        {"deletionPolicy": "Freeze"},
        "spec.deletionPolicy: Input should be 'Retain' or 'Delete', not 'Freeze'",
        FREE,
    ),
    "owner": (
        {"owner": {"email": 5}},
        "spec.owner.email: Input should be a valid string, not 5",
        {"owner": {"email": "a@b.example"}},
    ),
    "namespace": (
        {"namespace": "text"},
        "spec.namespace: Input should be a valid dictionary",
        {"namespace": None},
    ),
}
"""By name: what the spec holds, what is said of it, and a patch that corrects it."""

DECIDES = ("policy", "owner", "namespace")


async def test_what_another_schema_let_in_is_named_and_can_leave(
    cluster: Cluster, api: Api, operator: OperatorProcess
) -> None:
    with without_rules(cluster):
        for name, (spec, _, _) in NOT_OF_THIS_SCHEMA.items():
            document = {**tenant(name), "spec": {**tenant(name)["spec"], **FREE, **spec}}
            await _at_last(cluster, document)
        await _at_last(cluster, {**of_plan(rank="first"), "metadata": {"name": "rankless"}})
        await _at_last(cluster, tenant("dotted.name", **FREE))
    for name, (_, words, _) in NOT_OF_THIS_SCHEMA.items():
        stalled = await api.until("Tenant", name, is_stalled("InvalidSpec"), timeout=CALM)
        assert condition(stalled, "Stalled")["message"].startswith(words)  # type: ignore[index]
    stalled = await api.until("Plan", "rankless", is_stalled("InvalidSpec"), timeout=CALM)
    assert condition(stalled, "Stalled")["message"].startswith("spec.rank: Input should be a valid integer")  # type: ignore[index]
    refused = await api.until(
        "Tenant", "dotted.name", lambda found: condition(found, "Reconciling"), timeout=CALM
    )
    assert 'Namespace "tenant-dotted.name" is invalid' in condition(refused, "Ready")["message"]  # type: ignore[index]
    assert operator.stop() == 0
    await operator.start()
    await an_edit_gets_through(api)
    await asyncio.gather(*(api.delete("Tenant", name) for name in [*NOT_OF_THIS_SCHEMA, "dotted.name"]))
    await api.delete("Plan", "rankless")
    for name in DECIDES:
        waits = await api.until(
            "Tenant", name, lambda found: "take its finalizer" in str(found), timeout=CALM
        )
        assert condition(waits, "Stalled")["reason"] == "InvalidSpec"  # type: ignore[index]
        await api.patch("Tenant", name, {"spec": copy.deepcopy(NOT_OF_THIS_SCHEMA[name][2])})
    for name in [*NOT_OF_THIS_SCHEMA, "dotted.name"]:
        await api.until("Tenant", name, lambda found: found is None, timeout=CALM)


async def _at_last(cluster: Cluster, document: Object) -> None:
    """Apply what the API server takes as soon as it serves the changed definition."""
    async with asyncio.timeout(CALM):
        while applied(cluster, document)[0] != 0:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
