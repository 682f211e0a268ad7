"""Revisions of the configuration: what a number means never changes, and the last good one stays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tenantry.api.presets import OVERRIDABLE
from tenantry.api.tenant import Overrides
from tenantry.domain.configuration import (
    KEPT_REVISIONS,
    Configuration,
    Revision,
    canonical,
    configure,
    override_paths,
    refusal,
    resolve,
)
from tenantry.domain.errors import PartError, Stalled
from tests.unit.builders import plan

MISTAKE = Stalled("OverrideNotAllowed", "spec.overrides.model.name is not allowed")


def config(mark: int) -> dict[str, Any]:
    return {"model": {"maxTokens": mark}, "retrieval": {}, "limits": {}}


class Cluster(RuleBasedStateMachine):
    """A tenant's configuration in a cluster where the operator dies at any line and children get lost.

    What nothing can bring back is left out: the newest revision lost while an older one is in effect, and a
    revision lost together with the ConfigMap that still held its content.
    """

    def __init__(self) -> None:
        super().__init__()
        self.wanted: dict[str, Any] | PartError = config(0)
        self.pinned: int | None = None
        self.kept: dict[int, str] = {}
        self.read: Revision | None = None
        self.status: int | None = None
        self.meant: dict[int, str] = {}
        self.settled = False

    @rule(mark=st.integers(0, 4))
    def the_plan_or_the_overrides_are_edited(self, mark: int) -> None:
        self.wanted, self.settled = config(mark), False

    @rule()
    def a_mistake_is_made(self) -> None:
        self.wanted, self.settled = MISTAKE, False

    @rule(data=st.data())
    def an_earlier_revision_is_pinned(self, data: st.DataObject) -> None:
        self.pinned = data.draw(st.sampled_from([*self.kept, 999]))
        self.settled = False

    @rule()
    def the_pin_is_removed(self) -> None:
        self.pinned, self.settled = None, False

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def a_revision_is_lost(self, data: st.DataObject) -> None:
        newest = max(self.kept)
        losable = [
            number
            for number in self.kept
            if (number == self.status and self._readable()) or (number != self.status and number != newest)
        ]
        if losable:
            del self.kept[data.draw(st.sampled_from(losable))]
            self.settled = False

    @precondition(lambda self: self.status in self.kept)
    @rule()
    def the_config_map_is_lost(self) -> None:
        self.read, self.settled = None, False

    @precondition(lambda self: self.read is not None and self.status in self.kept)
    @rule(number=st.integers(1, 12), mark=st.integers(5, 9))
    def the_config_map_is_edited_by_hand(self, number: int, mark: int) -> None:
        self.read, self.settled = Revision(number, canonical(config(mark))), False

    @rule(data=st.data())
    def the_operator_dies_on_its_way(self, data: st.DataObject) -> None:
        decided = self._decide()
        written = data.draw(st.integers(0, len(decided.kept)))
        for revision in decided.kept[:written]:
            self._write(revision)
        if written == len(decided.kept) and data.draw(st.booleans()):
            self.read = decided.active
        self.settled = False

    @rule()
    def the_operator_reconciles(self) -> None:
        before = self.kept.get(self.status or 0)
        decided = self._decide()
        self._check(decided, before)
        for revision in decided.kept:
            self._write(revision)
        self.read = decided.active
        self.kept = {revision.number: revision.config for revision in decided.kept}
        self.status = decided.active.number if decided.active else self.status
        self.settled = True

    @invariant()
    def at_rest_nothing_is_left_to_do(self) -> None:
        if self.settled:
            again = self._decide()
            assert {revision.number: revision.config for revision in again.kept} == self.kept
            assert again.active == self.read

    def _decide(self) -> Configuration:
        kept = [Revision(number, text) for number, text in self.kept.items()]
        return configure(self.wanted, self.pinned, kept, self.status, self.read)

    def _write(self, revision: Revision) -> None:
        assert self.meant.setdefault(revision.number, revision.config) == revision.config, "two meanings"
        self.kept[revision.number] = revision.config

    def _readable(self) -> bool:
        return self.read is not None and self.meant.get(self.read.number) == self.read.config

    def _check(self, decided: Configuration, before: str | None) -> None:
        assert len(decided.kept) <= KEPT_REVISIONS
        assert decided.active is None or decided.active in decided.kept
        if self.pinned in self.kept:
            assert decided.active is not None
            assert (decided.active.number, decided.problem) == (self.pinned, None)
        elif self.pinned is None and not isinstance(self.wanted, PartError):
            assert decided.active is not None
            assert decided.active.config == canonical(self.wanted)
            assert decided.active.number == max(revision.number for revision in decided.kept)
        elif before is not None:
            assert decided.active == Revision(self.status or 0, before), "the last good one stays"


TestRevisionsInACluster = Cluster.TestCase


def test_a_crash_between_revision_and_config_map_makes_no_second_revision() -> None:
    first = configure(config(1), None, [], None, None)
    assert first.active is not None
    assert [revision.number for revision in first.kept] == [1]
    after_crash = configure(config(1), None, first.kept, None, None)
    after_second_crash = configure(config(1), None, first.kept, None, first.active)
    assert after_crash == after_second_crash == first


def test_the_number_after_a_rollback_continues_from_the_newest() -> None:
    kept = [Revision(number, canonical(config(number))) for number in (1, 2, 3)]
    pinned = configure(config(9), 1, kept, 3, kept[2])
    assert pinned.active == kept[0]
    assert list(pinned.kept) == kept, "a pinned tenant's edits make no revisions"
    released = configure(config(9), None, pinned.kept, 1, kept[0])
    assert released.active == Revision(4, canonical(config(9)))
    back = configure(config(3), None, pinned.kept, 1, kept[0])
    assert back.active == kept[2], "the newest again, where nothing has changed since"


def test_a_number_is_not_given_again_when_every_revision_is_lost() -> None:
    decided = configure(config(2), None, [], 7, None)
    assert decided.active is not None
    assert decided.active.number > 7


def test_a_config_map_edited_by_hand_is_not_taken_for_the_revision() -> None:
    good = Revision(5, canonical(config(1)))
    edited = Revision(5, canonical(config(666)))
    for wanted, pinned in ((MISTAKE, None), (config(1), 99)):
        decided = configure(wanted, pinned, [good], 5, edited)
        assert decided.active == good
        assert decided.problem is not None


def test_a_lost_config_map_comes_back_at_the_revision_in_effect() -> None:
    kept = [Revision(number, canonical(config(number))) for number in (1, 2, 3)]
    for wanted, pinned in ((MISTAKE, None), (config(3), 99)):
        decided = configure(wanted, pinned, kept, 1, None)
        assert decided.active == kept[0]


def test_a_pin_to_a_revision_that_is_not_kept_names_those_that_are() -> None:
    kept = [Revision(number, canonical(config(number))) for number in (4, 5)]
    decided = configure(config(5), 2, kept, 5, kept[1])
    assert decided.active == kept[1]
    assert isinstance(decided.problem, Stalled)
    assert "spec.configRevision 2" in decided.problem.message
    assert "4, 5" in decided.problem.message


@given(st.permutations(range(1, 15)), st.integers(1, 14))
def test_the_ten_newest_are_kept_and_the_one_in_effect(order: list[int], in_effect: int) -> None:
    kept = [Revision(number, canonical(config(number))) for number in order]
    decided = configure(MISTAKE, None, kept, in_effect, None)
    numbers = [revision.number for revision in decided.kept]
    assert decided.active is not None
    assert decided.active.number == in_effect
    assert len(numbers) == KEPT_REVISIONS
    assert set(numbers) - {in_effect} <= set(range(5, 15))
    assert numbers == sorted(numbers)


VALUES: dict[str, Any] = {
    "model.provider": "other",
    "model.name": "gpt-9",
    "model.temperature": "1.5",
    "model.maxTokens": 7,
    "model.systemPrompt": "Be brief.",
    "retrieval.topK": 77,
    "retrieval.chunkSize": 99,
    "retrieval.rerank": True,
    "limits.requestsPerSecond": 11,
    "limits.burst": 12,
    "limits.tokensPerMinute": 13,
}
PATHS = st.sets(st.sampled_from(sorted(OVERRIDABLE)))


def overrides(paths: set[str]) -> Overrides:
    nested: dict[str, dict[str, Any]] = {}
    for path in paths:
        part, name = path.split(".")
        nested.setdefault(part, {})[name] = VALUES[path]
    return Overrides.model_validate(nested)


def flat(resolved: dict[str, Any]) -> dict[str, Any]:
    return {f"{part}.{name}": value for part, fields in resolved.items() for name, value in fields.items()}


@given(PATHS, PATHS, PATHS)
def test_each_override_is_applied_dropped_or_refused(
    given_: set[str], asked: set[str], actual: set[str]
) -> None:
    requested, effective = plan("pro", overridable=sorted(asked)), plan("free", overridable=sorted(actual))
    done = resolve(overrides(given_), effective, requested)
    assert set(done.refused) == given_ - asked
    assert set(done.dropped) == (given_ & asked) - actual
    plain, laid = flat(resolve(None, effective).config), flat(done.config)
    applied = given_ & asked & actual
    assert {path for path in laid if laid[path] != plain.get(path)} <= applied
    assert all(laid[path] == VALUES[path] for path in applied)
    assert laid.keys() - plain.keys() <= applied
    assert plain.keys() <= laid.keys()


def test_an_override_of_false_or_empty_text_is_an_override() -> None:
    spec = plan("pro", overridable=["retrieval.rerank", "model.systemPrompt"])
    given_ = Overrides.model_validate({"retrieval": {"rerank": False}, "model": {"systemPrompt": ""}})
    assert override_paths(given_) == {"retrieval.rerank": False, "model.systemPrompt": ""}
    resolved = resolve(given_, spec).config
    assert resolved["retrieval"]["rerank"] is False
    assert resolved["model"]["systemPrompt"] == ""


@pytest.mark.parametrize("name", ["free", "pro", "enterprise"])
def test_a_resolved_configuration_survives_json(name: str) -> None:
    resolved = resolve(None, plan(name)).config
    assert canonical(json.loads(canonical(resolved))) == canonical(resolved)


def test_a_refusal_names_the_fields_and_what_is_allowed() -> None:
    error = refusal("free", [], ["model.name", "limits.burst"])
    assert (
        "plan free does not let a tenant override spec.overrides.limits.burst, spec.overrides.model.name"
        in (error.message)
    )
    assert "allows nothing" in error.message
    assert "allows a.b, c.d" in refusal("pro", ["c.d", "a.b"], ["x.y"]).message
