"""Somebody deletes a CustomResourceDefinition, and so every object of the kind: no tenant loses anything by that."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tenantry.api.common import rfc3339
from tenantry.domain import names
from tests.faults.simulated.flows import SPEC, adopted, archive_name, archived, ready
from tests.faults.simulated.world import World
from tests.unit.builders import T0


def delete_kind(world: World, plural: str) -> None:
    """Delete a definition, which waits for its objects, and all of these."""
    name = f"{plural}.tenantry.dev"
    metadata = {"name": name, "finalizers": ["customresourcecleanup.apiextensions.k8s.io"]}
    kind = "CustomResourceDefinition"
    world.api.create({"apiVersion": "apiextensions.k8s.io/v1", "kind": kind, "metadata": metadata}, "helm")
    world.api.delete(kind, name)
    for item in world.api.list({"tenants": "Tenant", "tenantarchives": "TenantArchive"}[plural]):
        world.api.delete(item["kind"], item["metadata"]["name"])


def inside(world: World) -> dict[object, object]:
    """Return every namespace and all that is in it."""
    return {ref: item for ref, item in world.api.objects.items() if ref.namespace or ref.kind == "Namespace"}


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
async def test_no_tenant_goes_with_its_kind(policy: str) -> None:
    world = await ready()
    world.tenant(**SPEC, deletionPolicy=policy)
    await world.settle()
    before = inside(world)
    delete_kind(world, "tenants")
    await world.settle()
    assert inside(world) == before
    assert world.condition("Stalled") == ("True", "KindDeleted")
    assert world.status()["phase"] == "Deleting"
    assert {"Archived", "Deleted"}.isdisjoint(world.audit.actions())


async def test_an_adopted_namespace_is_not_released_with_the_kind() -> None:
    world = await adopted()
    before = inside(world)
    delete_kind(world, "tenants")
    await world.settle()
    assert inside(world) == before


async def test_no_archive_is_purged_with_its_kind_before_its_time() -> None:
    world = await archived()
    name = archive_name(world)
    delete_kind(world, "tenantarchives")
    await world.settle()
    assert world.api.get("Namespace", "tenant-acme") is not None
    assert world.condition("Stalled", name, "TenantArchive") == ("True", "KindDeleted")
    assert "Purging" not in world.audit.actions()


async def test_what_holds_nothing_goes_with_its_kind() -> None:
    world = await archived()
    world.tenant(**SPEC)
    await world.settle()
    delete_kind(world, "tenantarchives")
    await world.settle()
    assert world.api.list("TenantArchive") == []
    assert world.condition("Ready") == ("True", "Ready")


async def test_saved_and_applied_again_a_tenant_has_its_namespace_back() -> None:
    world = await ready()
    delete_kind(world, "tenants")
    await world.settle()
    world.edit("Tenant", "acme", metadata={"finalizers": None})
    world.edit("CustomResourceDefinition", "tenants.tenantry.dev", metadata={"finalizers": None})
    await world.settle()
    world.tenant(**SPEC)
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")
    assert world.api.list("TenantArchive") == []


async def test_an_archive_whose_time_has_come_is_purged_all_the_same() -> None:
    world = await archived()
    name = archive_name(world)
    delete_kind(world, "tenants")
    world.edit("TenantArchive", name, spec={"purgeAfter": rfc3339(T0 - timedelta(days=1))})
    await world.settle()
    assert world.api.get("Namespace", "tenant-acme") is None
    assert names.FINALIZER in world.found("TenantArchive", name)["metadata"]["finalizers"]
