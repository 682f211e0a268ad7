"""What of an object counts, in a normal form, and a short fingerprint of it.

An object as stored differs from the manifest that made it in what the API server adds (uid, status, empty
fields left out, ``1000m`` written as ``1``). The normal form evens out exactly that, and nothing that carries
meaning: an empty *selector* matches everything, so it is kept, while an empty list and an absent one are the
same to every kind that we write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import orjson

from tenantry.domain import names
from tenantry.domain.quantities import EXACT, quantity

KEPT_METADATA = ("generateName", "labels", "annotations", "finalizers", "ownerReferences")
DROPPED = ("apiVersion", "kind", "metadata", "status")
EMPTY_IS_ABSENT = frozenset({"labels", "annotations", "data", "binaryData"})
"""Maps whose emptiness means nothing."""

QUANTITIES = frozenset({"hard", "default", "defaultRequest", "max", "min", "maxLimitRequestRatio"})
"""Fields of ResourceQuota and LimitRange that hold quantities by resource name."""


def fingerprint(manifest: Mapping[str, Any]) -> str:
    """Return 32 hexadecimal digits that are equal for a desired and a stored object with the same meaning."""
    return blake2b(_canonical(normal_form(manifest)), digest_size=16).hexdigest()


def _canonical(form: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(form, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        # Free-form JSON may hold numbers of more than 64 bits.
        return json.dumps(form, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def normal_form(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything of an object that is ours to decide; any field that somebody adds shows up in it."""
    content = {key: value for key, value in manifest.items() if key not in DROPPED}
    metadata = manifest.get("metadata", {})
    kept = {key: metadata[key] for key in KEPT_METADATA if metadata.get(key)}
    if manifest.get("kind") == "ClusterRole":
        # Whoever installs them, as Helm does, has marks of its own on them; by this one alone they are found.
        labels = metadata.get("labels") or {}
        kept = {"labels": {name: value for name, value in labels.items() if name == names.ROLE}}
    quantities = manifest.get("kind") in ("ResourceQuota", "LimitRange")
    # A ControllerRevision's data is free-form JSON: an empty string or list in it is content.
    if manifest.get("kind") == "ControllerRevision":
        return {**content, "metadata": kept}
    return {**_normal(content, quantities), "metadata": kept}


def _normal(value: Any, quantities: bool) -> Any:
    if isinstance(value, dict):  # JSON has no other maps, and to ask for any takes much longer
        return {
            key: _amounts(item) if quantities and key in QUANTITIES else _normal(item, quantities)
            for key, item in value.items()
            if not _absent(key, item)
        }
    if isinstance(value, list):
        return [_normal(item, quantities) for item in value]
    return value


def _absent(key: str, value: Any) -> bool:
    return value is None or value == [] or (value == {} and key in EMPTY_IS_ABSENT)


def _amounts(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    amounts = {}
    for resource, amount in value.items():
        try:
            amounts[resource] = str(quantity(str(amount)).normalize(EXACT))
        except ValueError:
            amounts[resource] = str(amount)
    return amounts
