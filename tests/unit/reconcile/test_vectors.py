"""Tenants and shards: where a tenant is placed, what its conditions say, what happens when a shard is in the way."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import timedelta

from tenantry.domain import names
from tenantry.domain.fitness import Fitness
from tenantry.reconcile.result import Key
from tests.faults.simulated.vector_flows import placed, rotate, with_shards
from tests.faults.simulated.world import World, ready_world

SMALL = "100Ki"
"""Room for one new tenant, and not for two."""


def message(world: World, type_: str, name: str = "acme", kind: str = "Tenant") -> str:
    listed = world.status(name, kind)["conditions"]
    return next(str(item["message"]) for item in listed if item["type"] == type_)


def secret(world: World, name: str = "acme") -> dict[str, str]:
    data = world.found("Secret", names.VECTOR_STORE, f"tenant-{name}")["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def on(world: World, shard: str) -> set[str]:
    return set(world.server(shard).records)


async def look(world: World, *shards: str) -> None:
    """Have shards looked at now, and all that follows."""
    for shard in shards:
        world.add(Key("VectorShard", shard))
    await world.settle()


async def test_without_shards_there_is_no_condition() -> None:
    world = await ready_world()
    assert world.condition("ShardReady") == ("", "")
    assert ("Secret", names.VECTOR_STORE) not in world.children()


async def test_a_tenant_gets_a_place_a_secret_and_is_probed() -> None:
    world = await with_shards()
    world.tenant()
    await world.settle()
    shard = world.status()["placement"]["shard"]
    assert on(world, shard) == {"acme"}
    assert world.condition("ShardReady") == ("True", "Ready")
    assert world.condition("IsolationVerified") == ("True", "NoLeak")
    assert secret(world)["password"] in world.servers.open(shard, "pgvector", f"memory://{shard}").logins(
        "acme"
    )
    assert world.status(shard, "VectorShard")["tenants"] == 1
    assert "Placed" in world.audit.actions()


async def test_the_placement_has_a_field_manager_of_its_own() -> None:
    world = await placed()
    owners = {
        item["manager"]: item["fieldsV1"]["f:status"]
        for item in world.found("Tenant", "acme")["metadata"]["managedFields"]
        if item.get("subresource") == "status"
    }
    assert "f:placement" in owners["tenantry-placement"]
    assert "f:placement" not in owners["tenantry"]


async def test_two_tenants_at_once_do_not_overfill_a_shard() -> None:
    world = World()
    world.plan("pro")
    world.shard("shard-a", capacity={"storage": SMALL})
    await world.settle()
    world.tenant("acme")
    world.tenant("umbrella")
    await world.settle()
    assert len(on(world, "shard-a")) == 1
    (without,) = {"acme", "umbrella"} - on(world, "shard-a")
    assert world.condition("ShardReady", without) == ("False", "NoShardWithRoom")
    assert world.condition("Stalled", without) == ("True", "NoShardWithRoom")
    assert "add one" in message(world, "ShardReady", without)
    world.shard("shard-b")
    await look(world, "shard-b")
    await world.settle()
    assert world.condition("Ready", without) == ("True", "Ready")


async def test_cordoned_and_drained_shards_take_nobody() -> None:
    world = World()
    world.plan("pro")
    world.shard("shard-a", cordoned=True)
    world.shard("shard-b", drain=True)
    world.shard("shard-c")
    for name in ("acme", "umbrella", "bluth", "stark"):
        world.tenant(name)
    await world.settle()
    assert (on(world, "shard-a"), on(world, "shard-b")) == (set(), set())
    assert len(on(world, "shard-c")) == 4


async def test_a_pin_decides_and_a_pin_to_nothing_is_a_mistake() -> None:
    world = await with_shards()
    world.tenant("acme", vectorStore={"dimensions": 3, "shard": "shard-b"})
    world.tenant("umbrella", vectorStore={"dimensions": 3, "shard": "shard-x"})
    await world.settle()
    assert on(world, "shard-b") == {"acme"}
    assert world.condition("Stalled", "umbrella") == ("True", "ShardNotFound")
    assert "spec.vectorStore.shard names VectorShard shard-x" in message(world, "ShardReady", "umbrella")
    assert world.condition("ConfigReady", "umbrella") == ("True", "Ready")


async def test_a_plan_may_ask_for_a_shard_of_its_own() -> None:
    world = await with_shards()
    world.plan("pro", vectorStore={"dedicated": True})
    world.tenant("acme")
    await world.settle()
    assert world.condition("Stalled") == ("True", "NoShardWithRoom")
    assert "spec.dedicated: true" in message(world, "ShardReady")
    world.shard("shard-own", dedicated=True)
    await look(world, "shard-own")
    await world.settle(timedelta(minutes=1))
    assert on(world, "shard-own") == {"acme"}
    world.tenant("umbrella", plan="free")
    await world.settle()
    assert on(world, "shard-own") == {"acme"}


async def test_a_plan_may_ask_for_an_engine() -> None:
    world = await with_shards()
    world.plan("pro", vectorStore={"engine": "weaviate"})
    world.tenant("acme")
    await world.settle()
    assert world.condition("Stalled") == ("True", "NoShardWithRoom")
    assert "no VectorShard of engine weaviate takes another tenant" in message(world, "ShardReady")
    world.shard("shard-w", engine="weaviate")
    await look(world, "shard-w")
    await world.settle(timedelta(minutes=1))
    assert on(world, "shard-w") == {"acme"}
    world.plan("pro", vectorStore={"engine": "pgvector"})
    await world.settle()
    assert world.status()["placement"]["shard"] == "shard-w"


async def test_a_change_of_a_place_that_was_interrupted_is_made_again() -> None:
    world = await placed()
    server = world.server(world.status()["placement"]["shard"])
    whole = server.records["acme"]
    server.records["acme"] = replace(whole, settled=False)
    await look(world, world.status()["placement"]["shard"])
    assert server.records["acme"] == whole


async def test_a_shard_that_is_down_concerns_its_own_tenants_alone() -> None:
    world = await placed()
    world.tenant("umbrella", vectorStore={"dimensions": 3, "shard": "shard-b"})
    await world.settle()
    world.server("shard-a").down = True
    await look(world, "shard-a")
    assert world.condition("Ready", "shard-a", "VectorShard") == ("False", "ShardUnavailable")
    assert world.condition("ShardReady") == ("False", "ShardUnavailable")
    assert world.condition("Reconciling") == ("True", "ShardUnavailable")
    assert world.condition("PolicyReady") == ("True", "Ready")
    assert world.condition("Ready", "umbrella") == ("True", "Ready")
    for name in ("bluth", "stark", "wayne"):
        world.tenant(name)
    await world.settle()
    assert on(world, "shard-b") == {"umbrella", "bluth", "stark", "wayne"}
    world.server("shard-a").down = False
    await look(world, "shard-a")
    assert world.condition("Ready") == ("True", "Ready")


async def test_after_a_start_an_unread_shard_is_waited_for_before_anybody_is_placed() -> None:
    world = await placed()
    world.api.merge(
        {"kind": "Tenant", "metadata": {"name": "acme"}, "status": {"placement": None}}, "x", "status"
    )
    world.server("shard-a").down = True
    world.restart()
    await world.settle()
    assert world.condition("ShardReady") == ("False", "ShardUnknown")
    assert on(world, "shard-b") == set()
    world.server("shard-a").down = False
    await look(world, "shard-a")
    await world.settle()
    assert world.status()["placement"] == {"shard": "shard-a", "epoch": 1}
    assert world.condition("Ready") == ("True", "Ready")


async def test_an_old_placement_gives_way_to_the_shards_own_records() -> None:
    world = await placed()
    world.move("shard-b")
    await world.settle()
    assert world.status()["placement"] == {"shard": "shard-b", "epoch": 2}
    world.clock.turn(minutes=20)
    await world.settle()
    old = {"placement": {"shard": "shard-a", "epoch": 1}}
    world.api.merge({"kind": "Tenant", "metadata": {"name": "acme"}, "status": old}, "backup", "status")
    world.restart()
    await world.settle()
    assert world.status()["placement"] == {"shard": "shard-b", "epoch": 2}
    assert set(world.server("shard-b").rows["acme"]) == {"first", "second", "third"}
    assert on(world, "shard-a") == set()


async def test_vectors_of_another_owner_are_not_handed_over() -> None:
    world = await placed()
    world.edit("Tenant", "acme", metadata={"finalizers": None})
    world.api.delete("Tenant", "acme")
    world.api.delete("Namespace", "tenant-acme")
    await world.settle()
    world.tenant("acme", owner={"email": "rival@other.example"})
    await world.settle()
    assert world.condition("ShardReady") == ("False", "RestoreNotAllowed")
    assert world.condition("Stalled") == ("True", "RestoreNotAllowed")
    assert ("Secret", names.VECTOR_STORE) not in world.children()


async def test_the_shape_of_stored_vectors_stays() -> None:
    world = await placed()
    world.tenant(vectorStore={"dimensions": 4, "shard": "shard-a"})
    await world.settle()
    assert world.condition("Stalled") == ("True", "ShapeFixed")
    assert "asks for 4 dimensions" in message(world, "ShardReady")
    world.server("shard-a").rows["acme"].clear()
    await look(world, "shard-a")
    world.add(Key("Tenant", "acme"))
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")
    assert world.server("shard-a").records["acme"].place.shape.dimensions == 4


async def test_credentials_are_replaced_on_demand_and_those_before_are_valid_for_a_while() -> None:
    world = await placed()
    server = world.servers.open("shard-a", "pgvector", "memory://shard-a")
    before = secret(world)["password"]
    rotate(world)
    await world.settle()
    after = secret(world)["password"]
    assert after != before
    assert server.logins("acme") == {before, after}
    assert "CredentialsRotated" in world.audit.actions()
    world.clock.turn(minutes=61)
    await world.settle()
    assert server.logins("acme") == {after}
    world.relist()
    await world.settle()
    assert secret(world)["password"] == after


async def test_credentials_are_replaced_by_age() -> None:
    world = await placed()
    before = secret(world)["password"]
    world.clock.turn(days=91)
    await world.settle()
    assert secret(world)["password"] != before


async def test_a_secret_that_somebody_changes_is_put_back() -> None:
    world = await placed()
    before = secret(world)
    world.edit("Secret", names.VECTOR_STORE, "tenant-acme", data={"host": "ZXZpbA=="})
    await world.settle()
    assert secret(world) == before
    assert "Repaired" in world.audit.actions()


async def test_a_server_that_moved_house_is_told_to_its_tenants() -> None:
    world = await placed()
    world.servers.servers["memory://elsewhere"] = world.server("shard-a")
    address = base64.b64encode(b"memory://elsewhere").decode()
    world.edit("Secret", "shard-a", world.cx.policy.own_namespace, data={"dsn": address})
    world.server("shard-a").address = "memory://elsewhere"
    await look(world, "shard-a")
    assert world.status("shard-a", "VectorShard")["endpoint"] == "elsewhere:5432"
    assert secret(world)["host"] == "elsewhere"


async def test_while_it_moves_a_tenant_is_let_out_to_both_shards() -> None:
    world = await placed()
    for shard in ("shard-a", "shard-b"):
        world.shard(shard, network={"cidrs": [f"10.0.0.{ord(shard[-1])}/32"]})
    await world.settle()

    def peers() -> set[str]:
        policy = world.found("NetworkPolicy", names.SHARD_EGRESS, "tenant-acme")
        return {to["ipBlock"]["cidr"] for rule in policy["spec"]["egress"] for to in rule["to"]}

    assert peers() == {"10.0.0.97/32"}
    world.servers.difference = "3 rows differ"
    world.move("shard-b")
    await world.settle(timedelta(seconds=10))
    assert peers() == {"10.0.0.97/32", "10.0.0.98/32"}
    world.servers.difference = None
    world.clock.turn(minutes=1)
    await world.settle()
    world.clock.turn(minutes=16)
    await world.settle()
    assert peers() == {"10.0.0.98/32"}


async def test_who_is_suspended_cannot_log_in() -> None:
    world = await placed()
    server = world.servers.open("shard-a", "pgvector", "memory://shard-a")
    world.tenant(vectorStore={"dimensions": 3, "shard": "shard-a"}, suspended=True)
    await world.settle()
    assert server.logins("acme") == set()
    world.tenant(vectorStore={"dimensions": 3, "shard": "shard-a"})
    await world.settle()
    assert server.logins("acme") == {secret(world)["password"]}


async def test_a_leak_is_told_and_its_end_too() -> None:
    world = await placed()
    world.tenant("umbrella", vectorStore={"dimensions": 3, "shard": "shard-a"})
    await world.settle()
    world.server("shard-a").leaks.append("the table of umbrella can be read")
    for _ in range(25):
        await look(world, "shard-a")
    assert world.condition("IsolationVerified") == ("False", "LeakFound")
    assert world.condition("Ready") == ("False", "LeakFound")
    assert "umbrella can be read" in message(world, "Ready")
    world.server("shard-a").leaks.clear()
    for _ in range(25):
        await look(world, "shard-a")
    assert world.condition("IsolationVerified") == ("True", "NoLeak")
    assert world.condition("Ready") == ("True", "Ready")


async def test_a_leak_of_one_keeps_no_other_from_being_probed() -> None:
    world = await placed()
    for name in ("umbrella", "bluth"):
        world.tenant(name, vectorStore={"dimensions": 3, "shard": "shard-a"})
    await world.settle()
    world.server("shard-a").leaks.append("everything can be read")
    for _ in range(4):
        await look(world, "shard-a")
    for name in ("acme", "umbrella", "bluth"):
        assert world.condition("IsolationVerified", name) == ("False", "LeakFound")


async def test_what_is_wrong_with_a_shard_is_said_in_its_conditions() -> None:
    world = World()
    world.plan("pro")
    world.shard("shard-a")
    world.api.delete("Secret", "shard-a", world.cx.policy.own_namespace)
    await world.settle()
    assert world.condition("Stalled", "shard-a", "VectorShard") == ("True", "SecretNotFound")
    assert "Secret shard-a, which does not exist in namespace" in message(
        world, "Ready", "shard-a", "VectorShard"
    )
    world.shard("shard-a")
    world.edit("Secret", "shard-a", world.cx.policy.own_namespace, data={"dsn": "bm9uc2Vuc2U="})
    await look(world, "shard-a")
    assert world.condition("Stalled", "shard-a", "VectorShard") == ("True", "ConnectionRefused")
    world.shard("shard-a")
    world.server("shard-a").fitness = Fitness("Memory 0.1", "pgvector 0.8.1 there is too old: install 0.8.4")
    await look(world, "shard-a")
    assert world.condition("Stalled", "shard-a", "VectorShard") == ("True", "ShardUnfit")
    world.server("shard-a").fitness = Fitness("Memory 1.0")
    await look(world, "shard-a")
    assert world.condition("Ready", "shard-a", "VectorShard") == ("True", "Ready")
