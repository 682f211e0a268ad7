"""What users do to tenants, as a table: where each flow begins, and the one act that the operator must answer.

A test takes a flow, lets things go wrong while the act is answered, and compares with an undisturbed run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.faults.simulated import vector_flows
from tests.faults.simulated.world import World, ready_world
from tests.unit.builders import sample

OWNER = {"kind": "User", "name": "ann@acme.example", "role": "owner"}
EDITOR = {"kind": "Group", "name": "acme-editors", "role": "editor"}
ADOPTED = {"name": "legacy", "adoption": "IfMarked"}
SPEC: dict[str, Any] = {"members": [OWNER, EDITOR]}


@dataclass(frozen=True, slots=True)
class Flow:
    """`begin` returns a world at rest; `act` is what somebody then does to it."""

    name: str
    begin: Callable[[], Awaitable[World]]
    act: Callable[[World], None]

    def __str__(self) -> str:
        return self.name


async def plans_alone() -> World:
    """Nobody is a tenant yet."""
    world = World()
    world.plan("free")
    world.plan("pro")
    await world.settle()
    return world


async def ready() -> World:
    """One tenant with two members."""
    return await ready_world(**SPEC)


async def suspended() -> World:
    """The tenant is suspended."""
    world = await ready()
    world.tenant(**SPEC, suspended=True)
    await world.settle()
    return world


async def second_revision() -> World:
    """The tenant's configuration has changed once."""
    world = await ready()
    world.tenant(**SPEC, overrides={"model": {"name": "gpt-4o"}})
    await world.settle()
    return world


async def archived() -> World:
    """The tenant was deleted, its namespace is kept."""
    world = await ready()
    world.api.delete("Tenant", "acme")
    await world.settle()
    return world


async def to_be_removed() -> World:
    """The tenant is to go with everything."""
    world = await ready()
    world.tenant(**SPEC, deletionPolicy="Delete")
    await world.settle()
    return world


async def marked_namespace() -> World:
    """A namespace waits for the tenant that may adopt it."""
    world = await plans_alone()
    give_namespace(world)
    await world.settle()
    return world


async def adopted() -> World:
    """The tenant has adopted a namespace, and will give it back when it goes."""
    world = await marked_namespace()
    world.tenant(**SPEC, namespace=ADOPTED, deletionPolicy="Delete")
    await world.settle()
    return world


async def adopted_and_archived() -> World:
    """The tenant of an adopted namespace was deleted, the namespace is kept."""
    world = await marked_namespace()
    world.tenant(**SPEC, namespace=ADOPTED)
    await world.settle()
    world.api.delete("Tenant", "acme")
    await world.settle()
    return world


def give_namespace(world: World) -> None:
    """Create namespace legacy, with something of its owner in it, and let acme adopt it."""
    metadata = {
        "name": ADOPTED["name"],
        "labels": {"team": "legacy"},
        "annotations": {"tenantry.dev/adoptable-by": "acme"},
    }
    world.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}, "kubectl-create")
    own = {"name": "settings", "namespace": ADOPTED["name"]}
    content = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": own, "data": {"colour": "blue"}}
    world.api.create(content, "kubectl-create")


def archive_name(world: World) -> str:
    """Return the name of the one archive."""
    (archive,) = world.api.list("TenantArchive")
    return str(archive["metadata"]["name"])


def _edit_plan(world: World) -> None:
    model = {**sample("plans.yaml", "pro")["spec"]["model"], "maxTokens": 2048}
    network = {"egress": {"internetPorts": [8443]}}
    world.plan("pro", manager="platform", model=model, network=network)


def _restore(world: World) -> None:
    world.tenant(**SPEC)


FLOWS = [
    Flow("onboarding", plans_alone, lambda world: world.tenant(**SPEC)),
    Flow("plan change", ready, lambda world: world.tenant(**SPEC | {"plan": "free"})),
    Flow("plan edit", ready, _edit_plan),
    Flow("suspension", ready, lambda world: world.tenant(**SPEC, suspended=True)),
    Flow("resume", suspended, lambda world: world.tenant(**SPEC)),
    Flow("rollback", second_revision, lambda world: world.edit("Tenant", "acme", spec={"configRevision": 1})),
    Flow("lost namespace", ready, lambda world: _ignore(world.api.delete("Namespace", "tenant-acme"))),
    Flow("deletion Retain", ready, lambda world: _ignore(world.api.delete("Tenant", "acme"))),
    Flow("restore", archived, _restore),
    Flow("purge at its time", archived, lambda world: world.clock.turn(days=31)),
    Flow(
        "purge now", archived, lambda world: _ignore(world.api.delete("TenantArchive", archive_name(world)))
    ),
    Flow("deletion Delete", to_be_removed, lambda world: _ignore(world.api.delete("Tenant", "acme"))),
    Flow("adoption", marked_namespace, lambda world: world.tenant(**SPEC, namespace=ADOPTED)),
    Flow("release", adopted, lambda world: _ignore(world.api.delete("Tenant", "acme"))),
    Flow("release at its time", adopted_and_archived, lambda world: world.clock.turn(days=31)),
    Flow("placement", vector_flows.with_shards, lambda world: world.tenant(**vector_flows.VECTORS)),
    Flow("first shard", ready, lambda world: world.shard("shard-a")),
    Flow("new credentials", vector_flows.placed, vector_flows.rotate),
    Flow("lost placement", vector_flows.placed, vector_flows.forget_placement),
    Flow(
        "suspension with vectors",
        vector_flows.placed,
        lambda world: world.tenant(**vector_flows.VECTORS, suspended=True),
    ),
    Flow(
        "resume with vectors",
        vector_flows.placed_and_suspended,
        lambda world: world.tenant(**vector_flows.VECTORS),
    ),
    Flow(
        "deletion Retain with vectors",
        vector_flows.placed,
        lambda world: _ignore(world.api.delete("Tenant", "acme")),
    ),
    Flow(
        "deletion Delete with vectors",
        vector_flows.placed_to_be_removed,
        lambda world: _ignore(world.api.delete("Tenant", "acme")),
    ),
    Flow("restore with vectors", vector_flows.archived, lambda world: world.tenant(**vector_flows.VECTORS)),
    Flow("purge with vectors at its time", vector_flows.archived, lambda world: world.clock.turn(days=31)),
    Flow(
        "purge with vectors now",
        vector_flows.archived,
        lambda world: _ignore(world.api.delete("TenantArchive", archive_name(world))),
    ),
    Flow("move", vector_flows.placed, lambda world: world.move("shard-b")),
    Flow(
        "pin to another shard",
        vector_flows.placed_and_planned,
        lambda world: world.tenant(vectorStore={"dimensions": 3, "shard": "shard-b"}),
    ),
    Flow("leftover removed", vector_flows.moved_and_set_back, vector_flows.remove_leftover),
    Flow("move that is given up", vector_flows.placed, lambda world: world.move("shard-b", abort=True)),
]


def _ignore(_: object) -> None:
    """Return nothing, so that a call is an act."""
