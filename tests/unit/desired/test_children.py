"""All children together: marked as ours, limits before people, nothing forgotten when access changes."""

from __future__ import annotations

from typing import Any

import pytest

from tenantry.api.shard import ShardNetwork
from tenantry.desired import children
from tenantry.desired.children import CONFIG_KINDS, POLICY_KINDS, SHARD_KINDS, Group, key
from tenantry.desired.network import Surroundings, shards_egress
from tenantry.desired.owner import Access, Owner
from tenantry.domain import names
from tenantry.domain.configuration import Configuration, configure, resolve
from tests.unit.builders import plan, sample, tenant

ACME = Owner("acme", "uid-of-acme", "tenant-acme")
SPEC = tenant(**sample("acme.yaml", "acme")["spec"]).spec
AROUND = Surroundings(scraper_namespaces=("monitoring",))


def decided(**changes: Any) -> Configuration:
    return configure(resolve(SPEC.overrides, plan("pro", **changes)).config, None, [], None, None)


def policy(access: Access) -> Group:
    return children.policy_group(ACME, SPEC, plan("pro"), access, AROUND)


EGRESS = shards_egress(ACME, [(ShardNetwork(), "db.databases.svc", [5432])])
GROUPS = {
    "open": policy(Access.OPEN),
    "on a shard": children.policy_group(ACME, SPEC, plan("pro"), Access.OPEN, AROUND, shard=EGRESS),
    "vectors": children.shard_group(ACME, {"url": "postgresql://"}),
    "suspended": policy(Access.SUSPENDED),
    "planless": children.planless_group(ACME, SPEC, Access.OPEN, limited=False),
    "planless with limits": children.planless_group(ACME, SPEC, Access.OPEN, limited=True),
    "planless suspended": children.planless_group(ACME, SPEC, Access.SUSPENDED, limited=False),
    "archived": children.archived_group(ACME),
    "configuration": children.config_group(ACME, SPEC, "pro", "normal", decided(), "uid-of-namespace"),
}
EACH = pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS.keys())


@EACH
def test_every_child_is_marked_and_in_the_tenants_namespace(group: Group) -> None:
    assert group.manifests
    for manifest in group.manifests:
        metadata = manifest["metadata"]
        assert metadata["namespace"] == "tenant-acme"
        assert metadata["labels"] == {names.MANAGED_BY: "tenantry", names.TENANT: "acme"}
        assert metadata["annotations"] == {names.TENANT_UID: "uid-of-acme"}
        owners = metadata.get("ownerReferences", [])
        assert all(owner["kind"] == "Namespace" for owner in owners), "what Retain keeps is not collected"
        assert bool(owners) == (manifest["kind"] == "ControllerRevision")
    keys = [key(manifest) for manifest in group.manifests]
    assert len(keys) == len(set(keys))


@EACH
def test_nobody_is_let_in_before_the_limits_stand(group: Group) -> None:
    waves = [{manifest["kind"] for manifest in wave} for wave in group.waves]
    for number, kinds in enumerate(waves):
        if kinds & {"RoleBinding", "ServiceAccount"}:
            assert kinds <= {"RoleBinding", "ServiceAccount"}
            assert "NetworkPolicy" in set().union(*waves[:number])


def test_closing_takes_off_every_allowance_and_every_right_to_write() -> None:
    wide = {key(manifest) for manifest in policy(Access.OPEN).manifests}
    bindings = {item for item in wide if item.kind == "RoleBinding"}
    for name in ("suspended", "planless suspended", "archived"):
        group = GROUPS[name]
        left = {key(manifest) for manifest in group.manifests}
        assert "NetworkPolicy" in group.prune
        assert [str(item) for item in left if item.kind == "NetworkPolicy"] == [
            "NetworkPolicy/tenantry-default-deny"
        ]
        assert bindings <= left, "a binding that is not written keeps its subjects"
        assert ("ResourceQuota", "tenantry-suspended") in left


def test_opening_again_takes_the_second_quota_off() -> None:
    group = policy(Access.OPEN)
    assert "ResourceQuota" in group.prune
    assert ("ResourceQuota", "tenantry-suspended") not in {key(manifest) for manifest in group.manifests}


def test_an_archived_tenants_data_and_configuration_stay() -> None:
    assert not GROUPS["archived"].prune & CONFIG_KINDS
    assert not GROUPS["planless"].prune


def test_without_a_plan_nobody_new_gets_in_and_a_member_that_was_removed_gets_out() -> None:
    assert "RoleBinding" not in {manifest["kind"] for manifest in GROUPS["planless"].manifests}
    alone = tenant(members=[]).spec
    group = children.planless_group(ACME, alone, Access.OPEN, limited=True)
    subjects = {
        manifest["metadata"]["name"]: manifest["subjects"]
        for manifest in group.manifests
        if manifest["kind"] == "RoleBinding"
    }
    assert subjects["tenantry-owner"] == subjects["tenantry-editor"] == subjects["tenantry-viewer"] == []


def test_what_an_application_reads_is_on_record_first() -> None:
    waves = GROUPS["configuration"].waves
    assert [{manifest["kind"] for manifest in wave} for wave in waves] == [
        {"ControllerRevision"},
        {"ConfigMap"},
    ]


def test_each_kind_of_child_is_pruned_in_one_group_only() -> None:
    kinds = (POLICY_KINDS, CONFIG_KINDS, SHARD_KINDS)
    assert len(frozenset().union(*kinds)) == sum(map(len, kinds))
    written = {manifest["kind"] for group in GROUPS.values() for manifest in group.manifests}
    assert written == frozenset().union(*kinds)


def test_a_group_without_a_configuration_takes_nothing_off() -> None:
    nothing = configure(resolve(None, plan("pro")).config, 9, [], None, None)
    group = children.config_group(ACME, SPEC, "pro", "normal", nothing, "uid")
    assert nothing.active is None
    assert not group.manifests
    assert not group.prune


def test_without_a_plan_or_a_quota_those_who_were_let_in_get_out() -> None:
    """As after a suspension that ended before the plan came: who was let in to look would stay, removed or not."""
    group = children.planless_group(ACME, SPEC, Access.OPEN, limited=False, bound=True)
    bindings = [manifest for manifest in group.manifests if manifest["kind"] == "RoleBinding"]
    assert len(bindings) == 4
    assert [subject for binding in bindings for subject in binding["subjects"]] == []


def test_a_tenant_is_let_out_to_its_shard_while_its_access_is_open() -> None:
    wide, on_a_shard = GROUPS["open"].manifests, GROUPS["on a shard"].manifests
    assert [item for item in on_a_shard if item not in wide] == [EGRESS]
    for level in (Access.SUSPENDED, Access.CUT):
        group = children.policy_group(ACME, SPEC, plan("pro"), level, AROUND, shard=EGRESS)
        assert EGRESS not in group.manifests
        assert "NetworkPolicy" in group.prune


def test_without_a_place_there_is_no_secret_and_an_earlier_one_goes() -> None:
    group = children.shard_group(ACME, None)
    assert not group.manifests
    assert group.prune == {"Secret"}
