"""Namespaces that are not made but taken over, and given back."""

from __future__ import annotations

import pytest

from tenantry.domain.names import archive_name as archive_name_of
from tenantry.domain.ownership import TELLING_KINDS, address_digest
from tenantry.reconcile.result import Key, Result
from tenantry.reconcile.tenant import TAKEN_CHECK_SECONDS
from tests.faults.simulated.flows import (
    ADOPTED,
    SPEC,
    adopted,
    give_namespace,
    marked_namespace,
    ready,
    second_revision,
)
from tests.faults.simulated.world import World

ACME = Key("Tenant", "acme")
LEGACY = ADOPTED["name"]


def inside(world: World) -> dict[object, object]:
    """Return the namespace and all that is in it, as stored."""
    return {ref: item for ref, item in world.api.objects.items() if LEGACY in (ref.namespace, ref.name)}


@pytest.mark.parametrize(
    ("api_version", "kind", "name"),
    [
        ("v1", "ServiceAccount", "app"),
        ("v1", "ConfigMap", "tenant-config"),
        ("v1", "ResourceQuota", "tenantry"),
        ("v1", "LimitRange", "tenantry"),
        ("networking.k8s.io/v1", "NetworkPolicy", "tenantry-egress"),
        ("rbac.authorization.k8s.io/v1", "RoleBinding", "tenantry-viewer"),
    ],
)
async def test_a_name_that_is_taken_is_not_overwritten(api_version: str, kind: str, name: str) -> None:
    world = await marked_namespace()
    metadata = {"name": name, "namespace": LEGACY}
    world.api.create({"apiVersion": api_version, "kind": kind, "metadata": metadata}, "helm")
    before = inside(world)
    world.tenant(**SPEC, namespace=ADOPTED)
    world.deliver()
    assert await world.reconcile(ACME) == Result(after=TAKEN_CHECK_SECONDS, outcome="stalled")
    assert world.condition("Stalled") == ("True", "NameTaken")
    listed = world.status()["conditions"]
    assert f"{kind}/{name}" in next(item["message"] for item in listed if item["type"] == "Ready")
    await world.settle()
    assert inside(world) == before
    assert "Adopted" not in world.audit.actions()

    world.api.delete(kind, name, LEGACY)
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")
    assert (kind, name) in world.children(LEGACY)
    assert world.audit.actions().count("Adopted") == 1


async def test_what_we_put_there_ourselves_is_not_taken_by_somebody_else() -> None:
    world = await adopted()
    world.restart()
    await world.settle()
    assert world.process.writes == []
    assert world.condition("Ready") == ("True", "Ready")


async def test_a_release_takes_the_marks_off_first_and_what_tells_whose_it_was_last() -> None:
    world = await adopted()
    world.api.delete("Tenant", "acme")
    await world.settle()
    writes = [write for write in world.process.writes if LEGACY in (write.namespace, write.name)]
    deletes = [index for index, write in enumerate(writes) if write.verb == "delete"]
    marks = [
        index for index, write in enumerate(writes) if write.kind == "Namespace" and write.verb != "create"
    ]
    assert max(marks) < min(deletes)
    telling = [writes[index].kind in TELLING_KINDS for index in deletes]
    assert telling == sorted(telling)
    assert world.children(LEGACY) == {("ConfigMap", "settings")}
    namespace = world.found("Namespace", LEGACY)["metadata"]
    assert namespace["labels"] == {"team": "legacy", "kubernetes.io/metadata.name": LEGACY}
    assert namespace["annotations"] == {"tenantry.dev/adoptable-by": "acme"}


async def test_another_namespace_of_that_name_is_not_touched_by_a_release() -> None:
    world = await adopted()
    world.api.delete("Tenant", "acme")
    world.deliver()
    world.api.delete("Namespace", LEGACY)
    world.api.collect()
    give_namespace(world)
    before = inside(world)
    result = await world.reconcile(ACME)  # the watches have not told of it yet
    assert result.failed
    assert inside(world) == before
    await world.settle()
    assert inside(world) == before
    assert world.api.get("Tenant", "acme") is None


async def test_a_namespace_that_changed_meanwhile_is_released_at_the_second_try() -> None:
    world = await adopted()
    world.api.delete("Tenant", "acme")
    world.deliver()
    world.edit("Namespace", LEGACY, metadata={"labels": {"istio-injection": "enabled"}})
    assert (await world.reconcile(ACME)).failed
    await world.settle()
    assert world.api.get("Tenant", "acme") is None
    labels = world.found("Namespace", LEGACY)["metadata"]["labels"]
    assert labels == {"team": "legacy", "istio-injection": "enabled", "kubernetes.io/metadata.name": LEGACY}


def deleted_by_force(world: World) -> None:
    """Delete a Tenant and take its finalizer off by hand: it goes without an archive."""
    world.api.delete("Tenant", "acme")
    world.edit("Tenant", "acme", metadata={"finalizers": None})
    assert world.api.get("Tenant", "acme") is None


async def test_who_comes_back_without_an_archive_gets_the_namespace_by_its_owners_mark() -> None:
    """As after a restore to another cluster, or a finalizer that somebody took off."""
    world = await second_revision()
    uid = world.found("Tenant", "acme")["metadata"]["uid"]
    deleted_by_force(world)
    world.restart()
    world.tenant(**SPEC, overrides={"model": {"name": "gpt-4o"}})
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")
    assert world.status()["configRevision"] == 2, "the revisions that are there go on"
    marks = world.found("Namespace", "tenant-acme")["metadata"]["annotations"]
    assert marks["tenantry.dev/tenant-uid"] == world.found("Tenant", "acme")["metadata"]["uid"] != uid
    (row,) = [item for item in world.audit.rows if item.action == "Restored"]
    assert row.message == "restored namespace tenant-acme from an earlier Tenant of that name"
    assert "Repaired" not in world.audit.actions()


async def test_a_stranger_of_an_old_name_does_not_get_it_until_allowed() -> None:
    world = await ready()
    uid = world.found("Tenant", "acme")["metadata"]["uid"]
    before = world.api.get("Namespace", "tenant-acme")
    deleted_by_force(world)
    world.restart()
    world.tenant(**SPEC, owner={"email": "new@stranger.example"})
    await world.settle()
    assert world.condition("Stalled") == ("True", "RestoreNotAllowed")
    assert world.api.get("Namespace", "tenant-acme") == before
    allowed = {"annotations": {"tenantry.dev/restore-from": archive_name_of("acme", uid)}}
    world.edit("Tenant", "acme", metadata=allowed)
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")


async def test_the_mark_follows_the_owner() -> None:
    world = await ready()
    world.tenant(**SPEC, owner={"email": "billing@acme.example"})
    await world.settle()
    marks = world.found("Namespace", "tenant-acme")["metadata"]["annotations"]
    assert marks["tenantry.dev/owner-digest"] == address_digest("billing@acme.example")
