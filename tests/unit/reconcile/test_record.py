"""Audit rows: one for each change, whoever died in between, and with the right name on it."""

from __future__ import annotations

import pytest

from tenantry.domain.audit import AuditEntry
from tenantry.reconcile.ports import Unavailable
from tests.faults.simulated.faults import Crash, DiesAt, Refusing, applied
from tests.faults.simulated.flows import SPEC, archived, plans_alone, ready, second_revision
from tests.faults.simulated.world import World


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
    assert row(world, "PlanChanged").message == "changed spec.plan from pro to free"
    recorded = list(world.audit.rows)
    world.clock.turn(minutes=1)
    world.restart()
    await world.settle()
    assert world.audit.rows == recorded
    told = [event[2:] for event in world.process.events if event[0] == "Tenant"]
    assert ("PlanChanged", "kubectl changed spec.plan from pro to free") in told
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


async def test_a_namespace_that_an_older_version_left_half_made_is_no_repair() -> None:
    world = await ready()
    whole = world.found("Namespace", "tenant-acme")["metadata"]
    world = await plans_alone()
    world.tenant(**SPEC)
    marks = {key: value for key, value in whole["labels"].items() if "tenantry" in f"{key}{value}"}
    annotations = {
        **whole["annotations"],
        "tenantry.dev/tenant-uid": world.found("Tenant", "acme")["metadata"]["uid"],
    }
    metadata = {"name": "tenant-acme", "labels": marks, "annotations": annotations}
    world.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}, "tenantry")
    await world.settle()
    assert world.found("Namespace", "tenant-acme")["metadata"]["labels"] == whole["labels"]
    assert world.audit.actions() == ["Created", "ConfigChanged"]


async def test_a_label_that_is_wanted_no_more_goes_and_is_no_repair() -> None:
    world = await plans_alone()
    world.tenant(**SPEC, namespace={"labels": {"team": "red", "tier": "one"}})
    await world.settle()
    world.edit("Namespace", "tenant-acme", manager="mesh", metadata={"labels": {"mesh": "on"}})
    world.clock.turn(minutes=1)
    world.tenant(**SPEC, namespace={"labels": {"tier": "two"}})
    await world.settle()
    labels = world.found("Namespace", "tenant-acme")["metadata"]["labels"]
    assert "team" not in labels
    assert (labels["tier"], labels["mesh"]) == ("two", "on")
    assert "Repaired" not in world.audit.actions()


async def test_a_namespace_that_somebody_changes_is_one() -> None:
    world = await ready()
    world.clock.turn(minutes=1)
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    world.edit("Namespace", "tenant-acme", manager="mallory", metadata={"labels": labels})
    await world.settle()
    assert row(world, "Repaired").actor == "mallory"
    assert row(world, "Repaired").message == "put back namespace tenant-acme, which was changed by mallory"
    labels = world.found("Namespace", "tenant-acme")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def told(world: World, kind: str = "Tenant") -> list[tuple[str, str]]:
    """Return reason and message of the Events about a kind since the last call, in order."""
    events = [(reason, message) for about, _, reason, message in world.process.events if about == kind]
    world.process.events.clear()
    return events


async def test_events_tell_a_whole_life() -> None:
    world = await plans_alone()
    world.tenant(**SPEC)
    await world.settle()
    place = "namespace tenant-acme, plan pro, configuration revision"
    assert told(world) == [("Created", "kubectl created Tenant acme"), ("Ready", f"{place} 1")]

    world.tenant(**SPEC, manager="argocd", overrides={"model": {"maxTokens": 9}})
    await world.settle()
    edit, mistake = told(world)
    assert edit == ("SpecChanged", "argocd set spec.overrides.model.maxTokens to 9")
    assert mistake[0] == "OverrideNotAllowed"
    world.tenant(**SPEC, manager="argocd")
    await world.settle()
    assert told(world) == [
        ("SpecChanged", "argocd removed spec.overrides.model.maxTokens"),
        ("Ready", f"{place} 1"),
    ]

    world.tenant(**SPEC, suspended=True)
    await world.settle()
    world.tenant(**SPEC, suspended=False)
    await world.settle()
    assert told(world) == [
        ("Suspended", "kubectl set spec.suspended to true"),
        ("Resumed", "kubectl changed spec.suspended from true to false"),
    ]

    world.api.delete("Tenant", "acme")
    await world.settle()
    (archive,) = world.api.list("TenantArchive")
    name, until = archive["metadata"]["name"], archive["spec"]["purgeAfter"]
    deleted = f"somebody deleted Tenant acme; TenantArchive {name} keeps namespace tenant-acme until {until}"
    assert told(world) == [("Archived", deleted)]

    world.tenant(**SPEC)
    await world.settle()
    assert told(world) == [
        ("Created", "kubectl created Tenant acme"),
        ("Restored", f"restored namespace tenant-acme from archive {name}"),
        ("Ready", f"{place} 1"),
    ]


async def test_events_tell_of_a_purge() -> None:
    world = await archived()
    world.process.events.clear()
    world.api.delete("TenantArchive", world.api.list("TenantArchive")[0]["metadata"]["name"])
    await world.settle()
    assert told(world, "TenantArchive") == [
        ("Purging", "purging namespace tenant-acme: the archive was deleted"),
        ("Purged", "nothing of the tenant is left"),
    ]
