"""While we write an object: what is ours wakes nobody, and nothing of anybody else is missed."""

from __future__ import annotations

from collections import deque
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tenantry.adapters.kubernetes.seen import Seen
from tenantry.domain import names
from tests.unit.kubernetes.test_seen import NAMESPACE, Woken, manifest, new_seen

ACTIONS = ("edit", "begin", "apply", "answer", "fail", "deliver")


@dataclass
class Write:
    """A write of ours on its way; `stored` is what the API server made of it."""

    enclosed: AbstractContextManager[None]
    stored: dict[str, Any] | None = None


class Story:
    """One object on an API server, our writes of it, somebody else's, and a watch that is late."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.name = {"ConfigMap": names.CONFIG_MAP}.get(kind, "acme")
        self.version = self.generation = 1
        self.content = "pro"
        self.events: deque[dict[str, Any]] = deque()
        self.writes: list[Write] = []
        self.in_hand: set[int] = set()
        self.woken_with: list[int] = [1]
        self.seen, self.woken = new_seen()
        self.seen.saw(self.stored())
        self.woken.drain()

    def stored(self) -> dict[str, Any]:
        """Return the object as it is on the server."""
        own = {"generation": self.generation} if self.kind == "Tenant" else {}
        marks = {"finalizers": [names.FINALIZER]} if self.kind == "Tenant" and self.version > 1 else {}
        return manifest(self.kind, self.name, "uid", self.version, self.content, **own, **marks)

    def act(self, action: str) -> None:
        getattr(self, action)()
        if self.woken.drain():
            self.woken_with.append(self.known())

    def known(self) -> int:
        """Return the version that a reconcile would act on now."""
        if self.kind == "Tenant":
            return self.seen._last["Tenant", self.name][1]
        found = self.seen.children(NAMESPACE) if self.kind == "ConfigMap" else None
        there = next(iter(found.values())) if found else self.seen.namespace(self.name)
        assert there is not None
        return int(there.resource_version)

    def edit(self) -> None:
        self._change(spec=True)

    def begin(self) -> None:
        namespace = NAMESPACE if self.kind == "ConfigMap" else ""
        write = Write(self.seen.writing(self.kind, namespace, self.name))
        write.enclosed.__enter__()
        self.writes.append(write)

    def apply(self) -> None:
        """The server does the first write that it has not done yet."""
        write = next((item for item in self.writes if item.stored is None), None)
        if write is not None:
            self._change(spec=self.kind != "Tenant")
            write.stored = self.stored()

    def answer(self) -> None:
        write = next((item for item in self.writes if item.stored is not None), None)
        if write is not None and write.stored is not None:
            self.writes.remove(write)
            self.in_hand.add(int(write.stored["metadata"]["resourceVersion"]))
            self.seen.wrote(write.stored)
            write.enclosed.__exit__(None, None, None)

    def fail(self) -> None:
        """A write ends without an answer, done or not."""
        if self.writes:
            self.writes.pop(0).enclosed.__exit__(None, None, None)

    def deliver(self) -> None:
        if self.events:
            self.seen.saw(self.events.popleft())

    def end(self) -> None:
        while self.writes:
            self.act("apply")
            self.act("answer")
        while self.events:
            self.act("deliver")

    def _change(self, *, spec: bool) -> None:
        self.version += 1
        if spec:
            self.content = f"v{self.version}"
            self.generation += 1
        self.events.append(self.stored())


STORIES = st.lists(st.sampled_from(ACTIONS), max_size=30)


@pytest.mark.parametrize("kind", ["ConfigMap", "Namespace"])
@given(STORIES)
@example(["begin", "apply", "deliver", "edit", "deliver", "answer"])
@example(["begin", "edit", "deliver", "apply", "deliver", "fail"])
def test_no_version_of_a_child_is_missed(kind: str, actions: list[str]) -> None:
    story = Story(kind)
    for action in actions:
        story.act(action)
    story.end()
    strange = max(version for version in range(1, story.version + 1) if version not in story.in_hand)
    told = max(story.woken_with) >= strange
    # A writer judges by the answer, which shows what was there before it as well.
    assert told or max(story.in_hand, default=0) > strange
    assert story.known() == story.version


@given(st.lists(st.sampled_from([action for action in ACTIONS if action != "fail"]), max_size=30))
def test_no_edit_of_a_tenant_is_missed(actions: list[str]) -> None:
    story = Story("Tenant")
    edited = 1
    for action in actions:
        story.act(action)
        edited = story.version if action == "edit" else edited
    story.end()
    assert max(story.woken_with) >= edited


@pytest.mark.parametrize("kind", ["ConfigMap", "Namespace", "Tenant"])
@given(st.lists(st.sampled_from(["begin", "apply", "answer", "deliver"]), max_size=30))
def test_our_own_writes_alone_wake_nobody(kind: str, actions: list[str]) -> None:
    story = Story(kind)
    for action in actions:
        if action == "begin" and (story.writes or story.events):
            continue  # one after the other, each told of before the next
        story.act(action)
    story.end()
    assert story.woken_with == [1]


def test_writes_of_other_objects_do_not_hold_anything_back() -> None:
    woken = Woken()
    seen = Seen("free", woken)
    with seen.writing("ConfigMap", NAMESPACE, "other"), seen.writing("Secret", NAMESPACE, names.CONFIG_MAP):
        seen.saw(manifest("ConfigMap", names.CONFIG_MAP, "u", 1))
        assert woken.drain() == [("ConfigMap", NAMESPACE, names.CONFIG_MAP)]


def test_a_write_that_fails_tells_what_was_held_back() -> None:
    seen, woken = new_seen()

    def fail() -> None:
        with seen.writing("ConfigMap", NAMESPACE, "x"):
            seen.saw(manifest("ConfigMap", "x", "u", 1))
            assert woken.drain() == []
            raise TimeoutError

    with pytest.raises(TimeoutError):
        fail()
    assert woken.drain() == [("ConfigMap", NAMESPACE, "x")]
