"""What is remembered of an object, whatever a member of a tenant has written into it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.desired.configuration import config_map, controller_revision
from tenantry.desired.observe import is_our_revision, observe
from tenantry.desired.owner import Owner
from tenantry.domain.configuration import Revision, canonical
from tenantry.domain.observed import NamespaceDetail, RevisionDetail
from tests.unit.builders import tenant

ACME = Owner("acme", "uid-of-acme", "tenant-acme")
CONFIG = {"model": {"name": "gpt-4"}, "retrieval": {"topK": 3}, "limits": {"perPeriod": []}}


def edited(text: str) -> dict[str, Any]:
    manifest = config_map(ACME, tenant().spec, "pro", "normal", Revision(3, canonical(CONFIG)))
    return {**manifest, "data": {"config.json": text}}


def test_the_configuration_that_is_written_is_the_one_that_is_read_back() -> None:
    spec = tenant(vectorStore={"dimensions": 3}).spec
    seen = observe(config_map(ACME, spec, "pro", "normal", Revision(3, canonical(CONFIG))))
    assert seen.detail == RevisionDetail(3, canonical(CONFIG))


def test_a_revision_is_read_back_by_its_name() -> None:
    manifest = controller_revision(ACME, "uid", Revision(3, canonical(CONFIG)))
    assert observe(manifest).detail == RevisionDetail(3, canonical(CONFIG))
    assert observe({**manifest, "revision": 99}).detail == RevisionDetail(3, canonical(CONFIG))


@pytest.mark.parametrize("name", ["tenant-config-5f7c9d", "tenant-config-03", "tenant-config-", "web-3"])
def test_a_stateful_sets_own_revisions_are_none_of_ours(name: str) -> None:
    manifest = controller_revision(ACME, "uid", Revision(3, canonical(CONFIG)))
    assert observe({**manifest, "metadata": {**manifest["metadata"], "name": name}}).detail is None


NUMBERS: list[Any] = [None, "x", [], {}, True, 1.5, -1, 0, float("inf"), float("nan")]
NONSENSE = [
    *("", "{", "[]", "null", "3", '"x"', "{}", '{"revision": 3}'),
    *(json.dumps({**CONFIG, "revision": revision}) for revision in NUMBERS),
    "[" * 100_000,
    '{"model":' * 50_000,
    '{"revision": 1' + "0" * 5000 + "}",
    '{"model": "\\ud800", "retrieval": 1, "limits": 1, "revision": 3}',
]


@pytest.mark.parametrize("text", NONSENSE, ids=lambda text: text[:40])
def test_nothing_that_a_member_writes_into_tenant_config_stops_the_operator(text: str) -> None:
    detail = observe(edited(text)).detail
    if detail is not None:
        assert isinstance(detail, RevisionDetail)
        assert detail.revision > 0
        detail.config.encode()


@given(st.text())
def test_no_text_at_all_stops_it(text: str) -> None:
    observe(edited(text))


def written(manager: str, second: int, **more: str) -> dict[str, Any]:
    return {"manager": manager, "operation": "Apply", "time": f"2026-01-01T00:00:{second:02d}Z", **more}


@pytest.mark.parametrize(
    ("fields", "writer"),
    [
        ([], "unknown"),
        ([written("tenantry", 1)], "tenantry"),
        ([written("tenantry", 2), written("kubectl-edit", 1)], "tenantry"),
        ([written("tenantry", 1), written("kubectl-edit", 2)], "kubectl-edit"),
        ([written("kubectl-edit", 2), written("tenantry", 2)], "kubectl-edit"),
        ([written("tenantry", 1), written("kube-controller-manager", 2, subresource="status")], "tenantry"),
    ],
)
def test_who_changed_a_child_last(fields: list[dict[str, Any]], writer: str) -> None:
    manifest = edited("{}")
    manifest["metadata"]["managedFields"] = fields
    assert observe(manifest).writer == writer


def test_of_a_namespace_is_known_what_holds_it_and_what_we_applied() -> None:
    entry = {
        "manager": "tenantry",
        "operation": "Apply",
        "fieldsV1": {
            "f:metadata": {"f:labels": {".": {}, "f:a": {}}, "f:annotations": {"f:tenantry.dev/b": {}}}
        },
    }
    seen = observe(
        {
            "kind": "Namespace",
            "metadata": {
                "name": "n",
                "labels": {"a": "1", "z": "2"},
                "annotations": {"tenantry.dev/b": "x", "other": "y"},
                "managedFields": [{"manager": "tenantry", "operation": "Update"}, entry],
                "deletionTimestamp": "2026-01-01T00:00:00Z",
            },
            "status": {
                "conditions": [
                    {"status": "False", "message": "fine"},
                    {
                        "status": "True",
                        "message": "Some resources are remaining: pods. has 1 resource instances.",
                    },
                ]
            },
        }
    )
    assert seen.deleting
    detail = seen.detail
    assert isinstance(detail, NamespaceDetail)
    assert detail.labels == {"a": "1", "z": "2"}
    assert detail.annotations == {"tenantry.dev/b": "x"}, "others' annotations are none of our business"
    assert detail.owned_labels == {"a"}
    assert detail.owned_annotations == {"tenantry.dev/b"}
    assert detail.holding == "Some resources are remaining: pods. has 1 resource instances"


@pytest.mark.parametrize(
    ("manager", "operation", "labels", "made"),
    [
        ("tenantry", "Update", {"f:kubernetes.io/metadata.name": {}}, True),
        ("tenantry", "Update", {"f:other": {}}, False),
        ("tenantry", "Apply", {"f:kubernetes.io/metadata.name": {}}, False),
        ("kubectl-create", "Update", {"f:kubernetes.io/metadata.name": {}}, False),
    ],
)
def test_who_made_a_namespace(manager: str, operation: str, labels: dict[str, Any], made: bool) -> None:
    fields = {"f:metadata": {"f:labels": labels}}
    entry = {"manager": manager, "operation": operation, "fieldsV1": fields}
    detail = observe({"kind": "Namespace", "metadata": {"name": "n", "managedFields": [entry]}}).detail
    assert isinstance(detail, NamespaceDetail)
    assert detail.made_by_us is made


TEMPLATE = {"spec": {"template": {"$patch": "replace", "spec": {"containers": []}}}}
STATEFUL_SET = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "tenant-config", "controller": True}


@pytest.mark.parametrize(
    ("data", "owners", "ours"),
    [
        (CONFIG, [], True),
        (TEMPLATE, [], False),
        ({**CONFIG, **TEMPLATE}, [], False),
        ({}, [], False),
        (None, [], False),
        (CONFIG, [STATEFUL_SET], False),
    ],
)
def test_a_revision_that_a_backup_tool_brought_back_is_known_by_its_content(
    data: Any, owners: list[Any], ours: bool
) -> None:
    """Such a tool brings back neither its owner nor who wrote it."""
    made = controller_revision(ACME, "uid", Revision(3, canonical(CONFIG)))
    fields = [{"manager": "velero-server", "operation": "Update"}]
    metadata = {**made["metadata"], "ownerReferences": owners, "managedFields": fields}
    assert is_our_revision({**made, "metadata": metadata, "data": data}) is ours
