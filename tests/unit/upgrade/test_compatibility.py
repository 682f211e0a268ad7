"""The definitions can replace those of every released version; and the check of that notices what it should."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tenantry.api.crds import crd_documents
from tests.conftest import REPOSITORY
from tests.unit.upgrade.compatibility import incompatibilities
from tests.unit.upgrade.next_version import next_documents, schema

Documents = dict[str, dict[str, Any]]
Change = Callable[[Documents], Any]

RELEASED = sorted(path for path in (REPOSITORY / "tests/data/released").iterdir() if path.is_dir())


def named(documents: Documents) -> Documents:
    return {each["metadata"]["name"].partition(".")[0]: each for each in documents.values()}


TODAY = named(crd_documents())


@pytest.mark.parametrize("release", RELEASED, ids=lambda path: path.name)
def test_today_replaces_every_released_version(release: Path) -> None:
    old = named({path.name: yaml.safe_load(path.read_text()) for path in release.glob("*.yaml")})
    assert old
    assert incompatibilities(old, TODAY) == [], "tests/data/released/README.md says what to do"


def test_a_definition_replaces_itself_and_what_is_added_is_no_break() -> None:
    assert incompatibilities(TODAY, TODAY) == []
    assert incompatibilities(TODAY, named(next_documents())) == []


def at(plural: str, path: str, change: Callable[[dict[str, Any]], Any]) -> Change:
    return lambda documents: change(schema(documents[plural], path))


def version(plural: str, /, **fields: Any) -> Change:
    return lambda documents: documents[plural]["spec"]["versions"][0].update(fields)


def names(plural: str, /, **fields: Any) -> Change:
    return lambda documents: documents[plural]["spec"]["names"].update(fields)


BREAKS: dict[str, tuple[Change, list[str]]] = {
    "kind removed": (lambda documents: documents.pop("plans"), ["plans: removed"]),
    "scope": (
        lambda documents: documents["plans"]["spec"].update(scope="Namespaced"),
        ["plans: scope was Cluster, is Namespaced"],
    ),
    "group": (
        lambda documents: documents["plans"]["spec"].update(group="example.dev"),
        ["plans: group was tenantry.dev, is example.dev"],
    ),
    "kind's name": (names("plans", kind="Offer"), ["plans: kind was Plan, is Offer"]),
    "plural": (names("plans", plural="offers"), ["plans: plural was plans, is offers"]),
    "short name": (names("plans", shortNames=[]), ["plans: short name pl removed"]),
    "version's name": (version("plans", name="v1"), ["plans v1alpha1: not served any more"]),
    "version not served": (version("plans", served=False), ["plans v1alpha1: not served any more"]),
    "version not stored": (
        version("plans", storage=False),
        ["plans v1alpha1: not stored any more, and nothing converts"],
    ),
    "status subresource": (version("plans", subresources={}), ["plans v1alpha1: subresource status removed"]),
    "field removed": (
        at("tenants", "spec", lambda spec: spec["properties"].pop("suspended")),
        ["tenants v1alpha1.spec.suspended: removed"],
    ),
    "field of the status removed": (
        at("tenants", "status", lambda status: status["properties"].pop("phase")),
        ["tenants v1alpha1.status.phase: removed"],
    ),
    "field of a list's entries removed": (
        at("tenants", "spec.members.[]", lambda member: member["properties"].pop("role")),
        ["tenants v1alpha1.spec.members[].role: removed"],
    ),
    "type": (
        at("plans", "spec.rank", lambda rank: rank.update(type="number")),
        ["plans v1alpha1.spec.rank: type was 'integer', is 'number'"],
    ),
    "newly required": (
        at("tenants", "spec", lambda spec: spec["required"].append("displayName")),
        ["tenants v1alpha1.spec.displayName: newly required"],
    ),
    "new and required": (
        at(
            "tenants",
            "spec",
            lambda spec: (spec["properties"].update(a={"type": "string"}), spec["required"].append("a")),
        ),
        ["tenants v1alpha1.spec.a: newly required"],
    ),
    "enum value removed": (
        at("tenants", "spec.deletionPolicy", lambda policy: policy["enum"].remove("Delete")),
        ["tenants v1alpha1.spec.deletionPolicy: enum value 'Delete' removed"],
    ),
    "enum where everything was allowed": (
        at("tenants", "spec.displayName", lambda name: name.update(enum=["Acme"])),
        ["tenants v1alpha1.spec.displayName: enum value 'everything else' removed"],
    ),
    "default changed": (
        at("tenants", "spec.deletionPolicy", lambda policy: policy.update(default="Delete")),
        ["tenants v1alpha1.spec.deletionPolicy: default was 'Retain', is 'Delete'"],
    ),
    "shorter": (
        at("tenants", "spec.displayName", lambda name: name.update(maxLength=10)),
        ["tenants v1alpha1.spec.displayName: maxLength was 100, is 10"],
    ),
    "longer at least": (
        at("tenants", "spec.displayName", lambda name: name.update(minLength=2)),
        ["tenants v1alpha1.spec.displayName: minLength was 1, is 2"],
    ),
    "list without order": (
        at("tenants", "spec.members", lambda members: members.update({"x-kubernetes-list-type": "atomic"})),
        ["tenants v1alpha1.spec.members: x-kubernetes-list-type was 'map', is 'atomic'"],
    ),
    "map that is closed": (
        at("plans", "spec.resources.quota", lambda quota: quota.pop("additionalProperties")),
        ["plans v1alpha1.spec.resources.quota: additionalProperties removed"],
    ),
    "rule": (
        at(
            "tenants",
            "spec",
            lambda spec: spec.setdefault("x-kubernetes-validations", []).append({"rule": "false"}),
        ),
        ["tenants v1alpha1.spec: new rule 'false'"],
    ),
}


@pytest.mark.parametrize("case", BREAKS)
def test_a_break_is_noticed_and_named(case: str) -> None:
    change, complaints = BREAKS[case]
    tomorrow = copy.deepcopy(TODAY)
    change(tomorrow)
    assert incompatibilities(TODAY, tomorrow) == complaints


ADDITIONS: dict[str, Change] = {
    "required with a default": at(
        "tenants",
        "spec",
        lambda spec: (
            spec["properties"].update(a={"type": "string", "default": "b"}),
            spec["required"].append("a"),
        ),
    ),
    "longer": at("tenants", "spec.displayName", lambda name: name.update(maxLength=200)),
    "no limit": at("tenants", "spec.displayName", lambda name: name.pop("maxLength")),
    "no enum": at("tenants", "spec.deletionPolicy", lambda policy: policy.pop("enum")),
    "not required": at("tenants", "spec", lambda spec: spec["required"].remove("owner")),
    "another description": at("tenants", "spec", lambda spec: spec.update(description="Other words.")),
    "one more version": lambda documents: documents["tenants"]["spec"]["versions"].append(
        {**documents["tenants"]["spec"]["versions"][0], "name": "v1", "storage": False}
    ),
}


@pytest.mark.parametrize("case", ADDITIONS)
def test_what_only_allows_more_is_no_break(case: str) -> None:
    tomorrow = copy.deepcopy(TODAY)
    ADDITIONS[case](tomorrow)
    assert tomorrow != TODAY
    assert incompatibilities(TODAY, tomorrow) == []
