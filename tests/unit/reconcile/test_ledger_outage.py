"""The ledger is away: children are enforced all the same, and afterwards every change is on record once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import pairwise

import pytest

from tenantry.reconcile.result import Key
from tests.faults.simulated.flows import OWNER, SPEC, plans_alone, ready, second_revision
from tests.faults.simulated.world import World

SHORT = timedelta(seconds=20)


def revision(world: World) -> str:
    return str(world.found("ConfigMap", "tenant-config", "tenant-acme")["data"]["revision"])


def unbroken(world: World, what: str, name: str = "acme") -> list[str]:
    """Return the actions of the rows about the spec or the configuration; each begins where the last ended."""
    rows = [row for row in world.audit.rows if row.name == name and f"/{what}/" in row.identity]
    assert [late.before for _, late in pairwise(rows)] == [early.after for early, _ in pairwise(rows)]
    return [row.action for row in rows]


async def outage(begin: Callable[[], Awaitable[World]], *acts: Callable[[World], None]) -> World:
    """Return a world in which the ledger went away before the acts; they are answered but not on record."""
    world = await begin()
    rows = list(world.audit.rows)
    world.audit.down = True
    for act in acts:
        world.clock.turn(minutes=1)
        act(world)
        await world.settle(SHORT)
    assert world.audit.rows == rows
    assert world.condition("Ready") == ("False", "LedgerUnavailable")
    assert world.condition("Reconciling") == ("True", "LedgerUnavailable")
    return world


async def end_of_outage(world: World) -> None:
    world.audit.down = False
    await world.settle()
    assert world.condition("Ready")[0] == "True"
    assert world.status()["observedGeneration"] == world.found("Tenant", "acme")["metadata"]["generation"]
    assert str(world.status()["configRevision"]) == revision(world)
    before = list(world.audit.rows)
    world.relist()
    await world.settle()
    assert world.audit.rows == before


async def test_a_tenant_is_created() -> None:
    world = await outage(plans_alone, lambda world: world.tenant(**SPEC))
    status = world.status()
    assert status["observedGeneration"] == -1
    assert "configRevision" not in status
    assert revision(world) == "1"
    bound = world.found("RoleBinding", "tenantry-owner", "tenant-acme")["subjects"]
    assert [subject["name"] for subject in bound] == [OWNER["name"]]
    assert [world.condition(part)[0] for part in ("NamespaceReady", "PolicyReady", "ConfigReady")] == [
        "True"
    ] * 3
    await end_of_outage(world)
    assert world.audit.actions() == ["Created", "ConfigChanged"]


async def test_a_tenant_is_edited_more_than_once() -> None:
    world = await outage(
        ready,
        lambda world: world.tenant(**SPEC, overrides={"model": {"name": "gpt-4o"}}),
        lambda world: world.tenant(**SPEC, overrides={"model": {"name": "o3"}}, suspended=True),
    )
    assert world.status()["observedGeneration"] == 1
    assert world.status()["configRevision"] == 1
    assert revision(world) == "3"
    assert ("ResourceQuota", "tenantry-suspended") in world.children()
    assert ("NetworkPolicy", "tenantry-egress") not in world.children()
    await end_of_outage(world)
    assert unbroken(world, "spec") == ["Created", "Suspended"]
    assert unbroken(world, "config") == ["ConfigChanged", "ConfigChanged"]


async def test_a_tenant_is_rolled_back() -> None:
    world = await outage(
        second_revision, lambda world: world.edit("Tenant", "acme", spec={"configRevision": 1})
    )
    assert revision(world) == "1"
    assert world.status()["configRevision"] == 2
    await end_of_outage(world)
    assert unbroken(world, "spec") == ["Created", "SpecChanged", "SpecChanged"]
    assert unbroken(world, "config") == ["ConfigChanged", "ConfigChanged", "ConfigRolledBack"]


async def test_a_plan_is_edited() -> None:
    retrieval = {"topK": 9, "chunkSize": 512, "rerank": True}
    world = await outage(ready, lambda world: world.plan("pro", manager="platform", retrieval=retrieval))
    assert revision(world) == "2"
    assert world.status()["configRevision"] == 1
    assert world.condition("Ready", "pro", "Plan") == ("False", "LedgerUnavailable")
    assert world.status("pro", "Plan")["observedGeneration"] == 1
    await end_of_outage(world)
    assert world.condition("Ready", "pro", "Plan") == ("True", "Ready")
    assert unbroken(world, "spec", "pro") == ["Created", "SpecChanged"]
    assert unbroken(world, "config") == ["ConfigChanged", "ConfigChanged"]
    assert world.audit.rows[-1].actor == "platform"


@pytest.mark.parametrize("what", ["Retain", "Delete"])
async def test_a_tenant_is_not_let_go_before_that_is_on_record(what: str) -> None:
    world = await ready()
    world.tenant(**SPEC, deletionPolicy=what)
    await world.settle()
    world.audit.down = True
    world.api.delete("Tenant", "acme")
    await world.settle(SHORT)
    assert world.condition("Ready") == ("False", "LedgerUnavailable")
    assert world.api.get("Namespace", "tenant-acme") is not None
    world.audit.down = False
    await world.settle()
    assert world.api.get("Tenant", "acme") is None
    assert world.audit.actions().count("Archived" if what == "Retain" else "Deleted") == 1


async def test_tenants_at_rest_do_not_notice() -> None:
    world = await ready()
    world.tenant("other")
    await world.settle()
    quiet = world.found("Tenant", "other")
    world.audit.down = True
    world.tenant(**SPEC, suspended=True)
    await world.settle(SHORT)
    world.relist()
    await world.settle(SHORT)
    assert world.condition("Ready") == ("False", "LedgerUnavailable")
    assert world.found("Tenant", "other") == quiet


async def test_a_plan_that_was_deleted_twice_meanwhile_is_on_record_twice_at_once() -> None:
    world = await plans_alone()
    world.audit.down = True
    for _ in range(2):
        world.api.delete("Plan", "pro")
        await world.settle(SHORT)
        world.plan("pro")
        await world.settle(SHORT)
    world.audit.down = False
    world.add(Key("Plan", "pro"))
    await world.settle(timedelta(minutes=3))
    assert world.audit.actions("pro").count("Deleted") == 2
