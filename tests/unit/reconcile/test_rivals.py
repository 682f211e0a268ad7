"""Who waits for a namespace learns what others of ours write on it: no watch wakes anybody for a write of ours."""

from __future__ import annotations

from tenantry.domain import names
from tenantry.reconcile.result import Key
from tests.faults.simulated.flows import SPEC, ready
from tests.faults.simulated.world import World


async def first(world: World, key: Key) -> None:
    """Tell the operator what there is, and let it reconcile this key before all others."""
    world.deliver()
    del world.process.due[key]
    await world.reconcile(key)


async def test_a_younger_tenant_says_at_once_whose_the_namespace_is() -> None:
    world = World()
    world.plan("pro")
    world.tenant()
    world.clock.turn(seconds=1)
    world.tenant("bolt", namespace={"name": "tenant-acme"})
    await first(world, Key("Tenant", "bolt"))
    await world.settle()
    said = world.status("bolt")["conditions"]
    await world.list_anew()
    await world.settle()
    assert world.status("bolt")["conditions"] == said


async def test_a_tenant_is_restored_once_its_archive_has_put_the_marks_of_its_namespace_back() -> None:
    world = await ready()
    world.api.delete("Tenant", "acme")
    await world.settle()
    labels = dict.fromkeys((names.MANAGED_BY, names.TENANT))
    annotations = dict.fromkeys((names.TENANT_UID, names.ORIGIN, names.OWNER))
    world.edit("Namespace", "tenant-acme", metadata={"labels": labels, "annotations": annotations})
    world.tenant(**SPEC)
    await first(world, Key("Tenant", "acme"))
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")
