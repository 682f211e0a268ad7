"""The definitions as a later version may have them: made from today's by what such a version may add."""

from __future__ import annotations

import copy
from typing import Any

from tenantry.api.crds import crd_documents

JsonObject = dict[str, Any]

FREEZE = "Freeze"
"""A value of spec.deletionPolicy that this version does not know."""

TIER = "standard"
"""The default of spec.tier, a field that this version does not know."""


def schema(document: JsonObject, path: str = "") -> JsonObject:
    """The schema at a path such as `spec.members.[].role` of a definition, to be changed in place."""
    found: JsonObject = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for step in filter(None, path.split(".")):
        if step in ("[]", "{}"):
            found = found["items" if step == "[]" else "additionalProperties"]
        else:
            found = found["properties"][step]
    return found


def next_documents() -> dict[str, JsonObject]:
    """Every definition of the next version by its file name."""
    documents = copy.deepcopy(crd_documents())
    tenants = documents["tenants.yaml"]
    tier = {
        "type": "string",
        "enum": [TIER, "premium"],
        "default": TIER,
        "description": "What support it gets.",
    }
    schema(tenants, "spec")["properties"]["tier"] = tier
    schema(tenants, "spec.deletionPolicy")["enum"].append(FREEZE)
    health = {"type": "string", "description": "How its application does.", "default": "Unknown"}
    schema(tenants, "status")["properties"]["health"] = health
    regions = {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}
    schema(documents["plans.yaml"], "spec")["properties"]["regions"] = {
        **regions,
        "description": "Where it is sold.",
    }
    return documents
