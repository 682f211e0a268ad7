"""Archives: what one does on its word alone, how it ends, and who is on record for that."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tenantry.api.common import API_VERSION, rfc3339
from tenantry.reconcile.ports import Refused
from tenantry.reconcile.result import Key
from tests.faults.simulated.faults import Crash, DiesAt, Fault, Refusing
from tests.faults.simulated.flows import SPEC, archive_name, archived, plans_alone, ready
from tests.faults.simulated.world import World
from tests.unit.builders import EMAIL, T0

ACME = Key("Tenant", "acme")
LONG_AGO = rfc3339(T0 - timedelta(days=2000))


def put_archive(world: World, uid: str, name: str = "acme-from-backup") -> None:
    spec: dict[str, Any] = {
        "tenant": "acme",
        "tenantUID": uid,
        "owner": {"email": EMAIL},
        "purgeAfter": LONG_AGO,
    }
    metadata = {"name": name}
    world.api.apply(
        {"apiVersion": API_VERSION, "kind": "TenantArchive", "metadata": metadata, "spec": spec}, "velero"
    )


def phases(world: World) -> dict[str, str]:
    """Return the phase of each archive by the UID of its tenant."""
    archives = world.api.list("TenantArchive")
    return {item["spec"]["tenantUID"]: item["status"]["phase"] for item in archives}


async def test_an_archive_of_a_living_tenant_does_nothing() -> None:
    world = await ready()
    before = {
        ref: item for ref, item in world.api.objects.items() if ref.namespace or ref.kind == "Namespace"
    }
    put_archive(world, world.found("Tenant", "acme")["metadata"]["uid"])
    await world.settle()
    assert world.condition("Ready", "acme-from-backup", "TenantArchive") == ("False", "TenantLives")
    assert world.condition("Stalled", "acme-from-backup", "TenantArchive") == ("True", "TenantLives")
    world.api.delete("TenantArchive", "acme-from-backup")
    await world.settle()
    assert world.api.list("TenantArchive") == []
    after = {ref: item for ref, item in world.api.objects.items() if ref.namespace or ref.kind == "Namespace"}
    assert after == before
    assert world.condition("Ready") == ("True", "Ready")
    assert {"Purging", "Purged"}.isdisjoint(world.audit.actions())


async def test_an_archive_whose_successor_has_come_and_gone_was_restored() -> None:
    world = await ready()
    uids = []
    for _ in range(2):
        uids.append(world.found("Tenant", "acme")["metadata"]["uid"])
        world.api.delete("Tenant", "acme")
        world.deliver()
        await world.reconcile(ACME)  # nobody has time for the archives
        if len(uids) == 1:
            world.tenant(**SPEC)
            world.deliver()
            await world.reconcile(ACME)
            assert "Restored" in world.audit.actions()
    await world.settle()
    assert phases(world) == {uids[0]: "Restored", uids[1]: "Kept"}
    assert "Purged" not in world.audit.actions()
    assert world.api.get("Namespace", "tenant-acme") is not None


async def test_a_second_try_of_a_deletion_leaves_an_edited_archive_as_it_is() -> None:
    world = await ready()
    world.process.fault = DiesAt("patch", "Tenant")
    world.api.delete("Tenant", "acme")
    with pytest.raises(Crash):
        await world.settle()
    later = rfc3339(T0 + timedelta(days=90))
    world.edit("TenantArchive", archive_name(world), spec={"purgeAfter": later})
    world.restart()
    await world.settle()
    assert world.api.get("Tenant", "acme") is None
    assert world.found("TenantArchive", archive_name(world))["spec"]["purgeAfter"] == later


async def test_who_purges_at_the_end_of_retention_is_the_operator() -> None:
    world = await archived()
    world.clock.turn(days=30)
    await world.settle()
    assert world.api.get("Namespace", "tenant-acme") is None
    actors = {row.action: row.actor for row in world.audit.rows}
    assert actors["Purging"] == actors["Purged"] == "tenantry"


async def test_who_deletes_an_archive_is_not_known_to_be_anybody() -> None:
    world = await archived()
    name = archive_name(world)
    world.edit("TenantArchive", name, manager="argocd", metadata={"labels": {"team": "a"}})
    await world.settle()
    world.api.delete("TenantArchive", name)
    await world.settle()
    actors = {row.action: row.actor for row in world.audit.rows}
    assert (actors["Purging"], actors["Purged"]) == ("unknown", "tenantry")


async def test_a_purge_takes_the_finalizer_off_without_a_conflict_with_itself() -> None:
    world = await archived()
    world.api.delete("TenantArchive", archive_name(world))
    await world.settle()
    assert world.api.list("TenantArchive") == []
    told = [(reason, message) for kind, _, reason, message in world.process.events if kind == "TenantArchive"]
    assert told.count(("Purged", "nothing of the tenant is left")) == 1
    assert ["Conflict" in message for _, message in told].count(True) == 0
    assert world.process.failures == {}


async def test_the_record_of_a_purge_stays_its_time_however_old_the_archive_says_it_is() -> None:
    world = await plans_alone()
    put_archive(world, "uid-of-nobody")
    await world.settle()
    assert phases(world) == {"uid-of-nobody": "Purged"}
    world.clock.turn(days=29)
    world.relist()
    await world.settle()
    assert phases(world) == {"uid-of-nobody": "Purged"}
    world.clock.turn(days=1)
    await world.settle()
    assert world.api.list("TenantArchive") == []


async def test_an_archive_that_cannot_be_let_go_says_so_once() -> None:
    world = await archived()
    name = archive_name(world)
    world.process.fault = Refusing(
        lambda write: (write.verb, write.kind) == ("patch", "TenantArchive"), Refused("no")
    )
    world.api.delete("TenantArchive", name)
    world.deliver()
    await world.settle()
    assert world.status(name, "TenantArchive")["phase"] == "Purged"
    assert world.condition("Ready", name, "TenantArchive") == ("False", "Refused")
    told = [reason for kind, _, reason, _ in world.process.events if kind == "TenantArchive"]
    assert told.count("Purged") == 1
    before = len(world.process.writes)
    world.relist()
    await world.settle()
    assert {write.verb for write in world.process.writes[before:]} <= {"patch"}
    world.process.fault = Fault()
    world.relist()
    await world.settle()
    assert world.api.get("TenantArchive", name) is None
