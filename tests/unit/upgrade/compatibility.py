"""Whether definitions can replace older ones in a cluster: every object and every client's manifest stays valid.

Versions share one schema, so what was once released can only be added to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

JsonObject = dict[str, Any]

_UPPER = ("maxLength", "maxItems", "maxProperties", "maximum")
_LOWER = ("minLength", "minItems", "minProperties", "minimum")
_FIXED = (
    *("type", "format", "pattern", "default", "nullable"),
    *("x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-preserve-unknown-fields"),
)
"""What must stay as it is: each of these changes which objects are valid, or what they mean."""


def incompatibilities(old: Mapping[str, JsonObject], new: Mapping[str, JsonObject]) -> list[str]:
    """Say what of `old` breaks under `new`, one line for each; both are definitions by name."""
    return [
        complaint
        for name, definition in old.items()
        for complaint in (_definition(name, definition, new[name]) if name in new else [f"{name}: removed"])
    ]


def _definition(name: str, old: JsonObject, new: JsonObject) -> Iterator[str]:
    for field in ("group", "scope"):
        if old["spec"][field] != new["spec"][field]:
            yield f"{name}: {field} was {old['spec'][field]}, is {new['spec'][field]}"
    for field in ("kind", "plural", "singular", "listKind"):
        before, after = (each["spec"]["names"][field] for each in (old, new))
        if before != after:
            yield f"{name}: {field} was {before}, is {after}"
    for short in sorted({*old["spec"]["names"]["shortNames"]} - {*new["spec"]["names"]["shortNames"]}):
        yield f"{name}: short name {short} removed"
    versions = {version["name"]: version for version in new["spec"]["versions"]}
    for version in old["spec"]["versions"]:
        yield from _version(f"{name} {version['name']}", version, versions.get(version["name"]))


def _version(where: str, old: JsonObject, new: JsonObject | None) -> Iterator[str]:
    if new is None or (old["served"] and not new["served"]):
        yield f"{where}: not served any more"
        return
    if old["storage"] and not new["storage"]:
        yield f"{where}: not stored any more, and nothing converts"
    for name in sorted(old.get("subresources", {}).keys() - new.get("subresources", {}).keys()):
        yield f"{where}: subresource {name} removed"
    yield from _schema(where, old["schema"]["openAPIV3Schema"], new["schema"]["openAPIV3Schema"])


def _schema(path: str, old: JsonObject, new: JsonObject) -> Iterator[str]:
    yield from _values(path, old, new)
    yield from _fields(path, old, new)
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if key in old and key in new:
            yield from _schema(path + mark, old[key], new[key])
        elif key in old or key in new:
            yield f"{path}: {key} {'removed' if key in old else 'added'}"


def _values(path: str, old: JsonObject, new: JsonObject) -> Iterator[str]:
    """What one value may be."""
    for key in _FIXED:
        if old.get(key) != new.get(key):
            yield f"{path}: {key} was {old.get(key)!r}, is {new.get(key)!r}"
    for key in (*_UPPER, *_LOWER):
        before, after = old.get(key), new.get(key)
        if after is not None and (before is None or (after < before if key in _UPPER else after > before)):
            yield f"{path}: {key} was {before}, is {after}"
    if "enum" in new:
        lost = [value for value in old.get("enum", ["everything else"]) if value not in new["enum"]]
        yield from (f"{path}: enum value {value!r} removed" for value in lost)
    rules = {rule["rule"] for rule in old.get("x-kubernetes-validations", [])}
    for rule in new.get("x-kubernetes-validations", []):
        if rule["rule"] not in rules:
            yield f"{path}: new rule {rule['rule']!r}"


def _fields(path: str, old: JsonObject, new: JsonObject) -> Iterator[str]:
    """What fields there are, and which must be given."""
    before, after = old.get("properties", {}), new.get("properties", {})
    for name in sorted(before.keys() - after.keys()):
        yield f"{path}.{name}: removed"
    for name in sorted(set(new.get("required", [])) - set(old.get("required", []))):
        if "default" not in after[name]:
            yield f"{path}.{name}: newly required"
    for name in before.keys() & after.keys():
        yield from _schema(f"{path}.{name}", before[name], after[name])
