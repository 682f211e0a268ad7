"""Whose namespace is it: no mistake of one tenant touches the namespace of anybody else."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.api.archive import TenantArchive
from tenantry.api.common import rfc3339
from tenantry.api.tenant import Tenant
from tenantry.domain import names
from tenantry.domain.errors import PartError, Retry, Stalled
from tenantry.domain.observed import ChildKey, Observed, TenantClaim
from tenantry.domain.ownership import Ownership, address_digest, claim, owner_of, tenant_uids
from tenantry.domain.reasons import Reason
from tests.unit.builders import EMAIL, T0, archive, claim_of, namespace, tenant

UIDS = ["uid-of-acme", "uid-of-rival", "uid-of-former"]
EMAILS = [EMAIL, "OPS@acme.example", "thief@rival.example"]
NAME = "tenant-acme"


def decide(subject: Tenant, *args: Any) -> Ownership | PartError:
    try:
        return claim(subject, *args, T0)
    except PartError as error:
        return error


@st.composite
def tenants(draw: st.DrawFn) -> Tenant:
    annotations = {}
    if draw(st.booleans()):
        annotations[names.RESTORE_FROM] = names.archive_name("acme", draw(st.sampled_from(UIDS)))
    adoption = draw(st.sampled_from(["Never", "IfMarked"]))
    return tenant(
        metadata={"annotations": annotations},
        owner={"email": draw(st.sampled_from(EMAILS))},
        namespace={"adoption": adoption},
    )


@st.composite
def namespaces(draw: st.DrawFn) -> Observed:
    adoptable = draw(st.sampled_from([None, "acme", "rival"]))
    origin = draw(st.sampled_from([None, "created", "adopted"]))
    owner = draw(st.sampled_from([None, *map(address_digest, EMAILS)]))
    annotations = {names.ADOPTABLE_BY: adoptable, names.ORIGIN: origin, names.OWNER: owner}
    return namespace(
        uid=draw(st.sampled_from([None, *UIDS])),
        tenant_name=draw(st.sampled_from([None, "acme", "rival"])),
        annotations={key: value for key, value in annotations.items() if value},
        deleting=draw(st.booleans()),
    )


YOUNGER = claim_of(tenant("rival", metadata={"creationTimestamp": rfc3339(T0 + timedelta(hours=1))}))
RIVALS = st.sampled_from([[], [YOUNGER]])
ARCHIVES = st.lists(
    st.builds(archive, uid=st.sampled_from(UIDS), email=st.sampled_from(EMAILS), deleting=st.booleans()),
    max_size=3,
    unique_by=lambda item: item.spec.tenant_uid,
)


@given(tenants(), namespaces(), st.sets(st.sampled_from(UIDS)), RIVALS, ARCHIVES)
def test_a_namespace_of_somebody_else_is_never_taken(
    subject: Tenant,
    there: Observed,
    child_uids: set[str],
    rivals: list[TenantClaim],
    archives: list[TenantArchive],
) -> None:
    decided = decide(subject, there, child_uids, rivals, archives)
    if not isinstance(decided, Ownership):
        return
    owner = there.tenant_uid or (next(iter(child_uids)) if len(child_uids) == 1 else None)
    detail: Any = there.detail
    assert not (there.deleting and decided.taken), "what is going away is nobody's any more"
    if owner == "uid-of-acme":
        assert decided.taken == ""
        return
    assert owner not in [rival.uid for rival in rivals], "a living tenant's"
    if owner is None:
        assert decided == Ownership("adopted", "adopted")
        assert subject.spec.namespace.adoption == "IfMarked"
        assert detail.annotations[names.ADOPTABLE_BY] == "acme", "only where its owner has marked it"
        return
    assert decided.taken == "restored"
    assert there.tenant == "acme"
    kept = [item for item in archives if item.spec.tenant_uid == owner]
    assert not any(item.deleting for item in kept), "what is being purged is not given back"
    allowed = subject.metadata.annotations.get(names.RESTORE_FROM) == names.archive_name("acme", owner)
    mine = address_digest(subject.spec.owner.email)
    # An archive has the last word on whose it was; where there is none, the namespace itself says.
    former = [address_digest(item.spec.owner.email) for item in kept] or [detail.annotations.get(names.OWNER)]
    assert allowed or mine in former, "a new customer of an old name never gets the old data"


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.text("abcdef0123456789", min_size=3, max_size=3)),
        min_size=1,
        max_size=6,
        unique_by=lambda item: item[1],
    )
)
def test_of_all_that_want_one_namespace_exactly_the_oldest_gets_it(ages: list[tuple[int, str]]) -> None:
    rivals = [
        tenant(
            f"t{number}",
            uid,
            metadata={"creationTimestamp": rfc3339(T0 + timedelta(seconds=age))},
            namespace={"name": "shared"},
        )
        for number, (age, uid) in enumerate(ages)
    ]
    claims = [claim_of(rival) for rival in rivals]
    outcomes = {rival.metadata.uid: decide(rival, None, (), claims, []) for rival in rivals}
    winners = [uid for uid, outcome in outcomes.items() if isinstance(outcome, Ownership)]
    assert winners == [min(ages)[1]]
    for uid, outcome in outcomes.items():
        if uid not in winners:
            assert isinstance(outcome, Stalled)
            assert outcome.reason == "NamespaceClaimed"
            assert "spec.namespace.name" in outcome.message


def test_who_has_it_keeps_it_from_an_older_one() -> None:
    young = tenant(
        metadata={"creationTimestamp": rfc3339(T0 + timedelta(days=1))}, namespace={"name": "shared"}
    )
    old = tenant("rival", namespace={"name": "shared"})
    there = namespace("shared", uid=young.metadata.uid, tenant_name="acme")
    claims = [claim_of(old), claim_of(young)]
    assert decide(young, there, (), claims, []) == Ownership("adopted")
    lost = decide(old, there, (), claims, [])
    assert isinstance(lost, Stalled)
    assert "belongs to Tenant acme" in lost.message


def test_an_adoptable_namespace_goes_to_the_older_of_two() -> None:
    spec: dict[str, Any] = {"namespace": {"name": "shared", "adoption": "IfMarked"}}
    old = tenant("old", **spec)
    young = tenant("young", metadata={"creationTimestamp": rfc3339(T0 + timedelta(1))}, **spec)
    there = namespace("shared", annotations={names.ADOPTABLE_BY: "young"})
    claims = [claim_of(old), claim_of(young)]
    assert isinstance(decide(young, there, (), claims, []), Stalled)
    assert isinstance(decide(old, there, (), claims, []), Stalled), "marked for the other"


@pytest.mark.parametrize("made", [True, False])
@pytest.mark.parametrize("adoptable", [None, "acme"])
@pytest.mark.parametrize("mark", [None, "adopted", "created", "something else"])
@pytest.mark.parametrize("adoption", ["Never", "IfMarked"])
def test_only_a_namespace_that_we_made_counts_as_ours_to_delete(
    mark: str | None, adoption: str, adoptable: str | None, made: bool
) -> None:
    subject = tenant(namespace={"adoption": adoption})
    annotations = {names.ORIGIN: mark, names.ADOPTABLE_BY: adoptable}
    there = namespace(
        uid=subject.metadata.uid,
        tenant_name="acme",
        annotations={key: value for key, value in annotations.items() if value},
        made_by_us=made,
    )
    decided = decide(subject, there, (), [], [])
    assert isinstance(decided, Ownership)
    proved = made and adoption == "Never" and adoptable is None and mark != "adopted"
    assert decided.origin == ("created" if mark == "created" or proved else "adopted")


def test_an_adopted_namespace_that_its_owner_replaced_is_not_taken_for_one_that_we_made() -> None:
    """Adopted with IfMarked, edited to Never later, and then the owner's own manifest took all marks off."""
    shelf = {ChildKey("NetworkPolicy", "x"): child("NetworkPolicy", "uid-of-acme")}
    subject = tenant(namespace={"name": NAME, "adoption": "Never"})
    assert decide(subject, namespace(NAME), tenant_uids(shelf), [], []) == Ownership("adopted")


def test_a_terminating_namespace_is_waited_for_with_what_holds_it() -> None:
    there = namespace(uid="uid-of-acme", deleting=True)
    detail: Any = there.detail
    held = replace(
        there, detail=replace(detail, holding="Some content has finalizers remaining: x.y in 1 instances")
    )
    decided = decide(tenant(), held, (), [], [])
    assert isinstance(decided, Retry)
    assert decided.delay is not None
    assert "x.y in 1 instances" in decided.message


@pytest.mark.parametrize(
    ("theirs", "same"),
    [
        ("ops@acme.example", True),
        (" Ops@ACME.example ", True),
        ("ops@acme.example.com", False),
        ("ops@\u212acme.example", False),
        ("op\u017f@acme.example", False),
        ("ops+1@acme.example", False),
    ],
)
def test_the_same_owner_is_the_same_address_whatever_its_case(theirs: str, same: bool) -> None:
    there = namespace(uid="uid-of-former", tenant_name="acme")
    decided = decide(tenant(owner={"email": theirs}), there, (), [], [archive(email="ops@acme.example")])
    assert isinstance(decided, Ownership) is same
    if not same:
        assert isinstance(decided, Stalled)
        assert "spec.owner.email" in decided.message
        assert names.RESTORE_FROM in decided.message


@pytest.mark.parametrize(
    ("mine", "former"),
    [("ops@\u212aite.example", "ops@kite.example"), ("stra\u00dfe@a.example", "strasse@a.example")],
)
def test_letters_that_only_look_or_fold_alike_are_not_the_same_owner(mine: str, former: str) -> None:
    there = namespace(uid="uid-of-former", tenant_name="acme")
    decided = decide(tenant(owner={"email": mine}), there, (), [], [archive(email=former)])
    assert isinstance(decided, Stalled)


def left_behind(email: str | None) -> Observed:
    """Return a namespace of an earlier Tenant of that name, of which there is no archive."""
    annotations = {names.ORIGIN: "created", **({names.OWNER: address_digest(email)} if email else {})}
    return namespace(uid="uid-of-former", tenant_name="acme", annotations=annotations)


def test_without_an_archive_the_namespace_itself_tells_whose_it_was() -> None:
    """As after a restore to another cluster, where every Tenant has a new UID."""
    assert decide(tenant(), left_behind(EMAIL.upper()), (), [], []) == Ownership("created", "restored")


@pytest.mark.parametrize("former", ["thief@rival.example", None])
def test_without_an_archive_another_owner_is_told_the_three_ways_out(former: str | None) -> None:
    decided = decide(tenant(), left_behind(former), (), [], [])
    assert isinstance(decided, Stalled)
    assert decided.reason == Reason.RESTORE_NOT_ALLOWED
    for words in ("no TenantArchive", "spec.owner.email", "acme-uid-of-f", "delete the namespace"):
        assert words in decided.message


def test_an_archive_has_the_last_word_on_whose_it_was() -> None:
    former = archive(uid="uid-of-former", email="thief@rival.example")
    assert isinstance(decide(tenant(), left_behind(EMAIL), (), [], [former]), Stalled)


def child(kind: str, uid: str) -> Observed:
    return Observed(kind, NAME, "x", f"{kind}-{uid}", "1", "", False, "acme", uid, "unknown")


def test_what_members_may_write_does_not_say_whose_a_namespace_is() -> None:
    kinds = ("ConfigMap", "ServiceAccount", "ControllerRevision")
    forged = {ChildKey(kind, "x"): child(kind, "uid-of-acme") for kind in kinds}
    assert tenant_uids(forged) == set()
    payments = namespace(NAME)
    assert isinstance(decide(tenant(), payments, tenant_uids(forged), [], []), Stalled)


def test_a_stripped_namespace_is_known_by_its_policies() -> None:
    shelf = {
        ChildKey("NetworkPolicy", "x"): child("NetworkPolicy", "uid-of-acme"),
        ChildKey("ConfigMap", "y"): child("ConfigMap", "uid-of-rival"),
    }
    assert owner_of(namespace(NAME), tenant_uids(shelf)) == "uid-of-acme"
    made = namespace(NAME, made_by_us=True)
    assert decide(tenant(), made, tenant_uids(shelf), [], []) == Ownership("created")


def test_what_is_due_to_be_purged_is_not_restored_any_more() -> None:
    subject, former = tenant(), archive(uid="uid-of-former", email=EMAIL)
    kept = namespace(uid="uid-of-former", tenant_name="acme", annotations={names.ORIGIN: "created"})
    due = former.spec.purge_after
    restored = claim(subject, kept, set(), [], [former], due - timedelta(seconds=1))
    assert restored.taken == "restored"
    with pytest.raises(Retry, match="being purged"):
        claim(subject, kept, set(), [], [former], due)
