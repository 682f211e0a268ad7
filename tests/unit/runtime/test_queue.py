"""The work queue: what client-go's promises, plus priorities, time limits and draining."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry.reconcile.ports import Unavailable
from tenantry.reconcile.result import Key, Result
from tenantry.runtime.queue import LOW_SHARE, Backoff, WorkQueue

A, B, C = (Key("Tenant", name) for name in "abc")


class ManualClock:
    """Monotonic seconds that only a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """A queue on a manual clock, with a reconcile that records its starts and waits to be told its end."""

    clock: ManualClock = field(default_factory=ManualClock)
    starts: list[Key] = field(default_factory=list)
    open: dict[Key, asyncio.Future[Result]] = field(default_factory=dict)
    observed: list[tuple[Key, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queue = WorkQueue(
            clock=self.clock,
            chance=lambda: 0.0,
            observe=lambda key, outcome, _: self.observed.append((key, outcome)),
        )

    async def reconcile(self, key: Key) -> Result:
        assert key not in self.open, f"{key} is processed twice at once"
        self.starts.append(key)
        self.open[key] = asyncio.get_running_loop().create_future()
        try:
            return await self.open[key]
        finally:
            del self.open[key]

    def advance(self, seconds: float) -> None:
        self.clock.now += seconds
        self.queue.wake_due()

    async def finish(self, key: Key, result: Result | None = None) -> None:
        self.open[key].set_result(result or Result.done())
        await settle()


async def settle() -> None:
    """Let every task run until it waits for something that only the test can give."""
    for _ in range(30):
        await asyncio.sleep(0)


@asynccontextmanager
async def working(
    queue: WorkQueue, reconcile: Callable[[Key], Awaitable[Result]], workers: int = 2
) -> AsyncIterator[asyncio.Task[None]]:
    """Run the queue's workers for the length of a block."""
    task = asyncio.create_task(queue.run(reconcile, workers))
    try:
        await settle()
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


def is_empty(queue: WorkQueue) -> bool:
    """Whether the queue holds nothing at all, not even void delays."""
    return not (queue._entries or queue._fresh or queue._low or queue._running)


async def test_adds_of_a_waiting_key_are_one() -> None:
    bench = Bench()
    for _ in range(3):
        bench.queue.add(A)
    assert bench.queue.depth == 1
    async with working(bench.queue, bench.reconcile):
        await bench.finish(A)
        await bench.queue.idle()
    assert bench.starts == [A]
    assert is_empty(bench.queue)


async def test_a_key_that_is_added_first_goes_before_all_that_wait() -> None:
    bench = Bench()
    bench.queue.add(A)
    bench.queue.add(B, low=True)
    bench.queue.add(C, after=60)
    bench.queue.add_first(C)
    bench.queue.add_first(B)
    async with working(bench.queue, bench.reconcile, workers=1):
        for key in (B, C, A):
            assert bench.starts[-1] == key
            await bench.finish(key)
        await bench.queue.idle()
    assert bench.starts == [B, C, A]
    assert is_empty(bench.queue)


async def test_a_key_that_runs_and_is_added_first_runs_once_more() -> None:
    bench = Bench()
    bench.queue.add(A)
    async with working(bench.queue, bench.reconcile, workers=1):
        bench.queue.add(B)
        bench.queue.add_first(A)
        await bench.finish(A)
        await bench.finish(B)
        await bench.finish(A)
        await bench.queue.idle()
    assert bench.starts == [A, B, A]


async def test_a_key_added_while_it_runs_runs_once_more_afterwards() -> None:
    bench = Bench()
    bench.queue.add(A)
    async with working(bench.queue, bench.reconcile):
        bench.queue.add(A)
        bench.queue.add(A)
        await settle()
        assert bench.starts == [A]
        await bench.finish(A)
        assert bench.starts == [A, A]
        await bench.finish(A)
        await bench.queue.idle()
    assert bench.starts == [A, A]
    assert is_empty(bench.queue)


async def test_the_earliest_of_several_delays_wins() -> None:
    bench = Bench()
    bench.queue.add(A, after=30)
    bench.queue.add(A, after=5)
    bench.queue.add(A, after=60)
    async with working(bench.queue, bench.reconcile):
        bench.advance(4.9)
        await settle()
        assert bench.starts == []
        bench.advance(0.2)
        await settle()
        assert bench.starts == [A]
        await bench.finish(A)
        bench.advance(100)
        await settle()
    assert bench.starts == [A]
    assert is_empty(bench.queue)


async def test_an_immediate_add_overtakes_a_delayed_one() -> None:
    bench = Bench()
    bench.queue.add(A, after=30)
    bench.queue.add(A)
    async with working(bench.queue, bench.reconcile):
        assert bench.starts == [A]
        await bench.finish(A)
        bench.advance(60)
        await settle()
    assert bench.starts == [A]


async def test_the_timer_wakes_delayed_keys_by_itself() -> None:
    done = asyncio.Event()

    async def reconcile(key: Key) -> Result:
        done.set()
        return Result.done()

    queue = WorkQueue()
    queue.add(A, after=3600)
    queue.add(B, after=0.01)
    async with working(queue, reconcile), asyncio.timeout(60):
        await done.wait()


async def test_a_timer_that_comes_early_is_set_again() -> None:
    done = asyncio.Event()

    async def reconcile(key: Key) -> Result:
        done.set()
        return Result.done()

    queue = WorkQueue(clock=lambda: time.monotonic() / 2)
    queue.add(A, after=0.02)
    async with working(queue, reconcile), asyncio.timeout(60):
        await done.wait()


async def test_result_after_asks_for_another_look() -> None:
    bench = Bench()
    bench.queue.add(A)
    async with working(bench.queue, bench.reconcile):
        await bench.finish(A, Result(after=10))
        bench.advance(9.9)
        await settle()
        assert bench.starts == [A]
        bench.advance(0.2)
        await settle()
        assert bench.starts == [A, A]


async def test_failures_back_off_and_success_forgets_them() -> None:
    bench = Bench()
    bench.queue.add(A)
    async with working(bench.queue, bench.reconcile):
        for delay in (0.2, 0.4, 0.8):
            before = len(bench.starts)
            await bench.finish(A, Result(failed=True))
            bench.advance(delay * 0.95)
            await settle()
            assert len(bench.starts) == before, f"retried before {delay} s"
            bench.advance(delay * 0.1)
            await settle()
            assert len(bench.starts) == before + 1, f"not retried after {delay} s"
        await bench.finish(A)
        assert is_empty(bench.queue)
        bench.queue.add(A)
        await settle()
        before = len(bench.starts)
        await bench.finish(A, Result(failed=True, after=7))
        bench.advance(6.9)
        await settle()
        assert len(bench.starts) == before, "Result.after is the least delay"
        bench.advance(0.2)
        await settle()
        assert len(bench.starts) == before + 1


def test_backoff_doubles_to_its_ceiling_and_spreads_downwards() -> None:
    backoff = Backoff(first=0.2, ceiling=60)
    assert [backoff.delay(n, 0.0) for n in (1, 2, 3, 9, 10, 5000)] == pytest.approx(
        [0.2, 0.4, 0.8, 51.2, 60, 60]
    )
    assert backoff.delay(10, 0.999) == pytest.approx(30, rel=0.01)


async def test_a_failure_may_say_how_long_it_waits_at_most() -> None:
    bench = Bench()
    bench.queue.add(A)
    async with working(bench.queue, bench.reconcile):
        for _ in range(20):
            bench.queue.add(A)
            await bench.finish(A, Result(failed=True, at_most=5.0))
        await bench.finish(A, Result(failed=True, at_most=5.0))
        before = len(bench.starts)
        bench.advance(4.9)
        await settle()
        assert len(bench.starts) == before
        bench.advance(0.2)
        await settle()
        assert len(bench.starts) == before + 1


async def test_an_exception_is_one_clean_line_and_a_retry(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.queue.add(A)
    async with working(bench.queue, bench.reconcile):
        with caplog.at_level(logging.INFO, logger="tenantry.runtime.queue"):
            bench.open[A].set_exception(ValueError("first line\n  second line"))
            await settle()
        assert [record.getMessage() for record in caplog.records] == [
            "Tenant/a: ValueError: first line second line (try 1)"
        ]
        assert caplog.records[0].exc_info is None
        bench.advance(0.21)
        await settle()
        assert bench.starts == [A, A]
    assert bench.observed == [(A, "error")]


async def test_a_server_that_says_when_to_come_back_is_not_asked_before() -> None:
    bench = Bench()
    bench.queue.add(A)
    async with working(bench.queue, bench.reconcile):
        bench.open[A].set_exception(Unavailable("busy", retry_after=9.0))
        await settle()
        bench.advance(8.9)
        await settle()
        assert bench.starts == [A]
        bench.advance(0.2)
        await settle()
        assert bench.starts == [A, A]


async def test_a_cancellation_inside_a_reconcile_does_not_end_the_worker() -> None:
    bench = Bench()
    bench.queue.add(A)
    async with working(bench.queue, bench.reconcile, workers=1):
        bench.open[A].cancel()
        await settle()
        bench.queue.add(B)
        await settle()
        assert bench.starts == [A, B]


async def test_a_reconcile_over_its_time_limit_is_cancelled_and_retried() -> None:
    cancelled = asyncio.Event()
    outcomes: list[str] = []

    async def reconcile(key: Key) -> Result:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    queue = WorkQueue(
        backoff=Backoff(first=60), time_limit=0.02, observe=lambda _, outcome, __: outcomes.append(outcome)
    )
    queue.add(A)
    async with working(queue, reconcile, workers=1), asyncio.timeout(60):
        await cancelled.wait()
        await queue.idle()
    assert outcomes == ["timeout"]
    assert queue._entries[A].failures == 1


async def test_what_is_cancelled_half_way_is_ready_for_the_next_run() -> None:
    bench = Bench()
    bench.queue.add(A)
    async with working(bench.queue, bench.reconcile) as task:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    assert bench.queue.depth == 1
    async with working(bench.queue, bench.reconcile):
        assert bench.starts == [A, A]


async def test_drain_lets_work_under_way_finish_and_starts_no_other() -> None:
    bench = Bench()
    bench.queue.add(A)
    async with working(bench.queue, bench.reconcile, workers=1) as task:
        bench.queue.add(B)
        draining = asyncio.create_task(bench.queue.drain(timeout=30))
        await settle()
        assert not draining.done()
        await bench.finish(A)
        assert await draining is True
        await asyncio.wait_for(task, 60)
    assert bench.starts == [A]
    assert bench.queue.depth == 1, "what was not started is not lost"


async def test_drain_gives_up_on_work_that_is_late() -> None:
    bench = Bench()
    bench.queue.add(A)
    async with working(bench.queue, bench.reconcile):
        assert await bench.queue.drain(timeout=0.01) is False


async def test_a_hot_key_goes_to_the_end_of_the_line() -> None:
    bench = Bench()
    bench.queue.add(A)
    async with working(bench.queue, bench.reconcile, workers=1):
        bench.queue.add(B)
        bench.queue.add(C)
        for key in (A, B, C):
            bench.queue.add(A)
            await bench.finish(key)
    assert bench.starts == [A, B, C, A]


async def test_low_keys_yield_to_fresh_ones_but_are_not_starved() -> None:
    queue = WorkQueue()
    starts: list[Key] = []

    async def reconcile(key: Key) -> Result:
        starts.append(key)
        return Result.done()

    for number in range(4):
        queue.add(Key("Low", str(number)), low=True)
    for number in range(100):
        queue.add(Key("Fresh", str(number)))
    async with working(queue, reconcile, workers=1), asyncio.timeout(60):
        await queue.idle()
    first_low = [index for index, key in enumerate(starts) if key.kind == "Low"]
    assert first_low == [LOW_SHARE - 1, 2 * LOW_SHARE - 1, 3 * LOW_SHARE - 1, 4 * LOW_SHARE - 1]


async def test_a_look_that_a_result_asks_for_may_be_low() -> None:
    queue = WorkQueue()
    starts: list[Key] = []

    async def reconcile(key: Key) -> Result:
        starts.append(key)
        return Result(after=0.0, low=True) if key == A and starts.count(A) == 1 else Result.done()

    others = [Key("Fresh", str(number)) for number in range(LOW_SHARE - 2)]
    for key in (A, *others):
        queue.add(key)
    async with working(queue, reconcile, workers=1), asyncio.timeout(60):
        await queue.idle()
    assert starts == [A, *others, A]


async def test_an_event_promotes_a_low_key() -> None:
    bench = Bench()
    bench.queue.add(A, low=True)
    bench.queue.add(B, low=True)
    bench.queue.add(B)
    async with working(bench.queue, bench.reconcile, workers=1):
        await bench.finish(B)
    assert bench.starts == [B, A]


async def test_reconciles_that_never_await_leave_the_loop_to_others() -> None:
    queue = WorkQueue()
    turns = 0

    async def reconcile(key: Key) -> Result:
        return Result.done()

    for number in range(200):
        queue.add(Key("Tenant", str(number)))
    async with working(queue, reconcile, workers=2):
        while queue.depth:
            turns += 1
            await asyncio.sleep(0)
    assert turns > 20


async def test_what_the_probes_read() -> None:
    bench = Bench()
    assert (bench.queue.depth, bench.queue.oldest_wait, bench.queue.longest_run) == (0, 0.0, 0.0)
    bench.queue.add(A)
    bench.advance(3)
    bench.queue.add(B, low=True)
    assert (bench.queue.depth, bench.queue.oldest_wait) == (2, 3.0)
    async with working(bench.queue, bench.reconcile, workers=1):
        bench.advance(2)
        assert (bench.queue.depth, bench.queue.oldest_wait, bench.queue.longest_run) == (1, 2.0, 2.0)
        await bench.finish(A)
        assert bench.queue.last_finished == bench.clock.now


async def test_a_busy_key_with_a_far_deadline_does_not_fill_the_heap() -> None:
    bench = Bench()
    async with working(bench.queue, bench.reconcile):
        for _ in range(500):
            bench.queue.add(A)
            await settle()
            await bench.finish(A, Result(after=86400))
            bench.clock.now += 0.01
    assert len(bench.queue._delayed) <= 70


# Properties: any order of adds, delays, ends of reconciles and passing time.
KEYS = st.sampled_from([A, B, C])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), KEYS, st.sampled_from([0.0, 0.0, 0.5, 3.0, 20.0]), st.booleans()),
        st.tuples(st.just("advance"), st.sampled_from([0.1, 1.0, 5.0])),
        st.tuples(
            st.just("finish"),
            KEYS,
            st.sampled_from(
                [
                    Result.done(),
                    Result(after=2.0),
                    Result(failed=True),
                    Result(failed=True, after=4.0),
                    Result(failed=True, at_most=0.5),
                ]
            ),
        ),
        st.tuples(st.just("run")),
    ),
    max_size=60,
)


class Model(Bench):
    """Knows for each key when its earliest pending wake-up is, and checks every start against that."""

    def __init__(self, workers: int) -> None:
        super().__init__()
        self.workers = workers
        self.wake: dict[Key, float] = {}
        self.failures: Counter[Key] = Counter()

    async def reconcile(self, key: Key) -> Result:
        assert key in self.wake, f"{key} starts though nobody asked"
        assert self.wake.pop(key) <= self.clock.now, f"{key} starts before its time"
        assert len(self.open) < self.workers, "more at once than there are workers"
        return await super().reconcile(key)

    def asked(self, key: Key, after: float) -> None:
        self.wake[key] = min(self.wake.get(key, float("inf")), self.clock.now + after)

    async def step(self, step: tuple[object, ...]) -> None:
        match step:
            case ("add", Key() as key, float() as after, bool() as low):
                self.asked(key, after)
                self.queue.add(key, after, low=low)
            case ("advance", float() as seconds):
                self.advance(seconds)
            case ("finish", Key() as key, Result() as result) if key in self.open:
                self.failures[key] = self.failures[key] + 1 if result.failed else 0
                backoff = Backoff().delay(self.failures[key], 0.0) if result.failed else 0.0
                if result.at_most is not None:
                    backoff = min(backoff, result.at_most)
                if result.failed or result.after is not None:
                    self.asked(key, max(backoff, result.after or 0.0))
                await self.finish(key, result)
            case ("run",):
                await settle()


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, workers=st.integers(1, 3))
def test_no_wake_up_is_lost_early_or_invented(steps: list[tuple[object, ...]], workers: int) -> None:
    async def play() -> None:
        model = Model(workers)
        async with working(model.queue, model.reconcile, workers) as task:
            for step in steps:
                await model.step(step)
            for _ in range(20):
                model.advance(30)
                await settle()
                for key in list(model.open):
                    await model.step(("finish", key, Result.done()))
            assert model.wake == {}, "wake-ups without a start"
            assert is_empty(model.queue)
            assert not task.done()
        # what the model asserts inside a reconcile reaches us as an outcome
        assert "error" not in {outcome for _, outcome in model.observed}

    asyncio.run(play())
