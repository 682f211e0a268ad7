"""Who may do what in a tenant's namespace: judged as RBAC judges, over every role and member."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.api.tenant import Member
from tenantry.desired.access import ROLES, WRITE, cluster_roles, role_bindings, service_account
from tenantry.desired.owner import Access, Owner
from tests.unit.builders import tenant

ACME = Owner("acme", "uid-of-acme", "tenant-acme")
RULES = {role["metadata"]["name"].removeprefix("tenantry-tenant-"): role["rules"] for role in cluster_roles()}
MEMBER_ROLES = ("owner", "editor", "viewer", "app")


def may(role: str, verb: str, group: str, resource: str, name: str = "") -> bool:
    """Return what RBAC's own evaluation says, wildcards included."""
    return any(
        ({verb, "*"} & set(rule["verbs"]))
        and ({group, "*"} & set(rule["apiGroups"]))
        and ({resource, "*", f"*/{resource.partition('/')[2]}"} & set(rule["resources"]))
        and (not rule.get("resourceNames") or name in rule["resourceNames"])
        for rule in RULES[role]
    )


KEPT_FROM_MEMBERS = [
    ("networking.k8s.io", "networkpolicies"),
    ("", "resourcequotas"),
    ("", "limitranges"),
    ("rbac.authorization.k8s.io", "roles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("apps", "controllerrevisions"),
    ("", "serviceaccounts/token"),
    ("", "namespaces"),
    ("", "namespaces/finalize"),
    ("", "pods/ephemeralcontainers"),
    ("", "endpoints"),
    ("discovery.k8s.io", "endpointslices"),
    ("tenantry.dev", "tenants"),
    ("", "nodes"),
    ("", "pods/binding"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
]


@pytest.mark.parametrize("role", MEMBER_ROLES)
@pytest.mark.parametrize(("group", "resource"), KEPT_FROM_MEMBERS)
def test_no_member_writes_what_isolates_the_tenant(role: str, group: str, resource: str) -> None:
    for verb in (*WRITE, "approve", "bind"):
        assert not may(role, verb, group, resource, name="anything")


@pytest.mark.parametrize("role", MEMBER_ROLES)
def test_no_member_gets_more_than_it_was_given(role: str) -> None:
    verbs = {verb for rule in RULES[role] for verb in rule["verbs"]}
    words = {
        word for rule in RULES[role] for key in ("verbs", "apiGroups", "resources") for word in rule[key]
    }
    assert not verbs & {"impersonate", "escalate", "bind", "approve", "sign", "use"}
    assert not any("*" in word for word in words)
    assert not any("nonResourceURLs" in rule for rule in RULES[role])
    assert all(rule["verbs"] for rule in RULES[role]), "a rule without verbs grants nothing"


def test_each_role_can_do_all_that_the_lesser_one_can() -> None:
    asked = {
        (verb, group, resource)
        for rules in RULES.values()
        for rule in rules
        for verb, group, resource in itertools.product(rule["verbs"], rule["apiGroups"], rule["resources"])
    }
    for verb, group, resource in asked:
        assert may("editor", verb, group, resource) or not may("viewer", verb, group, resource)
        assert may("owner", verb, group, resource) or not may("editor", verb, group, resource)


def test_a_viewer_only_looks_and_not_into_secrets_or_pods() -> None:
    assert {verb for rule in RULES["viewer"] for verb in rule["verbs"]} == {"get", "list", "watch"}
    for resource in ("secrets", "pods/exec", "pods/attach", "pods/portforward"):
        assert not may("viewer", "get", "", resource)
    assert may("viewer", "get", "", "pods/log")


@pytest.mark.parametrize("role", ["owner", "editor", "viewer"])
def test_a_member_may_get_the_own_namespace_and_list_none(role: str) -> None:
    """A RoleBinding grants `get` for its own namespace alone; a list would be asked of the cluster."""
    assert may(role, "get", "", "namespaces")
    assert not may(role, "list", "", "namespaces")
    assert not may("app", "get", "", "namespaces")


def test_an_editor_runs_workloads_and_an_owner_sees_who_is_bound() -> None:
    for group, resource in (("apps", "deployments"), ("batch", "jobs"), ("", "configmaps"), ("", "secrets")):
        assert may("editor", "create", group, resource)
    assert may("owner", "list", "rbac.authorization.k8s.io", "rolebindings")
    assert may("owner", "create", "", "serviceaccounts")
    assert not may("editor", "create", "", "serviceaccounts")


def test_the_application_reads_its_configuration_and_its_store_and_nothing_else() -> None:
    for verb in ("get", "list", "watch"):
        assert may("app", verb, "", "configmaps", "tenant-config")
        assert may("app", verb, "", "secrets", "vector-store")
        assert not may("app", verb, "", "secrets", "other")
        assert not may("app", verb, "", "configmaps", "other")


MEMBERS = st.lists(
    st.builds(
        Member,
        kind=st.sampled_from(["User", "Group", "ServiceAccount"]),
        name=st.sampled_from(["alice", "bob", "app", "dashboard"]),
        role=st.sampled_from(["owner", "editor", "viewer"]),
    ),
    max_size=8,
    unique_by=lambda member: (member.kind, member.name),
)


def bound(members: list[Member], access: Access) -> dict[str, list[dict[str, Any]]]:
    bindings = role_bindings(ACME, members, access)
    for binding in bindings:
        role = binding["metadata"]["name"].removeprefix("tenantry-")
        assert binding["roleRef"]["name"] == f"tenantry-tenant-{role}"
        assert "subjects" in binding, "an absent list that somebody fills stays filled under apply"
    assert [binding["metadata"]["name"] for binding in bindings] == [f"tenantry-{role}" for role in ROLES]
    return {
        binding["metadata"]["name"].removeprefix("tenantry-"): binding["subjects"] for binding in bindings
    }


def who(subjects: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(subject["kind"], subject["name"]) for subject in subjects}


@given(MEMBERS)
def test_open_each_member_has_its_own_role_and_no_other(members: list[Member]) -> None:
    subjects = bound(members, Access.OPEN)
    for role in ("owner", "editor", "viewer"):
        assert who(subjects[role]) == {
            (member.kind, member.name) for member in members if member.role == role
        }
    assert who(subjects["app"]) == {("ServiceAccount", "app")}


@given(MEMBERS)
def test_suspended_owners_and_editors_are_viewers(members: list[Member]) -> None:
    subjects = bound(members, Access.SUSPENDED)
    assert subjects["owner"] == subjects["editor"] == []
    assert who(subjects["viewer"]) == {(member.kind, member.name) for member in members}


@given(MEMBERS)
def test_cut_off_nobody_is_bound(members: list[Member]) -> None:
    assert not any(bound(members, Access.CUT).values())


@given(MEMBERS, st.sampled_from(list(Access)))
def test_service_accounts_are_the_tenants_own(members: list[Member], access: Access) -> None:
    for subject in itertools.chain(*bound(members, access).values()):
        if subject["kind"] == "ServiceAccount":
            assert subject["namespace"] == ACME.namespace
            assert "apiGroup" not in subject
        else:
            assert subject["apiGroup"] == "rbac.authorization.k8s.io"


@given(MEMBERS, st.randoms(), st.sampled_from(list(Access)))
def test_the_order_of_the_members_makes_no_difference(
    members: list[Member], random: Any, access: Access
) -> None:
    mixed = random.sample(members, len(members))
    assert role_bindings(ACME, mixed, access) == role_bindings(ACME, members, access)


def test_one_account_written_with_and_without_its_namespace_is_bound_once() -> None:
    spec = tenant(
        members=[
            {"kind": "ServiceAccount", "name": "ci", "role": "editor"},
            {"kind": "ServiceAccount", "name": "ci", "namespace": "tenant-acme", "role": "editor"},
        ]
    ).spec
    assert len(bound(list(spec.members), Access.OPEN)["editor"]) == 1


def test_the_applications_account_carries_no_rights_of_its_own() -> None:
    assert service_account(ACME)["metadata"]["name"] == "app"
    assert "secrets" not in service_account(ACME)
