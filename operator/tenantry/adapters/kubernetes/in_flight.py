"""Writes of ours that are on their way: a watch often tells of one before its own answer is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Subject = tuple[str, str, str]
"""An object by kind, namespace and name."""


class InFlight:
    """Holds back who would be woken by an object while we write it, until it is known which version is ours.

    Only the very version that an answer brought is passed over: the writer has that in its hands. Every other
    one wakes when the last of the writes has ended, whatever became of it; so at worst one is woken for nothing.
    """

    def __init__(self) -> None:
        self._writes: Counter[Subject] = Counter()
        self._ours: dict[Subject, set[int]] = {}
        self._held: dict[Subject, list[tuple[int, Callable[[], None]]]] = {}

    @contextmanager
    def write(self, subject: Subject) -> Iterator[None]:
        """Enclose a write of one object, from before it is sent until its answer is taken in."""
        self._writes[subject] += 1
        try:
            yield
        finally:
            self._writes[subject] -= 1
            if not self._writes[subject]:
                self._land(subject)

    def answered(self, subject: Subject, version: int) -> None:
        """Take note of the version that a write of ours has made."""
        if subject in self._writes:
            self._ours.setdefault(subject, set()).add(version)

    def changed(self, subject: Subject, version: int, wake: Callable[[], None]) -> None:
        """Wake whom a new version of an object concerns: now, or when our own writes of it have ended."""
        if subject in self._writes:
            self._held.setdefault(subject, []).append((version, wake))
        else:
            wake()

    def _land(self, subject: Subject) -> None:
        del self._writes[subject]
        ours = self._ours.pop(subject, set())
        for version, wake in self._held.pop(subject, []):
            if version not in ours:
                wake()
