"""Moves between two real servers, with fsync on: writers go on all the while, processes and servers die."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection, sql

from tenantry.adapters.pgvector import changes, fence, hardening, holding, moving
from tenantry.domain.moves import importing
from tenantry.domain.places import PlaceState, Record
from tenantry.local.ports import free_ports
from tenantry.local.postgres import PostgresServer
from tenantry.local.processes import kill
from tenantry.reconcile.mover import Busy
from tenantry.reconcile.ports import Refused, Unavailable
from tests.integration.pgvector.pair import (
    LEFT_EMPTY,
    STEPS,
    Load,
    Pair,
    admitted,
    take,
    until,
    writable,
)

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """Two servers that wait for the disk."""
    settings = {"wal_retrieve_retry_interval": "200ms"}
    first, second = free_ports(2)
    with (
        PostgresServer(port=first, settings=settings) as one,
        PostgresServer(port=second, settings=settings) as other,
    ):
        yield one, other


@pytest.fixture
async def pair(servers: tuple[PostgresServer, PostgresServer]) -> AsyncIterator[Pair]:
    found = Pair(servers)
    await found.connect()
    yield found
    for tenant in found.tenants:
        # What a test leaves half done keeps workers of the servers busy, of which there are few.
        await found.mover(tenant).detach()
    await found.close()


async def under_way(pair: Pair, steps: int) -> tuple[str, Record]:
    """Have a tenant moved so many steps; return it, and the source's record of its place then."""
    tenant = await admitted(pair)
    for step in STEPS[:steps]:
        await take(pair, tenant, step)
    record = await pair.engines[0].find(tenant)
    assert record is not None
    return tenant, record


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a move wait for a target that is behind: on a busy machine it may be so at any time."""
    monkeypatch.setattr(holding, "GATE_SECONDS", 60.0)
    monkeypatch.setattr(holding, "MARKER_SECONDS", 60.0)
    monkeypatch.setattr(moving, "MARKER_SECONDS", 60.0)
    monkeypatch.setattr(moving, "COMPARE_SECONDS", 60.0)


async def test_a_move_under_load_loses_nothing(pair: Pair) -> None:
    tenant = await admitted(pair)
    async with Load(pair, tenant) as load:
        await until(lambda: asyncio.sleep(0), lambda _: load.writes > 50)
        for step in STEPS[:-1]:
            await take(pair, tenant, step)
        before = load.writes
        await until(lambda: asyncio.sleep(0), lambda _: load.at == 1 and load.writes > before + 50)
    await load.check(1)
    await take(pair, tenant, "clean")
    assert await pair.engines[0].find(tenant) is None
    await nothing_left(pair)


async def nothing_left(pair: Pair) -> None:
    """Check that neither server has anything of a move."""
    for server in pair.engines:
        async with server.connection() as connection:
            for table in LEFT_EMPTY:
                cursor = await connection.execute(f"SELECT count(*) FROM {table}")
                assert await cursor.fetchone() == (0,), table


@pytest.mark.parametrize("first", [0, 1], ids=["source", "target"])
async def test_who_removes_both_places_of_a_lost_move_leaves_nothing_of_it(pair: Pair, first: int) -> None:
    tenant = await admitted(pair)
    for step in STEPS[:3]:
        await take(pair, tenant, step)
    for number in (first, 1 - first):
        await until(lambda at=number: pair.engines[at].remove(tenant))
        assert await pair.engines[number].find(tenant) is None
    await nothing_left(pair)


async def test_an_index_is_built_on_the_target_when_all_rows_are_there(pair: Pair) -> None:
    tenant = await admitted(pair)
    await pair.engines[0].index(tenant)
    async with Load(pair, tenant) as load:
        await take(pair, tenant, "prepare")
        await until(lambda: pair.mover(tenant).progress(), lambda item: item.copied)
        there = await pair.engines[1].find(tenant)
        assert there is not None
        assert not there.indexed
        before = load.writes
        await until(lambda: pair.mover(tenant).index(), bool)
        await until(lambda: asyncio.sleep(0), lambda _: load.writes > before)
        for step in STEPS[2:-1]:
            await take(pair, tenant, step)
        before = load.writes
        await until(lambda: asyncio.sleep(0), lambda _: load.at == 1 and load.writes > before + 50)
    await load.check(1)
    there = await pair.engines[1].find(tenant)
    assert there is not None
    assert there.indexed
    async with await AsyncConnection.connect(pair.engines[1].access(there)["dsn"]) as application:
        # Nothing but the index gives an order of distances then.
        await application.execute(
            "SET enable_seqscan = off; SET enable_sort = off; SET enable_bitmapscan = off"
        )
        cursor = await application.execute(
            sql.SQL(
                "EXPLAIN SELECT id FROM items WHERE tenant_id = {} ORDER BY embedding <=> '[1,2,3,4,5,6,7,8]' LIMIT 5"
            ).format(tenant)
        )
        assert any("items_embedding" in line for (line,) in await cursor.fetchall())
    await take(pair, tenant, "clean")
    async with pair.engines[0].connection() as root:
        assert await _one(root, f"SELECT to_regclass('t_{there.id}.items_embedding')") is None


@pytest.mark.usefixtures("patient")
async def test_what_a_failed_try_took_from_the_list_is_compared_again(pair: Pair) -> None:
    tenant, record = await under_way(pair, 3)
    site = pair.engines[0].site(record)
    async with await AsyncConnection.connect(
        pair.engines[0].access(record)["dsn"], autocommit=True
    ) as writer:
        for statement in (
            "UPDATE items SET content = 'late' WHERE id = 'seed-1'",
            "UPDATE items SET id = 'renamed' WHERE id = 'seed-2'",
            "DELETE FROM items WHERE id = 'seed-3'",
        ):
            await writer.execute(statement)
    (compared,) = pair.engines[0].compared.values()
    async with pair.engines[0].connection() as root:
        assert await changes.listed(root, site, compared.run) == {"seed-1", "seed-2", "renamed", "seed-3"}
    async with pair.engines[1].own_connection() as root:
        # As if the replication had lost something of it, once it has brought it.
        await root.execute("SET session_replication_role = replica")
        lose = sql.SQL("UPDATE {} SET content = 'early' WHERE id = 'renamed'").format(site.table)
        await until(lambda: root.execute(lose), lambda cursor: cursor.rowcount == 1)
    with pytest.raises(Refused, match="1 of the rows that were written last differ, such as 'renamed'"):
        await pair.mover(tenant).block()
    await until(lambda: pair.mover(tenant).unblock())
    with pytest.raises(Busy, match="compared again"):
        await pair.mover(tenant).block()
    assert "such as 'renamed'" in (await pair.mover(tenant).verify() or "")
    await pair.mover(tenant).clean_target()
    async with pair.engines[0].connection() as root:
        assert await _one(root, "SELECT count(*) FROM tenantry.changes") == 0
        query = "SELECT count(*) FROM pg_trigger WHERE tgname ^@ 'tenantry_' AND tgenabled <> 'D'"
        assert await _one(root, f"{query} AND tgrelid = '{site.role}.items'::regclass") == 0


@pytest.mark.usefixtures("patient")
async def test_a_comparison_that_another_process_has_begun_anew_counts_no_more(pair: Pair) -> None:
    tenant = await admitted(pair)
    for step in STEPS[:3]:
        await take(pair, tenant, step)
    other = Pair(pair.servers)
    await other.connect()
    await take(other, tenant, "verify")
    with pytest.raises(Busy, match="another process has begun"):
        await pair.mover(tenant).block()
    await until(lambda: pair.mover(tenant).unblock())
    mover = other.mover(tenant)
    await mover.block()
    assert await writable(pair, tenant) == []
    await mover.unblock()
    assert await writable(pair, tenant) == [0]
    await mover.close()
    await other.close()


@pytest.mark.usefixtures("patient")
async def test_a_row_that_is_written_all_the_time_keeps_no_move_waiting(pair: Pair) -> None:
    tenant, record = await under_way(pair, 2)
    stopped = asyncio.Event()

    async def write() -> int:
        dsn = pair.engines[0].access(record)["dsn"]
        async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
            for turn in itertools.count():
                try:
                    await connection.execute(
                        "UPDATE items SET content = %s WHERE id = 'seed-1'", (str(turn),)
                    )
                except psycopg.Error as error:
                    if error.sqlstate != fence.HELD:
                        raise
                if stopped.is_set():
                    return turn
        raise AssertionError

    writing = asyncio.create_task(write())
    try:
        for _ in range(5):
            assert await until(lambda: pair.mover(tenant).verify()) is None
        await take(pair, tenant, "block")
        await until(lambda: pair.mover(tenant).unblock())
    finally:
        stopped.set()
        turn = await writing
    assert turn > 5


@pytest.mark.parametrize("last", STEPS[:4])
async def test_it_can_be_rolled_back_before_the_decision_and_done_again(pair: Pair, last: str) -> None:
    tenant = await admitted(pair)
    async with Load(pair, tenant) as load:
        for step in STEPS[: STEPS.index(last) + 1]:
            await take(pair, tenant, step)
        await until(lambda: pair.mover(tenant).clean_target())
        assert await pair.engines[1].find(tenant) is None
        before = load.writes
        await until(lambda: asyncio.sleep(0), lambda _: load.writes > before + 20)
    await load.check(0)
    for step in STEPS:
        await take(pair, tenant, step)
    await load.check(1)


@pytest.mark.parametrize("which", [0, 1], ids=["source", "target"])
@pytest.mark.parametrize("during", STEPS[:4])
async def test_a_server_that_is_killed_delays_the_move_and_loses_nothing(
    pair: Pair, during: str, which: int
) -> None:
    tenant = await admitted(pair)
    async with Load(pair, tenant) as load:
        for step in STEPS[:-1]:
            if step == during:
                going = asyncio.create_task(take(pair, tenant, step))
                await asyncio.sleep(0)
                kill(pair.servers[which].processes())
                await asyncio.to_thread(pair.servers[which].start)
                with suppress(Unavailable, Refused, Busy, TimeoutError):
                    await going
                await pair.connect()
                # As the controller does: who waits in the fence would keep a comparison waiting.
                await until(lambda: pair.mover(tenant).unblock())
                for earlier in STEPS[: STEPS.index(step)]:
                    await take(pair, tenant, earlier)
            await take(pair, tenant, step)
    await load.check(1)
    await take(pair, tenant, "clean")


async def test_only_one_place_takes_writes(pair: Pair) -> None:
    tenant = await admitted(pair)
    seen = {}
    for step in STEPS:
        await take(pair, tenant, step)
        seen[step] = await writable(pair, tenant)
    assert seen == {
        **{step: [0] for step in ("prepare", "copy", "verify")},
        "block": [],
        **{step: [1] for step in ("activate", "redirect", "detach", "clean")},
    }


@pytest.mark.usefixtures("patient")
async def test_a_transaction_that_does_not_end_keeps_nobody_else_waiting(pair: Pair) -> None:
    tenant, record = await under_way(pair, 3)
    dsn = pair.engines[0].access(record)["dsn"]
    async with (
        await AsyncConnection.connect(dsn) as idle,
        await AsyncConnection.connect(dsn, autocommit=True) as busy,
    ):
        await idle.execute("UPDATE items SET content = 'held' WHERE id = 'seed-1'")
        with pytest.raises(Busy, match="does not end"):
            await pair.mover(tenant).block()
        await busy.execute("UPDATE items SET content = 'seed' WHERE id = 'seed-2'")
        await idle.rollback()
    await take(pair, tenant, "block")
    await until(lambda: pair.mover(tenant).unblock())
    assert await writable(pair, tenant) == [0]


async def test_a_writer_with_an_old_snapshot_is_refused_and_nothing_is_lost(pair: Pair) -> None:
    tenant, record = await under_way(pair, 3)
    async with await AsyncConnection.connect(pair.engines[0].access(record)["dsn"]) as old:
        await old.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        await old.execute("SELECT count(*) FROM items")
        for step in STEPS[3:6]:
            await take(pair, tenant, step)
        with pytest.raises(psycopg.Error) as refused:
            await old.execute("UPDATE items SET content = 'late' WHERE id = 'seed-1'")
        assert refused.value.sqlstate in (fence.MOVED, fence.HELD)


async def test_a_write_that_waits_goes_on_when_the_move_is_given_up(pair: Pair) -> None:
    tenant, record = await under_way(pair, 4)
    async with await AsyncConnection.connect(
        pair.engines[0].access(record)["dsn"], autocommit=True
    ) as writer:
        waits = asyncio.create_task(writer.execute("UPDATE items SET content = 'new' WHERE id = 'seed-1'"))
        async with pair.engines[0].connection() as root:
            query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND usename ^@ 't_'"
            await until(lambda: _one(root, query), lambda count: count == 1)
        await until(lambda: pair.mover(tenant).unblock())
        cursor = await waits
        assert cursor.rowcount == 1


async def test_a_place_that_is_closed_in_the_very_moment_of_its_pause_lets_no_write_in(pair: Pair) -> None:
    """Who closes it has read that nothing is held back, and comes to write that when it is."""
    tenant, here = await under_way(pair, 3)
    async with pair.engines[0].own_connection() as root, pair.engines[0].connection() as looks:
        async with root.transaction():
            await hardening.lock(root)
            closes = asyncio.create_task(pair.engines[0].ensure(replace(here.place, open=False), here.place))
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            await until(lambda: _one(looks, waiting), lambda count: count == 1)
            await take(pair, tenant, "block")
        with pytest.raises(Unavailable, match="changed meanwhile"):
            await closes
    now = await pair.engines[0].find(tenant)
    assert now is not None
    assert now.place == replace(here.place, state=PlaceState.BLOCKED)
    async with pair.engines[0].connection() as root:
        table = f"'t_{here.id}.items'::regclass"
        query = f"SELECT tgenabled FROM pg_trigger WHERE tgrelid = {table} AND tgname = '{fence.TRIGGER}'"
        assert await _one(root, query) == "O"  # it is up, and holds writes back


async def test_a_fence_that_could_not_be_taken_down_is_taken_down_by_the_next_look(pair: Pair) -> None:
    tenant, held = await under_way(pair, 4)
    goes_on = replace(held.place, state=PlaceState.OWNER)
    async with pair.engines[0].own_connection() as writes:
        async with writes.transaction():
            table = pair.engines[0].site(held).table
            await writes.execute(sql.SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE").format(table))
            with pytest.raises(Unavailable):
                await pair.engines[0].ensure(goes_on)
        assert (await pair.engines[0].find(tenant)) == replace(held, place=goes_on)
        assert await writable(pair, tenant) == []
    await until(lambda: pair.engines[0].ensure(goes_on))
    assert await writable(pair, tenant) == [0]


async def test_who_comes_late_to_take_a_fence_down_leaves_one_that_holds_writes_back(pair: Pair) -> None:
    tenant, held = await under_way(pair, 4)
    async with pair.engines[0].own_connection() as root:
        await fence.down(root, pair.engines[0].site(held))
    assert await writable(pair, tenant) == []


async def _one(connection: AsyncConnection[Any], query: str) -> Any:
    cursor = await connection.execute(query)
    return (await cursor.fetchone() or (None,))[0]


async def test_a_lost_slot_has_the_copy_begin_anew(pair: Pair) -> None:
    tenant = await admitted(pair)
    for step in STEPS[:2]:
        await take(pair, tenant, step)

    async def drop() -> None:
        async with pair.engines[0].own_connection() as root:
            await root.execute(
                "SELECT pg_terminate_backend(active_pid, 5000), pg_drop_replication_slot(slot_name)"
                " FROM pg_replication_slots WHERE slot_name ^@ 'tenantry_mv_'"
            )

    await until(drop)  # who reads it comes back at once
    assert (await pair.mover(tenant).progress()).lost
    for step in STEPS:
        await take(pair, tenant, step)


async def test_what_is_no_copy_is_never_overwritten(pair: Pair) -> None:
    tenant = await admitted(pair)
    here = await pair.engines[0].find(tenant)
    assert here is not None
    await pair.engines[1].ensure(replace(here.place, epoch=7, state=PlaceState.OWNER))
    with pytest.raises(Refused, match="and no copy"):
        await pair.mover(tenant).prepare(importing(here.place))
    with pytest.raises(Refused, match="and no copy"):
        await pair.mover(tenant).clean_target()


async def test_moves_in_opposite_directions_do_not_wait_for_each_other(pair: Pair) -> None:
    one, other = await admitted(pair), await admitted(pair)
    for step in STEPS:
        await take(pair, other, step)
    back = Pair(pair.servers, pair.engines[::-1])
    record = await pair.engines[1].find(other)
    assert record is not None
    await asyncio.wait_for(
        asyncio.gather(
            take(pair, one, "prepare"),
            until(lambda: back.mover(other).prepare(importing(record.place))),
        ),
        60,
    )
    await asyncio.gather(*(take(each, tenant, "copy") for each, tenant in ((pair, one), (back, other))))
    await back.mover(other).clean_target()


async def test_a_vacuum_of_the_server_that_takes_long_is_ended(
    servers: tuple[PostgresServer, PostgresServer],
) -> None:
    """It holds the lock that a move needs, and the server ends it only for who waits longer than a move does."""
    with PostgresServer(settings={"autovacuum_naptime": "1s"}, durable=False) as one:
        pair = Pair((one, servers[1]))
        await pair.connect()
        tenant = await admitted(pair)
        record = await pair.engines[0].find(tenant)
        assert record is not None
        table = pair.engines[0].site(record).table
        async with pair.engines[0].own_connection() as root:
            # So slow that it would take minutes.
            slow = "vacuum_threshold = 50, vacuum_scale_factor = 0, vacuum_cost_limit = 1, vacuum_cost_delay = 100"
            options = ", ".join(f"autovacuum_{each}" for each in slow.split(", "))
            await root.execute(sql.SQL(f"ALTER TABLE {{}} SET ({options})").format(table))
            more = (
                "INSERT INTO {} (tenant_id, id, embedding)"
                " SELECT {}, 'more-' || n, '[1,2,3,4,5,6,7,8]' FROM generate_series(1, 60000) n"
            )
            await root.execute(sql.SQL(more).format(table, tenant))
            await root.execute(sql.SQL("UPDATE {} SET content = 'dead'").format(table))
            vacuums = (
                f"SELECT min(pid) FROM pg_stat_progress_vacuum WHERE relid = 't_{record.id}.items'::regclass"
            )
            first = await until(lambda: _one(root, vacuums), bool)
            for step in STEPS[:3]:
                await take(pair, tenant, step)
            assert await _one(root, vacuums) != first
            await until(lambda: _one(root, vacuums), bool)
        for step in STEPS[3:]:
            await take(pair, tenant, step)
        await pair.close()


async def test_more_moves_than_a_server_has_room_for_take_turns() -> None:
    """Each would hold a slot, and wait for one more to copy its tables by, for good."""
    few = {"max_replication_slots": "4", "max_logical_replication_workers": "4"}
    first, second = free_ports(2)
    with (
        PostgresServer(port=first, settings=few, durable=False) as one,
        PostgresServer(port=second, settings=few, durable=False) as other,
    ):
        pair = Pair((one, other))
        await pair.connect()
        tenants = [await admitted(pair) for _ in range(5)]
        for tenant in tenants[:2]:
            await take(pair, tenant, "prepare")
        here = await pair.engines[0].find(tenants[2])
        assert here is not None
        with pytest.raises(Busy, match=r"max_\w+ is 4 on the \w+, and all but [0-2] are in use"):
            await pair.mover(tenants[2]).prepare(importing(here.place))

        async def move(tenant: str) -> None:
            for step in STEPS:
                await take(pair, tenant, step)

        await asyncio.gather(*map(move, tenants))
        await nothing_left(pair)
        await pair.close()


async def test_what_is_copied_is_on_the_disk_before_commits_stop_waiting_for_it(pair: Pair) -> None:
    tenant = await admitted(pair)
    waits = "SELECT subsynccommit FROM pg_subscription WHERE subname LIKE %s"
    record = await pair.engines[0].find(tenant)
    assert record is not None
    for step, setting in (("prepare", "on"), ("copy", "off"), ("verify", "off")):
        await take(pair, tenant, step)
        async with pair.engines[1].connection() as target:
            cursor = await target.execute(waits, (f"%{record.id}%",))
            assert await cursor.fetchall() == [(setting,)]
