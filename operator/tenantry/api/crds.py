"""CustomResourceDefinitions out of the models: pydantic's JSON schema made structural for Kubernetes.

Pydantic's output differs from what an API server takes: it shares definitions by `$ref`, says "or null" with
`anyOf`, and adds titles. What the API server does itself (`metadata`, the type fields) is left to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tenantry.api.archive import TenantArchive
from tenantry.api.common import CATEGORY, GROUP, VERSION, Column, Resource
from tenantry.api.move import TenantMove
from tenantry.api.plan import Plan
from tenantry.api.schema import VALIDATIONS, merge
from tenantry.api.shard import VectorShard
from tenantry.api.tenant import Tenant

KINDS: tuple[type[Resource], ...] = (Tenant, Plan, VectorShard, TenantMove, TenantArchive)
"""The kinds whose definitions ship."""

JsonObject = dict[str, Any]

_TYPE_FIELDS: JsonObject = {
    "apiVersion": {
        "type": "string",
        "description": "The group and version of this object's schema, such as tenantry.dev/v1alpha1.",
    },
    "kind": {"type": "string", "description": "The kind of this object."},
    # All that a schema may say of metadata: with it, a rule about the name can point at the name.
    "metadata": {
        "type": "object",
        "properties": {"name": {"type": "string", "description": "The name of this object."}},
    },
}


def crd_documents() -> dict[str, JsonObject]:
    """Every CustomResourceDefinition by its file name, such as `tenants.yaml`."""
    return {f"{kind.DEFINITION.plural}.yaml": crd_document(kind) for kind in KINDS}


def crd_document(kind: type[Resource]) -> JsonObject:
    """The CustomResourceDefinition of one kind."""
    definition = kind.DEFINITION
    singular = kind.__name__.lower()
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{definition.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Cluster",
            "names": {
                "kind": kind.__name__,
                "listKind": f"{kind.__name__}List",
                "plural": definition.plural,
                "singular": singular,
                "shortNames": list(definition.short_names),
                "categories": [CATEGORY],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(column) for column in definition.columns],
                    **_selectable(definition.selectable),
                    "schema": {"openAPIV3Schema": _root_schema(kind)},
                }
            ],
        },
    }


def _selectable(paths: list[str]) -> JsonObject:
    return {"selectableFields": [{"jsonPath": path} for path in paths]} if paths else {}


def _column(column: Column) -> JsonObject:
    entry: JsonObject = {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.path,
        "description": column.description,
    }
    if column.priority:
        entry["priority"] = column.priority
    return entry


def _root_schema(kind: type[Resource]) -> JsonObject:
    source = kind.model_json_schema(by_alias=True)
    schema = structural(source, source.get("$defs", {}))
    schema["properties"] = {**schema["properties"], **_TYPE_FIELDS}
    _tell_defaults(schema["properties"]["spec"])
    status_default = kind.DEFINITION.status_default
    if status_default is not None:
        schema["properties"]["status"]["default"] = status_default
    schema["required"] = ["metadata", "spec"]
    if kind.DEFINITION.rules:
        schema[VALIDATIONS] = [rule.manifest() for rule in kind.DEFINITION.rules]
    return schema


def _tell_defaults(schema: JsonObject) -> None:
    """Say in each description what the default is: `kubectl explain` shows nothing else of it."""
    default = schema.get("default", "")
    if default != "" and "description" in schema:
        text = str(default).lower() if isinstance(default, bool) else str(default)
        schema["description"] += f" Defaults to {text}."
    for field in [*schema.get("properties", {}).values(), schema.get("items")]:
        if field is not None:
            _tell_defaults(field)


def structural(source: Mapping[str, Any], definitions: Mapping[str, Any]) -> JsonObject:
    """`source`, a JSON schema of pydantic's, as a structural schema: without references, titles and nulls."""
    schema = _resolved(source, definitions)
    result: JsonObject = {}
    for key in ("type", "description", "format", "enum", "nullable", "default"):
        if key in schema and _worth_writing(key, schema[key]):
            result[key] = schema[key]
    if "description" in result:
        result["description"] = " ".join(result["description"].split())
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            result[key] = structural(schema[key], definitions)
    if "properties" in schema:
        result["properties"] = {
            name: structural(field, definitions) for name, field in schema["properties"].items()
        }
    if schema.get("required"):
        result["required"] = schema["required"]
    result |= {key: value for key, value in schema.items() if key.startswith(("min", "max"))}
    result |= {key: value for key, value in schema.items() if key.startswith("x-kubernetes-")}
    return result


def _resolved(source: Mapping[str, Any], definitions: Mapping[str, Any]) -> JsonObject:
    """`source` with its reference and its `anyOf` with null replaced by what they stand for."""
    schema = dict(source)
    alternatives = [entry for entry in schema.pop("anyOf", []) if entry.get("type") != "null"]
    reference = schema.pop("$ref", None)
    if reference is not None:
        alternatives.append(definitions[reference.removeprefix("#/$defs/")])
    if not alternatives:
        return schema
    if len(alternatives) > 1:
        raise ValueError(f"a structural schema has no alternatives: {alternatives}")
    return merge(_resolved(alternatives[0], definitions), schema)


def _worth_writing(key: str, value: object) -> bool:
    """An empty default (nothing, or an empty list or object) says nothing that its absence does not."""
    return key != "default" or isinstance(value, bool | int | str)
