"""An edit of a Plan comes into effect for all of its tenants before it is reported of the first."""

from __future__ import annotations

import json

from tenantry.domain import names
from tenantry.reconcile.deferred import Deferred
from tenantry.reconcile.result import Key
from tests.faults.simulated.world import World

TENANTS = ("acme", "bolt", "cord")


async def three() -> World:
    world = World()
    world.plan("free")
    world.plan("pro")
    for name in TENANTS:
        world.tenant(name)
    await world.settle()
    world.process.writes.clear()
    return world


def edited(world: World, tokens: int) -> None:
    world.edit("Plan", "pro", spec={"model": {"maxTokens": tokens}})


def tokens(world: World, name: str) -> int:
    found = world.found("ConfigMap", names.CONFIG_MAP, f"tenant-{name}")
    read: int = json.loads(found["data"]["config.json"])["model"]["maxTokens"]
    return read


async def look_once_at_each(world: World) -> None:
    """Look at the Plan and at each of its tenants, and at none of them twice."""
    for _ in range(1 + len(TENANTS)):
        assert await world.step()


async def test_all_have_the_effect_before_one_has_the_report() -> None:
    world = await three()
    edited(world, 777)
    await world.settle()
    written = [(write.verb, write.kind) for write in world.process.writes if write.kind != "Plan"]
    effects = [n for n, write in enumerate(written) if write[1] == "ConfigMap"]
    reports = [n for n, write in enumerate(written) if write == ("status", "Tenant")]
    assert (len(effects), len(reports)) == (3, 3)
    # The last one has nobody to wait for.
    assert effects[-1] < reports[1]
    assert [tokens(world, name) for name in TENANTS] == [777] * 3
    assert [world.status(name)["configRevision"] for name in TENANTS] == [2] * 3


async def test_who_dies_before_the_reports_leaves_them_to_its_successor() -> None:
    world = await three()
    edited(world, 777)
    await look_once_at_each(world)
    assert 1 in [world.status(name)["configRevision"] for name in TENANTS]
    world.restart()
    world.relist()
    await world.settle()
    assert [world.status(name)["configRevision"] for name in TENANTS] == [2] * 3
    for name in TENANTS:
        assert world.audit.actions(name).count("ConfigChanged") == 2


async def test_two_edits_in_a_row_are_two_rows_and_two_reports() -> None:
    world = await three()
    edited(world, 777)
    await look_once_at_each(world)
    edited(world, 778)
    await world.settle()
    for name in TENANTS:
        rows = [row for row in world.audit.rows if row.tenant == name and row.action == "ConfigChanged"]
        assert [row.message.partition(" is in effect")[2] for row in rows] == [
            "",
            " instead of 1",
            " instead of 2",
        ]
        told = [item[3] for item in world.process.events if item[1] == name and item[2] == "ConfigChanged"]
        assert len(told) == 2
        assert world.status(name)["configRevision"] == 3


async def test_an_edit_of_a_tenant_is_reported_at_once() -> None:
    world = await three()
    for name in TENANTS:
        world.edit("Tenant", name, spec={"overrides": {"retrieval": {"topK": 9}}})
    for _ in TENANTS:
        assert await world.step()
    assert [world.status(name)["configRevision"] for name in TENANTS] == [2] * 3


async def test_a_report_is_not_made_about_a_successor() -> None:
    world = await three()
    edited(world, 777)
    await look_once_at_each(world)
    waiting = next(name for name in TENANTS if world.status(name)["configRevision"] == 1)
    world.api.merge({"kind": "Tenant", "metadata": {"name": waiting, "finalizers": None}}, "kubectl-edit")
    world.api.delete("Tenant", waiting)
    world.tenant(waiting)
    await world.reconcile(Key("Tenant", waiting))
    events = [item for item in world.process.events if item[1] == waiting and item[2] == "ConfigChanged"]
    assert events == []
    await world.settle()


async def test_no_report_waits_where_nobody_does_and_no_more_than_so_many_wait() -> None:
    waits = False
    made = []
    deferred = Deferred(lambda: waits, most=2)

    async def report() -> None:
        made.append(1)

    keys = [Key("Tenant", name) for name in TENANTS]
    assert not deferred.put(keys[0], report)
    waits = True
    assert [deferred.put(key, report) for key in keys] == [True, True, False]
    await deferred.make(keys[2])
    assert made == []
    await deferred.make(keys[0])
    await deferred.make(keys[0])
    assert made == [1]
    assert deferred.put(keys[2], report)
