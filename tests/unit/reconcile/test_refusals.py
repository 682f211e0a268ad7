"""Writes that are refused, in conflict or out of reach: what is done all the same, what is said, when it goes on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from tenantry.domain.errors import PartError, Retry, Stalled
from tenantry.reconcile.ports import Conflict, Refused, Unavailable
from tenantry.reconcile.report import result_of
from tenantry.reconcile.result import Key, Result
from tests.faults.simulated.faults import Refusing, Write, applied
from tests.faults.simulated.flows import OWNER, SPEC, archive_name, archived, plans_alone, ready
from tests.faults.simulated.vector_flows import VECTORS, placed

ACME = Key("Tenant", "acme")


@pytest.mark.parametrize(
    ("errors", "result"),
    [
        ([], Result()),
        ([Retry("Conflict", "changed meanwhile")], Result(failed=True, at_most=5.0, outcome="retry")),
        (
            [Retry("Conflict", "changed meanwhile"), Retry("ApiUnavailable", "away", failed=True)],
            Result(failed=True, outcome="retry"),
        ),
        (
            [Retry("ApiUnavailable", "busy", 30.0, failed=True)],
            Result(after=30.0, failed=True, outcome="retry"),
        ),
        ([Retry("ApiUnavailable", "away", failed=True)], Result(failed=True, outcome="retry")),
        ([Retry("NamespaceTerminating", "waits", 5.0)], Result(after=5.0, outcome="waiting")),
        ([Stalled("OverrideNotAllowed", "remove it")], Result(outcome="stalled")),
        ([Stalled("NameTaken", "rename it", 15.0)], Result(after=15.0, outcome="stalled")),
        (
            [Stalled("OverrideNotAllowed", "remove it"), Retry("Conflict", "changed meanwhile")],
            Result(failed=True, at_most=5.0, outcome="retry"),
        ),
        (
            [Retry("PlanNotFound", "waits", 120.0), Retry("ApiUnavailable", "busy", 30.0, failed=True)],
            Result(after=30.0, failed=True, outcome="retry"),
        ),
        (
            [Retry("PlanNotFound", "waits", 20.0), Retry("ApiUnavailable", "busy", 30.0, failed=True)],
            Result(after=30.0, failed=True, outcome="retry"),
        ),
        (
            [Stalled("NameTaken", "rename it", 15.0), Retry("ApiUnavailable", "away", failed=True)],
            Result(failed=True, outcome="retry"),
        ),
    ],
)
def test_what_the_queue_is_told(errors: list[PartError], result: Result) -> None:
    assert result_of(errors) == result


@pytest.mark.parametrize(
    ("error", "result", "reason"),
    [
        (
            Unavailable("429", retry_after=7.0),
            Result(after=7.0, failed=True, outcome="retry"),
            "ApiUnavailable",
        ),
        (Unavailable("connection refused"), Result(failed=True, outcome="retry"), "ApiUnavailable"),
        (Refused("forbidden"), Result(failed=True, outcome="retry"), "Refused"),
    ],
)
async def test_a_write_that_fails_backs_off(error: Exception, result: Result, reason: str) -> None:
    world = await ready()
    world.process.fault = Refusing(applied("ResourceQuota", "tenantry"), error)
    world.tenant(**SPEC | {"plan": "free"})
    world.deliver()
    assert await world.reconcile(ACME) == result
    assert world.condition("PolicyReady") == ("False", reason)
    assert world.condition("ConfigReady") == ("True", "Ready"), (
        "a part that fails does not hold up the others"
    )


async def test_what_the_user_must_change_is_not_tried_again_and_again() -> None:
    world = await ready()
    world.tenant(**SPEC, overrides={"model": {"maxTokens": 9}})
    await world.settle()
    assert world.process.results[ACME] == Result(outcome="stalled")
    assert ACME not in world.process.due


async def test_a_suspension_takes_the_network_away_also_where_its_quota_is_refused() -> None:
    world = await ready()
    world.process.fault = Refusing(applied("ResourceQuota", "tenantry-suspended"), Refused("no"))
    world.tenant(**SPEC, suspended=True)
    await world.settle()
    policies = {name for kind, name in world.children() if kind == "NetworkPolicy"}
    assert policies == {"tenantry-default-deny"}
    assert world.found("RoleBinding", "tenantry-owner", "tenant-acme")["subjects"] == []
    assert world.condition("Ready") == ("False", "Refused")


async def test_an_allowance_that_cannot_be_taken_away_is_told() -> None:
    world = await ready()
    world.process.fault = Refusing(lambda write: write.verb == "delete", Refused("no"))
    world.tenant(**SPEC, suspended=True)
    await world.settle()
    assert world.condition("PolicyReady") == ("False", "Refused")
    assert world.condition("Ready") == ("False", "Refused")


async def test_nobody_is_let_in_before_the_limits_stand() -> None:
    world = await plans_alone()
    world.process.fault = Refusing(applied("LimitRange", "tenantry"), Refused("no"), times=3)
    world.tenant(**SPEC)
    while world.process.fault.times:
        await world.settle(timedelta(0))
        world.clock.turn(seconds=1)
        assert "RoleBinding" not in {kind for kind, _ in world.children()}
        assert ("ResourceQuota", "tenantry") in world.children()
    await world.settle()
    bound = world.found("RoleBinding", "tenantry-owner", "tenant-acme")["subjects"]
    assert [subject["name"] for subject in bound] == [OWNER["name"]]


async def test_a_fleeting_conflict_is_not_told() -> None:
    world = await ready()
    world.clock.turn(hours=1)
    world.process.fault = Refusing(applied("LimitRange", "tenantry"), Conflict("changed"), times=2)
    before = len(world.process.writes)
    world.tenant(**SPEC | {"plan": "free"})
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")
    assert [write.verb for write in world.process.writes[before:] if write.kind == "Tenant"] == ["status"]


async def test_a_lasting_conflict_is_told_after_five_seconds() -> None:
    world = await ready()
    world.clock.turn(hours=1)
    world.process.fault = Refusing(applied("LimitRange", "tenantry"), Conflict("changed"))
    before = world.status()
    world.tenant(**SPEC | {"plan": "free"})
    world.deliver()
    assert (await world.reconcile(ACME)).failed
    world.clock.turn(seconds=4)
    assert (await world.reconcile(ACME)).failed
    assert world.status() == before
    world.clock.turn(seconds=1)
    again = await world.reconcile(ACME)
    assert again == Result(failed=True, at_most=5.0, outcome="retry"), (
        "it is over when whoever writes has stopped"
    )
    assert world.condition("Ready") == ("False", "Conflict")
    assert world.condition("Reconciling") == ("True", "Conflict")


async def test_a_configuration_that_could_not_be_written_is_not_in_effect() -> None:
    world = await plans_alone()
    refused = Refusing(applied("ControllerRevision", "tenant-config-1"), Refused("no"))
    world.process.fault = refused
    world.tenant()
    await world.settle()
    assert "configRevision" not in world.status()
    assert world.audit.actions() == ["Created"]
    refused.times = 0
    world.relist()
    await world.settle()
    assert world.status()["configRevision"] == 1
    assert world.audit.actions() == ["Created", "ConfigChanged"]


async def test_a_lost_namespace_is_waited_for_and_the_revisions_go_on() -> None:
    world = await ready()
    world.api.delete("Namespace", "tenant-acme")
    world.deliver()
    result = await world.reconcile(ACME)
    assert result.outcome == "waiting"
    assert world.condition("NamespaceReady") == ("False", "NamespaceTerminating")
    assert world.status()["namespace"] == "tenant-acme"
    assert world.status()["configRevision"] == 1
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")
    assert world.status()["configRevision"] == 2
    assert ("ControllerRevision", "tenant-config-2") in world.children()


async def test_a_namespace_that_is_somebody_elses_now_is_not_named_in_the_status() -> None:
    world = await ready()
    world.api.delete("Namespace", "tenant-acme")
    world.api.collect()
    metadata = {"name": "tenant-acme"}
    world.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}, "kubectl-create")
    await world.settle()
    assert world.condition("Stalled") == ("True", "NamespaceNotOurs")
    assert "namespace" not in world.status()
    assert world.status()["configRevision"] == 1
    assert world.children() == set()


@pytest.mark.parametrize(
    ("error", "reason"),
    [(Refused("you may not"), "Refused"), (Unavailable("connection refused"), "ApiUnavailable")],
)
async def test_a_finalizer_that_cannot_be_set_is_told(error: Exception, reason: str) -> None:
    world = await plans_alone()
    world.process.fault = refusing = Refusing(patched("Tenant"), error)
    world.tenant(**SPEC)
    await world.settle(timedelta(seconds=30))
    assert world.condition("Ready") == ("False", reason)
    assert world.condition("Reconciling") == ("True", reason)
    assert world.api.get("Namespace", "tenant-acme") is None
    refusing.times = 0
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")
    assert world.audit.actions() == ["Created", "ConfigChanged"]


async def test_an_archive_that_cannot_be_let_go_says_so() -> None:
    world = await archived()
    world.process.fault = refusing = Refusing(patched("TenantArchive"), Refused("you may not"))
    name = archive_name(world)
    world.api.delete("TenantArchive", name)
    await world.settle(timedelta(minutes=1))
    assert world.api.get("Namespace", "tenant-acme") is None
    assert world.condition("Ready", name, "TenantArchive") == ("False", "Refused")
    refusing.times = 0
    world.relist()
    await world.settle()
    assert world.api.list("TenantArchive") == []


def patched(kind: str) -> Callable[[Write], bool]:
    """Pick the writes of the finalizers of one kind."""
    return lambda write: (write.verb, write.kind) == ("patch", kind)


@pytest.mark.parametrize("child", [("ResourceQuota", "tenantry"), ("ControllerRevision", "tenant-config-1")])
async def test_a_child_is_not_removed_where_its_successor_would_be_refused(child: tuple[str, str]) -> None:
    world = await ready()
    before = world.found(*child, "tenant-acme")["metadata"]["uid"]

    def is_admission(write: Write) -> bool:
        return (write.kind, write.name) == child and write.verb in ("apply", "replace", "try")

    world.process.fault = refusing = Refusing(is_admission, Refused("a policy says no"))
    labels = {"labels": {"app.kubernetes.io/managed-by": "tenantry", "tenantry.dev/tenant": "somebody"}}
    world.edit(*child, "tenant-acme", metadata=labels)
    await world.settle(timedelta(seconds=20))
    assert world.condition("Ready") == ("False", "Refused")
    assert world.found(*child, "tenant-acme")["metadata"]["uid"] == before
    refusing.times = 0
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")


async def test_what_is_due_in_months_does_not_put_off_what_failed() -> None:
    """Where a tenant has a place, its credentials are due in 90 days."""
    world = await placed()
    assert world.process.results[ACME].after is not None
    world.process.fault = Refusing(
        applied("ResourceQuota", "tenantry-suspended"), Unavailable("away"), times=3
    )
    world.tenant(**VECTORS, suspended=True)
    await world.settle(timedelta(seconds=5))
    assert world.process.fault.times == 0
    assert world.condition("Ready") == ("True", "Suspended")
