"""What goes wrong with news: events that a watch loses, repeats or brings late, and answers that are old.

Later than on a real API server, where the events of one kind come in the order of their versions and only those of
different kinds overtake each other: what withstands this withstands that.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from tests.faults.simulated.apiserver import Event, Ref


class News:
    """What becomes of news; of this one it comes at once, once, and in order."""

    def passed_on(self, events: Sequence[Event]) -> list[Event]:
        """Return what the process is told now that these have happened."""
        return list(events)

    def late(self) -> list[Event]:
        """Return what was held back, as nothing else goes on."""
        return []

    def is_old(self, ref: Ref) -> bool:
        """Return whether a GET of an object, which is about to be answered, tells of the version before."""
        return False


class OneEvent(News):
    """Something becomes of the k-th event: it is lost, or held back. `count`: how many events there were."""

    def __init__(self, k: int = 0, held_back: str = "") -> None:
        """held_back: until "the next" event, until the next "of its object", until "the rest" is told; "": lost."""
        self.k = k
        self.held_back = held_back
        self.count = 0
        self.event: Event | None = None
        self._held: list[Event] = []

    def passed_on(self, events: Sequence[Event]) -> list[Event]:
        """Return all events but the k-th, and that one when its time has come."""
        told: list[Event] = []
        for event in events:
            self.count += 1
            if self.count == self.k:
                self.event = event
                self._held = [event] if self.held_back else []
                continue
            told.append(event)
            if self._held and self._is_awaited(event):
                told += self.late()
        return told

    def late(self) -> list[Event]:
        """Return the k-th event, if it has not been told yet."""
        held, self._held = self._held, []
        return held

    def _is_awaited(self, event: Event) -> bool:
        same = event.ref == self._held[0].ref
        return self.held_back == "the next" or (self.held_back == "of its object" and same)


class Twice(News):
    """Every event comes twice: the second time at once, or when the rest has been told, in their order or not."""

    def __init__(self, when: str) -> None:
        """when: "at once", "again" in the same order, "backwards"."""
        self.when = when
        self._told: list[Event] = []

    def passed_on(self, events: Sequence[Event]) -> list[Event]:
        """Return each event, or twice each."""
        if self.when == "at once":
            return [event for event in events for _ in range(2)]
        self._told += events
        return list(events)

    def late(self) -> list[Event]:
        """Return everything again."""
        told, self._told = self._told, []
        return told[::-1] if self.when == "backwards" else told


class OldRead(News):
    """The j-th GET is answered with the version before, where there was one since the flow began."""

    def __init__(self, j: int = 0) -> None:
        self.j = j
        self.count = 0

    def is_old(self, ref: Ref) -> bool:
        """Count the reads."""
        self.count += 1
        return self.count == self.j


class Late(News):
    """What had happened before is told when the rest has been."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._held = list(events)

    def late(self) -> list[Event]:
        """Return it."""
        held, self._held = self._held, []
        return held


class Rumours(News):
    """Loses, repeats, holds back and shuffles events, and answers with old objects, as chance has it."""

    def __init__(self, chance: random.Random, old_reads: float = 0.0) -> None:
        self._chance = chance
        self._old_reads = old_reads
        self._held: list[Event] = []

    def passed_on(self, events: Sequence[Event]) -> list[Event]:
        """Return some of these, and of those that were held back."""
        ready = [*events, *self._held]
        self._held = []
        told: list[Event] = []
        for event in ready:
            fate = self._chance.random()
            if fate < 0.6:
                told.append(event)
            elif fate < 0.7:
                told += [event, event]
            elif fate < 0.9:
                self._held.append(event)
        if self._chance.random() < 0.3:
            self._chance.shuffle(told)
        return told

    def late(self) -> list[Event]:
        """Return what was held back."""
        held, self._held = self._held, []
        return held

    def is_old(self, ref: Ref) -> bool:
        """Return True now and then."""
        return self._chance.random() < self._old_reads
