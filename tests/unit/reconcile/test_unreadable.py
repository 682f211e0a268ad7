"""Objects that another schema let in, or that somebody garbled: said in a sentence, and nobody is stuck with them."""

from __future__ import annotations

from typing import Any

import pytest

from tenantry.domain import names
from tests.faults.simulated.flows import OWNER, SPEC, archive_name, archived, ready
from tests.faults.simulated.world import World
from tests.unit.builders import sample

BEFORE_TIME = "0000-01-01T00:00:00Z"
OUT_OF_UTC = "0001-01-01T00:00:00+14:00"
NO_OFFSET_OF_THIS_WORLD = "2026-01-01T00:00:00+99:99"
NO_TIMES = [BEFORE_TIME, OUT_OF_UTC, NO_OFFSET_OF_THIS_WORLD, "9999-12-31T23:59:59-14:00"]
"""What an API server takes for a date-time, and Python for none."""


def message(world: World, name: str = "acme", kind: str = "Tenant") -> str:
    (stalled,) = (item for item in world.status(name, kind)["conditions"] if item["type"] == "Stalled")
    return str(stalled["message"])


INDIFFERENT: dict[str, Any] = {
    "member": {"members": [OWNER | {"role": "emperor"}, OWNER | {"name": "bob", "role": "king"}]},
    "no members": {"members": "alice"},
    "suspended": {"suspended": "perhaps"},
    "vectors": {"vectorStore": {"dimensions": "many"}},
    "overrides": {"overrides": [1]},
}
"""What does not matter any more to a tenant that is deleted."""

DECISIVE: dict[str, tuple[Any, str]] = {
    "policy": (
        {"deletionPolicy": "Freeze"},
        "spec.deletionPolicy: Input should be 'Retain' or 'Delete', not 'Freeze'",
    ),
    "retention": ({"retentionDays": "long"}, "spec.retentionDays: Input should be a valid integer"),
    "namespace": ({"namespace": ["x"]}, "spec.namespace: Input should be a valid dictionary"),
    "owner": ({"owner": {"email": 5}}, "spec.owner.email: Input should be a valid string, not 5"),
}
"""What decides about namespace and data."""


@pytest.mark.parametrize("spec", INDIFFERENT.values(), ids=INDIFFERENT)
@pytest.mark.parametrize("policy", ["Retain", "Delete"])
async def test_a_tenant_leaves_though_what_does_not_matter_any_more_cannot_be_read(
    policy: str, spec: dict[str, Any]
) -> None:
    world = await ready()
    world.tenant(**{**SPEC, **spec}, deletionPolicy=policy)
    await world.settle()
    assert world.condition("Stalled") == ("True", "InvalidSpec")
    world.api.delete("Tenant", "acme")
    await world.settle()
    assert world.api.get("Tenant", "acme") is None
    kept = policy == "Retain"
    assert (world.api.get("Namespace", "tenant-acme") is not None) == kept
    assert len(world.api.list("TenantArchive")) == kept


@pytest.mark.parametrize(("spec", "said"), DECISIVE.values(), ids=DECISIVE)
async def test_a_tenant_stays_until_what_decides_about_its_data_can_be_read(
    spec: dict[str, Any], said: str
) -> None:
    world = await ready()
    world.tenant(**{**SPEC, **spec})
    await world.settle()
    assert said in message(world)
    assert message(world).endswith("correct it and apply again")
    world.api.delete("Tenant", "acme")
    await world.settle()
    assert said in message(world)
    assert f"take its finalizer {names.FINALIZER} off" in message(world)
    assert world.children(), "nobody has decided about them"
    world.tenant(**SPEC)
    await world.settle()
    assert world.api.get("Tenant", "acme") is None
    assert len(world.api.list("TenantArchive")) == 1


@pytest.mark.parametrize("moment", NO_TIMES)
async def test_an_archive_with_a_time_of_no_calendar_is_stalled_until_it_has_another(moment: str) -> None:
    world = await archived()
    name = archive_name(world)
    time = world.found("TenantArchive", name)["spec"]["purgeAfter"]
    world.edit("TenantArchive", name, spec={"purgeAfter": moment})
    await world.settle()
    assert world.condition("Stalled", name, "TenantArchive") == ("True", "InvalidSpec")
    assert message(world, name, "TenantArchive").startswith("spec.purgeAfter: ")
    assert world.api.get("Namespace", "tenant-acme") is not None
    world.edit("TenantArchive", name, spec={"purgeAfter": time})
    await world.settle()
    assert world.condition("Ready", name, "TenantArchive") == ("True", "Ready")


@pytest.mark.parametrize("namespace", ["tenant-acme", ["tenant-acme"], None])
async def test_an_archive_of_any_schema_is_purged(namespace: Any) -> None:
    world = await archived()
    name = archive_name(world)
    world.edit("TenantArchive", name, spec={"tenantSpec": {"namespace": namespace}})
    world.api.delete("TenantArchive", name)
    await world.settle()
    assert world.api.get("TenantArchive", name) is None
    assert world.api.get("Namespace", "tenant-acme") is None


def garbled(time: Any, kind: str = "Ready") -> dict[str, Any]:
    return {"type": kind, "status": "False", "reason": "Garbled", "message": "", "lastTransitionTime": time}


GARBAGE: dict[str, Any] = {
    **{moment: {"conditions": [garbled(moment)]} for moment in [*NO_TIMES, "0001-01-01T00:00:00Z", "soon"]},
    "of another": {"conditions": [garbled(BEFORE_TIME, "Other")]},
    "half a condition": {"conditions": [{"type": "Ready"}]},
    "no conditions": {"conditions": None},
    "yet to come": {"conditions": [garbled("9999-12-31T23:59:59Z")]},
}


@pytest.mark.parametrize("status", GARBAGE.values(), ids=GARBAGE)
async def test_a_garbled_status_is_written_anew_and_the_tenant_can_leave(status: dict[str, Any]) -> None:
    world = await ready()
    world.api.merge({"kind": "Tenant", "metadata": {"name": "acme"}, "status": status}, "hacker", "status")
    await world.settle()
    world.restart()
    world.relist()
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")
    world.tenant(**SPEC, deletionPolicy="Delete")
    world.api.delete("Tenant", "acme")
    await world.settle()
    assert world.api.get("Tenant", "acme") is None
    assert not world.children()


async def test_a_plan_with_a_garbled_status_is_read() -> None:
    world = await ready()
    status = {"conditions": [garbled(BEFORE_TIME)], "observedGeneration": 1}
    world.api.merge({"kind": "Plan", "metadata": {"name": "pro"}, "status": status}, "hacker", "status")
    world.restart()
    world.relist()
    await world.settle()
    assert world.condition("Ready", "pro", "Plan") == ("True", "Ready")
    assert world.condition("Ready") == ("True", "Ready")


async def test_what_a_schema_without_types_let_in_hides_no_other_tenant() -> None:
    world = await ready()
    odd: dict[str, Any] = {"one": {"namespace": "x", "plan": ["pro"]}, "two": {"namespace": {"name": {}}}}
    for name, spec in odd.items():
        world.tenant(name, **spec)
        world.api.merge(
            {"kind": "Tenant", "metadata": {"name": name}, "status": {"phase": {"a": 1}}}, "hacker", "status"
        )
    world.restart()
    world.relist()
    await world.settle()
    for name in ("one", "two"):
        assert world.condition("Stalled", name) == ("True", "InvalidSpec")
    assert world.process.seen.count_by_phase_and_plan()
    world.plan(**sample("plans.yaml", "pro")["spec"] | {"displayName": "Professional"})
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")
