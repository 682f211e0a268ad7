"""As much of an API server, in memory, as the reconcilers can tell from a real one.

Kept: uids, resourceVersions, generations, managedFields with forced server-side apply (maps are granular, lists
are one value, conditions are a map by type), finalizers, preconditions, defaulted status, terminating namespaces
and their controller (`collect`), watches with the label selectors of `adapters.kubernetes.kinds`.

Left out: schemas and their defaults, admission, immutable fields, quotas. The integration tests have those.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from tenantry.adapters.kubernetes.kinds import KINDS
from tenantry.api.common import PENDING_STATUS, rfc3339
from tenantry.domain import names
from tenantry.reconcile.ports import Clock, Conflict, Manifest, Missing, Refused

OWN = frozenset({"Tenant", "Plan", "VectorShard", "TenantMove", "TenantArchive"})
SYSTEM_METADATA = frozenset(
    {
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "managedFields",
    }
)

Path = tuple[str, ...]
"""Where a field is, in the notation of fieldsV1: ("f:spec", "f:plan")."""


class Ref(NamedTuple):
    """Which object."""

    kind: str
    namespace: str
    name: str


class Writer(NamedTuple):
    """One entry of managedFields."""

    manager: str
    operation: str
    subresource: str = ""


@dataclass(frozen=True)
class Stored:
    """An object without its managedFields, and who owns what of it since when. Never changed in place."""

    manifest: Manifest
    owners: Mapping[Writer, tuple[frozenset[Path], str]] = field(default_factory=dict)

    def rendered(self) -> Manifest:
        """Return a copy as the API server sends it."""
        manifest: Manifest = pickle.loads(self._pickled)
        return manifest

    @cached_property
    def _pickled(self) -> bytes:
        managed = [
            {
                "manager": writer.manager,
                "operation": writer.operation,
                **({"subresource": writer.subresource} if writer.subresource else {}),
                "time": time,
                "fieldsV1": _tree(owned),
            }
            for writer, (owned, time) in self.owners.items()
        ]
        metadata = {**self.manifest["metadata"], "managedFields": managed}
        return pickle.dumps({**self.manifest, "metadata": metadata})


class Event(NamedTuple):
    """What a watch tells: `before` is None for a new object, `after` for one that is gone."""

    before: Stored | None
    after: Stored | None

    @property
    def ref(self) -> Ref:
        """Return which object it is about."""
        last = self.after or self.before
        assert last is not None
        return _ref(last.manifest)


class ApiServer:
    """Stores objects; `watch` is told of every change."""

    def __init__(self, clock: Clock, watch: Callable[[Event], None]) -> None:
        self._clock = clock
        self._watch = watch
        self.objects: dict[Ref, Stored] = {}
        self.forbidden: set[str] = set()
        """Kinds that the operator may not write; who writes must ask."""
        self._version = 1000
        self._births: dict[Ref, int] = {}
        self._before: dict[Ref, Stored | None] = {}

    @property
    def version(self) -> int:
        """Return the resourceVersion of a list that is made now."""
        return self._version

    # --- reading -----------------------------------------------------------------------------------------------

    def get(self, kind: str, name: str, namespace: str = "") -> Manifest | None:
        """Return a copy of an object with its managedFields, None where there is none."""
        stored = self.objects.get(Ref(kind, namespace, name))
        return None if stored is None else stored.rendered()

    def get_old(self, kind: str, name: str, namespace: str = "") -> Manifest | None:
        """Return a copy of an object as it was before its last change; as it is where there was none."""
        ref = Ref(kind, namespace, name)
        stored = self._before.get(ref, self.objects.get(ref))
        return None if stored is None else stored.rendered()

    def list(self, kind: str = "", namespace: str | None = None) -> list[Manifest]:
        """Return all objects of a kind or of all kinds, in all namespaces or one."""
        return [
            stored.rendered()
            for ref, stored in self.objects.items()
            if kind in ("", ref.kind) and namespace in (None, ref.namespace)
        ]

    def snapshot(self) -> tuple[dict[Ref, Stored], int, dict[Ref, int]]:
        """Return all that is stored."""
        return dict(self.objects), self._version, dict(self._births)

    def restore(self, snapshot: tuple[dict[Ref, Stored], int, dict[Ref, int]]) -> None:
        """Go back to what was stored."""
        objects, self._version, births = snapshot
        self.objects, self._births, self._before = dict(objects), dict(births), {}

    # --- writing -----------------------------------------------------------------------------------------------

    def apply(self, manifest: Manifest, manager: str, subresource: str = "") -> Manifest:
        """Forced server-side apply of the object, or of its status alone."""
        ref, writer = _ref(manifest), Writer(manager, "Apply", subresource)
        old = self.objects.get(ref)
        if old is None:
            if subresource or manifest["metadata"].get("uid"):
                raise Missing(f"{ref} is not there")
            return self._born(ref, manifest, writer)
        _check(manifest, old, ref, subresource)
        content = _content(manifest, ref, subresource)
        new = _copy(old.manifest)
        fields = dict(_leaves(content))
        before, _ = old.owners.get(writer, (frozenset(), ""))
        others = {path for who, (owned, _) in old.owners.items() if who != writer for path in owned}
        for path in before - fields.keys() - others:
            _remove(new, path)
        for path, value in fields.items():
            _put(new, path, value)
        return self._store(ref, old, new, writer, frozenset(fields))

    def create(self, manifest: Manifest, manager: str) -> Manifest:
        """Create an object; one that is there already is a Conflict."""
        ref = _ref(manifest)
        if ref in self.objects:
            raise Conflict(f"{ref} exists already")
        return self._born(ref, manifest, Writer(manager, "Update"))

    def replace(self, manifest: Manifest, manager: str) -> Manifest:
        """Put the object in the place of the stored one; status stays."""
        ref = _ref(manifest)
        old = self.objects.get(ref)
        if old is None:
            raise Missing(f"{ref} is not there")
        _check(manifest, old, ref)
        new = _content(manifest, ref, "")
        kept = {
            key: old.manifest["metadata"][key] for key in SYSTEM_METADATA & old.manifest["metadata"].keys()
        }
        new["metadata"] = {**new["metadata"], **kept}
        if "status" in old.manifest:
            new["status"] = _copy(old.manifest["status"])
        return self._changed(ref, old, new, Writer(manager, "Update"))

    def merge(self, manifest: Manifest, manager: str, subresource: str = "") -> Manifest:
        """Merge-patch an object with the fields of a manifest; None takes a field off."""
        ref = _ref(manifest)
        old = self.objects.get(ref)
        if old is None:
            raise Missing(f"{ref} is not there")
        _check(manifest, old, ref)
        patch = {key: value for key, value in manifest.items() if key not in ("apiVersion", "kind")}
        patch["metadata"] = {k: v for k, v in manifest["metadata"].items() if k not in SYSTEM_METADATA}
        new: Manifest = _merged(old.manifest, patch)
        return self._changed(ref, old, new, Writer(manager, "Update", subresource))

    def delete(
        self, kind: str, name: str, namespace: str = "", *, uid: str = "", version: str | None = None
    ) -> Manifest | None:
        """Delete an object; return it where it stays for a while, None where it is gone."""
        ref = Ref(kind, namespace, name)
        old = self.objects.get(ref)
        if old is None:
            return None
        metadata = old.manifest["metadata"]
        if uid and uid != metadata["uid"]:
            raise Conflict(f"{ref} is another by now")
        if version is not None and version != metadata["resourceVersion"]:
            raise Conflict(f"{ref} was changed meanwhile")
        if "deletionTimestamp" in metadata:
            return old.rendered()
        if not metadata.get("finalizers") and kind != "Namespace":
            self._bury(ref, old)
            return None
        new = _copy(old.manifest)
        new["metadata"]["deletionTimestamp"] = self._now()
        if "generation" in new["metadata"]:
            new["metadata"]["generation"] += 1
        if kind == "Namespace":
            new["status"] = {"phase": "Terminating"}
        return self._keep(ref, old, Stored(new, old.owners))

    def collect(self) -> bool:
        """Do what the namespace controller does about terminating namespaces; return whether it did anything."""
        before = self._version
        dying = [
            ref
            for ref, stored in self.objects.items()
            if ref.kind == "Namespace" and "deletionTimestamp" in stored.manifest["metadata"]
        ]
        for namespace in dying:
            for ref in [ref for ref in self.objects if ref.namespace == namespace.name]:
                self.delete(ref.kind, ref.name, ref.namespace)
            if not any(ref.namespace == namespace.name for ref in self.objects):
                self._bury(namespace, self.objects[namespace])
        return self._version != before

    def _born(self, ref: Ref, manifest: Manifest, writer: Writer) -> Manifest:
        if ref.namespace:
            home = self.objects.get(Ref("Namespace", "", ref.namespace))
            if home is None:
                raise Missing(f'namespaces "{ref.namespace}" not found')
            if "deletionTimestamp" in home.manifest["metadata"]:
                raise Refused(f"namespace {ref.namespace} is being terminated")
        new = _content(manifest, ref, "")
        metadata = new["metadata"]
        self._births[ref] = self._births.get(ref, 0) + 1
        # The same in every run: of a crash's aftermath it can be told whether anything was made anew.
        birth = "/".join((*ref, str(self._births[ref])))
        metadata["uid"] = hashlib.blake2b(birth.encode(), digest_size=16).hexdigest()
        metadata["creationTimestamp"] = self._now()
        if ref.kind in OWN:
            metadata["generation"] = 1
            if ref.kind != "TenantArchive":
                new["status"] = _copy(PENDING_STATUS)
        if ref.kind == "Namespace":
            metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = ref.name
            new["status"] = {"phase": "Active"}
        content = {key: value for key, value in new.items() if key != "status"}
        owned = frozenset(path for path, _ in _leaves(content))
        return self._keep(ref, None, Stored(new, {writer: (owned, self._now())}))

    def _changed(self, ref: Ref, old: Stored, new: Manifest, writer: Writer) -> Manifest:
        """Store an update: its writer owns what it changed."""
        mine = {key: value for key, value in new.items() if writer.subresource or key != "status"}
        was = dict(_leaves(old.manifest))
        touched = {path for path, value in _leaves(mine) if path not in was or was[path] != value}
        before, _ = old.owners.get(writer, (frozenset(), ""))
        left = {path for path, _ in _leaves(new)}
        return self._store(ref, old, new, writer, frozenset((before | touched) & left))

    def _store(
        self, ref: Ref, old: Stored, new: Manifest, writer: Writer, owned: frozenset[Path]
    ) -> Manifest:
        before, _ = old.owners.get(writer, (frozenset(), ""))
        if new == old.manifest and owned == before:
            return old.rendered()  # a write that changes nothing makes no new version
        was, values = dict(_leaves(old.manifest)), dict(_leaves(new))
        lost = {path for path, value in was.items() if path not in values or values[path] != value}
        owners = {
            who: (paths if who == writer else paths - lost, time)
            for who, (paths, time) in old.owners.items()
            if who == writer or paths - lost
        }
        owners[writer] = owned, self._now()
        if "generation" in new["metadata"] and new.get("spec") != old.manifest.get("spec"):
            new["metadata"]["generation"] += 1
        return self._keep(ref, old, Stored(new, owners))

    def _keep(self, ref: Ref, old: Stored | None, new: Stored) -> Manifest:
        self._version += 1
        new.manifest["metadata"]["resourceVersion"] = str(self._version)
        metadata = new.manifest["metadata"]
        if "deletionTimestamp" in metadata and not metadata.get("finalizers") and ref.kind != "Namespace":
            self._bury(ref, new)
        else:
            self._before[ref] = old
            self.objects[ref] = new
            self._watch(Event(old, new))
        return new.rendered()

    def _bury(self, ref: Ref, old: Stored) -> None:
        self._before[ref] = self.objects.pop(ref, old)
        self._version += 1
        metadata = {**old.manifest["metadata"], "resourceVersion": str(self._version)}
        self._watch(Event(Stored({**old.manifest, "metadata": metadata}, old.owners), None))

    def _now(self) -> str:
        return rfc3339(self._clock.now())


def is_watched(manifest: Manifest) -> bool:
    """Return whether the selector of its kind's watch lets an object through."""
    if KINDS[manifest["kind"]].selector is None:
        return True
    labels = manifest["metadata"].get("labels") or {}
    if manifest["kind"] == "ClusterRole":
        return names.ROLE in labels
    return bool(labels.get(names.MANAGED_BY) == names.MANAGER)


def _ref(manifest: Manifest) -> Ref:
    metadata = manifest["metadata"]
    return Ref(manifest["kind"], metadata.get("namespace", ""), metadata["name"])


def _check(manifest: Manifest, old: Stored, ref: Ref, subresource: str = "") -> None:
    """Raise Conflict where the manifest is for another object, or for another version of it.

    As a real one does: of a write to the status of a custom resource it compares the version alone.
    """
    for name in ("resourceVersion",) if subresource else ("uid", "resourceVersion"):
        asked = manifest["metadata"].get(name)
        if asked is not None and asked != old.manifest["metadata"][name]:
            raise Conflict(f"Operation cannot be fulfilled on {ref.kind} {ref.name}: its {name} is another")


def _content(manifest: Manifest, ref: Ref, subresource: str) -> Manifest:
    """Return what a write to the object, or to its status, may say."""
    if subresource:
        return {"status": _copy(manifest["status"])}
    content = {key: _copy(value) for key, value in manifest.items() if key != "status"}
    metadata = content["metadata"]
    content["metadata"] = {key: value for key, value in metadata.items() if key not in SYSTEM_METADATA}
    content["metadata"]["name"] = ref.name
    if ref.namespace:
        content["metadata"]["namespace"] = ref.namespace
    return content


def _leaves(value: Manifest, at: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every field that can be owned, but for what the API server sets itself."""
    for key, item in value.items():
        if not at and key in ("apiVersion", "kind"):
            continue
        if at == ("f:metadata",) and key in SYSTEM_METADATA:
            continue
        path = (*at, f"f:{key}")
        if path == ("f:status", "f:conditions"):
            for condition in item:
                mark = json.dumps({"type": condition["type"]}, separators=(",", ":"))
                yield (*path, f"k:{mark}"), condition
        elif isinstance(item, dict) and item:
            yield from _leaves(item, path)
        else:
            yield path, item


def _put(manifest: Manifest, path: Path, value: Any) -> None:
    *parents, last = path
    place: Any = manifest
    for part in parents:
        empty: Any = [] if part == "f:conditions" else {}
        if not place.get(part[2:]) and place.get(part[2:]) != empty:
            place[part[2:]] = empty
        place = place[part[2:]]
    if last.startswith("k:"):
        kind = json.loads(last[2:])["type"]
        at = next((index for index, item in enumerate(place) if item["type"] == kind), len(place))
        place[at : at + 1] = [_copy(value)]
    else:
        place[last[2:]] = _copy(value)


def _remove(manifest: Manifest, path: Path) -> None:
    first, *rest = path
    name = first[2:]
    if name not in manifest:
        return
    if not rest:
        del manifest[name]
    elif rest[0].startswith("k:"):
        kind = json.loads(rest[0][2:])["type"]
        manifest[name] = [item for item in manifest[name] if item["type"] != kind]
    elif isinstance(manifest[name], dict):
        _remove(manifest[name], tuple(rest))
        if not manifest[name]:
            del manifest[name]


def _merged(value: Any, patch: Any) -> Any:
    if not isinstance(patch, Mapping):
        return _copy(patch)
    base = value if isinstance(value, Mapping) else {}
    merged = {key: _copy(item) for key, item in base.items() if key not in patch}
    for key, item in patch.items():
        if item is not None:
            merged[key] = _merged(base.get(key), item)
    return merged


def _copy(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def _tree(owned: frozenset[Path]) -> Manifest:
    tree: Manifest = {}
    for path in sorted(owned):
        place = tree
        for part in path:
            place = place.setdefault(part, {})
    return tree
