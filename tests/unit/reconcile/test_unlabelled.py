"""Children that somebody takes our label off: no watch tells of them any more, and they are there still."""

from __future__ import annotations

import pytest

from tenantry.domain import names
from tests.faults.simulated.flows import ADOPTED, SPEC, adopted, ready

UNLABELLED = {"labels": {names.MANAGED_BY: None}}


async def test_an_allowance_without_our_label_does_not_outlive_its_tenants_suspension() -> None:
    world = await ready()
    world.edit("NetworkPolicy", "tenantry-egress", "tenant-acme", metadata=UNLABELLED)
    world.tenant(**SPEC, suspended=True)
    await world.settle()
    policies = [name for kind, name in world.children() if kind == "NetworkPolicy"]
    assert policies == ["tenantry-default-deny"]


async def test_nor_its_deletion() -> None:
    world = await ready()
    world.edit("NetworkPolicy", "tenantry-egress", "tenant-acme", metadata=UNLABELLED)
    world.api.delete("Tenant", "acme")
    await world.settle()
    policies = [name for kind, name in world.children() if kind == "NetworkPolicy"]
    assert policies == ["tenantry-default-deny"]


@pytest.mark.parametrize(
    ("kind", "name"), [("ResourceQuota", "tenantry"), ("NetworkPolicy", "tenantry-default-deny")]
)
async def test_a_namespace_is_given_back_without_them(kind: str, name: str) -> None:
    world = await adopted()
    world.edit(kind, name, ADOPTED["name"], metadata=UNLABELLED)
    world.api.delete("Tenant", "acme")
    await world.settle()
    assert world.children(ADOPTED["name"]) == {("ConfigMap", "settings")}


async def test_what_somebody_has_made_in_the_place_of_one_is_not_ours() -> None:
    world = await ready()
    world.api.delete("NetworkPolicy", "tenantry-egress", "tenant-acme")
    metadata = {"name": "tenantry-egress", "namespace": "tenant-acme"}
    own = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata}
    world.api.create({**own, "spec": {"podSelector": {}}}, "helm")
    world.tenant(**SPEC, suspended=True)
    await world.settle()
    assert world.found("NetworkPolicy", "tenantry-egress", "tenant-acme")["spec"] == {"podSelector": {}}
    done = len(world.process.writes)
    world.relist()
    await world.settle()
    assert world.process.writes[done:] == []
