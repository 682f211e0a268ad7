"""What a newer version of ours wrote into a status, before a rollback to this one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tenantry.reconcile.report import STATUS_FIELDS, write_status

KNOWN = {
    "Tenant": "configRevision",
    "Plan": "tenants",
    "VectorShard": "tenants",
    "TenantMove": "rows",
    "TenantArchive": "phase",
}


class Recorder:
    """Takes the status that is written."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []

    async def apply_status(self, manifest: dict[str, Any], *, manager: str) -> dict[str, Any]:
        assert manager == "tenantry"
        self.written.append(manifest["status"])
        return manifest


def raw(kind: str, **status: Any) -> dict[str, Any]:
    """An object with a status that is ours by its managed fields, but for `placement`."""
    owned = {f"f:{name}": {} for name in status if name != "placement"}
    entry = {"manager": "tenantry", "subresource": "status", "fieldsV1": {"f:status": owned}}
    metadata = {"name": "acme", "uid": "1", "resourceVersion": "2", "managedFields": [entry]}
    return {"apiVersion": "tenantry.dev/v1alpha1", "kind": kind, "metadata": metadata, "status": status}


@pytest.mark.parametrize("kind", STATUS_FIELDS)
async def test_it_stays_and_what_this_version_takes_back_goes(kind: str) -> None:
    objects = Recorder()
    subject = raw(kind, observedGeneration=1, health="Fine", placement={"shard": "a"}, **{KNOWN[kind]: 7})
    cx: Any = SimpleNamespace(objects=objects)
    await write_status(subject, {"observedGeneration": 2, "conditions": []}, cx)
    assert objects.written == [{"health": "Fine", "observedGeneration": 2, "conditions": []}]


async def test_it_is_no_cause_for_a_write() -> None:
    objects = Recorder()
    cx: Any = SimpleNamespace(objects=objects)
    subject = raw("Tenant", observedGeneration=2, health="Fine", conditions=[])
    assert await write_status(subject, {"observedGeneration": 2, "conditions": []}, cx) is None
    assert objects.written == []
