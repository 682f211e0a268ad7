"""From an object as the API server sends it to the little that is remembered of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from sys import intern
from typing import Any

from tenantry.desired.configuration import DOCUMENT
from tenantry.desired.fingerprint import fingerprint
from tenantry.desired.network import NAMESPACE_NAME
from tenantry.domain import names
from tenantry.domain.configuration import canonical
from tenantry.domain.observed import NamespaceDetail, Observed, RevisionDetail

CONFIG_PARTS = ("model", "retrieval", "limits")


def observe(manifest: Mapping[str, Any]) -> Observed:
    """Return what is remembered of an object; `manifest` must carry its kind."""
    metadata = manifest["metadata"]
    kind = intern(manifest["kind"])
    return Observed(
        kind=kind,
        namespace=intern(metadata.get("namespace", "")),
        name=intern(metadata["name"]),
        uid=metadata.get("uid", ""),
        resource_version=metadata.get("resourceVersion", ""),
        fingerprint="" if kind == "Namespace" else fingerprint(manifest),
        deleting="deletionTimestamp" in metadata,
        tenant=metadata.get("labels", {}).get(names.TENANT),
        tenant_uid=metadata.get("annotations", {}).get(names.TENANT_UID),
        writer=intern(_last_writer(metadata.get("managedFields", []))),
        detail=_detail(kind, manifest),
    )


def is_our_revision(manifest: Mapping[str, Any]) -> bool:
    """Return whether a ControllerRevision was written by us: by its name, and by its owner, managers or content.

    Not by label and annotation: a StatefulSet passes those of its pods' template on to its own revisions, and
    one that is called tenant-config may happen to number them as we do. A backup tool brings back neither owner nor
    managers; the content of a StatefulSet's is a template of pods, and can never be that of ours.
    """
    metadata = manifest["metadata"]
    if names.revision_number(metadata["name"]) is None:
        return False
    owners = metadata.get("ownerReferences", [])
    held = any(owner.get("controller") and owner.get("kind") == "Namespace" for owner in owners)
    written = any(entry.get("manager") == names.MANAGER for entry in metadata.get("managedFields", []))
    data = manifest.get("data")
    restored = not owners and isinstance(data, Mapping) and data.keys() == set(CONFIG_PARTS)
    return held or written or restored


def _last_writer(managed_fields: Iterable[Mapping[str, Any]]) -> str:
    entries = [entry for entry in managed_fields if entry.get("subresource") != "status"]
    if not entries:
        return "unknown"
    # The times have seconds only: of two in the same second, the one that is not ours made the difference.
    newest = max(entries, key=lambda e: (str(e.get("time", "")), e.get("manager") not in names.MANAGERS))
    return str(newest.get("manager", "unknown"))


def _detail(kind: str, manifest: Mapping[str, Any]) -> NamespaceDetail | RevisionDetail | None:
    if kind == "Namespace":
        return _namespace(manifest)
    number = names.revision_number(manifest["metadata"]["name"]) if kind == "ControllerRevision" else None
    if number is not None:
        # By its name: the field `revision` can be edited, and then it is put back.
        return RevisionDetail(number, canonical(manifest.get("data") or {}))
    if kind == "ConfigMap" and manifest["metadata"]["name"] == names.CONFIG_MAP:
        return _config_map(manifest)
    return None


def _namespace(manifest: Mapping[str, Any]) -> NamespaceDetail:
    metadata = manifest["metadata"]
    labels = {intern(key): value for key, value in metadata.get("labels", {}).items()}
    annotations = {
        intern(key): value
        for key, value in metadata.get("annotations", {}).items()
        if key.startswith("tenantry.dev/")
    }
    return NamespaceDetail(
        labels=labels,
        annotations=annotations,
        owned_labels=_owned(metadata, "f:labels"),
        owned_annotations=_owned(metadata, "f:annotations"),
        has_owner_references=bool(metadata.get("ownerReferences")),
        holding=_holding(manifest),
        made_by_us=_made_by_us(metadata),
    )


def _owned(metadata: Mapping[str, Any], section: str) -> frozenset[str]:
    """Return the keys of a map that our field manager set, by the create or by an apply."""
    keys: set[str] = set()
    for entry in metadata.get("managedFields", []):
        if entry.get("manager") == names.MANAGER and entry.get("subresource") is None:
            fields = entry.get("fieldsV1", {}).get("f:metadata", {}).get(section, {})
            keys.update(intern(key[2:]) for key in fields if key.startswith("f:"))
    # The API server gives it to whoever creates a namespace.
    return frozenset(keys - {NAMESPACE_NAME})


def _made_by_us(metadata: Mapping[str, Any]) -> bool:
    """Return whether our POST made the namespace: who creates one owns the label that the API server gives it."""
    for entry in metadata.get("managedFields", []):
        if entry.get("manager") == names.MANAGER and entry.get("operation") == "Update":
            labels = entry.get("fieldsV1", {}).get("f:metadata", {}).get("f:labels", {})
            return f"f:{NAMESPACE_NAME}" in labels
    return False


def _holding(manifest: Mapping[str, Any]) -> str:
    """Return what keeps a terminating namespace, in the words of the namespace controller."""
    conditions = manifest.get("status", {}).get("conditions", [])
    return "; ".join(
        str(item.get("message", "")).rstrip(".") for item in conditions if item.get("status") == "True"
    )


def _config_map(manifest: Mapping[str, Any]) -> RevisionDetail | None:
    """Return the configuration that an application reads at present, None where it cannot be made out.

    Members may write anything into it, brackets a thousand deep too: nothing of that may stop the operator.
    """
    try:
        document = json.loads(manifest.get("data", {}).get(DOCUMENT, ""))
        number, text = document["revision"], canonical({part: document[part] for part in CONFIG_PARTS})
        text.encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return RevisionDetail(number, text) if type(number) is int and number > 0 else None
