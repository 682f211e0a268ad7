"""A child that somebody's finalizer holds in a namespace that is given back."""

from __future__ import annotations

from tenantry.domain import names
from tests.faults.simulated.flows import ADOPTED, adopted_and_archived


async def test_a_child_that_is_held_is_deleted_once() -> None:
    world = await adopted_and_archived()
    world.edit("ResourceQuota", "tenantry", ADOPTED["name"], metadata={"finalizers": ["shop.example/hold"]})
    await world.settle()
    world.clock.turn(days=31)
    await world.settle()
    assert world.children(ADOPTED["name"]) == {("ConfigMap", "settings"), ("ResourceQuota", "tenantry")}
    done = len(world.process.writes)
    await world.list_anew()
    await world.settle()
    assert world.process.writes[done:] == []

    world.edit("ResourceQuota", "tenantry", ADOPTED["name"], metadata={"finalizers": None})
    await world.settle()
    assert world.children(ADOPTED["name"]) == {("ConfigMap", "settings")}
    assert names.TENANT_UID not in world.found("Namespace", ADOPTED["name"])["metadata"]["annotations"]
