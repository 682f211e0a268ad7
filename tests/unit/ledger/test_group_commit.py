"""Group commit: whatever is recorded, in whatever grouping, each change is kept once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from tenantry.adapters.ledger.audit import SqlAuditLog
from tenantry.adapters.ledger.database import async_engine, parse_url
from tenantry.adapters.ledger.migrations import migrate
from tenantry.domain.audit import AuditEntry
from tenantry.reconcile.ports import Unavailable

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
ENTRY = AuditEntry(
    "", NOON, "kubectl", "Updated", "Tenant", "acme", "uid-1", "acme", {"plan": "free"}, {"plan": "pro"}
)


def entry(number: int) -> AuditEntry:
    return replace(ENTRY, identity=f"uid-1/spec/{number}", at=NOON + timedelta(seconds=number))


@pytest.fixture(scope="session")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncEngine]:
    url = parse_url(f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.db'}")
    await asyncio.to_thread(migrate, url)
    engine = async_engine(url)
    yield engine
    await engine.dispose()


@pytest.fixture
async def fresh(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    url = parse_url(f"sqlite:///{tmp_path / 'ledger.db'}")
    await asyncio.to_thread(migrate, url)
    engine = async_engine(url)
    yield engine
    await engine.dispose()


_examples = count()
calls = st.lists(st.lists(st.integers(0, 12), max_size=5), max_size=12)
rounds = st.lists(calls, max_size=3)


@settings(max_examples=60, deadline=None)
@given(rounds=rounds)
async def test_any_grouping_keeps_each_identity_once(
    engine: AsyncEngine, rounds: list[list[list[int]]]
) -> None:
    log, uid = SqlAuditLog(engine), f"uid-{next(_examples)}"

    def change(number: int) -> AuditEntry:
        return replace(ENTRY, identity=f"{uid}/{number}", uid=uid, tenant=uid, after={"number": number})

    for concurrent in rounds:
        await asyncio.gather(*(log.record([change(number) for number in call]) for call in concurrent))
        told = {number for call in concurrent for number in call}
        kept = {found.identity for found in await log.entries(tenant=uid, limit=1000)}
        assert kept >= {f"{uid}/{number}" for number in told}, "record returned before its entries were kept"
    found = await log.entries(tenant=uid, limit=1000)
    expected = {number for concurrent in rounds for call in concurrent for number in call}
    assert sorted(kept.identity for kept in found) == sorted(f"{uid}/{number}" for number in expected)
    assert all(kept == change(int(kept.identity.rpartition("/")[2])) for kept in found)


async def test_the_first_record_of_an_identity_stays(fresh: AsyncEngine) -> None:
    log = SqlAuditLog(fresh)
    await log.record([entry(1), replace(entry(1), message="again, in the same call")])
    await log.record([replace(entry(1), message="again, later")])
    assert await log.entries() == [entry(1)]


async def test_calls_during_a_transaction_share_the_next(fresh: AsyncEngine) -> None:
    log, sizes, under_way = SqlAuditLog(fresh), list[int](), asyncio.Event()

    @event.listens_for(fresh.sync_engine, "before_execute")
    def _(_connection: object, _clause: object, many: list[object], one: object, _options: object) -> None:
        sizes.append(len(many) or 1)
        under_way.set()

    first = asyncio.create_task(log.record([entry(0)]))
    await under_way.wait()
    await asyncio.gather(first, *(log.record([entry(number)]) for number in range(1, 200)))
    assert sizes == [1, 199]
    newest_first = [kept.identity for kept in await log.entries(limit=200)]
    assert newest_first == [entry(number).identity for number in reversed(range(200))]


async def test_a_lone_call_is_one_transaction(fresh: AsyncEngine) -> None:
    log, commits = SqlAuditLog(fresh), list[object]()
    event.listen(fresh.sync_engine, "commit", commits.append)
    for number in range(5):
        await log.record([entry(number)])
    await log.record([])
    assert len(commits) == 5


async def test_a_cancelled_call_harms_no_other(fresh: AsyncEngine) -> None:
    log = SqlAuditLog(fresh)
    tasks = [asyncio.create_task(log.record([entry(number)])) for number in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, False] * 10
    kept = {found.identity for found in await log.entries()}
    assert kept >= {entry(number).identity for number in range(1, 20, 2)}
    await log.record([entry(number) for number in range(20)])
    assert len(await log.entries()) == 20


async def test_an_entry_that_cannot_be_stored_fails_only_its_own_call(fresh: AsyncEngine) -> None:
    log = SqlAuditLog(fresh)
    deep: dict[str, object] = {}
    for _ in range(5_000):
        deep = {"deeper": deep}
    refused = [
        replace(entry(1), at=datetime(2026, 1, 1)),  # noqa: DTZ001
        replace(entry(2), identity=""),
        replace(entry(3), identity="x" * 3_000),
        replace(entry(4), after={"price": float("nan")}),
        replace(entry(5), after={"when": NOON}),
        replace(entry(6), after={1: "a key that is no text"}),  # type: ignore[dict-item]
        replace(entry(7), after=deep),
    ]
    results = await asyncio.gather(
        *(log.record([bad]) for bad in refused), log.record([entry(0)]), return_exceptions=True
    )
    assert [type(result) for result in results] == [
        ValueError, ValueError, ValueError, TypeError, TypeError, TypeError, RecursionError, type(None),
    ]  # fmt: skip
    assert await log.entries() == [entry(0)]


async def test_close_writes_what_waits_and_refuses_the_rest(fresh: AsyncEngine) -> None:
    log = SqlAuditLog(fresh)
    waiting = [asyncio.create_task(log.record([entry(number)])) for number in range(3)]
    await asyncio.sleep(0)
    await log.close()
    assert len(await log.entries()) == 3
    with pytest.raises(Unavailable, match="closed"):
        await log.record([entry(9)])
    await asyncio.gather(*waiting)


@pytest.mark.parametrize(
    ("pragma", "says"),
    [("max_page_count=1", "has no disk space left"), ("query_only=ON", "is read-only")],
)
async def test_a_failed_transaction_reaches_every_call_and_the_next_is_tried(
    fresh: AsyncEngine, pragma: str, says: str
) -> None:
    log, big = SqlAuditLog(fresh), {"text": "x" * 100_000}
    async with fresh.connect() as connection:
        await connection.exec_driver_sql(f"PRAGMA {pragma}")
    failed = await asyncio.gather(
        *(log.record([replace(entry(number), after=big)]) for number in range(10)), return_exceptions=True
    )
    assert len({id(error) for error in failed}) == 10
    assert all(isinstance(error, Unavailable) and says in str(error) for error in failed)
    await fresh.dispose()  # the pragma ends with its connection
    await log.record([replace(entry(number), after=big) for number in range(10)])
    assert len(await log.entries()) == 10


def test_an_event_loop_that_ends_leaves_no_call_unanswered(tmp_path: Path) -> None:
    url = parse_url(f"sqlite:///{tmp_path / 'ledger.db'}")
    migrate(url)
    answers: list[BaseException] = []

    async def call(log: SqlAuditLog) -> None:
        try:
            await log.record([entry(1)])
        except BaseException as error:
            answers.append(error)
            raise

    async def main() -> None:
        engine = async_engine(url)
        log = SqlAuditLog(engine)
        task = asyncio.create_task(call(log))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        (writer,) = (task for task in asyncio.all_tasks() if task.get_name() == "ledger-audit")
        writer.cancel()
        with pytest.raises(Unavailable, match="stopped before"):
            await task
        await log.record([entry(2)])  # and a later call starts anew
        await log.close()
        await engine.dispose()
        while threading.active_count() > before:  # noqa: ASYNC110 - SQLite's ends behind, and calls the loop
            await asyncio.sleep(0.01)

    before = threading.active_count()
    asyncio.run(main())
    assert len(answers) == 1
