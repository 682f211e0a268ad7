"""Which changes of an object count, and which wake nobody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from zlib import crc32

import orjson

from tenantry.api.common import ObjectMeta, Resource
from tenantry.domain import names
from tenantry.domain.observed import Observed

ASKED = (names.RESTORE_FROM, names.ROTATE, names.WITHOUT_EXPORT, names.REMOVE_LEFTOVERS)
"""Annotations of an object of ours by which somebody asks for something."""


def version(seen: Observed) -> int:
    """Return the resourceVersion of an object as a number: versions of one kind grow through all its objects."""
    return int(seen.resource_version or 0)


def differs(old: Observed, new: Observed) -> bool:
    """Return whether anything changed that a decision looks at; a quota's counters are not among it."""
    return (
        old.uid != new.uid
        or old.fingerprint != new.fingerprint
        or old.deleting != new.deleting
        or old.detail != new.detail
    )


def same(one: Resource, other: Resource) -> bool:
    """Return whether two are the same object with the same spec, for all but its status."""
    return _meant(one.metadata) == _meant(other.metadata)


def _meant(metadata: ObjectMeta) -> tuple[object, ...]:
    asked = tuple(metadata.annotations.get(name) for name in ASKED)
    return (metadata.uid, metadata.generation, metadata.deletion_timestamp, metadata.finalizers, asked)


def told(manifest: Mapping[str, Any]) -> int:
    """Return a number that changes with what the status of an object says."""
    return crc32(orjson.dumps(manifest.get("status"), option=orjson.OPT_SORT_KEYS))


def stamp(manifest: Mapping[str, Any]) -> str:
    """Return what tells a change of a Tenant that its reconcile must look at from one of its status."""
    metadata = manifest["metadata"]
    annotations = metadata.get("annotations") or {}
    asked = "/".join(annotations.get(name, "") for name in ASKED)
    return f"{metadata.get('generation')}/{'deletionTimestamp' in metadata}/{asked}"
