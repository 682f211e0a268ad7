"""The ClusterRoles of tenants: written with an administrator's rights, only looked at with the chart's."""

from __future__ import annotations

from typing import Any

import pytest

from tenantry.desired import access
from tenantry.domain import names
from tenantry.reconcile import roles
from tests.faults.simulated.faults import Write
from tests.faults.simulated.world import World

VIEWER = "tenantry-tenant-viewer"
HELM = {
    "labels": {names.MANAGED_BY: "Helm"},
    "annotations": {"meta.helm.sh/release-name": "tenantry"},
}


async def world_with_chart() -> World:
    """Return a world at rest where a chart of this version is installed, and the operator has its rights."""
    world = World()
    for role in access.cluster_roles():
        marks = {part: {**role["metadata"].get(part, {}), **HELM[part]} for part in HELM}
        world.api.apply({**role, "metadata": {**role["metadata"], **marks}}, "helm")
    world.api.forbidden = {"ClusterRole"}
    await world.settle()
    return world


def role_writes(world: World) -> list[Write]:
    return [write for write in world.process.writes if write.kind == "ClusterRole"]


def change(world: World, **fields: Any) -> None:
    world.edit("ClusterRole", VIEWER, manager="helm", **fields)


async def test_the_charts_roles_are_found_as_they_should_be_whatever_helm_marks_them_with() -> None:
    world = await world_with_chart()
    assert world.process.roles_problems == []
    assert world.process.reviews == []


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"rules": []}, "differs"),
        ({"aggregationRule": {"clusterRoleSelectors": [{}]}}, "differs"),
        (
            {"metadata": {"labels": {names.ROLE: None}}},
            "is missing, or its label tenantry.dev/role is",
        ),
    ],
    ids=["rules", "aggregation", "label"],
)
async def test_a_role_of_another_version_is_told_and_left(fields: dict[str, Any], problem: str) -> None:
    world = await world_with_chart()
    change(world, **fields)
    for _ in range(3):
        await world.settle()
        world.relist()
    await world.settle()
    (told,) = world.process.roles_problems
    assert told.endswith(problem)
    assert VIEWER in told
    assert role_writes(world) == []
    # The chart's upgrade is all that it takes.
    world.api.apply(access.cluster_roles()[2], "helm")
    change(world, aggregationRule=None)
    await world.settle()
    assert world.process.roles_problems == []


async def test_without_the_chart_all_four_are_told_and_nothing_is_due_before_the_next_list() -> None:
    world = World()
    world.api.forbidden = {"ClusterRole"}
    await world.settle()
    assert len(world.process.roles_problems) == 4
    assert roles.KEY not in world.process.due
    assert role_writes(world) == []


async def test_an_administrator_puts_them_back_and_keeps_what_helm_has_marked() -> None:
    world = await world_with_chart()
    world.api.forbidden = set()
    change(world, rules=[], aggregationRule={"clusterRoleSelectors": [{}]})
    await world.settle()
    role = world.found("ClusterRole", VIEWER)
    assert role["rules"] == access.cluster_roles()[2]["rules"]
    assert "aggregationRule" not in role
    assert role["metadata"]["labels"] == {**HELM["labels"], names.ROLE: "viewer"}
    assert role["metadata"]["annotations"] == HELM["annotations"]
    assert world.process.roles_problems == []


async def test_who_may_write_roles_but_not_grant_what_they_hold_is_told_too() -> None:
    world = World()

    async def may(*_: str) -> bool:
        return True

    world.process.cx.objects.may = may  # type: ignore[method-assign]
    world.api.forbidden = {"ClusterRole"}
    await world.settle()
    assert len(world.process.roles_problems) == 4
    assert roles.KEY not in world.process.due
