"""The work queue between the watches and the reconcilers, after client-go's workqueue.

Every key has at most one pending wake-up, the earliest that was asked for: a reconcile reads everything anew
and says itself when to look again, so one start of it answers all wake-ups that were asked for before it.

    add ──► delayed ──(due)──► ready ──(a worker is free)──► running ──► forgotten, delayed or ready
     └───────(at once)──────────▲  ▲                            │
                                │  └──── added while running ───┘
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tenantry.reconcile.ports import Unavailable
from tenantry.reconcile.result import Key, Result

logger = logging.getLogger(__name__)

Reconcile = Callable[[Key], Awaitable[Result]]
Observe = Callable[[Key, str, float], None]

LOW_SHARE = 8
"""While fresh keys wait, one start in so many is a low key's: a busy hour must not starve the re-list."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delay before the next try of a key that failed: doubled each time from `first` to `ceiling`, seconds.

    Up to half of a delay is taken off at random, so that keys that failed together come back spread out.
    """

    first: float = 0.2
    ceiling: float = 60.0

    def delay(self, failures: int, chance: float) -> float:
        """Return the seconds to wait after the `failures`-th failure in a row; `chance` is in [0, 1)."""
        doublings = min(failures - 1, 40)  # the ceiling is long reached; more would overflow a float
        return min(self.ceiling, self.first * 2.0**doublings) * (1 - chance / 2)


@dataclass(slots=True)
class _Entry:
    """What is known of one key that is delayed, ready, running or failing."""

    wake: float | None = None
    low: bool = False
    started: float | None = None
    failures: int = 0


class WorkQueue:
    """Deduplicating queue of keys with delays, per-key back-off and a fixed number of workers.

    One key is never processed twice at the same time, and an `add` is always followed by a start of
    processing that begins after it. Keys that are done and healthy leave no trace. Not thread-safe:
    everything is called from the event loop's thread.
    """

    def __init__(
        self,
        *,
        backoff: Backoff | None = None,
        time_limit: float = 60.0,
        observe: Observe | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`time_limit`: seconds after which a reconcile is cancelled and counts as failed.

        `observe(key, outcome, seconds)` is called after every reconcile; the outcome is the Result's, or
        `error` or `timeout`. `clock` is monotonic, in seconds.
        """
        self._backoff = backoff or Backoff()
        self._time_limit = time_limit
        self._observe = observe
        self._clock = clock
        self._chance = chance
        self._entries: dict[Key, _Entry] = {}
        self._fresh: OrderedDict[Key, float] = OrderedDict()  # ready keys and since when, first in first out
        self._low: OrderedDict[Key, float] = OrderedDict()
        self._running: set[Key] = set()
        self._delayed: list[tuple[float, Key]] = []  # heap; an item is void unless its entry still says so
        self._timer: asyncio.TimerHandle | None = None
        self._armed: float | None = None  # for when the timer is set
        self._starts = 0
        self._draining = False
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self.last_finished = clock()

    @property
    def depth(self) -> int:
        """Keys that are ready and wait for a worker."""
        return len(self._fresh) + len(self._low)

    @property
    def has_fresh(self) -> bool:
        """Whether keys that events brought wait for a worker."""
        return bool(self._fresh)

    @property
    def oldest_wait(self) -> float:
        """For how many seconds the oldest ready key has waited; 0 where none waits."""
        heads = [next(iter(ready.values())) for ready in (self._fresh, self._low) if ready]
        return max(0.0, self._clock() - min(heads)) if heads else 0.0

    @property
    def longest_run(self) -> float:
        """For how many seconds the longest of the present reconciles has run; 0 where none runs."""
        now = self._clock()
        return max((now - (self._entries[key].started or now) for key in self._running), default=0.0)

    def add(self, key: Key, after: float = 0.0, *, low: bool = False) -> None:
        """Ask for `key` to be processed in `after` seconds, at once by default.

        A `low` key (of a full re-list) yields to those that events brought.
        """
        entry = self._entries.setdefault(key, _Entry())
        if key in self._fresh:
            return
        if key in self._low:
            if after <= 0 and not low:
                del self._low[key]
                self._make_ready(key, low=False)
            return
        at = self._clock() + max(0.0, after)
        if entry.wake is None or at < entry.wake:
            entry.wake, entry.low = at, low
        elif at == entry.wake:
            entry.low = entry.low and low
        else:
            return
        if entry.started is None:
            self._schedule(key, entry, at)

    def add_first(self, key: Key) -> None:
        """Ask for `key` to be processed at once, before all that are ready."""
        self.add(key)
        if key in self._fresh:
            self._fresh.move_to_end(key, last=False)

    async def run(self, reconcile: Reconcile, workers: int) -> None:
        """Process keys with so many workers until `drain` or cancellation.

        Nothing that `reconcile` raises ends it. What is cancelled half-way is ready again for a later `run`.
        """
        self._draining = False
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(self._work(reconcile), name=f"worker-{number}")

    async def idle(self) -> None:
        """Wait until no key is ready or running; delayed ones do not count."""
        await self._idle.wait()

    async def drain(self, timeout: float) -> bool:  # noqa: ASYNC109 - part of the meaning: what is late is left
        """Start no more work, let what is under way finish for `timeout` seconds; `run` returns then.

        Returns whether all of it finished; if not, the caller cancels `run`.
        """
        self._draining = True
        self._news.set()
        try:
            async with asyncio.timeout(timeout):
                await self._quiet.wait()
        except TimeoutError:
            return False
        return True

    def wake_due(self) -> None:
        """Make ready every delayed key whose time has come; the queue's own timer calls it."""
        now, self._armed = self._clock(), None
        while self._delayed and self._delayed[0][0] <= now:
            at, key = heapq.heappop(self._delayed)
            if self._is_delayed_until(key, at):
                self._make_ready(key, low=self._entries[key].low)
        self._arm()

    async def _work(self, reconcile: Reconcile) -> None:
        while not self._draining:
            if not self.depth:
                self._news.clear()
                await self._news.wait()
                continue
            key, entry = self._take()
            try:
                result, outcome = await self._attempt(reconcile, key, entry)
            except BaseException:
                entry.wake = self._clock()
                self._leave(key, entry)
                raise
            self._finish(key, entry, result, outcome)
            # A reconcile that found nothing to do has perhaps never awaited: let the others have the loop.
            await asyncio.sleep(0)

    async def _attempt(self, reconcile: Reconcile, key: Key, entry: _Entry) -> tuple[Result, str]:
        """Run one reconcile; whatever it raises but its own cancellation becomes a failed Result."""
        try:
            async with asyncio.timeout(self._time_limit) as limit:
                result = await reconcile(key)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Something that it awaited was cancelled by somebody else: a bug there, not an order to stop.
            return self._failed(key, entry, error, "error")
        except TimeoutError as error:
            if limit.expired():
                late = TimeoutError(f"not finished within {self._time_limit:g} s")
                late.__cause__ = error
                return self._failed(key, entry, late, "timeout")
            return self._failed(key, entry, error, "error")
        except Exception as error:  # noqa: BLE001 - one bad key must not stop the others
            return self._failed(key, entry, error, "error")
        return result, result.outcome

    def _failed(self, key: Key, entry: _Entry, error: BaseException, outcome: str) -> tuple[Result, str]:
        text = " ".join(str(error).split())
        logger.error(
            "%s: %s%s (try %d)", key, type(error).__name__, f": {text}" if text else "", entry.failures + 1
        )
        logger.debug("%s: traceback", key, exc_info=error)
        asked = error.retry_after if isinstance(error, Unavailable) else None
        return Result(after=asked, failed=True, outcome=outcome), outcome

    def _finish(self, key: Key, entry: _Entry, result: Result, outcome: str) -> None:
        now = self._clock()
        self.last_finished = now
        seconds = now - (entry.started if entry.started is not None else now)
        after = result.after
        if result.failed:
            entry.failures += 1
            delay = self._backoff.delay(entry.failures, self._chance())
            after = max(after or 0.0, delay if result.at_most is None else min(delay, result.at_most))
        else:
            entry.failures = 0
        if after is not None and (entry.wake is None or now + after < entry.wake):
            entry.wake, entry.low = now + max(0.0, after), result.low
        self._leave(key, entry)
        if self._observe is not None:
            self._observe(key, outcome, seconds)

    def _take(self) -> tuple[Key, _Entry]:
        self._starts += 1
        low_turn = not self._fresh or (bool(self._low) and self._starts % LOW_SHARE == 0)
        key, _ = (self._low if low_turn else self._fresh).popitem(last=False)
        entry = self._entries[key]
        entry.wake, entry.started = None, self._clock()
        self._running.add(key)
        self._quiet.clear()
        return key, entry

    def _leave(self, key: Key, entry: _Entry) -> None:
        """Account for a key that a worker is done with, and see what is next for it."""
        entry.started = None
        self._running.discard(key)
        if entry.wake is not None:
            self._schedule(key, entry, entry.wake)
        elif not entry.failures:
            del self._entries[key]
        if not self._running:
            self._quiet.set()
            if not self.depth:
                self._idle.set()

    def _schedule(self, key: Key, entry: _Entry, at: float) -> None:
        if at <= self._clock():
            self._make_ready(key, low=entry.low)
            return
        heapq.heappush(self._delayed, (at, key))
        if len(self._delayed) > 64 + 2 * len(self._entries):
            # Overtaken delays stay in the heap; without this a busy key with a far deadline would fill it.
            self._delayed = [item for item in set(self._delayed) if self._is_delayed_until(item[1], item[0])]
            heapq.heapify(self._delayed)
        self._arm()

    def _is_delayed_until(self, key: Key, at: float) -> bool:
        entry = self._entries.get(key)
        ready = key in self._fresh or key in self._low
        return entry is not None and entry.started is None and entry.wake == at and not ready

    def _make_ready(self, key: Key, *, low: bool) -> None:
        (self._low if low else self._fresh)[key] = self._clock()
        self._idle.clear()
        self._news.set()

    def _arm(self) -> None:
        """Let the event loop call `wake_due` when the first delayed key is due."""
        first = self._delayed[0][0] if self._delayed else None
        if first == self._armed:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed = first
        if first is not None:
            wait = max(0.0, first - self._clock())
            self._timer = asyncio.get_running_loop().call_later(wait, self.wake_due)
