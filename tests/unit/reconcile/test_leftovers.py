"""Places that nobody uses: a shard's status has them, and an annotation of it removes those that it names."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

from tenantry.api.tenant import PLACEMENT_MANAGER as PLACED_BY
from tests.faults.simulated.vector_flows import (
    ROWS,
    VECTORS,
    forget_placement,
    moved_and_set_back,
    placed,
    remove_leftover,
    with_shards,
)
from tests.faults.simulated.world import World
from tests.unit.reconcile.test_vectors import look, message, on


def left(world: World, shard: str) -> list[Any]:
    found: list[Any] = world.status(shard, "VectorShard").get("leftovers", [])
    return found


async def remove(world: World, shard: str, value: str) -> None:
    remove_leftover(world, shard, value)
    await world.settle()


def told(world: World, shard: str) -> list[str]:
    return [
        message
        for _, name, reason, message in world.process.events
        if (name, reason) == (shard, "LeftoverPlaces")
    ]


def lose(world: World, kind: str, name: str) -> None:
    """Have an object go without its farewell, as when etcd is set back."""
    world.edit(kind, name, metadata={"finalizers": []})
    world.api.delete(kind, name)


async def test_a_place_that_came_back_is_told_and_stays() -> None:
    world = await moved_and_set_back()
    assert left(world, "shard-a") == [
        {
            "place": "acme@1",
            "state": "archived",
            "rows": len(ROWS),
            "storage": left(world, "shard-a")[0]["storage"],
            "reason": "Tenant acme is on VectorShard shard-b",
        }
    ]
    assert left(world, "shard-b") == []
    assert len(told(world, "shard-a")) == 1
    await look(world, "shard-a", "shard-a")
    assert len(told(world, "shard-a")) == 1
    assert on(world, "shard-a") == {"acme"}
    assert world.servers.writable() == {"acme": ["memory://shard-b"]}
    assert world.condition("Ready", "shard-a", "VectorShard") == ("True", "Ready")


async def test_it_goes_when_somebody_says_so_and_the_tenant_can_come_back() -> None:
    world = await moved_and_set_back()
    await remove(world, "shard-a", "acme@1")
    assert on(world, "shard-a") == set()
    assert left(world, "shard-a") == []
    assert world.status("shard-a", "VectorShard")["leftoversRemoved"] == "acme@1"
    assert "LeftoverRemoved" in world.audit.actions("shard-a")
    assert set(world.server("shard-b").rows["acme"]) == set(ROWS)
    world.move("shard-a")
    await world.settle()
    assert world.status()["placement"] == {"shard": "shard-a", "epoch": 3}


async def test_what_was_said_once_is_done_once() -> None:
    world = await moved_and_set_back()
    before = deepcopy(world.server("shard-a").records), deepcopy(world.server("shard-a").rows)
    await remove(world, "shard-a", "acme@1")
    world.server("shard-a").records, world.server("shard-a").rows = before
    await look(world, "shard-a")
    assert [item["place"] for item in left(world, "shard-a")] == ["acme@1"]
    await remove(world, "shard-a", "acme@1, again")
    assert left(world, "shard-a") == []
    assert any("names again" in item for item in told(world, "shard-a"))


async def test_what_is_in_use_is_never_removed() -> None:
    world = await placed()
    await remove(world, "shard-a", "acme@1")
    assert set(world.server("shard-a").rows["acme"]) == set(ROWS)
    assert any("names acme@1, which status.leftovers has not" in item for item in told(world, "shard-a"))
    assert world.condition("Ready") == ("True", "Ready")


async def test_a_copy_whose_move_is_lost_goes_with_all_of_the_move() -> None:
    world = await placed()
    world.servers.difference = "3 rows differ"
    world.move("shard-b")
    await world.settle()
    lose(world, "TenantMove", "acme-to-shard-b")
    await look(world, "shard-b")
    assert [(item["place"], item["state"]) for item in left(world, "shard-b")] == [("acme@2", "importing")]
    await remove(world, "shard-b", "acme@2")
    assert on(world, "shard-b") == set()
    assert world.servers.following == set()
    assert world.servers.writable() == {"acme": ["memory://shard-a"]}


async def test_a_place_of_nobody_is_told() -> None:
    world = await placed()
    lose(world, "Tenant", "acme")
    await look(world, "shard-a")
    assert [item["reason"] for item in left(world, "shard-a")] == [
        "there is neither a Tenant nor a TenantArchive acme"
    ]
    assert world.servers.writable() == {"acme": ["memory://shard-a"]}


async def test_after_etcd_was_set_back_nobody_is_cut_off() -> None:
    """The status says where the tenant was before its move; the newer place is the true one, and stays open."""
    world = await placed()
    world.move("shard-b")
    await world.settle()
    world.clock.turn(minutes=16)
    await world.settle()
    before = {"placement": {"shard": "shard-a", "epoch": 1}}
    world.api.merge({"kind": "Tenant", "metadata": {"name": "acme"}, "status": before}, PLACED_BY, "status")
    world.restart()
    await world.look_at_shards()
    assert world.servers.writable() == {"acme": ["memory://shard-b"]}
    await world.settle()
    assert world.status()["placement"] == {"shard": "shard-b", "epoch": 2}
    assert world.servers.writable() == {"acme": ["memory://shard-b"]}


async def test_a_tenant_that_looks_again_gets_it_open() -> None:
    world = await moved_and_set_back()
    records = world.server("shard-a").records
    records["acme"] = replace(records["acme"], place=replace(records["acme"].place, epoch=7))
    await look(world, "shard-a")
    forget_placement(world)
    await world.settle()
    assert world.status()["placement"] == {"shard": "shard-a", "epoch": 7}
    assert world.servers.writable() == {"acme": ["memory://shard-a"]}
    assert [item["place"] for item in left(world, "shard-b")] == ["acme@2"]


async def test_a_shard_that_does_not_answer_is_asked_when_it_is_back() -> None:
    world = await moved_and_set_back()
    world.server("shard-a").down = True
    await remove(world, "shard-a", "acme@1")
    assert world.condition("Reconciling", "shard-a", "VectorShard") == ("True", "ShardUnavailable")
    assert "leftoversRemoved" not in world.status("shard-a", "VectorShard")
    assert [item["place"] for item in left(world, "shard-a")] == ["acme@1"]
    world.server("shard-a").down = False
    await look(world, "shard-a")
    assert on(world, "shard-a") == set()


async def test_shards_without_any_say_nothing() -> None:
    world = await with_shards()
    assert "leftovers" not in world.status("shard-a", "VectorShard")
    assert "leftover" not in message(world, "Ready", "shard-a", "VectorShard")


async def test_what_cannot_be_removed_is_nobodys_fault() -> None:
    """Neither the shard nor any tenant on it suffers; it is tried again."""
    world = await moved_and_set_back()
    world.tenant("umbrella", **VECTORS)
    await world.settle()
    world.audit.down = True
    await remove(world, "shard-a", "acme@1")
    assert any("waits for the audit log" in item for item in told(world, "shard-a"))
    assert world.condition("Ready", "shard-a", "VectorShard") == ("True", "Ready")
    assert world.condition("ShardReady", "umbrella") == ("True", "Ready")
    assert on(world, "shard-a") == {"acme", "umbrella"}
    world.audit.down = False
    await look(world, "shard-a")
    assert on(world, "shard-a") == {"umbrella"}
    assert world.status("shard-a", "VectorShard")["leftoversRemoved"] == "acme@1"
