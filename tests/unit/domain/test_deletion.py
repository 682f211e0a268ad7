"""What becomes of a deleted tenant: data is kept as promised, and nothing that is not ours is deleted."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tenantry.api.archive import ArchivePhase, Export, TenantArchive
from tenantry.api.common import rfc3339
from tenantry.api.tenant import Tenant
from tenantry.domain.deletion import (
    ArchiveStep,
    Farewell,
    Former,
    VectorsStep,
    archive_step,
    being_purged,
    farewell,
    is_of,
    leave,
    purge_after,
    vectors_step,
)
from tenantry.domain.errors import Stalled
from tenantry.domain.names import FINALIZER, WITHOUT_EXPORT
from tenantry.domain.ownership import address_digest
from tenantry.domain.places import Place, PlaceState, Record
from tenantry.domain.reasons import Reason
from tenantry.domain.vectors import Shape
from tests.unit.builders import EMAIL, T0, archive, claim_of, namespace, tenant

MINE, OTHER = "uid-of-acme", "uid-of-other"
OWNERS = st.sampled_from([None, MINE, OTHER])


def deleted(policy: str = "Retain", days: int = 30) -> Tenant:
    metadata = {"deletionTimestamp": rfc3339(T0)}
    return tenant(metadata=metadata, deletionPolicy=policy, retentionDays=days)


@given(
    policy=st.sampled_from(["Retain", "Delete"]),
    owner=OWNERS,
    origin=st.sampled_from(["created", "adopted"]),
    there=st.booleans(),
    deleting=st.booleans(),
)
def test_a_farewell_removes_only_what_is_its_own_and_was_made_for_it(
    policy: str, owner: str | None, origin: str, there: bool, deleting: bool
) -> None:
    way = farewell(deleted(policy), namespace(deleting=deleting) if there else None, owner, origin)
    if not there or owner != MINE:
        assert way is Farewell.NOTHING
    elif policy == "Retain" and not deleting:
        assert way is Farewell.RETAIN
    else:
        assert way is (Farewell.RELEASE if origin == "adopted" else Farewell.REMOVE)


def test_an_adopted_namespace_is_given_back_in_the_end_too() -> None:
    assert leave("adopted") is Farewell.RELEASE
    assert leave("created") is Farewell.REMOVE


@given(st.integers(0, 3650))
def test_retention_counts_from_the_deletion_however_often_it_is_tried(days: int) -> None:
    assert purge_after(deleted(days=days)) == T0 + timedelta(days=days)


MOMENTS = st.integers(-40, 40).map(lambda days: T0 + timedelta(days=days))


@given(
    owner=OWNERS,
    there=st.booleans(),
    going=st.booleans(),
    asked=st.booleans(),
    back=st.booleans(),
    now=MOMENTS,
    vectors=st.booleans(),
)
def test_an_archive_purges_only_what_it_keeps_and_only_when_due(
    owner: str | None, there: bool, going: bool, asked: bool, back: bool, now: datetime, vectors: bool
) -> None:
    assume(there or owner is None)
    kept = archive(uid=MINE, deleting=asked)
    returned = claim_of(tenant(uid=OTHER)) if back else None
    seen = namespace(deleting=going, tenant_name="acme") if there else None
    step = archive_step(kept, seen, owner, returned, now, vectors=vectors)
    # Whoever deletes the namespace does not mean the vectors.
    due = asked or now >= kept.spec.purge_after or (going and there and owner == MINE and not vectors)
    if step is ArchiveStep.PURGE:
        assert owner == MINE or vectors, "nobody else's data"
        assert due
    elif step is ArchiveStep.KEEP:
        assert owner == MINE or vectors
        assert not due
    elif step is ArchiveStep.RESTORED:
        assert owner == OTHER, "a later tenant of that name, though it may be gone again"
        assert not vectors
    else:
        assert step is ArchiveStep.PURGED
        assert owner is None
        assert not vectors


def test_an_archive_of_a_tenant_that_lives_does_nothing() -> None:
    alive = claim_of(tenant(uid=MINE))
    for now in (T0, T0 + timedelta(days=4000)):
        assert archive_step(archive(uid=MINE), namespace(), MINE, alive, now) is ArchiveStep.UNTRUE
    going = claim_of(tenant(uid=MINE, metadata={"deletionTimestamp": rfc3339(T0)}))
    assert archive_step(archive(uid=MINE), namespace(), MINE, going, T0) is ArchiveStep.KEEP


def test_an_archive_leaves_the_namespace_to_its_tenant_while_that_takes_leave() -> None:
    kept, at = archive(uid=MINE), rfc3339(T0)
    held = {"finalizers": [FINALIZER, "others.example/hold"], "deletionTimestamp": at}
    leaving = claim_of(tenant(uid=MINE, metadata=held))
    assert archive_step(kept, namespace(), MINE, leaving, T0) is ArchiveStep.WAIT
    assert archive_step(kept, namespace(), MINE, leaving, kept.spec.purge_after) is ArchiveStep.PURGE
    left = claim_of(tenant(uid=MINE, metadata={**held, "finalizers": ["others.example/hold"]}))
    assert archive_step(kept, namespace(), MINE, left, T0) is ArchiveStep.KEEP


def test_a_new_customer_of_the_old_name_elsewhere_does_not_end_the_retention() -> None:
    newcomer = claim_of(tenant(uid=OTHER, namespace={"name": "elsewhere"}))
    assert archive_step(archive(uid=MINE), namespace(), MINE, newcomer, T0) is ArchiveStep.KEEP


@pytest.mark.parametrize(("seconds", "step"), [(-1, ArchiveStep.KEEP), (0, ArchiveStep.PURGE)])
def test_the_retention_ends_at_its_very_second(seconds: int, step: ArchiveStep) -> None:
    kept = archive(uid=MINE)
    now = kept.spec.purge_after + timedelta(seconds=seconds)
    assert archive_step(kept, namespace(), MINE, None, now) is step


# --- vectors -----------------------------------------------------------------------------------------------------

FORMER = Former("acme", MINE, address_digest(EMAIL))
ELSE = address_digest("somebody@else.example")


def place(uid: str, owner: str = FORMER.owner, name: str = "acme") -> Place:
    return Place(name, uid, owner, 1, Shape(3), T0, PlaceState.ARCHIVED, open=False)


def past(uid: str, phase: str) -> TenantArchive:
    kept = archive(uid=uid)
    return kept.model_copy(update={"status": kept.status.model_copy(update={"phase": ArchivePhase(phase)})})


def test_a_place_is_purged_with_the_tenant_whose_uid_it_has_and_with_no_other() -> None:
    living = claim_of(tenant(uid=OTHER))
    assert is_of(place(MINE, ELSE), FORMER, [], living)
    assert not is_of(place(MINE, name="umbrella"), FORMER, [], None)
    assert not is_of(place(OTHER), FORMER, [], living)
    assert not is_of(place(OTHER), FORMER, [past(OTHER, "Kept")], None)
    assert not is_of(place(OTHER, ELSE), FORMER, [], None)


def test_a_place_that_nobody_took_back_goes_with_the_last_tenant_of_its_name() -> None:
    assert is_of(place(OTHER), FORMER, [past(OTHER, "Restored")], None)
    assert is_of(place(OTHER, ELSE), FORMER, [past(OTHER, "Restored")], None)
    assert is_of(place(OTHER), FORMER, [], None)
    leaving = claim_of(tenant(uid=MINE, metadata={"deletionTimestamp": rfc3339(T0)}))
    assert is_of(place(OTHER), FORMER, [], leaving)


def test_a_tenant_waits_for_a_purge_that_has_begun_and_for_no_other() -> None:
    kept = archive(uid=MINE)
    before, due = T0, kept.spec.purge_after
    assert being_purged(place(MINE), OTHER, [kept], before) is None
    assert being_purged(place(MINE), OTHER, [], due) is None
    assert being_purged(place(OTHER), OTHER, [archive(uid=OTHER)], due) is None
    assert being_purged(place(MINE), OTHER, [past(MINE, "Restored")], due) is None
    for archives, now in (([kept], due), ([archive(uid=MINE, deleting=True)], before)):
        waits = being_purged(place(MINE), OTHER, archives, now)
        assert waits is not None
        assert waits.reason is Reason.ARCHIVE_PURGING


@pytest.mark.parametrize("how", ["exported", "empty", "said so", "store", "nothing"])
def test_vectors_are_removed_only_when_they_are_elsewhere_or_nobody_wants_them(how: str) -> None:
    kept, record = archive(uid=MINE), Record(place(MINE), "id")
    made = {"url": "s3://b/e", "rows": 1, "bytes": 1, "sha256": "", "finishedAt": rfc3339(T0)}
    entry = Export.model_validate({"shard": "one", "epoch": 1, **made})
    if how == "exported":
        kept = kept.model_copy(update={"status": kept.status.model_copy(update={"exports": [entry]})})
    if how == "said so":
        asked = kept.metadata.model_copy(update={"annotations": {WITHOUT_EXPORT: "true"}})
        kept = kept.model_copy(update={"metadata": asked})
    if how == "nothing":
        with pytest.raises(Stalled, match="TENANTRY_EXPORT_URL") as stalled:
            vectors_step(kept, "one", record, empty=False, store=False)
        assert stalled.value.reason is Reason.NO_EXPORT_STORE
        return
    step = vectors_step(kept, "one", record, empty=how == "empty", store=how == "store")
    assert step is (VectorsStep.EXPORT if how == "store" else VectorsStep.REMOVE)
    if how == "exported":
        # That of another place says nothing of this one.
        assert vectors_step(kept, "two", record, empty=False, store=True) is VectorsStep.EXPORT
        moved = Record(replace(record.place, epoch=2), "id")
        assert vectors_step(kept, "one", moved, empty=False, store=True) is VectorsStep.EXPORT
