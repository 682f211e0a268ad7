"""Moves of tenants: what a TenantMove says, what it waits for, how it is given up and what it leaves."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tenantry.domain import names
from tests.faults.simulated.vector_flows import ROWS, VECTORS, moving, placed
from tests.faults.simulated.world import World
from tests.unit.reconcile.test_vectors import look, message, on, secret

MOVE = "acme-to-shard-b"


async def test_a_move_ends_with_everything_on_the_target() -> None:
    world = await placed()
    world.move("shard-b")
    await world.settle()
    status = world.status(MOVE, "TenantMove")
    assert status["phase"] == "Cleaning"
    assert (status["source"], status["epoch"], status["rows"]) == ("shard-a", 1, len(ROWS))
    assert status["writePauseMs"] >= 0
    assert world.status()["placement"] == {"shard": "shard-b", "epoch": 2}
    assert secret(world)["host"] == "shard-b"
    assert set(world.server("shard-b").rows["acme"]) == set(ROWS)
    assert world.servers.writable() == {"acme": ["memory://shard-b"]}
    assert on(world, "shard-a") == {"acme"}  # it sends writers on
    world.clock.turn(minutes=16)
    await world.settle()
    assert world.status(MOVE, "TenantMove")["phase"] == "Completed"
    assert world.condition("Ready", MOVE, "TenantMove") == ("True", "Ready")
    assert on(world, "shard-a") == set()
    assert [action for action in world.audit.actions() if action.startswith("Mov")] == ["Moving", "Moved"]
    assert world.condition("Ready") == ("True", "Ready")
    world.clock.turn(days=8)
    await world.settle()
    assert world.api.get("TenantMove", MOVE) is None


async def test_a_target_that_does_not_answer_is_waited_for() -> None:
    world = await moving()
    assert world.status(MOVE, "TenantMove")["phase"] == "Pending"
    assert world.condition("Reconciling", MOVE, "TenantMove") == ("True", "ShardUnavailable")
    world.server("shard-b").down = False
    await look(world, "shard-b")
    await world.settle()
    assert world.status()["placement"]["shard"] == "shard-b"


async def comparing() -> World:
    """A move that has copied everything, and finds that something differs."""
    world = await placed()
    world.servers.difference = "3 rows differ"
    world.move("shard-b")
    await world.settle(timedelta(seconds=10))
    assert world.status(MOVE, "TenantMove")["phase"] == "Verifying"
    assert "3 rows differ" in message(world, "Ready", MOVE, "TenantMove")
    return world


async def test_a_move_is_given_up_on_its_way() -> None:
    world = await comparing()
    assert on(world, "shard-b") == {"acme"}
    world.edit("TenantMove", MOVE, spec={"abort": True})
    await world.settle()
    assert world.status(MOVE, "TenantMove")["phase"] == "Aborted"
    assert world.status()["placement"] == {"shard": "shard-a", "epoch": 1}
    assert on(world, "shard-b") == set()
    assert world.servers.writable() == {"acme": ["memory://shard-a"]}
    assert world.audit.actions()[-1] == "MoveAborted"


async def test_a_move_waits_until_both_are_the_same() -> None:
    world = await comparing()
    world.servers.difference = None
    world.clock.turn(minutes=1)
    await world.settle()
    assert world.status()["placement"] == {"shard": "shard-b", "epoch": 2}


async def test_a_move_for_which_a_server_has_no_room_waits_for_its_turn_and_says_so() -> None:
    world = await placed()
    world.servers.busy = {"prepare": 1000}
    world.move("shard-b")
    await world.settle(timedelta(seconds=30))
    assert world.status(MOVE, "TenantMove")["phase"] == "Preparing"
    said = message(world, "Ready", MOVE, "TenantMove")
    assert said == (
        "Tenant acme from shard-a to shard-b waits for its turn: max_replication_slots is 4 on the source"
    )
    world.servers.busy = {}
    await world.settle(timedelta(seconds=30))
    assert world.status()["placement"] == {"shard": "shard-b", "epoch": 2}


@pytest.mark.parametrize("step", ["verify", "block"])
async def test_a_writer_that_does_not_let_go_is_waited_for(step: str) -> None:
    world = await placed()
    world.servers.busy = {step: 2}
    world.move("shard-b")
    await world.settle(timedelta(seconds=30))
    assert world.servers.busy == {step: 0}
    assert world.status()["placement"] == {"shard": "shard-b", "epoch": 2}
    assert world.servers.writable() == {"acme": ["memory://shard-b"]}


async def test_who_is_suspended_while_it_moves_is_closed_on_both_sides() -> None:
    world = await comparing()
    world.tenant(**VECTORS, suspended=True)
    await world.settle(timedelta(seconds=5))
    assert world.servers.writable() == {}
    world.servers.difference = None
    world.clock.turn(minutes=1)
    await world.settle()
    assert world.status()["placement"]["shard"] == "shard-b"
    assert world.servers.writable() == {}
    assert world.condition("Ready") == ("True", "Suspended")


async def test_a_source_that_goes_away_is_waited_for() -> None:
    world = await comparing()
    world.server("shard-a").down = True
    world.servers.difference = None
    world.clock.turn(minutes=1)
    await world.settle()
    assert world.condition("Reconciling", MOVE, "TenantMove") == ("True", "ShardUnavailable")
    world.server("shard-a").down = False
    await look(world, "shard-a")
    world.clock.turn(minutes=1)
    await world.settle()
    assert world.status()["placement"]["shard"] == "shard-b"


async def test_abort_before_it_began_leaves_everything_as_it_was() -> None:
    world = await moving()
    world.edit("TenantMove", MOVE, spec={"abort": True})
    await world.settle()
    assert world.status(MOVE, "TenantMove")["phase"] == "Aborted"
    assert world.status()["placement"] == {"shard": "shard-a", "epoch": 1}
    assert on(world, "shard-b") == set()


async def test_mistakes_are_told() -> None:
    world = await placed()
    world.move("shard-x")
    world.move("shard-b", "nobody")
    await world.settle()
    assert world.condition("Stalled", "acme-to-shard-x", "TenantMove") == ("True", "ShardNotFound")
    assert world.condition("Stalled", "nobody-to-shard-b", "TenantMove") == ("True", "TenantNotFound")
    assert "delete this move" in message(world, "Ready", "nobody-to-shard-b", "TenantMove")
    assert world.condition("Ready") == ("True", "Ready")


async def test_a_full_target_takes_nobody() -> None:
    world = await placed()
    world.shard("shard-b", capacity={"storage": "1Ki"})
    await look(world, "shard-b")
    world.move("shard-b")
    await world.settle()
    assert world.condition("Stalled", MOVE, "TenantMove") == ("True", "NoShardWithRoom")


async def test_the_second_move_of_a_tenant_waits_for_the_first() -> None:
    world = await moving()
    world.shard("shard-c")
    await look(world, "shard-c")
    world.clock.turn(seconds=5)
    world.move("shard-c")
    await world.settle()
    assert world.condition("Reconciling", "acme-to-shard-c", "TenantMove") == ("True", "MovesAlready")
    assert MOVE in message(world, "Ready", "acme-to-shard-c", "TenantMove")


async def test_a_move_to_where_the_tenant_is_ends_at_once() -> None:
    world = await placed()
    world.move("shard-a")
    await world.settle()
    assert world.status("acme-to-shard-a", "TenantMove")["phase"] == "Completed"
    assert world.status()["placement"] == {"shard": "shard-a", "epoch": 1}


async def test_a_tenant_that_leaves_takes_its_move_along() -> None:
    world = await comparing()
    world.tenant(**VECTORS, deletionPolicy="Delete")
    world.api.delete("Tenant", "acme")
    await world.settle()
    assert world.api.get("Tenant", "acme") is None
    assert world.status(MOVE, "TenantMove")["phase"] == "Aborted"
    assert on(world, "shard-b") == set()


async def test_a_deleted_move_is_rolled_back_and_goes() -> None:
    world = await moving()
    world.api.delete("TenantMove", MOVE)
    await world.settle()
    assert world.api.get("TenantMove", MOVE) is None
    assert world.status()["placement"] == {"shard": "shard-a", "epoch": 1}
    assert names.FINALIZER in world.found("Tenant", "acme")["metadata"]["finalizers"]
