"""A brake for fights: somebody changes a child again and again in the same way, and we put it back each time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from datetime import datetime

FREE = 20
"""How often the same change is put back at once; whoever tries a thing by hand does not come so far."""

REFILL_SECONDS = 5.0
"""After that, once in so many seconds."""

REMEMBERED = 4096


class Brake:
    """Counts repairs by what was changed and how, in memory: a new process starts with patience."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[Hashable, tuple[float, datetime]] = OrderedDict()

    def take(self, mark: Hashable, now: datetime) -> float:
        """Return 0 where this change may be put back now, else the seconds until it may."""
        left, since = self._buckets.pop(mark, (float(FREE), now))
        passed = max(0.0, (now - since).total_seconds())  # a clock that is set back takes nothing away
        left = min(float(FREE), left + passed / REFILL_SECONDS)
        wait = 0.0 if left >= 1 else (1 - left) * REFILL_SECONDS
        self._buckets[mark] = (left - 1 if wait == 0.0 else left, now)
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        return wait

    def is_spent(self, mark: Hashable) -> bool:
        """Return whether the next repair of this change would have to wait."""
        left, _ = self._buckets.get(mark, (float(FREE), None))
        return left < 1
