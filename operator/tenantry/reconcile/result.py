"""What a reconcile asks of the work queue, and the key that it works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Key(NamedTuple):
    """One object of ours: its kind ("Tenant", "Plan", ...) and its name (all our kinds are cluster-scoped)."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Result:
    """How a reconcile ended.

    `after`: look again in so many seconds (a deadline is near, or something outside is awaited), None: only
    when something changes. `failed`: not converged; the queue retries with per-key back-off, and `after`, if
    given, is the least delay, `at_most` the longest. `low`: that look yields to those that events brought.
    """

    after: float | None = None
    failed: bool = False
    at_most: float | None = None
    low: bool = False
    outcome: str = "ok"  # ok | deferred | waiting | stalled | conflict | retry: the label of the metric

    @classmethod
    def done(cls) -> Result:
        """Return a result that asks for nothing more."""
        return cls()
