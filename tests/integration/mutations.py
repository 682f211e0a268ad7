"""Every way in which somebody could change an object by hand, derived from the API server's own schema."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

SERVER_OWNED = frozenset(
    {
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "generation",
        "managedFields",
        "name",
        "namespace",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)
"""Metadata that names the object or that only the API server writes."""

WORDS: Mapping[str, tuple[Any, ...]] = {
    "apiGroup": ("rbac.authorization.k8s.io",),
    "apiVersion": ("v1",),
    "cidr": ("198.51.100.0/24", "2001:db8::/32"),
    "endPort": (65000,),
    "except": ("198.51.100.128/25",),
    "finalizers": ("drift.example/hold",),
    "generateName": ("drift-",),
    "key": ("drift",),
    "kind": ("User", "Group", "ServiceAccount", "ConfigMap"),
    "namespace": ("default",),
    "operator": ("Exists", "In"),
    "port": (1, "drift"),
    "type": ("Pod", "PersistentVolumeClaim"),
    "uid": ("00000000-0000-4000-8000-000000000000",),
}
"""Values that make sense, where a schema says no more than `string` or `integer`."""

KEYS: Mapping[str, tuple[str, ...]] = {
    "annotations": ("drift.example/note", "tenantry.dev/drift"),
    "default": ("ephemeral-storage",),
    "defaultRequest": ("ephemeral-storage",),
    "hard": ("count/secrets", "persistentvolumeclaims", "pods"),
    "labels": ("drift.example/label", "tenantry.dev/drift"),
    "max": ("ephemeral-storage",),
    "maxLimitRequestRatio": ("cpu",),
    "min": ("cpu", "ephemeral-storage"),
}
"""Keys that make sense in a map, by the map's name."""

COMPANIONS: Mapping[str, Object] = {
    "endPort": {"port": 1},
    "namespace": {"kind": "ServiceAccount"},
    "values": {"operator": "In"},
}
"""What an optional field needs beside it to be valid."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One change by hand: what it does, and the whole object after it."""

    what: str
    manifest: Object


class Schema:
    """The schemas of one API group's OpenAPI v3 document."""

    def __init__(self, document: Object) -> None:
        self._schemas: Object = document["components"]["schemas"]

    def of(self, kind: str) -> Object:
        """Return the schema of a kind that the group serves."""
        return next(
            schema
            for schema in self._schemas.values()
            if any(item["kind"] == kind for item in schema.get("x-kubernetes-group-version-kind", []))
        )

    def resolve(self, schema: Object) -> Object:
        """Follow references."""
        while True:
            reference = schema.get("$ref") or (schema.get("allOf") or [{}])[0].get("$ref")
            if reference is None:
                return schema
            schema = self._schemas[reference.rpartition("/")[2]]

    def samples(self, schema: Object, name: str) -> list[Any]:
        """Return values of a schema, of an object one for each optional field."""
        schema = self.resolve(schema)
        if "enum" in schema:
            return list(schema["enum"])
        match schema.get("type"):
            case "object":
                return self._objects(schema, name)
            case "array":
                return [[item] for item in self.samples(schema["items"], name)]
            case "boolean":
                return [True, False]
            case "integer":
                return list(WORDS.get(name, (7,)))
        if schema.get("format") == "byte":
            return ["ZHJpZnQ="]
        if "oneOf" in schema:  # a quantity, or an int-or-string
            return list(WORDS.get(name, ("7",)))
        return list(WORDS.get(name, ("drift",)))

    def _objects(self, schema: Object, name: str) -> list[Object]:
        if "properties" not in schema:
            value = schema.get("additionalProperties", {"type": "string"})
            return [{key: self.samples(value, "")[0]} for key in KEYS.get(name, ("drift",))]
        properties: Object = schema["properties"]
        required = schema.get("required", [])
        samples = {key: self.samples(properties[key], key) for key in required}
        least = {key: values[0] for key, values in samples.items()}
        found = [least]
        found += [{**least, key: value} for key, values in samples.items() for value in values[1:]]
        for key in properties.keys() - set(required):
            known = {name: value for name, value in COMPANIONS.get(key, {}).items() if name in properties}
            found += [{**least, **known, key: value} for value in self.samples(properties[key], key)]
        return found

    def additions(self, schema: Object, value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
        """Yield the value with one field, key or entry more, at every place where there can be one."""
        schema, name = self.resolve(schema), path.rpartition(".")[2].partition("[")[0]
        if isinstance(value, list):
            for sample in self.samples(schema["items"], name):
                yield f"{path}[+]={sample}", [*value, sample]
            yield from self._within_list(self.additions, schema, value, path)
        elif isinstance(value, dict):
            properties = schema.get("properties")
            if properties is None:
                for sample in self._objects(schema, name):
                    if not sample.keys() & value.keys():
                        yield f"{path}+{sample}", {**value, **sample}
                return
            for key in properties.keys() - value.keys() - _kept(path):
                for sample in self.samples(properties[key], key):
                    yield f"{path}.{key}={sample}", {**value, key: sample}
            yield from self._within_object(self.additions, schema, value, path)

    def changes(self, schema: Object, value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
        """Yield the value with one scalar in it changed, at every place where there is one."""
        schema, name = self.resolve(schema), path.rpartition(".")[2].partition("[")[0]
        if isinstance(value, list):
            yield from self._within_list(self.changes, schema, value, path)
        elif isinstance(value, dict) and "properties" in schema:
            yield from self._within_object(self.changes, schema, value, path)
        elif isinstance(value, dict):
            each = schema.get("additionalProperties", {"type": "string"})
            for key, item in value.items():
                other = "changed" if not isinstance(item, str) else next(iter(self.samples(each, "")))
                yield f"{path}.{key}:={other}", {**value, key: other}
        else:
            for sample in self.samples(schema, name):
                if sample != value:
                    yield f"{path}:={sample}", sample

    def _within_list(self, walk: Any, schema: Object, value: Any, path: str) -> Iterator[tuple[str, Any]]:
        for index, item in enumerate(value):
            for where, new in walk(schema["items"], item, f"{path}[{index}]"):
                yield where, [*value[:index], new, *value[index + 1 :]]

    def _within_object(self, walk: Any, schema: Object, value: Any, path: str) -> Iterator[tuple[str, Any]]:
        for key in value.keys() - _kept(path):
            for where, new in walk(schema["properties"][key], value[key], f"{path}.{key}"):
                yield where, {**value, key: new}


def _kept(path: str) -> frozenset[str]:
    if path == ".metadata":
        return SERVER_OWNED
    return frozenset({"apiVersion", "kind", "status"}) if path == "" else frozenset()


def removals(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the value with one field, key or entry less, at every place where there is one."""
    if isinstance(value, list):
        if len(value) > 1:
            yield f"{path} emptied", []
        for index, item in enumerate(value):
            yield f"{path}[{index}] removed", [*value[:index], *value[index + 1 :]]
            for where, new in removals(item, f"{path}[{index}]"):
                yield where, [*value[:index], new, *value[index + 1 :]]
    elif isinstance(value, dict):
        for key in value.keys() - _kept(path):
            if path or key != "metadata":
                yield f"{path}.{key} removed", {name: item for name, item in value.items() if name != key}
            for where, new in removals(value[key], f"{path}.{key}"):
                yield where, {**value, key: new}


def content(item: Object | None) -> Object | None:
    """Return everything of a stored object but what only the API server writes."""
    if item is None:
        return None
    kept = {key: value for key, value in item.items() if key not in ("apiVersion", "kind", "status")}
    metadata = item["metadata"]
    identity = ("name", "namespace")
    kept["metadata"] = {k: v for k, v in metadata.items() if k in identity or k not in SERVER_OWNED}
    if "deletionTimestamp" in metadata:
        kept["metadata"]["deletionTimestamp"] = metadata["deletionTimestamp"]
    return kept


def mutations(kind: str, schema: Schema, stored: Object) -> Iterator[Mutation]:
    """Yield every change of an object: more, less, other, and nothing left but its name."""
    base = deepcopy(content(stored))
    assert base is not None
    for walk in (schema.additions, schema.changes):
        for what, manifest in walk(schema.of(kind), base):
            yield Mutation(f"{kind}/{stored['metadata']['name']} {what}", manifest)
    for what, manifest in removals(base):
        yield Mutation(f"{kind}/{stored['metadata']['name']} {what}", manifest)
    bare = {key: value for key, value in base["metadata"].items() if key in ("name", "namespace")}
    name = f"{kind}/{stored['metadata']['name']}"
    yield Mutation(f"{name} replaced by an empty one", {"metadata": bare})
    yield Mutation(f"{name} without metadata", {**base, "metadata": bare})


def place(what: str) -> str:
    """Return where a mutation changes its kind, without the object's name, positions and values."""
    kind, _, rest = what.partition("/")
    where = re.sub(r"\[(\d+|\+)\]", "[]", rest.partition(" ")[2])
    return f"{kind}{re.split('[=+:]| removed| emptied', where)[0]}"
