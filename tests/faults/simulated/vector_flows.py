"""What users do to tenants with vectors, and what an application does meanwhile."""

from __future__ import annotations

import base64
from copy import deepcopy
from typing import Any

from tenantry.domain import names
from tenantry.domain.rebalancing import RebalanceTerms
from tests.faults.simulated.world import World

SHARDS = ("shard-a", "shard-b")
VECTORS: dict[str, Any] = {"vectorStore": {"dimensions": 3, "shard": "shard-a"}}
ROWS = ("first", "second", "third")


class Application:
    """Writes rows where the Secret says until it is stopped, and remembers which of them were acknowledged."""

    def __init__(self, world: World, tenant: str = "acme") -> None:
        self._world = world
        self._tenant = tenant
        self.acknowledged: set[str] = set()
        self.stopped = False

    def write(self, row: str) -> None:
        """Try to write a row; one that is not taken is not counted."""
        secret = self._world.api.get("Secret", names.VECTOR_STORE, f"tenant-{self._tenant}")
        if secret is None or self.stopped:
            return
        shard = base64.b64decode(secret["data"]["host"]).decode()
        if self._world.servers.insert(self._tenant, shard, row):
            self.acknowledged.add(row)

    def lost(self) -> set[str]:
        """Return the acknowledged rows that are nowhere any more, or not where the tenant is now."""
        tenant = self._world.api.get("Tenant", self._tenant)
        placement = ((tenant or {}).get("status") or {}).get("placement")
        if placement is None or (tenant and "deletionTimestamp" in tenant["metadata"]):
            return set()  # what is deleted with its tenant is not lost
        return self.acknowledged - self._world.server(placement["shard"]).rows.get(self._tenant, {}).keys()


async def with_shards(**policy: Any) -> World:
    """Nobody is a tenant yet, and there are two shards."""
    world = World(**policy)
    world.plan("free")
    world.plan("pro")
    for shard in SHARDS:
        world.shard(shard)
    await world.settle()
    return world


async def placed(**policy: Any) -> World:
    """One tenant with rows on shard-a."""
    world = await with_shards(**policy)
    world.tenant(**VECTORS)
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")
    world.server("shard-a").insert("acme", *ROWS)
    world.relist()
    await world.settle()
    return world


async def placed_and_planned() -> World:
    """One tenant with rows on shard-a, and the planner at work."""
    return await placed(rebalance=RebalanceTerms(floor=0))


async def placed_and_suspended() -> World:
    """The tenant with rows is suspended."""
    world = await placed()
    world.tenant(**VECTORS, suspended=True)
    await world.settle()
    return world


async def placed_to_be_removed() -> World:
    """The tenant with rows is to go with everything."""
    world = await placed()
    world.tenant(**VECTORS, deletionPolicy="Delete")
    await world.settle()
    return world


async def archived() -> World:
    """The tenant with rows was deleted; its namespace and its vectors are kept."""
    world = await placed()
    world.api.delete("Tenant", "acme")
    await world.settle()
    return world


async def moving() -> World:
    """A move that waits: its target does not answer."""
    world = await placed()
    world.server("shard-b").down = True
    world.clock.turn(minutes=1)
    await world.settle()
    world.move("shard-b")
    await world.settle()
    return world


async def moved_and_set_back() -> World:
    """The tenant has moved to shard-b, and shard-a was set back to a backup from before."""
    world = await placed()
    here = world.server("shard-a")
    before = deepcopy((here.records, here.rows))
    world.move("shard-b")
    await world.settle()
    world.clock.turn(minutes=16)
    await world.settle()
    assert world.status()["placement"] == {"shard": "shard-b", "epoch": 2}
    here.records, here.rows = before
    world.relist()
    await world.settle()
    return world


def remove_leftover(world: World, shard: str = "shard-a", value: str = "acme@1") -> None:
    """Say that a place which nobody uses is to go."""
    world.edit("VectorShard", shard, metadata={"annotations": {names.REMOVE_LEFTOVERS: value}})


def rotate(world: World) -> None:
    """Ask for new credentials."""
    world.edit("Tenant", "acme", metadata={"annotations": {names.ROTATE: "now"}})


def forget_placement(world: World) -> None:
    """Have the Tenant lose its placement, as one that comes back from a backup."""
    world.api.merge(
        {"kind": "Tenant", "metadata": {"name": "acme"}, "status": {"placement": None}}, "backup", "status"
    )
