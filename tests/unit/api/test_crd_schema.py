"""The generated definitions: what every field of them must have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tenantry.api.crds import crd_documents, structural

DOCUMENTS = crd_documents()

CEL_FUNCTIONS_OF_1_30 = {
    *("has", "all", "exists", "exists_one", "filter", "map", "size", "matches", "startsWith", "contains"),
    *("isSorted", "isQuantity", "quantity", "compareTo", "isCIDR", "cidr", "masked", "containsIP"),
    *("indexOf", "isInteger", "getFullYear"),
}
"""Functions of CEL that Kubernetes 1.30 has, as far as our rules use them."""


def root(document: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def walk(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema in it with its path, `[]` for items and `{}` for values of a map."""
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from walk(field, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if key in schema:
            yield from walk(schema[key], path + mark)


NODES = [
    node
    for document in DOCUMENTS.values()
    for node in walk(root(document), document["spec"]["names"]["kind"])
]
RULES = [
    pytest.param(rule, id=f"{path}-{index}")
    for path, schema in NODES
    for index, rule in enumerate(schema.get("x-kubernetes-validations", []))
]


def test_every_field_is_described() -> None:
    fields = [(path, schema) for path, schema in NODES if not path.endswith(("[]", "{}", ".metadata"))]
    assert len(fields) > 100
    assert [path for path, schema in fields if len(schema.get("description", "")) < 10] == []


def test_every_schema_is_structural() -> None:
    for path, schema in NODES:
        assert "type" in schema, path
        assert not {"$ref", "anyOf", "allOf", "title", "const"} & schema.keys(), path


def test_everything_in_a_spec_has_a_largest_size() -> None:
    limit = {"string": "maxLength", "array": "maxItems", "integer": "maximum"}
    unlimited = [
        path
        for path, schema in NODES
        if ".spec." in path
        and (
            (schema["type"] in limit and not {limit[schema["type"]], "enum", "format"} & schema.keys())
            or ("additionalProperties" in schema and "maxProperties" not in schema)
        )
    ]
    assert unlimited == []


def test_lists_say_how_entries_are_told_apart() -> None:
    lists = {
        path: schema.get("x-kubernetes-list-type") for path, schema in NODES if schema["type"] == "array"
    }
    assert {path for path, kind in lists.items() if kind is None} == {"Plan.spec.usage[].tiers"}, (
        "order matters"
    )


def test_keys_of_list_maps_are_required_or_have_a_default() -> None:
    for path, schema in NODES:
        for key in schema.get("x-kubernetes-list-map-keys", []):
            items = schema["items"]
            assert key in items["required"] or "default" in items["properties"][key], f"{path}: {key}"


@pytest.mark.parametrize("rule", RULES)
def test_rules_run_on_kubernetes_1_30_and_speak(rule: dict[str, str]) -> None:
    text = re.sub(r"'[^']*'", "''", rule["rule"] + " " + rule.get("messageExpression", ""))
    assert set(re.findall(r"(\w+)\(", text)) <= CEL_FUNCTIONS_OF_1_30
    assert len(rule["message"]) > 20


def test_a_new_object_is_not_taken_for_a_ready_one() -> None:
    for name in ("tenants.yaml", "plans.yaml"):
        default = root(DOCUMENTS[name])["properties"]["status"]["default"]
        assert default["observedGeneration"] == -1
        assert [(entry["type"], entry["status"]) for entry in default["conditions"]] == [("Ready", "Unknown")]
        assert default.get("phase") == ("Pending" if name == "tenants.yaml" else None)


def test_columns() -> None:
    def columns(name: str, priority: int) -> list[str]:
        entries = DOCUMENTS[name]["spec"]["versions"][0]["additionalPrinterColumns"]
        return [entry["name"] for entry in entries if entry.get("priority", 0) == priority]

    assert columns("tenants.yaml", 0) == ["Plan", "Phase", "Namespace", "Shard", "Ready", "Age"]
    assert columns("tenants.yaml", 1) == ["Message"]
    assert columns("plans.yaml", 0) == ["Price", "Tenants", "Age"]
    assert columns("tenantarchives.yaml", 0) == ["Tenant", "Phase", "Purge-After", "Age"]


def test_columns_show_fields_that_exist() -> None:
    for document in DOCUMENTS.values():
        fields = {path.partition(".")[2] for path, _ in walk(root(document), "")}
        for column in document["spec"]["versions"][0]["additionalPrinterColumns"]:
            path = re.sub(r"\[\?\(@\.\w+==\"\w+\"\)\]", "[]", column["jsonPath"]).removeprefix(".")
            assert path in fields | {"metadata.creationTimestamp"}, column["name"]


def test_fields_that_can_be_selected_exist() -> None:
    selectable: dict[str, list[str]] = {}
    for name, document in DOCUMENTS.items():
        fields = {path for path, _ in walk(root(document), "")}
        entries = document["spec"]["versions"][0].get("selectableFields", [])
        selectable[name] = [entry["jsonPath"] for entry in entries]
        assert fields.issuperset(selectable[name])
    assert selectable["tenants.yaml"] == [
        ".spec.plan",
        ".status.plan",
        ".status.phase",
        ".status.placement.shard",
    ]
    assert selectable["tenantarchives.yaml"] == [".spec.tenant", ".status.phase"]


def test_descriptions_tell_the_default() -> None:
    told = {
        path: schema["description"].rpartition("Defaults to ")[2]
        for path, schema in NODES
        if ".spec." in path and schema.get("default", "") != ""
    }
    assert told["Tenant.spec.retentionDays"] == "30."
    assert told["Tenant.spec.suspended"] == "false."
    assert told["Tenant.spec.deletionPolicy"] == "Retain."
    for path, schema in NODES:
        if path in told:
            assert told[path] == f"{schema['default']}.".replace("False", "false"), path


def test_alternatives_have_no_structural_schema() -> None:
    with pytest.raises(ValueError, match="no alternatives"):
        structural({"anyOf": [{"type": "string"}, {"type": "integer"}]}, {})
