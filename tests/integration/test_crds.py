"""The definitions on a real API server: transitions, defaults, columns, limits of cost."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tenantry.api.crds import crd_documents
from tests.conftest import Cluster
from tests.integration.kind_objects import (
    Kubectl,
    Object,
    apply,
    assert_accepted,
    assert_refused,
    drop,
    move,
    plan,
    put,
    shard,
    tenant,
    try_out,
    with_spec,
)

Stored = Callable[[Object], Object]


@pytest.fixture
def stored(kubectl: Kubectl) -> Iterator[Stored]:
    """Applies an object for the time of a test and returns what the API server made of it."""
    applied: list[str] = []

    def store(document: Object) -> Object:
        kind = f"{document['kind']}.{document['apiVersion'].split('/')[0]}".lower()
        applied.append(f"{kind}/{document['metadata']['name']}")
        assert_accepted(apply(kubectl, document))
        read: Object = json.loads(kubectl("get", applied[-1], "-o", "json").stdout)
        return read

    yield store
    for reference in reversed(applied):
        if reference.startswith("tenant.tenantry"):  # an operator may be running: leave nothing retained
            kubectl(
                "patch",
                reference,
                "--type=merge",
                "-p",
                '{"spec": {"deletionPolicy": "Delete"}}',
                check=False,
            )
        if reference.startswith("tenantarchive.tenantry"):  # its vectors are nowhere: nobody waits for them
            kubectl("annotate", reference, "tenantry.dev/purge-without-export=true", check=False)
        kubectl("delete", reference, "--ignore-not-found")


VECTORS = {"dimensions": 1536, "metric": "l2", "type": "halfvec"}
TRANSITIONS = {
    "namespace-set-later": (tenant("moving"), {"namespace": {"name": "other"}}, "keep tenant-moving"),
    "namespace-default-spelled-out": (tenant("moving"), {"namespace": {"name": "tenant-moving"}}, None),
    "namespace-changed": (
        with_spec(tenant("moving"), namespace={"name": "one"}),
        {"namespace": {"name": "two"}},
        "spec.namespace: Forbidden: spec.namespace.name cannot be changed: keep one",
    ),
    "namespace-removed": (
        with_spec(tenant("moving"), namespace={"name": "one"}),
        {"namespace": {}},
        "keep one",
    ),
    "vectors-set-later": (tenant("moving"), {"vectorStore": VECTORS}, None),
    "vectors-removed": (
        with_spec(tenant("moving"), vectorStore=VECTORS),
        {"vectorStore": None},
        "vectorStore cannot be removed once set",
    ),
    **{
        f"vectors-{field}": (
            with_spec(tenant("moving"), vectorStore=VECTORS),
            {"vectorStore": {**VECTORS, field: value}},
            f"spec.vectorStore.{field}: Forbidden: {field} cannot be changed once set",
        )
        for field, value in {"dimensions": 8, "metric": "cosine", "type": "vector"}.items()
    },
    "display-name": (with_spec(tenant("moving"), displayName="Old"), {"displayName": "New"}, None),
    "currency": (plan("moving"), {"currency": "eur"}, "put usd back or create another Plan"),
    "pin-changed": (
        with_spec(tenant("moving"), vectorStore={**VECTORS, "shard": "shard-a"}),
        {"vectorStore": {**VECTORS, "shard": "shard-b"}},
        None,
    ),
    "engine": (
        shard("moving"),
        {"engine": "weaviate"},
        "spec.engine: Forbidden: engine cannot be changed, the vectors are in it",
    ),
    "drain": (shard("moving"), {"drain": True, "weight": 3, "capacity": {}}, None),
    "move-tenant": (move("moving"), {"tenant": "rival"}, "spec.tenant: Forbidden: tenant cannot be changed"),
    "move-target": (
        move("moving"),
        {"targetShard": "c"},
        "spec.targetShard: Forbidden: targetShard cannot be",
    ),
    "move-reason": (move("moving"), {"reason": "Drain"}, "spec.reason: Forbidden: reason cannot be changed"),
    "move-abort": (move("moving"), {"abort": True}, None),
    "move-abort-taken-back": (
        with_spec(move("moving"), abort=True),
        {"abort": False},
        "spec.abort: Forbidden: abort cannot be taken back",
    ),
    "prices": (plan("moving"), {"prices": [{"interval": "month", "amount": "2.00"}]}, None),
}


@pytest.mark.parametrize(("before", "change", "message"), TRANSITIONS.values(), ids=TRANSITIONS.keys())
def test_transitions(
    kubectl: Kubectl, stored: Stored, before: Object, change: Object, message: str | None
) -> None:
    stored(before)
    spec = {key: value for key, value in {**before["spec"], **change}.items() if value is not None}
    result = try_out(kubectl, {**before, "spec": spec})
    if message is None:
        assert_accepted(result)
    else:
        assert_refused(result, message)


def archive() -> Object:
    return {
        "apiVersion": "tenantry.dev/v1alpha1",
        "kind": "TenantArchive",
        "metadata": {"name": "archived-1f0c9a2e"},
        "spec": {
            "tenant": "archived",
            "tenantUID": "1f0c9a2e-0000-0000-0000-000000000000",
            "owner": {"email": "ops@archived.example"},
            "tenantSpec": {
                "owner": {"email": "ops@archived.example"},
                "members": [{"name": "alice"}],
                "new": {"er": 1},
            },
            "namespace": "tenant-archived",
            "placement": {"shard": "shard-a", "epoch": 4},
            "purgeAfter": "2030-01-01T00:00:00Z",
        },
    }


ARCHIVE_CHANGES = {
    "tenant": put("spec.tenant", "rival"),
    "tenantUID": put("spec.tenantUID", "another"),
    "owner": put("spec.owner.email", "rival@rival.example"),
    "tenantSpec": put("spec.tenantSpec.new.er", 2),
    "namespace": put("spec.namespace", "tenant-rival"),
    "placement": drop("spec.placement"),
}


@pytest.mark.parametrize("field", ARCHIVE_CHANGES)
def test_of_an_archive_only_purge_after_changes(kubectl: Kubectl, stored: Stored, field: str) -> None:
    assert stored(archive())["spec"] == archive()["spec"], "nothing is pruned"
    later = archive()
    later["spec"]["purgeAfter"] = "2031-01-01T00:00:00Z"
    assert_accepted(try_out(kubectl, later))
    ARCHIVE_CHANGES[field](later)
    assert_refused(try_out(kubectl, later), f"spec.{field}: Forbidden: {field} cannot be changed")


@pytest.mark.parametrize(
    "document", [tenant("fresh"), plan("fresh"), shard("fresh"), move("fresh")], ids=lambda item: item["kind"]
)
def test_a_new_object_waits_for_the_operator(kubectl: Kubectl, document: Object) -> None:
    """A dry run shows what every client sees first, also while an operator is running."""
    created = apply(kubectl, document, "--dry-run=server", "-o", "json")
    status = json.loads(created.stdout)["status"]
    assert status["observedGeneration"] == -1
    (ready,) = status["conditions"]
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "Unknown", "Pending")
    assert ready["message"] == "Waiting for the operator"


def test_defaults(stored: Stored) -> None:
    document = with_spec(
        tenant("fresh"),
        members=[{"kind": "User", "name": "alice", "role": "viewer"}],
        vectorStore={"dimensions": 8},
        namespace={},
    )
    spec = stored(document)["spec"]
    assert (spec["suspended"], spec["deletionPolicy"], spec["retentionDays"]) == (False, "Retain", 30)
    assert spec["members"][0]["namespace"] == ""
    assert spec["vectorStore"] == {"dimensions": 8, "metric": "cosine", "type": "vector", "shard": ""}
    assert spec["namespace"] == {"adoption": "Never"}
    of_plan = stored(plan("fresh"))["spec"]
    assert (of_plan["trialDays"], of_plan["podSecurity"], of_plan["priority"]) == (0, "restricted", "normal")
    of_shard = stored(shard("fresh"))["spec"]
    assert (of_shard["weight"], of_shard["cordoned"], of_shard["drain"]) == (1, False, False)
    of_move = stored(move("fresh"))
    assert (of_move["spec"]["reason"], of_move["spec"]["abort"]) == ("Requested", False)
    assert of_move["status"]["phase"] == "Pending"


def test_a_tenant_is_told_apart_by_its_members_keys(kubectl: Kubectl, stored: Stored) -> None:
    """Two writers each own their own members: a list-map, not a list."""
    stored(with_spec(tenant("shared"), members=[{"kind": "User", "name": "alice", "role": "owner"}]))
    second = with_spec(tenant("shared"), members=[{"kind": "User", "name": "bob", "role": "viewer"}])
    assert_accepted(apply(kubectl, second, "--field-manager=portal"))
    names = kubectl("get", "tenant/shared", "-o", "jsonpath={.spec.members[*].name}").stdout
    assert sorted(names.split()) == ["alice", "bob"]


def test_columns(kubectl: Kubectl, stored: Stored) -> None:
    stored(tenant("shown"))
    stored(
        with_spec(
            plan("shown"),
            prices=[{"interval": "year", "amount": "10.00"}, {"interval": "month", "amount": "1.00"}],
        )
    )
    header, line = kubectl("get", "tn", "shown").stdout.splitlines()
    assert header.split() == ["NAME", "PLAN", "PHASE", "NAMESPACE", "SHARD", "READY", "AGE"]
    assert {"Unknown", "True", "False"} & set(line.split())
    assert kubectl("get", "tn", "shown", "-o", "wide").stdout.splitlines()[0].split()[-1] == "MESSAGE"
    header, line = kubectl("get", "pl", "shown").stdout.splitlines()
    assert header.split() == ["NAME", "PRICE", "TENANTS", "AGE"]
    assert line.split()[:3] == ["shown", "1.00", "0"]
    stored(shard("shown"))
    stored(move("shown"))
    header, line = kubectl("get", "vs", "shown").stdout.splitlines()
    assert header.split() == ["NAME", "ENGINE", "TENANTS", "STORAGE", "SHARE", "READY", "AGE"]
    assert line.split()[:2] == ["shown", "pgvector"]
    header, line = kubectl("get", "tmv", "shown").stdout.splitlines()
    assert header.split() == ["NAME", "TENANT", "FROM", "TO", "PHASE", "ROWS", "LAG", "PAUSE-MS", "AGE"]
    assert line.split()[:4] == ["shown", "acme", "shard-b", "Pending"]
    assert "tenant.tenantry.dev/shown" in kubectl("get", "tenantry", "-o", "name").stdout


def test_explain(kubectl: Kubectl) -> None:
    shown = kubectl("explain", "tenant.spec.members").stdout
    assert "Who has access to the tenant's namespace" in shown
    assert "enum: owner, editor, viewer" in shown


def test_every_definition_is_accepted_with_room(kubectl: Kubectl) -> None:
    """Twice the sizes still fit what an API server allows rules to cost."""

    def twice(node: Any) -> Any:
        if isinstance(node, list):
            return [twice(entry) for entry in node]
        if not isinstance(node, dict):
            return node
        sizes = ("maxItems", "maxLength", "maxProperties")
        return {
            key: value * 2 if key in sizes and isinstance(value, int) else twice(value)
            for key, value in node.items()
        }

    for document in crd_documents().values():
        assert_accepted(apply(kubectl, twice(document), "--dry-run=server", "--force-conflicts"))


def test_an_object_of_an_older_laxer_schema_can_still_be_changed(
    kubectl: Kubectl, stored: Stored, control_plane: Cluster
) -> None:
    """Ratcheting: only what a change touches must satisfy the rules of today."""
    strict = copy.deepcopy(crd_documents()["plans.yaml"])
    strict["spec"]["group"] = "ratcheting.example"
    # Names of its own: kubectl remembers for minutes what a name stands for.
    names = {"kind": "OldPlan", "listKind": "OldPlanList", "plural": "oldplans", "singular": "oldplan"}
    strict["spec"]["names"] = names
    strict["metadata"]["name"] = "oldplans.ratcheting.example"
    lax = copy.deepcopy(strict)
    properties = lax["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    del properties["resources"]["properties"]["quota"]["additionalProperties"]["x-kubernetes-validations"]
    stored(lax)
    control_plane.established("crd/oldplans.ratcheting.example")
    old = {
        **with_spec(plan("old"), resources={"quota": {"pods": "many"}}),
        "apiVersion": "ratcheting.example/v1alpha1",
        "kind": "OldPlan",
    }
    _eventually(lambda: apply(kubectl, old).returncode == 0)

    assert_accepted(apply(kubectl, strict))
    fresh = {**old, "metadata": {"name": "new"}}
    _eventually(lambda: try_out(kubectl, fresh).returncode != 0)
    assert_refused(try_out(kubectl, fresh), "must be a quantity")
    assert_accepted(try_out(kubectl, with_spec(old, displayName="Renamed")))
    worse = with_spec(old, resources={"quota": {"pods": "lots"}})
    assert_refused(try_out(kubectl, worse), "must be a quantity")


def _eventually(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Waits for what an API server does in its own time: it serves a changed definition shortly after."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.1)
