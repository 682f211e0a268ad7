"""Audit rows: one for each change, whoever died in between, and with the right name on it."""

from __future__ import annotations

import pytest

from tenantry.domain.audit import AuditEntry
from tenantry.reconcile.ports import Unavailable
from tests.unit.reconcile.faults import Crash, DiesAt, Refusing, applied
from tests.unit.reconcile.flows import SPEC, plans_alone, ready, second_revision
from tests.unit.reconcile.world import World


def row(world: World, action: str) -> AuditEntry:
    """Return the one row of that action."""
    (found,) = [item for item in world.audit.rows if item.action == action]
    return found


async def test_after_a_crash_between_row_and_status_the_event_says_what_the_row_says() -> None:
    world = await ready()
    world.clock.turn(minutes=1)
    world.process.fault = DiesAt("status", "Tenant")
    world.tenant(**SPEC | {"plan": "free"})
    with pytest.raises(Crash):
        await world.settle()
    assert row(world, "PlanChanged").message == "changed: spec.plan"
    recorded = list(world.audit.rows)
    world.clock.turn(minutes=1)
    world.restart()
    await world.settle()
    assert world.audit.rows == recorded
    told = [event[2:] for event in world.process.events if event[0] == "Tenant"]
    assert ("PlanChanged", "changed: spec.plan") in told
    assert "Created" not in [reason for reason, _ in told]


async def test_who_edits_a_plan_is_the_actor_of_what_that_changes() -> None:
    world = await ready()
    world.clock.turn(minutes=1)
    world.plan("pro", manager="platform", retrieval={"topK": 9, "chunkSize": 512, "rerank": True})
    await world.settle()
    changed = world.audit.rows[-1]
    assert (changed.action, changed.name, changed.actor) == ("ConfigChanged", "acme", "platform")
    world.clock.turn(minutes=1)
    world.tenant(**SPEC, manager="argocd", overrides={"model": {"name": "o3"}})
    await world.settle()
    changed = world.audit.rows[-1]
    assert (changed.action, changed.name, changed.actor) == ("ConfigChanged", "acme", "argocd")


async def test_who_pins_a_revision_is_its_actor_also_when_the_first_try_fails() -> None:
    world = await second_revision()
    world.clock.turn(minutes=1)
    world.process.fault = fault = Refusing(
        applied("ConfigMap", "tenant-config"), Unavailable("away"), times=1
    )
    world.edit("Tenant", "acme", manager="oncall", spec={"configRevision": 1})
    await world.settle()
    assert fault.times == 0
    assert row(world, "ConfigRolledBack").actor == "oncall"


async def test_a_namespace_that_was_half_made_is_no_repair() -> None:
    world = await plans_alone()
    world.process.fault = DiesAt("apply", "Namespace")
    world.tenant(**SPEC)
    with pytest.raises(Crash):
        await world.settle()
    assert world.api.get("Namespace", "tenant-acme") is not None
    world.restart()
    await world.settle()
    assert world.audit.actions() == ["Created", "ConfigChanged"]


async def test_a_namespace_that_somebody_changes_is_one() -> None:
    world = await ready()
    world.clock.turn(minutes=1)
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    world.edit("Namespace", "tenant-acme", manager="mallory", metadata={"labels": labels})
    await world.settle()
    assert row(world, "Repaired").actor == "mallory"
    labels = world.found("Namespace", "tenant-acme")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
