"""Exports in an archive's status, on a real API server: of a manager of their own, which no other write disturbs."""

from __future__ import annotations

from tenantry.adapters.kubernetes.client import Client, configure
from tenantry.adapters.kubernetes.objects import ApiObjects
from tenantry.api.archive import Export, TenantArchive
from tenantry.api.common import API_VERSION, rfc3339
from tenantry.domain import names
from tests.conftest import Cluster
from tests.integration.conftest import Api
from tests.unit.builders import EMAIL, T0

NAME = "exported-1f0c9a2e"


async def test_what_another_manager_writes_leaves_them(api: Api, control_plane: Cluster) -> None:
    client = Client(await configure(control_plane.operator_kubeconfig, None))
    objects = ApiObjects(client, lambda: True, lambda _: None, lambda *_: None)
    spec = {
        "tenant": "exported",
        "tenantUID": "1f0c9a2e-7c57",
        "owner": {"email": EMAIL},
        "purgeAfter": rfc3339(T0),
    }
    export = Export(
        shard="shard-a",
        epoch=3,
        url="s3://bucket/prefix/exported/uid-3",
        rows=5_000_000_000,
        bytes=40_000_000_000,
        sha256="0" * 64,
        finished_at=T0,
    )
    await api.apply({"kind": "TenantArchive", "metadata": {"name": NAME}, "spec": spec})
    base = {"apiVersion": API_VERSION, "kind": "TenantArchive", "metadata": {"name": NAME}}
    try:
        await objects.apply_status({**base, "status": {"phase": "Kept", "conditions": []}})
        await objects.apply_status({**base, "status": {"exports": [export.as_json()]}}, manager=names.EXPORTS)
        stored = await objects.apply_status({**base, "status": {"phase": "Purged", "conditions": []}})
        status = TenantArchive.model_validate(stored).status
        assert status.exports == [export]
        assert status.phase == "Purged"
    finally:
        await api.delete("TenantArchive", NAME)
        await client.close()
