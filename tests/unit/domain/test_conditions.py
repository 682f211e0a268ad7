"""Conditions that tools trust: the rules of kstatus, whatever the parts come to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.api.common import Condition
from tenantry.domain.conditions import (
    MESSAGE_LIMIT,
    Outcome,
    find,
    is_true,
    last_edit,
    phase,
    plan_not_found,
    summarise,
)
from tenantry.domain.errors import PartError, Retry, Stalled
from tests.unit.builders import T0

KINDS = ["NamespaceReady", "PolicyReady", "ConfigReady"]
TEXT = st.sampled_from(["a", "b", "x" * 2000])
OUTCOMES = st.one_of(
    st.builds(Outcome, st.just("Ready"), TEXT),
    st.builds(lambda text: Outcome.failed(Stalled("Mistake", text)), TEXT),
    st.builds(lambda text: Outcome.failed(Retry("Busy", text)), TEXT),
)
PARTS = st.dictionaries(st.sampled_from(KINDS), OUTCOMES)
ALSO = st.lists(OUTCOMES, max_size=2)
SUSPENDED = st.sampled_from([None, ("Requested", "suspended by spec.suspended")])
STEPS = st.lists(st.tuples(PARTS, ALSO, SUSPENDED), min_size=1, max_size=5)


def stored(conditions: Sequence[Condition]) -> list[Condition]:
    """Return conditions as they come back from the API server."""
    dumped = [item.model_dump(by_alias=True, exclude_none=True, mode="json") for item in conditions]
    return [Condition.model_validate(item) for item in dumped]


def run(step: Any, present: Sequence[Condition], generation: int, now: datetime) -> list[Condition]:
    parts, also, suspended = step
    return summarise(
        parts,
        present,
        generation=generation,
        now=now,
        ready_message="all is well",
        suspended=suspended,
        also=also,
    )


@given(STEPS)
def test_the_rules_of_kstatus_hold_through_any_history(steps: list[Any]) -> None:
    present: list[Condition] = []
    for number, step in enumerate(steps, start=1):
        now = T0 + timedelta(seconds=10 * number, microseconds=number)
        after = run(step, present, number, now)
        parts, also, suspended = step
        errors = [outcome.error for outcome in (*parts.values(), *also) if outcome.error]
        kinds = [item.type for item in after]
        assert len(kinds) == len(set(kinds))
        ready = find(after, "Ready")
        assert ready is not None
        assert (ready.status == "True") == (not errors)
        assert is_true(after, "Stalled") == any(isinstance(error, Stalled) for error in errors)
        assert is_true(after, "Reconciling") == (bool(errors) and not is_true(after, "Stalled"))
        for kind in ("Stalled", "Reconciling", "Suspended"):
            assert kind not in kinds or is_true(after, kind), "there only while True"
        assert is_true(after, "Suspended") == (suspended is not None)
        for item in after:
            assert item.observed_generation == number
            assert item.reason
            assert len(item.message) <= MESSAGE_LIMIT
            before = find(present, item.type)
            same = before is not None and before.status == item.status
            assert item.last_transition_time == (before.last_transition_time if same and before else now)
        present = stored(after)


@given(STEPS)
def test_at_rest_nothing_is_written(steps: list[Any]) -> None:
    present: list[Condition] = []
    for number, step in enumerate(steps, start=1):
        present = stored(run(step, present, number, T0 + timedelta(seconds=number, milliseconds=700)))
    again = run(steps[-1], present, len(steps), T0 + timedelta(days=1))
    assert stored(again) == present


def test_ready_shows_what_the_user_must_do_before_what_needs_only_time() -> None:
    parts = {
        "NamespaceReady": Outcome.failed(Retry("Busy", "the API server is busy")),
        "PolicyReady": Outcome.failed(Stalled("Mistake", "correct spec.plan")),
        "ConfigReady": Outcome.failed(Stalled("Mistake", "correct spec.plan")),
    }
    ready = find(run((parts, [], None), [], 1, T0), "Ready")
    assert ready is not None
    assert (ready.reason, ready.message) == ("Mistake", "correct spec.plan")


@pytest.mark.parametrize(
    ("outcome", "suspended", "ours", "was_ready", "expected"),
    [
        (None, False, True, False, "Ready"),
        (None, True, True, True, "Suspended"),
        (Retry("Busy", "x"), False, True, False, "Provisioning"),
        (Retry("Busy", "x"), False, True, True, "Degraded"),
        (Stalled("Mistake", "x"), False, True, False, "Degraded"),
        (Stalled("NamespaceNotOurs", "x"), False, False, False, "Pending"),
    ],
)
def test_the_one_word_for_people(
    outcome: PartError | None, suspended: bool, ours: bool, was_ready: bool, expected: str
) -> None:
    part = Outcome.failed(outcome) if outcome else Outcome("Ready", "x")
    step: Any = ({"NamespaceReady": part}, [], ("Requested", "x") if suspended else None)
    assert phase(run(step, [], 1, T0), namespace_ours=ours, was_ready=was_ready) == expected


class Timeline:
    """A tenant whose plan is missing, looked at again and again."""

    def __init__(self) -> None:
        self.present: list[Condition] = []

    def look(
        self, second: float, *, generation: int = 1, edited: float = 0, other: Outcome | None = None
    ) -> Any:
        """Reconcile at that second; return the error about the plan."""
        now = T0 + timedelta(seconds=second)
        changed = T0 + timedelta(seconds=edited)
        error = plan_not_found("pro", "spec.plan", self.present, generation, now, edited=changed)
        parts = {"PolicyReady": other} if other else {}
        parts["ConfigReady"] = Outcome.failed(error)
        self.present = stored(run((parts, [], None), self.present, generation, now))
        return error

    def waits_elsewhere(self, second: float) -> None:
        """Reconcile no further than the namespace, which has to wait."""
        waits = {"NamespaceReady": Outcome.failed(Retry("NamespaceTerminating", "it is being deleted"))}
        self.present = stored(run((waits, [], None), self.present, 1, T0 + timedelta(seconds=second)))


def test_a_plan_may_come_for_two_minutes_then_its_absence_is_a_mistake_for_good() -> None:
    time = Timeline()
    first = time.look(0.4)
    assert isinstance(first, Retry)
    assert first.delay == 120
    assert isinstance(time.look(60), Retry)
    assert isinstance(time.look(119.9), Retry)
    assert is_true(time.present, "Reconciling")
    assert isinstance(time.look(120.4), Stalled)
    for later in (121, 600, 1200, 90000):
        assert isinstance(time.look(later), Stalled), "no flapping"
        assert is_true(time.present, "Stalled")


def test_a_changed_spec_begins_anew_while_it_waits_and_after() -> None:
    time = Timeline()
    time.look(0)
    assert isinstance(time.look(100, generation=2, edited=99), Retry)
    assert isinstance(time.look(130, generation=2, edited=99), Retry), "the wait of the first spec is over"
    assert isinstance(time.look(218, generation=2, edited=99), Retry)
    assert isinstance(time.look(221, generation=2, edited=99), Stalled)
    assert isinstance(time.look(300, generation=3, edited=299), Retry)
    assert isinstance(time.look(310, generation=3, edited=299), Retry)
    assert isinstance(time.look(420, generation=3, edited=299), Stalled)


def test_waiting_for_something_else_first_takes_nothing_off_the_two_minutes() -> None:
    time = Timeline()
    time.waits_elsewhere(0)
    time.waits_elsewhere(300)
    for second in (301, 310, 400):
        assert isinstance(time.look(second), Retry)
    assert isinstance(time.look(422), Stalled)


@pytest.mark.parametrize("other", [Retry("Refused", "a quota"), Stalled("Mistake", "a quota")])
def test_another_problem_beside_it_does_not_prolong_the_wait(other: PartError) -> None:
    time = Timeline()
    for second in (0, 60, 119):
        assert isinstance(time.look(second, other=Outcome.failed(other)), Retry)
    assert isinstance(time.look(121, other=Outcome.failed(other)), Stalled)
    assert isinstance(time.look(122), Stalled)


def test_a_plan_that_goes_away_later_has_two_minutes_to_come_back() -> None:
    time = Timeline()
    fine: Any = ({"ConfigReady": Outcome("Ready", "revision 1")}, [], None)
    time.present = stored(run(fine, [], 1, T0))
    assert isinstance(time.look(86400), Retry)
    assert isinstance(time.look(86519), Retry)
    assert isinstance(time.look(86521), Stalled)


def test_an_edit_is_a_write_of_somebody_else_to_more_than_the_status() -> None:
    fields = [
        {"manager": "kubectl", "time": "2026-01-01T00:00:01Z"},
        {"manager": "tenantry", "time": "2026-01-01T00:00:02Z"},
        {"manager": "kubectl", "time": "2026-01-01T00:00:03Z", "subresource": "status"},
    ]
    assert last_edit(fields) == datetime.fromisoformat("2026-01-01T00:00:01+00:00")
    assert last_edit(fields[1:]) is None


def test_times_that_nobody_can_have_written_are_no_edit() -> None:
    """Whoever may edit an object may also write what its managedFields say."""
    assert last_edit([{"manager": "hacker", "time": "0000-01-01T00:00:00Z"}]) is None
    time = Timeline()
    yet_to_come = 7000 * 365 * 86400
    assert isinstance(time.look(0, edited=yet_to_come), Retry)
    assert isinstance(time.look(119, edited=yet_to_come), Retry)
    assert isinstance(time.look(121, edited=yet_to_come), Stalled)
