"""`tenant-config`, which the application watches, and the ControllerRevisions behind it."""

from __future__ import annotations

import json
from typing import Any

from tenantry.api.tenant import TenantSpec
from tenantry.desired.owner import Manifest, Owner, child
from tenantry.domain import names
from tenantry.domain.configuration import Revision

DOCUMENT = "config.json"
REVISION = "revision"


def config_map(owner: Owner, spec: TenantSpec, plan: str, priority: str, active: Revision) -> Manifest:
    """Return the ConfigMap with the resolved configuration as one JSON document, and its revision."""
    document: dict[str, Any] = {
        "tenant": owner.tenant,
        "plan": plan,
        "priority": priority,
        "revision": active.number,
        **active.value,
    }
    if spec.vector_store is not None:
        shape = spec.vector_store.as_json()
        shape.pop("shard", None)  # where its vectors are is not the application's to know
        document["vectorStore"] = shape
    data = {
        DOCUMENT: json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False) + "\n",
        REVISION: str(active.number),
    }
    return child(owner, "v1", "ConfigMap", names.CONFIG_MAP, data=data)


def controller_revision(owner: Owner, namespace_uid: str, revision: Revision) -> Manifest:
    """Return the record of one revision.

    It is owned by its own namespace: without a controller's reference a tenant's StatefulSet could adopt and
    delete it.
    """
    manifest = child(
        owner,
        "apps/v1",
        "ControllerRevision",
        names.revision_name(revision.number),
        revision=revision.number,
        data=revision.value,
    )
    reference = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "name": owner.namespace,
        "uid": namespace_uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    manifest["metadata"]["ownerReferences"] = [reference]
    return manifest
