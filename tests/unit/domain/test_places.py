"""A tenant's place as it should be: whose it is, who may log in, and that nothing is done twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.api.tenant import Metric, VectorType
from tenantry.domain.errors import Stalled
from tenantry.domain.names import archive_name
from tenantry.domain.places import Applicant, Place, PlaceState, Record, Rotation, archived, upkeep
from tenantry.domain.reasons import Reason
from tenantry.domain.vectors import Shape

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SHAPE = Shape(3)
ROTATION = Rotation()
ACME = Applicant("acme", "uid-of-acme", "digest-of-acme", SHAPE)

shapes = st.builds(Shape, st.sampled_from((3, 1536)), st.sampled_from(Metric), st.sampled_from(VectorType))
marks = st.sampled_from(("", "once", "again"))
applicants = st.builds(
    Applicant,
    st.just("acme"),
    st.sampled_from(("uid-of-acme", "another-uid")),
    st.sampled_from(("digest-of-acme", "another-digest")),
    shapes,
    st.booleans(),
    marks,
    st.sampled_from(("", archive_name("acme", "uid-of-acme"), archive_name("acme", "another-uid"))),
)
moments = st.integers(-400 * 86400, 400 * 86400).map(lambda seconds: NOW + timedelta(seconds=seconds))
places = st.builds(
    Place,
    st.just("acme"),
    st.sampled_from(("uid-of-acme", "another-uid")),
    st.sampled_from(("digest-of-acme", "another-digest")),
    st.integers(1, 5),
    shapes,
    moments,
    st.sampled_from(PlaceState),
    st.booleans(),
    st.integers(1, 9),
    marks,
    st.booleans(),
)
records = st.builds(Record, places, st.just("0123456789abcdef"), st.sampled_from((0, 0, 1, 5000)))
rotations = st.builds(
    Rotation,
    st.integers(1, 200 * 86400).map(lambda seconds: timedelta(seconds=seconds)),
    st.integers(0, 300 * 86400).map(lambda seconds: timedelta(seconds=seconds)),
)


def described(
    applicant: Applicant, epoch: int, record: Record | None, rotation: Rotation, chosen: bool
) -> tuple[Place, float] | None:
    """Return what `upkeep` says at NOW; None where it refuses."""
    try:
        place, after = upkeep(applicant, epoch, record, NOW, rotation, chosen=chosen)
    except Stalled:
        return None
    assert after is not None
    return place, after


cases = given(applicants, st.integers(1, 5), st.none() | records, rotations, st.booleans())


@cases
def test_what_is_as_it_should_be_stays(
    applicant: Applicant, epoch: int, record: Record | None, rotation: Rotation, chosen: bool
) -> None:
    found = described(applicant, epoch, record, rotation, chosen)
    if found is not None:
        rows = record.rows if record else 0
        again = described(applicant, epoch, Record(found[0], "id", rows), rotation, chosen)
        assert again is not None
        assert again[0] == found[0]


@cases
def test_nothing_changes_before_it_is_said_to(
    applicant: Applicant, epoch: int, record: Record | None, rotation: Rotation, chosen: bool
) -> None:
    """And something does then: whoever looks again at that moment looks neither too early nor for nothing."""
    found = described(applicant, epoch, record, rotation, chosen)
    if found is None:
        return
    place, after = found
    known = Record(place, "id", record.rows if record else 0)
    due = NOW + timedelta(seconds=after)
    for moment in (NOW + (due - NOW) / 2, due - timedelta(milliseconds=1)):
        if moment >= NOW:
            assert upkeep(applicant, epoch, known, moment, rotation, chosen=chosen)[0] == place
    later = due + timedelta(milliseconds=1)
    assert upkeep(applicant, epoch, known, later, rotation, chosen=chosen)[0] != place


@cases
def test_numbers_only_grow(
    applicant: Applicant, epoch: int, record: Record | None, rotation: Rotation, chosen: bool
) -> None:
    found = described(applicant, epoch, record, rotation, chosen)
    if found is None:
        return
    place = found[0]
    assert place.epoch >= epoch
    assert place.generation == 1 if record is None else place.generation - record.place.generation in (0, 1)
    if record is not None:
        assert place.epoch >= record.place.epoch
        if place.generation > record.place.generation:
            assert place.since == NOW
            assert place.slot != record.place.slot


@cases
def test_nobody_logs_in_while_the_tenant_is_suspended(
    applicant: Applicant, epoch: int, record: Record | None, rotation: Rotation, chosen: bool
) -> None:
    found = described(applicant, epoch, record, rotation, chosen)
    if found is not None:
        assert found[0].open is not applicant.suspended


@cases
def test_a_place_goes_to_its_tenant_its_customer_or_whom_an_engineer_names(
    applicant: Applicant, epoch: int, record: Record | None, rotation: Rotation, chosen: bool
) -> None:
    found = described(applicant, epoch, record, rotation, chosen)
    if record is None:
        assert found is not None
        return
    before = record.place
    theirs = before.uid == applicant.uid or before.owner == applicant.owner
    if found is None:
        fits = not chosen or record.rows == 0 or applicant.shape == before.shape
        assert not (theirs and fits)
        return
    assert theirs or applicant.restore_from == archive_name("acme", before.uid)
    assert (found[0].uid, found[0].owner) == (applicant.uid, applicant.owner)


@cases
def test_who_had_the_place_before_cannot_log_in(
    applicant: Applicant, epoch: int, record: Record | None, rotation: Rotation, chosen: bool
) -> None:
    found = described(applicant, epoch, record, rotation, chosen)
    if found is not None and record is not None and record.place.uid != applicant.uid:
        assert found[0].generation > record.place.generation
        assert not found[0].previous


@cases
def test_vectors_never_change_their_shape(
    applicant: Applicant, epoch: int, record: Record | None, rotation: Rotation, chosen: bool
) -> None:
    found = described(applicant, epoch, record, rotation, chosen)
    if found is not None and record is not None and (record.rows or not chosen):
        assert found[0].shape == record.place.shape
    elif found is not None:
        assert found[0].shape == applicant.shape


@cases
def test_credentials_are_never_older_than_they_may_be(
    applicant: Applicant, epoch: int, record: Record | None, rotation: Rotation, chosen: bool
) -> None:
    found = described(applicant, epoch, record, rotation, chosen)
    if found is not None:
        assert NOW - found[0].since < rotation.age
        assert not found[0].previous or NOW - found[0].since < rotation.grace


def test_credentials_take_turns() -> None:
    first, after = upkeep(ACME, 1, None, NOW, ROTATION)
    assert (first.generation, first.slot, first.previous, after) == (1, "a", False, 90 * 86400)
    asked = replace(ACME, mark="2026-11-25")
    second, after = upkeep(asked, 1, Record(first, "id"), NOW + timedelta(days=1), ROTATION)
    assert (second.generation, second.slot, second.previous, after) == (2, "b", True, 3600)
    third, after = upkeep(asked, 1, Record(second, "id"), NOW + timedelta(days=1, hours=1), ROTATION)
    assert third == replace(second, previous=False)
    assert after == 90 * 86400 - 3600


def test_what_is_said_of_a_place_that_is_somebody_elses() -> None:
    place, _ = upkeep(ACME, 1, None, NOW, ROTATION)
    other = Applicant("acme", "another-uid", "another-digest", SHAPE)
    with pytest.raises(Stalled, match=r"spec\.owner\.email") as error:
        upkeep(other, 1, Record(archived(place), "id"), NOW, ROTATION)
    assert error.value.reason is Reason.RESTORE_NOT_ALLOWED


def test_what_is_said_of_vectors_of_another_shape() -> None:
    place, _ = upkeep(ACME, 1, None, NOW, ROTATION)
    with pytest.raises(Stalled, match="7 vectors of 3 dimensions") as error:
        upkeep(replace(ACME, shape=Shape(5)), 1, Record(place, "id", rows=7), NOW, ROTATION)
    assert error.value.reason is Reason.SHAPE_FIXED


def test_a_place_that_is_kept_of_a_deleted_tenant_is_closed() -> None:
    place, _ = upkeep(ACME, 1, None, NOW, ROTATION)
    kept = archived(replace(place, previous=True))
    assert (kept.state, kept.open, kept.previous) == (PlaceState.ARCHIVED, False, False)
