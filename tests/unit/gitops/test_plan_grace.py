"""How long a Plan that is missing may still come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tenantry.api.common import Condition
from tenantry.domain.conditions import Outcome, plan_not_found, summarise
from tenantry.domain.errors import PartError, Retry, Stalled
from tenantry.settings import Settings

BEGAN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def missing(present: list[Condition], after: float, generation: int = 1) -> PartError:
    now = BEGAN + timedelta(seconds=after)
    grace = timedelta(seconds=Settings.model_fields["plan_grace_seconds"].default)
    return plan_not_found("pro", "spec.plan", present, generation, now, grace)


def reported(
    error: PartError, present: list[Condition], after: float, generation: int = 1
) -> list[Condition]:
    return summarise(
        {"ConfigReady": Outcome.failed(error)},
        present,
        generation=generation,
        now=BEGAN + timedelta(seconds=after),
        ready_message="",
    )


def test_two_minutes_then_stalled_for_good() -> None:
    first = missing([], 0)
    assert isinstance(first, Retry)
    assert (first.reason, first.delay) == ("PlanNotFound", 120)
    assert "spec.plan names plan pro" in first.message
    waiting = reported(first, [], 0)

    later = missing(waiting, 119)
    assert isinstance(later, Retry)
    assert later.delay == pytest.approx(1)
    waiting = reported(later, waiting, 119)

    last = missing(waiting, 120)
    assert isinstance(last, Stalled)
    stalled = reported(last, waiting, 120)
    # A re-list much later, or another process after a restart, comes to the same.
    assert isinstance(missing(stalled, 3600), Stalled)


def test_an_edit_after_that_is_given_the_same_time_again() -> None:
    stalled = reported(Stalled("PlanNotFound", "apply it"), [], 0)
    again = missing(stalled, 500, generation=2)
    assert isinstance(again, Retry)
    assert again.delay == 120


def test_a_plan_that_goes_missing_later_begins_a_new_wait() -> None:
    healthy = summarise(
        {"ConfigReady": Outcome("Ready", "revision 1")}, [], generation=1, now=BEGAN, ready_message=""
    )
    error = missing(healthy, 86400)
    assert isinstance(error, Retry)
    assert error.delay == 120
