"""What is written only for the very object that was read: its status, and a namespace for it."""

from __future__ import annotations

import pytest

from tenantry.reconcile import report
from tenantry.reconcile.ports import Conflict
from tenantry.reconcile.result import Key
from tests.faults.simulated.flows import OWNER, ready
from tests.faults.simulated.world import World


def made_anew(world: World) -> None:
    """Delete acme, finalizers or not, and create it again, before any watch tells of it."""
    world.api.merge({"kind": "Tenant", "metadata": {"name": "acme", "finalizers": None}}, "kubectl-edit")
    world.api.delete("Tenant", "acme")
    world.tenant(members=[OWNER])


async def test_the_status_of_a_former_object_is_not_written_on_its_successor() -> None:
    world = await ready()
    former = world.found("Tenant", "acme")
    made_anew(world)
    before = world.found("Tenant", "acme")
    with pytest.raises(Conflict):
        await report.write_status(former, {**former["status"], "phase": "Deleting"}, world.cx)
    assert world.found("Tenant", "acme") == before


async def test_an_edit_meanwhile_does_not_keep_a_status_from_being_written() -> None:
    world = await ready()
    read = world.found("Tenant", "acme")
    world.api.merge({"kind": "Tenant", "metadata": {"name": "acme", "labels": {"a": "b"}}}, "kubectl-edit")
    await report.write_status(read, {**read["status"], "phase": "Degraded"}, world.cx)
    assert world.status()["phase"] == "Degraded"


async def test_no_namespace_is_made_for_a_tenant_that_is_gone_and_that_is_not_known_yet() -> None:
    world = await ready()
    namespace = world.found("Namespace", "tenant-acme")
    world.api.merge({"kind": "Tenant", "metadata": {"name": "acme", "finalizers": None}}, "kubectl-edit")
    world.api.delete("Tenant", "acme")
    world.api.delete("Namespace", "tenant-acme")
    while world.api.get("Namespace", "tenant-acme") is not None:
        assert world.api.collect()
    world.process.seen.gone("Namespace", "", "tenant-acme", namespace["metadata"]["uid"])
    await world.reconcile(Key("Tenant", "acme"))
    assert world.api.get("Namespace", "tenant-acme") is None
