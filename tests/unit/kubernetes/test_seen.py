"""What the watches have seen stays true, in whatever order and however often events come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tenantry.adapters.kubernetes.seen import Seen
from tenantry.api.common import rfc3339
from tenantry.desired.configuration import controller_revision
from tenantry.desired.owner import Owner
from tenantry.domain import names
from tenantry.domain.configuration import Revision, canonical
from tenantry.domain.observed import ChildKey
from tests.unit.builders import T0, sample

NAMESPACE = "tenant-acme"


class Woken:
    """Remembers what was told of changes."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str]] = []

    def __call__(self, kind: str, where: str, name: str) -> None:
        self.calls.append((kind, where, name))

    def drain(self) -> list[tuple[str, str, str]]:
        calls, self.calls = self.calls, []
        return calls


def new_seen() -> tuple[Seen, Woken]:
    woken = Woken()
    return Seen("free", woken), woken


def manifest(
    kind: str, name: str, uid: str, version: int, content: str = "", **metadata: Any
) -> dict[str, Any]:
    """Return an object of any kind; `content` is what a decision looks at."""
    generation = {"generation": 1} if kind in ("Tenant", "Plan", "TenantArchive") else {}
    base: dict[str, Any] = {
        "kind": kind,
        "metadata": {
            "name": name,
            "uid": uid,
            "resourceVersion": str(version),
            "creationTimestamp": rfc3339(T0),
            **generation,
            **metadata,
        },
    }
    if kind == "Namespace":
        base["metadata"]["labels"] = {"content": content}
    elif kind == "ConfigMap":
        base["metadata"]["namespace"] = NAMESPACE
        base["data"] = {"content": content}
    elif kind == "Tenant":
        base["spec"] = {"owner": {"email": "ops@acme.example"}, "plan": content or None}
    elif kind == "Plan":
        base["spec"] = {**sample("plans.yaml", "pro")["spec"], "displayName": content or "Pro"}
    else:
        former = {"tenant": "acme", "tenantUID": content or "former", "owner": {"email": "ops@acme.example"}}
        base["spec"] = {**former, "purgeAfter": rfc3339(T0)}
    return base


@dataclass(frozen=True)
class Event:
    """An event of a watch; `version` None: told by our own delete, or by Kopf, which names none."""

    deleted: bool
    uid: str
    version: int | None
    content: str = ""

    def deliver(self, seen: Seen, kind: str, name: str) -> None:
        namespace = NAMESPACE if kind == "ConfigMap" else ""
        if self.deleted:
            seen.gone(kind, namespace, name, self.uid, self.version, by_us=self.version is None)
        else:
            assert self.version is not None
            more = {"generation": self.version} if kind in OWN else {}
            seen.saw(manifest(kind, name, self.uid, self.version, self.content, **more))


OWN = ("Tenant", "Plan", "TenantArchive")
KINDS = ("Namespace", "ConfigMap", *OWN)


def content_of(seen: Seen, kind: str, name: str) -> tuple[str, str] | None:
    """Return the UID and the content that are known under a name."""
    found: Any
    if kind == "Namespace":
        found = seen.namespace(name)
        return found and (found.uid, found.detail.labels["content"])
    if kind == "ConfigMap":
        found = seen.children(NAMESPACE).get(ChildKey(kind, name))
        return found and (found.uid, found.fingerprint)
    if kind == "Tenant":
        found = seen.tenant(name)
        return found and (found.uid, found.plan)
    if kind == "Plan":
        found = seen.plan(name)
        return found and (found.metadata.uid, found.spec.display_name)
    found = next((item for item in seen.archives_of("acme") if item.metadata.name == name), None)
    return found and (found.metadata.uid, found.spec.tenant_uid)


@st.composite
def histories(draw: st.DrawFn, *, relabelled: bool) -> list[Event]:
    """Draw the life of a name: objects that come, change and go, one after the other, each with its own UID.

    relabelled: one may also lose our label, which a watch tells as a deletion, and get it back.
    """
    events: list[Event] = []
    version = 0
    for number in range(draw(st.integers(1, 3))):
        uid = f"uid-{number}"
        for _ in range(draw(st.integers(1, 3))):
            version += draw(st.integers(1, 3))
            events.append(Event(False, uid, version, draw(st.sampled_from("abc"))))
            if relabelled and draw(st.booleans()):
                version += 1
                events.append(Event(True, uid, version))
                version += 1
                events.append(Event(False, uid, version, draw(st.sampled_from("abc"))))
        version += 1
        events.append(Event(True, uid, draw(st.sampled_from([version, None])) if relabelled else None))
    if draw(st.booleans()):
        events.pop()
    return events


@st.composite
def deliveries(draw: st.DrawFn, *, relabelled: bool) -> tuple[list[Event], list[Event]]:
    """Draw a history and what a careless network makes of it: any order, some of it twice."""
    history = draw(histories(relabelled=relabelled))
    twice = draw(st.lists(st.sampled_from(history), max_size=4))
    return history, draw(st.permutations([*history, *twice]))


def check(kind: str, history: Sequence[Event], delivered: Sequence[Event]) -> None:
    seen, woken = new_seen()
    truth, _ = new_seen()
    for event in history:
        event.deliver(truth, kind, "x")
    assert (content_of(truth, kind, "x") is None) == history[-1].deleted
    for event in delivered:
        before = content_of(seen, kind, "x")
        event.deliver(seen, kind, "x")
        told = {(what, name) for what, _, name in woken.drain()}
        assert content_of(seen, kind, "x") == before or (kind, "x") in told, "a change wakes"
    assert content_of(seen, kind, "x") == content_of(truth, kind, "x")


A1, A2, B4 = Event(False, "a", 1, "a"), Event(False, "a", 2, "b"), Event(False, "b", 4, "c")
GONE_A = Event(True, "a", 3)


@pytest.mark.parametrize("kind", ["Namespace", "ConfigMap"])
@given(deliveries(relabelled=True))
@example(([A1, A2, GONE_A, B4], [B4, A2, GONE_A, A1]))
@example(([A1, A2, GONE_A], [GONE_A, A1, A2]))
def test_children_come_to_what_is_true_in_any_order(
    kind: str, delivery: tuple[list[Event], list[Event]]
) -> None:
    check(kind, *delivery)


@pytest.mark.parametrize("kind", OWN)
@given(deliveries(relabelled=False))
def test_our_own_kinds_come_to_what_is_true_in_any_order(
    kind: str, delivery: tuple[list[Event], list[Event]]
) -> None:
    check(kind, *delivery)


@pytest.mark.parametrize("kind", OWN)
def test_a_late_goodbye_to_the_old_one_does_not_take_the_new_one_away(kind: str) -> None:
    seen, woken = new_seen()
    seen.saw(manifest(kind, "x", "old", 1))
    seen.saw(manifest(kind, "x", "new", 5))
    woken.drain()
    seen.gone(kind, "", "x", "old")
    found = content_of(seen, kind, "x")
    assert found is not None
    assert found[0] == "new"
    assert not woken.drain()


@pytest.mark.parametrize("kind", OWN)
def test_a_list_forgets_what_is_gone_but_not_what_came_after_it(kind: str) -> None:
    seen, woken = new_seen()
    seen.saw(manifest(kind, "kept", "k", 1))
    seen.saw(manifest(kind, "gone", "g", 2))
    seen.saw(manifest(kind, "made-anew", "m1", 3))
    seen.saw(manifest(kind, "made-anew", "m2", 9))
    seen.saw(manifest(kind, "young", "y", 11))
    woken.drain()
    seen.forget_missing(kind, {"kept": "k", "made-anew": "m2"}, 10)
    assert content_of(seen, kind, "gone") is None
    assert {name for _, _, name in woken.drain()} == {"gone"}
    for name in ("kept", "made-anew", "young"):
        assert content_of(seen, kind, name) is not None, name


def tenant(version: int, *, status: Any = None, **metadata: Any) -> dict[str, Any]:
    item = manifest("Tenant", "acme", "u", version, "pro", **metadata)
    return {**item, "status": status or {}}


def test_a_tenant_is_woken_by_all_but_our_own_status() -> None:
    seen, woken = new_seen()
    held = {"finalizers": [names.FINALIZER]}
    seen.saw(tenant(1, generation=1, **held))
    assert woken.drain() == [("Tenant", NAMESPACE, "acme")]
    seen.wrote(tenant(2, generation=1, status={"phase": "Ready"}, **held))
    seen.saw(tenant(2, generation=1, status={"phase": "Ready"}, **held))
    assert woken.drain() == []
    assert seen.count_by_phase_and_plan() == {("Ready", "pro"): 1}
    changes: list[dict[str, Any]] = [
        {"generation": 2, **held},
        {"generation": 2},
        {"generation": 2, **held},
        {"generation": 2, "annotations": {names.RESTORE_FROM: "acme-1"}, **held},
        {"generation": 3, "deletionTimestamp": rfc3339(T0), **held},
    ]
    for version, metadata in enumerate(changes, start=3):
        seen.saw(tenant(version, **metadata))
        assert woken.drain(), metadata


def test_a_status_whose_answer_was_lost_wakes_its_tenant() -> None:
    """So does one that somebody else wrote: which of both it was cannot be told."""
    seen, woken = new_seen()
    seen.saw(tenant(1, status={"phase": "Ready"}))
    woken.drain()
    with seen.writing("Tenant", "", "acme"):
        pass  # no answer
    assert woken.drain() == []
    seen.saw(tenant(2, status={"phase": "Degraded"}))
    assert woken.drain() == [("Tenant", NAMESPACE, "acme")]


def test_an_event_of_our_own_status_that_comes_before_its_answer_wakes_nobody() -> None:
    seen, woken = new_seen()
    seen.saw(tenant(1, status={"phase": "Ready"}))
    woken.drain()
    with seen.writing("Tenant", "", "acme"):
        seen.saw(tenant(2, status={"phase": "Degraded"}))
        seen.wrote(tenant(2, status={"phase": "Degraded"}))
    assert woken.drain() == []


def test_our_own_write_wakes_nobody_unless_it_brings_the_news_of_somebody_elses() -> None:
    seen, woken = new_seen()
    seen.saw(tenant(1, generation=1))
    woken.drain()
    seen.wrote(tenant(2, generation=1, finalizers=[names.FINALIZER]))
    seen.wrote(tenant(3, generation=1, finalizers=[names.FINALIZER], status={"phase": "Ready"}))
    assert woken.drain() == []
    # Edited between our read and our write of the status: the watch's own event will be too old to count.
    seen.wrote(tenant(5, generation=2, finalizers=[names.FINALIZER], status={"phase": "Ready"}))
    assert woken.drain() == [("Tenant", NAMESPACE, "acme")]
    seen.saw(tenant(4, generation=2, finalizers=[names.FINALIZER]))
    seen.saw(tenant(5, generation=2, finalizers=[names.FINALIZER]))
    assert woken.drain() == []
    deleted = {"generation": 3, "deletionTimestamp": rfc3339(T0), "finalizers": [names.FINALIZER]}
    seen.wrote(tenant(7, **deleted))
    assert woken.drain() == [("Tenant", NAMESPACE, "acme")]


def test_a_finalizer_that_somebody_took_off_is_told_by_the_answer_to_a_status_too() -> None:
    seen, woken = new_seen()
    seen.saw(tenant(1, finalizers=[names.FINALIZER]))
    woken.drain()
    seen.wrote(tenant(3, status={"phase": "Ready"}))
    seen.saw(tenant(2))
    assert woken.drain() == [("Tenant", NAMESPACE, "acme")]
    gone = {"generation": 2, "deletionTimestamp": rfc3339(T0)}
    seen.saw(tenant(4, finalizers=[names.FINALIZER], **gone))
    woken.drain()
    seen.wrote(tenant(5, **gone))
    assert woken.drain() == [], "we take it off ourselves in the end"


def test_the_answer_to_a_plans_status_brings_the_plans_edit_to_its_tenants() -> None:
    seen, woken = new_seen()
    seen.saw(manifest("Plan", "pro", "p", 1, "old", generation=1))
    woken.drain()
    seen.wrote(manifest("Plan", "pro", "p", 2, "old", generation=1))
    assert woken.drain() == []
    seen.wrote(manifest("Plan", "pro", "p", 4, "new", generation=2))
    assert woken.drain() == [("Plan", "", "pro")]


def test_a_quotas_counters_wake_nobody_and_its_limits_do() -> None:
    seen, woken = new_seen()

    def quota(version: int, hard: str, used: str) -> dict[str, Any]:
        metadata = {"name": "tenantry", "namespace": NAMESPACE, "uid": "q", "resourceVersion": str(version)}
        status = {"hard": {"pods": hard}, "used": {"pods": used}}
        return {
            "kind": "ResourceQuota",
            "metadata": metadata,
            "spec": {"hard": {"pods": hard}},
            "status": status,
        }

    seen.saw(quota(1, "10", "0"))
    woken.drain()
    seen.saw(quota(2, "10", "1"))
    assert woken.drain() == []
    seen.saw(quota(3, "11", "1"))
    assert woken.drain() == [("ResourceQuota", NAMESPACE, "tenantry")]


def test_a_namespace_wakes_whom_it_concerns_by_what_counts() -> None:
    seen, woken = new_seen()

    def there(version: int, **metadata: Any) -> dict[str, Any]:
        return manifest("Namespace", NAMESPACE, "n", version, "same", **metadata)

    seen.saw(there(1))
    woken.drain()
    seen.saw(there(2, annotations={"example.com/note": "x"}))
    assert woken.drain() == []
    changes: list[dict[str, Any]] = [
        {"annotations": {names.ADOPTABLE_BY: "acme"}},
        {"ownerReferences": [{"kind": "Pod"}]},
        {"deletionTimestamp": rfc3339(T0)},
    ]
    for version, metadata in enumerate(changes, start=3):
        seen.saw(there(version, **metadata))
        assert woken.drain() == [("Namespace", "", NAMESPACE)], metadata


def test_tenants_are_found_by_the_namespace_and_the_plan_that_they_want_now() -> None:
    seen, _ = new_seen()
    seen.saw(manifest("Tenant", "acme", "u", 1, "pro"))
    seen.saw(manifest("Tenant", "small", "s", 2))
    assert [claim.name for claim in seen.tenants_on("pro")] == ["acme"]
    assert [claim.name for claim in seen.tenants_on("free")] == ["small"], "the default plan"
    assert [claim.name for claim in seen.claims("tenant-small")] == ["small"]
    seen.saw(manifest("Tenant", "acme", "u", 3, "free", generation=2))
    assert seen.tenants_on("pro") == []
    assert {claim.name for claim in seen.tenants_on("free")} == {"acme", "small"}
    seen.gone("Tenant", "", "acme", "u")
    assert seen.claims(NAMESPACE) == []
    assert seen.tenants() == ["small"]


def test_an_archive_is_found_by_its_namespace_also_when_that_is_stripped_or_gone() -> None:
    seen, woken = new_seen()
    item = manifest("TenantArchive", "acme-former", "t", 1)
    item["spec"]["namespace"] = "payments"
    seen.saw(item)
    assert woken.drain() == [("TenantArchive", "acme", "acme-former")]
    assert seen.archives_in("payments") == ["acme-former"]
    assert seen.archives_in(NAMESPACE) == []
    elsewhere = manifest("TenantArchive", "acme-former", "t2", 5)
    elsewhere["spec"] |= {"namespace": "other", "tenant": "rival"}
    seen.saw(elsewhere)
    assert seen.archives_in("payments") == []
    assert seen.archives_of("acme") == []
    assert seen.archives_in("other") == ["acme-former"]
    seen.gone("TenantArchive", "", "acme-former", "t2")
    assert seen.archives_in("other") == []


ACME = Owner("acme", "uid-of-acme", NAMESPACE)


def revision(number: int, uid: str, version: int, **metadata: Any) -> dict[str, Any]:
    """Return a ControllerRevision of ours as stored."""
    manifest = controller_revision(ACME, "uid-of-namespace", Revision(number, f'{{"model":{number}}}'))
    stored = {"uid": uid, "resourceVersion": str(version), **metadata}
    return {**manifest, "metadata": {**manifest["metadata"], **stored}}


def test_what_somebody_else_deleted_is_remembered_until_it_is_back() -> None:
    seen, _ = new_seen()
    name = names.CONFIG_MAP
    key = ChildKey("ConfigMap", name)
    seen.saw(manifest("Namespace", NAMESPACE, "n", 1))
    seen.saw(manifest("ConfigMap", name, "a", 2))
    seen.gone("ConfigMap", NAMESPACE, name, "a", 3)
    assert key in seen.deleted(NAMESPACE)
    seen.wrote(manifest("ConfigMap", name, "b", 4))
    assert key not in seen.deleted(NAMESPACE)
    seen.gone("ConfigMap", NAMESPACE, name, "b", by_us=True)
    assert key not in seen.deleted(NAMESPACE), "we took it off ourselves"


def test_what_members_make_and_delete_under_our_label_is_not_remembered() -> None:
    seen, woken = new_seen()
    seen.saw(manifest("Namespace", NAMESPACE, "n", 1))
    for number in range(2, 40, 2):
        seen.saw(manifest("ConfigMap", f"x{number}", f"u{number}", number))
        seen.gone("ConfigMap", NAMESPACE, f"x{number}", f"u{number}", number + 1)
    assert not seen.deleted(NAMESPACE)
    assert len(woken.drain()) == 39, "they are still looked at"


def marked_namespace(version: int, uid: str = ACME.uid) -> dict[str, Any]:
    return manifest("Namespace", NAMESPACE, "n", version, annotations={names.TENANT_UID: uid})


def lost(seen: Seen) -> list[int]:
    return [detail.revision for detail in seen.lost_revisions(NAMESPACE)]


def lose(seen: Seen, number: int, version: int, *, by_us: bool = False) -> None:
    seen.saw(revision(number, f"r{number}-{version}", version))
    name = names.revision_name(number)
    seen.gone("ControllerRevision", NAMESPACE, name, f"r{number}-{version}", version + 1, by_us=by_us)


def test_revisions_that_somebody_else_deleted_are_offered_until_they_are_back() -> None:
    seen, _ = new_seen()
    seen.saw(marked_namespace(1))
    lose(seen, 3, 10)
    lose(seen, 2, 20)
    lose(seen, 4, 30, by_us=True)
    assert lost(seen) == [2, 3], "oldest first; one that we pruned is not missed"
    assert seen.lost_revisions(NAMESPACE)[1].config == canonical({"model": 3})
    forged = revision(3, "other", 40)
    seen.saw({**forged, "data": {"model": "forged"}})
    assert lost(seen) == [2, 3], "another in its place does not stand for it"
    seen.wrote(revision(3, "again", 41))
    assert lost(seen) == [2]
    seen.gone("ControllerRevision", NAMESPACE, names.revision_name(2), "whatever", by_us=True)
    assert lost(seen) == []


def test_the_last_ten_lost_revisions_are_kept() -> None:
    seen, _ = new_seen()
    seen.saw(marked_namespace(1))
    for number in range(1, 15):
        lose(seen, number, number * 10)
    assert lost(seen) == list(range(5, 15))


def test_no_other_tenant_is_offered_lost_revisions() -> None:
    seen, _ = new_seen()
    seen.saw(marked_namespace(1))
    lose(seen, 3, 10)
    seen.saw(manifest("Namespace", NAMESPACE, "n", 20))
    assert lost(seen) == [], "given back to its owner"
    seen.saw(marked_namespace(21, "uid-of-rival"))
    assert lost(seen) == [], "adopted by another"
    seen.saw(marked_namespace(22))
    assert lost(seen) == [3], "only its marks were gone"
    seen.gone("Namespace", "", NAMESPACE, "n", 23)
    seen.saw({**marked_namespace(24), "metadata": {**marked_namespace(24)["metadata"], "uid": "n2"}})
    assert lost(seen) == []


STATEFUL_SET = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "tenant-config", "controller": True}


@pytest.mark.parametrize("number", [6, 222222222, 2222222222])
@pytest.mark.parametrize("owners", [[STATEFUL_SET], []], ids=["a StatefulSet's", "orphaned"])
def test_revisions_of_a_tenants_own_stateful_set_are_not_taken_for_ours(
    owners: list[dict[str, Any]], number: int
) -> None:
    seen, woken = new_seen()
    fields = [{"manager": "kube-controller-manager", "operation": "Update"}]
    seen.saw(revision(number, "r", 1, ownerReferences=owners, managedFields=fields))
    assert not seen.children(NAMESPACE)
    assert not woken.drain()


@pytest.mark.parametrize(
    "change",
    [{"ownerReferences": []}, {"ownerReferences": [STATEFUL_SET]}, {"labels": {}, "ownerReferences": []}],
)
@pytest.mark.parametrize("by", ["known", "manager"])
def test_a_revision_of_ours_that_was_changed_is_still_seen(change: dict[str, Any], by: str) -> None:
    seen, woken = new_seen()
    if by == "known":
        seen.saw(revision(3, "r", 1))
        woken.drain()
    else:
        change = {**change, "managedFields": [{"manager": "tenantry", "operation": "Apply"}]}
    seen.saw(revision(3, "r", 2, **change))
    assert ChildKey("ControllerRevision", "tenant-config-3") in seen.children(NAMESPACE)
    assert woken.drain() == [("ControllerRevision", NAMESPACE, "tenant-config-3")]


@given(st.integers(1, 10**12))
def test_the_number_after_one_of_ours_is_one_of_ours(number: int) -> None:
    assert names.revision_number(names.revision_name(number)) == number
    assert names.revision_number(names.revision_name(number + 1)) == number + 1


def test_what_was_never_known_leaves_no_trace() -> None:
    seen, woken = new_seen()
    for number in range(5):
        seen.gone("ConfigMap", f"ns-{number}", "x", f"u{number}", number)
        seen.gone("Plan", "", f"p{number}", f"v{number}")
    assert not woken.drain()
    assert not [*seen.present("ConfigMap")]
    assert seen.plans() == []


def test_a_deleted_plan_is_handed_over_until_its_deletion_is_on_record() -> None:
    seen, woken = new_seen()
    assert seen.deleted_plan("pro") is None
    for number, content in ((1, "first"), (2, "second")):
        seen.saw(manifest("Plan", "pro", f"p{number}", number * 10, content))
        seen.gone("Plan", "", "pro", f"p{number}")
    seen.saw(manifest("Plan", "free", "f", 30))
    assert woken.drain()[1] == ("Plan", "", "pro")
    for content in ("first", "second"):
        plan = seen.deleted_plan("pro")
        assert plan is not None
        assert plan == seen.deleted_plan("pro"), "the ledger may have been away: asked for again"
        assert plan.spec.display_name == content
        seen.plan_deletion_recorded(plan)
    assert seen.deleted_plan("pro") is None
    assert seen.deleted_plan("free") is None


def test_a_plan_that_was_made_anew_before_its_deletion_was_told_was_deleted_too() -> None:
    seen, _ = new_seen()
    seen.saw(manifest("Plan", "pro", "old", 1))
    seen.saw(manifest("Plan", "pro", "new", 5))
    seen.gone("Plan", "", "pro", "old")
    plan = seen.deleted_plan("pro")
    assert plan is not None
    assert plan.metadata.uid == "old"
    seen.plan_deletion_recorded(plan)
    assert seen.deleted_plan("pro") is None
    assert seen.plan("pro") is not None


def test_deleted_plans_that_nobody_asks_for_do_not_pile_up() -> None:
    seen, _ = new_seen()
    for number in range(300):
        seen.saw(manifest("Plan", f"p{number}", f"u{number}", number + 1))
        seen.gone("Plan", "", f"p{number}", f"u{number}")
    kept = [number for number in range(300) if seen.deleted_plan(f"p{number}") is not None]
    assert kept == list(range(44, 300))


@pytest.mark.parametrize("told", ["its end", "the new one"])
def test_nothing_outlives_its_namespace_however_late_that_is_told(told: str) -> None:
    seen, _ = new_seen()
    seen.saw(manifest("Namespace", NAMESPACE, "old", 1))
    seen.saw(manifest("ConfigMap", "tenant-config", "a", 2))
    if told == "its end":
        seen.gone("Namespace", "", NAMESPACE, "old", 5)
    else:
        seen.saw(manifest("ConfigMap", "made-in-the-new-one", "c", 7))
        seen.saw(manifest("Namespace", NAMESPACE, "new", 6))
    assert ChildKey("ConfigMap", "tenant-config") not in seen.children(NAMESPACE)
    seen.saw(manifest("ConfigMap", "tenant-config", "a", 3, "late"))
    assert ChildKey("ConfigMap", "tenant-config") not in seen.children(NAMESPACE)
    seen.saw(manifest("Namespace", NAMESPACE, "new", 6))
    seen.saw(manifest("ConfigMap", "tenant-config", "b", 8))
    seen.gone("ConfigMap", NAMESPACE, "tenant-config", "a", 4)
    assert seen.children(NAMESPACE)[ChildKey("ConfigMap", "tenant-config")].uid == "b"
    assert seen.deleted(NAMESPACE) == {}
    if told == "the new one":
        assert ChildKey("ConfigMap", "made-in-the-new-one") in seen.children(NAMESPACE)
