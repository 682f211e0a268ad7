"""The planner at work: which moves it creates, when, by what names, and what it says of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from tenantry.domain.rebalancing import RebalanceTerms
from tenantry.reconcile import rebalance
from tests.faults.simulated.faults import Fault, Write
from tests.faults.simulated.vector_flows import with_shards
from tests.faults.simulated.world import World
from tests.unit.reconcile.test_vectors import look

ON = RebalanceTerms(floor=0)
STORE: dict[str, Any] = {"dimensions": 3}


async def filled(terms: RebalanceTerms = ON, **tenants: int) -> World:
    """Tenants with so many rows each on shard-a, and shard-b is empty."""
    world = await with_shards(rebalance=terms)
    world.shard("shard-b", cordoned=True)
    await world.settle()
    for name, rows in tenants.items():
        world.tenant(name, vectorStore=STORE)
        await world.settle()
        world.server("shard-a").insert(name, *(f"{name}-{number}" for number in range(rows)))
    world.shard("shard-b")
    await look(world, "shard-a", "shard-b")
    return world


def where(world: World, *names: str) -> list[str]:
    return [world.status(name)["placement"]["shard"] for name in names]


def planned(world: World) -> dict[str, tuple[str, str]]:
    """Moves by name: to where, and why."""
    moves = world.api.list("TenantMove")
    return {move["metadata"]["name"]: (move["spec"]["targetShard"], move["spec"]["reason"]) for move in moves}


def events(world: World, reason: str) -> list[tuple[str, str]]:
    return [(name, message) for _, name, why, message in world.process.events if why == reason]


async def test_a_shard_that_is_over_its_share_for_some_minutes_gives() -> None:
    world = await filled(acme=100, umbrella=100, initech=100, hooli=100)
    assert world.condition("Balanced", "shard-a", "VectorShard") == ("False", "OverShare")
    assert planned(world) == {}
    world.clock.turn(minutes=6)
    await world.settle(timedelta(seconds=5))
    assert planned(world) == {"acme-e1": ("shard-b", "Rebalance")}
    for _ in range(10):
        world.clock.turn(minutes=2)
        await world.settle()
    assert sorted(where(world, "acme", "umbrella", "initech", "hooli")) == ["shard-a"] * 2 + ["shard-b"] * 2
    assert len(planned(world)) == 2
    assert world.condition("Balanced", "shard-a", "VectorShard") == ("True", "WithinShare")
    (told,) = events(world, rebalance.PLANNED)
    assert told[0] == "shard-a"
    assert told[1].startswith(
        "2 tenants with 195Ki will be moved to other shards; the plan moves 195Ki in all"
    )
    assert "lower bound" in told[1]


async def test_a_fleet_that_is_all_but_empty_is_at_rest() -> None:
    world = await filled(RebalanceTerms(), acme=100, umbrella=100)
    assert world.condition("Balanced", "shard-a", "VectorShard") == ("True", "WithinShare")
    for _ in range(3):
        world.clock.turn(minutes=30)
        await world.settle()
    assert planned(world) == {}


async def test_off_means_that_nothing_is_planned() -> None:
    world = await filled(RebalanceTerms(enabled=False), acme=100, umbrella=100)
    world.shard("shard-a", drain=True)
    world.clock.turn(minutes=30)
    await world.settle()
    assert planned(world) == {}


async def test_a_drained_shard_is_emptied_move_by_move() -> None:
    world = await filled(acme=10, umbrella=10, initech=10)
    world.shard("shard-a", drain=True)
    await world.settle(timedelta(seconds=5))
    assert set(planned(world)) == {"acme-e1", "initech-e1", "umbrella-e1"}
    assert where(world, "acme", "umbrella", "initech") == ["shard-b"] * 3
    assert {reason for _, reason in planned(world).values()} == {"Drain"}


async def test_one_move_at_a_time_on_a_shard() -> None:
    world = await filled(acme=10, umbrella=10)
    world.servers.difference = "a row differs"
    world.shard("shard-a", drain=True)
    await world.settle()
    assert list(planned(world)) == ["acme-e1"]
    world.servers.difference = None
    world.clock.turn(minutes=1)
    await world.settle()
    assert set(planned(world)) == {"acme-e1", "umbrella-e1"}


async def test_a_pin_is_followed_at_once() -> None:
    world = await filled(acme=10)
    world.tenant("acme", vectorStore={**STORE, "shard": "shard-b"})
    await world.settle(timedelta(seconds=5))
    assert planned(world) == {"acme-e1": ("shard-b", "Pin")}
    assert where(world, "acme") == ["shard-b"]
    world.tenant("acme", vectorStore={**STORE, "shard": "shard-a"})
    world.clock.turn(minutes=16)  # until the old place is gone
    await world.settle()
    world.clock.turn(minutes=1)
    await world.settle()
    assert planned(world)["acme-e2"] == ("shard-a", "Pin")
    assert where(world, "acme") == ["shard-a"]


async def test_a_plan_that_asks_for_it_gets_its_tenant_a_shard_of_its_own_and_takes_it_again() -> None:
    world = await filled(acme=10, umbrella=10)
    world.shard("own", dedicated=True)
    await look(world, "own")
    world.plan("pro", vectorStore={"dedicated": True})
    await world.settle()
    assert sorted(where(world, "acme", "umbrella")) == ["own", "shard-a"]
    (stays,) = {"acme", "umbrella"} - {name for name in ("acme", "umbrella") if where(world, name) == ["own"]}
    blocked = events(world, rebalance.BLOCKED)
    why = (
        "plan pro asks for a shard of its own, and none is free: add a VectorShard with spec.dedicated: true"
    )
    assert blocked == [("shard-a", f"{stays}: {why}")]
    world.plan("pro", vectorStore={"dedicated": False})
    world.clock.turn(minutes=16)
    await world.settle()
    world.clock.turn(minutes=1)
    await world.settle()
    assert "own" not in where(world, "acme", "umbrella")


async def test_what_has_no_room_is_told_once() -> None:
    world = await filled(acme=100, umbrella=1)
    world.shard("shard-b", capacity={"storage": "10Ki"})
    world.shard("shard-a", drain=True)
    await look(world, "shard-b")
    for _ in range(5):
        world.clock.turn(minutes=11)
        await world.settle()
    assert where(world, "acme", "umbrella") == ["shard-a", "shard-b"]
    ((shard, message),) = events(world, rebalance.BLOCKED)
    assert shard == "shard-a"
    assert message.startswith(
        "acme: it should leave shard-a, and no other VectorShard has room for it: add one"
    )


async def test_a_tenant_that_is_too_large_is_told_and_never_moved() -> None:
    world = await filled(acme=1000, umbrella=1, initech=1)
    for _ in range(5):
        world.clock.turn(minutes=30)
        await world.settle()
    assert where(world, "acme") == ["shard-a"]
    assert [shard for shard, _ in events(world, rebalance.BLOCKED)] == ["shard-a"]
    assert events(world, rebalance.BLOCKED)[0][1].startswith("acme: more than any shard's share")


class Refusing(Fault):
    """The API server takes no TenantMove."""

    def before(self, write: Write) -> None:
        if (write.verb, write.kind) == ("create", "TenantMove"):
            from tenantry.reconcile.ports import Refused

            raise Refused("a policy does not let it in")


async def test_a_refusal_is_tried_again_with_a_pause() -> None:
    world = await filled(acme=10)
    world.restart(Refusing())
    world.shard("shard-a", drain=True)
    await world.settle(timedelta(seconds=5))
    assert world.process.results[rebalance.KEY].failed
    world.restart()
    await world.settle()
    assert where(world, "acme") == ["shard-b"]


async def test_who_gave_a_move_up_is_not_asked_again_at_once() -> None:
    world = await filled(acme=10)
    world.servers.difference = "a row differs"
    world.tenant("acme", vectorStore={**STORE, "shard": "shard-b"})
    await world.settle()
    world.edit("TenantMove", "acme-e1", spec={"abort": True})
    world.servers.difference = None
    await world.settle()
    assert list(planned(world)) == ["acme-e1"]
    world.clock.turn(minutes=11)
    await world.settle()
    assert set(planned(world)) == {"acme-e1", "acme-e1-2"}
    assert where(world, "acme") == ["shard-b"]


async def test_a_move_that_can_no_longer_begin_makes_way_for_another_plan() -> None:
    world = await filled(acme=10)
    world.move("shard-x", reason="Drain")
    world.shard("shard-a", drain=True)
    world.clock.turn(minutes=2)
    await world.settle()
    world.clock.turn(minutes=2)
    await world.settle()
    assert where(world, "acme") == ["shard-b"]
    assert set(planned(world)) == {"acme-e1"}


async def test_at_rest_the_planner_looks_seldom_and_writes_nothing() -> None:
    world = await filled(acme=0)
    world.clock.turn(minutes=1)
    await world.settle()
    writes = len(world.process.writes)
    result = await world.reconcile(rebalance.KEY)
    assert (result.after, result.failed) == (rebalance.IDLE_SECONDS, False)
    assert len(world.process.writes) == writes
