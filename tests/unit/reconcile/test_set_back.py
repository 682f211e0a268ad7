"""The cluster is set back to a backup, the ledger is not, or it is lost: both go on, and the log stays true."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.simulated.flows import SPEC, archive_name, archived, ready, second_revision
from tests.faults.simulated.world import World

Act = Callable[[World], None]


async def set_back(world: World, *lost: Act) -> None:
    """Do something, and bring the cluster back to what it was before, with the operator started anew."""
    backup = world.api.snapshot()
    for act in lost:
        world.clock.turn(minutes=1)
        act(world)
        await world.settle()
    world.clock.turn(hours=1)
    world.api.restore(backup)
    world.restart()
    await world.settle()


def renamed(name: str) -> Act:
    return lambda world: world.tenant(**SPEC, displayName=name)


def tuned(top: int) -> Act:
    retrieval = {"topK": top, "chunkSize": 512, "rerank": True}
    return lambda world: world.plan("pro", manager="platform", retrieval=retrieval)


async def test_an_edit_that_repeats_a_lost_generation_is_recorded() -> None:
    world = await ready()
    await set_back(world, renamed("One"), renamed("Two"))
    for name in ("Other", "Two", "One"):
        world.clock.turn(minutes=1)
        recorded = len(world.audit.rows)
        renamed(name)(world)
        await world.settle()
        (row,) = world.audit.rows[recorded:]
        assert row.action == "SpecChanged"
        assert row.message.startswith("changed spec.displayName from")
        assert (row.after or {})["displayName"] == name


async def test_the_same_edit_again_is_the_same_change_and_still_on_record() -> None:
    world = await ready()
    await set_back(world, renamed("One"), renamed("Two"))
    renamed("One")(world)
    await world.settle()
    row = world.audit.rows[-1]
    assert (row.before or {})["displayName"] == "Two", "what the log knew last"
    assert (row.after or {})["displayName"] == "One"


async def test_a_revision_whose_number_comes_again_is_recorded() -> None:
    world = await ready()
    await set_back(world, tuned(6), tuned(7))
    world.clock.turn(minutes=1)
    recorded = len(world.audit.rows)
    tuned(8)(world)
    await world.settle()
    rows = [row for row in world.audit.rows[recorded:] if row.action == "ConfigChanged"]
    assert [row.after["retrieval"]["topK"] for row in rows if row.after] == [8]
    assert world.status()["configRevision"] == 2


async def test_a_pin_that_is_set_again_is_recorded() -> None:
    world = await second_revision()

    def pin(world: World) -> None:
        world.edit("Tenant", "acme", manager="oncall", spec={"configRevision": 1})

    await set_back(world, pin)
    pin(world)
    await world.settle()
    assert world.audit.actions().count("ConfigRolledBack") == 2


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
async def test_a_deletion_that_is_done_again_is_recorded_again(policy: str) -> None:
    world = await ready()
    world.tenant(**SPEC, deletionPolicy=policy)
    await world.settle()

    def delete(world: World) -> None:
        world.api.delete("Tenant", "acme")

    await set_back(world, delete)
    assert world.condition("Ready") == ("True", "Ready")
    delete(world)
    await world.settle()
    assert world.api.get("Tenant", "acme") is None
    assert world.audit.actions().count("Archived" if policy == "Retain" else "Deleted") == 2


async def test_a_purge_that_is_done_again_is_recorded_again() -> None:
    world = await archived()

    def purge(world: World) -> None:
        world.api.delete("TenantArchive", archive_name(world))

    await set_back(world, purge)
    assert world.api.get("Namespace", "tenant-acme") is not None, "back, and kept"
    purge(world)
    await world.settle()
    assert world.api.get("Namespace", "tenant-acme") is None
    assert world.audit.actions().count("Purged") == 2


async def test_without_its_ledger_it_goes_on_and_does_not_call_an_edit_a_creation() -> None:
    world = await ready()
    world.audit.rows.clear()
    world.restart()
    await world.settle()
    assert world.audit.rows == [], "what is at rest is not told again"
    world.clock.turn(minutes=1)
    renamed("One")(world)
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")
    (row,) = world.audit.rows
    assert (row.action, row.before) == ("SpecChanged", None)
    assert "not in this audit log" in row.message
