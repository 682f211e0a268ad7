"""The ledger on the two databases that it runs on, SQLite and PostgreSQL 18, both real."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import shutil
import signal
import sqlite3
import tempfile
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from tenantry.adapters.ledger import Ledger, LedgerError, SqlAuditLog, open_ledger
from tenantry.adapters.ledger.database import async_engine, migration_engine, parse_url
from tenantry.adapters.ledger.migrations import VERSION_TABLE, migrate
from tenantry.adapters.ledger.tables import metadata
from tenantry.domain.audit import AuditEntry
from tenantry.local.ports import free_ports
from tenantry.local.postgres import PostgresServer
from tenantry.reconcile.ports import Unavailable

NOON = datetime(2026, 5, 4, 12, 0, 0, 123456, tzinfo=UTC)
ENTRY = AuditEntry(
    "", NOON, "kubectl", "Updated", "Tenant", "acme", "uid-1", "acme", {"plan": "free"}, {"plan": "pro"}
)
PASSWORD = "tops3cret/:@%"


def entry(number: int, **changes: Any) -> AuditEntry:
    return replace(
        ENTRY, **{"identity": f"uid-1/{number}", "at": NOON + timedelta(seconds=number), **changes}
    )


class Server(PostgresServer):
    """The project's own PostgreSQL, with a user whose password needs escaping, and a database per test."""

    def __init__(self, folder: Path) -> None:
        self.port = free_ports(1)[0]
        super().__init__(folder, port=self.port, durable=False)
        self._databases = count()
        self.start()
        self.execute(f"CREATE ROLE tenantry SUPERUSER LOGIN PASSWORD '{PASSWORD}'")

    def crash(self) -> None:
        pid = int((self.folder / "data" / "postmaster.pid").read_text().splitlines()[0])
        postmaster = psutil.Process(pid)
        postmaster.send_signal(
            signal.SIGQUIT
        )  # PostgreSQL's "immediate": no goodbye, recovery at the next start
        postmaster.wait(timeout=30)

    def url(self, database: str, user: str = "tenantry", password: str = PASSWORD, **options: str) -> str:
        query = "&".join(f"{name}={quote(value)}" for name, value in options.items())
        return f"postgresql://{user}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}?{query}"

    def execute(self, *statements: str) -> None:
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def new_database(self) -> str:
        name = f"ledger{next(self._databases)}"
        self.execute(f"CREATE DATABASE {name}")
        return name


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="tenantry-ledger-"))  # not pytest's, which `nobody` may not enter
    server = Server(folder)
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    server: Server = request.getfixturevalue("server")
    return server.url(server.new_database())


@pytest.fixture
async def ledger(url: str) -> AsyncIterator[Ledger]:
    ledger = await open_ledger(url)
    yield ledger
    await ledger.close()


def raw(url: str) -> AbstractContextManager[Any]:
    """Connect as a stranger would: by the plain driver."""
    if url.startswith("sqlite"):
        return closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None))
    return psycopg.connect(url, autocommit=True)


async def test_each_change_is_kept_once(ledger: Ledger) -> None:
    await ledger.audit.record([entry(1), entry(2), replace(entry(1), message="again, in the same call")])
    await asyncio.gather(*(ledger.audit.record([replace(entry(2), message="again")]) for _ in range(5)))
    await ledger.audit.record([entry(3), replace(entry(1), message="again, with a new one")])
    assert await ledger.audit.entries() == [entry(3), entry(2), entry(1)]


async def test_what_was_recorded_is_there_after_opening_again(url: str) -> None:
    for number in range(3):
        ledger = await open_ledger(url)
        await ledger.audit.record([entry(number)])
        assert len(await ledger.audit.entries()) == number + 1
        assert ledger.durable is url.startswith("postgresql")
        await ledger.close()


async def test_latest_is_by_object_and_identity(ledger: Ledger) -> None:
    told = [
        entry(1, identity="uid-1/Plan/1"),
        entry(2, identity="uid-1/Suspended/1", at=NOON - timedelta(days=1)),  # by another clock
        entry(3, identity="uid-1/plan/1"),
        entry(4, identity="uid-2/Plan/1", uid="uid-2"),
    ]
    await ledger.audit.record(told)
    latest = ledger.audit.latest
    assert await latest("uid-1") == told[2]
    assert await latest("uid-1", "uid-1/Plan/") == told[0]
    assert await latest("uid-1", "uid-1/Suspended/") == told[1]
    assert await latest("uid-1", "uid-2/Plan/") is None
    assert await latest("uid-1", "%") is None
    assert await latest("uid-3") is None


async def test_entries_are_newest_first_and_filtered(ledger: Ledger) -> None:
    told = [entry(number, tenant=("acme", "small", None)[number % 3]) for number in range(30)]
    await ledger.audit.record(told[15:])
    await ledger.audit.record(told[:15])
    entries = ledger.audit.entries
    assert await entries() == told[::-1]
    assert await entries(limit=4) == told[:-5:-1]
    assert await entries(tenant="small") == told[1::3][::-1]
    since = told[20].at.astimezone(timezone(timedelta(hours=-7)))
    assert await entries(since=since) == told[20:][::-1]
    assert await entries(tenant="acme", since=since, limit=2) == [told[27], told[24]]


@pytest.mark.parametrize("offset", [0, 5.5, -11])
async def test_times_come_back_in_utc(ledger: Ledger, offset: float) -> None:
    moment = datetime(2026, 10, 25, 1, 30, 0, 1, tzinfo=timezone(timedelta(hours=offset)))
    await ledger.audit.record([entry(1, at=moment)])
    found = await ledger.audit.latest("uid-1")
    assert found
    assert found.at == moment
    assert found.at.tzinfo is UTC


async def test_values_come_back_as_they_were(ledger: Ledger) -> None:
    large = {
        "spec": {
            "displayName": "Ärzte & Söhne 株式会社 🩺 \u202e",
            "quote": "'; DROP TABLE audit; --",
            "%s": ":name",
        },
        "numbers": [0, -1, 2**63 - 1, 0.1, 1e-9, True, None],
        "members": [{"kind": "User", "name": f"user-{number}@acme.example"} for number in range(20_000)],
    }
    told = entry(1, before=None, after=large, tenant=None, message="nb: ein Satz.\nUnd noch einer\t🙂")
    empty = entry(2, before={}, after=None, actor="", message="")
    await ledger.audit.record([told, empty])
    assert await ledger.audit.entries() == [empty, told]


async def test_text_that_no_database_takes_is_replaced(ledger: Ledger) -> None:
    await ledger.audit.record(
        [entry(1, name="a\0b", after={"k\0": ["\ud800", {"x": "é\udfff"}], "pair": "🙂"})]
    )
    found = await ledger.audit.latest("uid-1")
    assert found == entry(1, name="a\ufffdb", after={"k\ufffd": ["\ufffd", {"x": "é\ufffd"}], "pair": "🙂"})


_STRANGER = """INTO audit (id, identity, at, actor, action, kind, name, uid, message)
    {overriding} VALUES ({id}, '{identity}', '2026-01-01', 'nobody', '', '', '', '', '')"""
_UPSERT = "INSERT {row} ON CONFLICT (identity) DO UPDATE SET actor = excluded.actor"
_ROW = _STRANGER.format(id=9, identity="uid-1/1", overriding="OVERRIDING SYSTEM VALUE")


@pytest.mark.parametrize(
    ("url", "statement"),
    [
        ("sqlite", "UPDATE audit SET actor = 'nobody'"),
        ("sqlite", "DELETE FROM audit"),
        ("postgresql", "UPDATE audit SET actor = 'nobody'"),
        ("postgresql", "DELETE FROM audit WHERE false"),
        ("postgresql", "TRUNCATE audit"),
        ("postgresql", "WITH gone AS (DELETE FROM audit RETURNING *) SELECT * FROM gone"),
        ("postgresql", "SET session_replication_role = replica; DELETE FROM audit"),
        ("postgresql", "MERGE INTO audit USING (SELECT 1) AS one ON true WHEN MATCHED THEN DELETE"),
        ("postgresql", _UPSERT.format(row=_ROW)),
    ],
    indirect=["url"],
)
async def test_the_past_cannot_be_changed(ledger: Ledger, url: str, statement: str) -> None:
    await ledger.audit.record([entry(1), entry(2)])
    refused = r"the audit log is append-only: (UPDATE|DELETE|TRUNCATE) is refused"
    with raw(url) as connection, pytest.raises((sqlite3.Error, psycopg.Error), match=refused):
        connection.execute(statement)
    assert await ledger.audit.entries() == [entry(2), entry(1)]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT OR REPLACE " + _STRANGER.format(id=9, identity="uid-1/1", overriding=""),
        "INSERT OR REPLACE " + _STRANGER.format(id=1, identity="another", overriding=""),
        _UPSERT.format(row=_STRANGER.format(id=9, identity="uid-1/1", overriding="")),
    ],
)
async def test_sqlite_replaces_no_row(ledger: Ledger, url: str, statement: str) -> None:
    await ledger.audit.record([entry(1), entry(2)])
    with raw(url) as connection:
        connection.execute(statement)
    assert await ledger.audit.entries() == [entry(2), entry(1)]


async def test_a_burst_takes_few_transactions(url: str) -> None:
    await asyncio.to_thread(migrate, parse_url(url))
    engine, commits = async_engine(parse_url(url)), list[object]()
    event.listen(engine.sync_engine, "commit", commits.append)
    log = SqlAuditLog(engine)
    await asyncio.gather(*(log.record([entry(number)]) for number in range(300)))
    assert 1 <= len(commits) <= 3
    assert await log.entries(limit=1000) == [entry(number) for number in reversed(range(300))]
    await engine.dispose()


async def test_models_and_migrations_agree(ledger: Ledger, url: str) -> None:
    engine = migration_engine(parse_url(url))
    with engine.connect() as connection:
        # SQLite has no identity columns, which Alembic compares with the defaults.
        options = {
            "compare_server_default": connection.dialect.name != "sqlite",
            "version_table": VERSION_TABLE,
        }
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
    engine.dispose()


def _migrate_at(barrier: Barrier, url: str, failures: multiprocessing.SimpleQueue[str]) -> None:
    parsed = parse_url(url)
    barrier.wait()
    try:
        migrate(parsed)
    except BaseException as error:
        failures.put(repr(error))
        raise


async def test_processes_that_start_at_once_migrate_once(url: str) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, failures = context.Barrier(3), context.SimpleQueue()
    processes = [context.Process(target=_migrate_at, args=(barrier, url, failures)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        await asyncio.to_thread(process.join)
    assert [process.exitcode for process in processes] == [0] * 3, (
        None if failures.empty() else failures.get()
    )
    with raw(url) as connection:
        assert connection.execute(f"SELECT count(*) FROM {VERSION_TABLE}").fetchone() == (1,)


async def test_threads_that_start_at_once_migrate_once(url: str) -> None:
    ledgers = await asyncio.gather(*(open_ledger(url) for _ in range(5)))
    await asyncio.gather(*(ledger.audit.record([entry(1)]) for ledger in ledgers))
    assert await ledgers[0].audit.entries() == [entry(1)]
    await asyncio.gather(*(ledger.close() for ledger in ledgers))


async def test_several_databases_can_be_migrated_at_once(tmp_path: Path) -> None:
    ledgers = await asyncio.gather(
        *(open_ledger(f"sqlite:///{tmp_path / str(number)}") for number in range(8))
    )
    for number, ledger in enumerate(ledgers):
        await ledger.audit.record([entry(number)])
        assert await ledger.audit.entries() == [entry(number)]
        await ledger.close()


async def test_a_failed_migration_leaves_nothing(url: str) -> None:
    with raw(url) as connection:  # the last index of the first revision has a name that is taken
        connection.execute("CREATE TABLE other (x integer)")
        connection.execute("CREATE INDEX ix_audit_uid ON other (x)")
    with pytest.raises(LedgerError, match=r"fails: .*ix_audit_uid.* already exists"):
        await open_ledger(url)
    with raw(url) as connection:
        with pytest.raises((sqlite3.OperationalError, psycopg.errors.UndefinedTable)):
            connection.execute("SELECT 1 FROM audit")
        connection.execute("DROP TABLE other")
    await (await open_ledger(url)).close()


async def test_an_older_operator_works_on_a_newer_schema(url: str, caplog: pytest.LogCaptureFixture) -> None:
    await (await open_ledger(url)).close()
    with raw(url) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
        connection.execute("ALTER TABLE audit ADD COLUMN later integer")
    caplog.set_level(logging.WARNING)
    ledger = await open_ledger(url)
    assert "revision 9999, newer than this version of Tenantry knows" in caplog.text
    await ledger.audit.record([entry(1)])
    assert await ledger.audit.entries() == [entry(1)]
    await ledger.close()
    with raw(url) as connection:
        assert connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone() == ("9999",)


async def test_a_schema_that_is_not_ours_is_refused(url: str) -> None:
    with raw(url) as connection:
        connection.execute(f"CREATE TABLE {VERSION_TABLE} (version_num varchar(32))")
        connection.execute(f"INSERT INTO {VERSION_TABLE} VALUES ('1a2b')")
    with pytest.raises(LedgerError, match=r"revision 1a2b, unknown .* name a database of Tenantry's own"):
        await open_ledger(url)


@pytest.fixture
async def engine(server: Server) -> AsyncIterator[AsyncEngine]:
    url = parse_url(server.url(server.new_database(), options="-c lock_timeout=200ms"))
    await asyncio.to_thread(migrate, url)
    engine = async_engine(url)
    yield engine
    await engine.dispose()


@pytest.mark.parametrize("end", [Server.stop, Server.crash])
async def test_an_outage_reaches_every_call_and_ends_with_it(
    server: Server, engine: AsyncEngine, end: Callable[[Server], None]
) -> None:
    log = SqlAuditLog(engine)
    await log.record([entry(0)])
    await asyncio.to_thread(end, server)
    try:
        outcomes = await asyncio.gather(
            *(log.record([entry(number)]) for number in range(10)),
            log.latest("uid-1"),
            log.entries(),
            return_exceptions=True,
        )
        again = await asyncio.gather(log.record([entry(1)]), return_exceptions=True)
    finally:
        await asyncio.to_thread(server.start)
    for error in [*outcomes, *again]:
        assert isinstance(error, Unavailable), error
        assert str(error).startswith(
            f"the ledger (PostgreSQL at 127.0.0.1:{server.port}, database {engine.url.database}) "
        )
        _holds_no_secret(error)
    assert "connection refused" in str(again[0])
    await log.record([entry(number) for number in range(10)])
    assert await log.entries() == [entry(number) for number in reversed(range(10))]


async def test_a_restart_between_two_calls_is_not_noticed(server: Server, engine: AsyncEngine) -> None:
    log = SqlAuditLog(engine)
    await log.record([entry(0)])
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    await log.record([entry(1)])
    assert await log.entries() == [entry(1), entry(0)]


async def test_calls_in_flight_when_the_server_dies_are_answered(server: Server, engine: AsyncEngine) -> None:
    log, kept, under_way = SqlAuditLog(engine), set[str](), asyncio.Event()

    async def record_until_it_fails(first: int) -> None:
        for number in count(first, 10):
            await log.record([entry(number)])
            kept.add(entry(number).identity)
            if len(kept) == 100:
                under_way.set()

    writers = [asyncio.create_task(record_until_it_fails(first)) for first in range(10)]
    await under_way.wait()
    try:
        await asyncio.to_thread(server.crash)
        errors = await asyncio.gather(*writers, return_exceptions=True)
    finally:
        await asyncio.to_thread(server.start)
    assert [type(error) for error in errors] == [Unavailable] * 10
    assert kept <= {found.identity for found in await log.entries(limit=1_000_000)}


async def test_a_primary_that_becomes_read_only_is_left_and_found_again(
    server: Server, engine: AsyncEngine
) -> None:
    log = SqlAuditLog(engine)
    await log.record([entry(0)])
    server.execute("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    try:
        for sqlstate in ("25006", None):  # refused on the connection from before, then while making a new one
            with pytest.raises(Unavailable, match=r"takes no writes .* name the primary") as met:
                await _until_it_fails(log)
            assert isinstance(met.value.__cause__, DBAPIError)
            assert getattr(met.value.__cause__.orig, "sqlstate", None) == sqlstate
    finally:
        server.execute(
            "SET default_transaction_read_only = off",
            "ALTER SYSTEM RESET default_transaction_read_only",
            "SELECT pg_reload_conf()",
        )
    async with asyncio.timeout(60):
        while True:
            try:
                await log.record([entry(1)])
                break
            except Unavailable:
                continue
    assert await log.latest("uid-1") is not None


async def _until_it_fails(log: SqlAuditLog) -> None:
    for number in range(1_000, 10_000):  # a server's sessions read its new configuration in their own time
        await log.record([entry(number)])


async def test_a_lock_that_stays_is_given_up(engine: AsyncEngine) -> None:
    log = SqlAuditLog(engine)
    async with engine.begin() as stranger:
        await stranger.exec_driver_sql("LOCK TABLE audit IN EXCLUSIVE MODE")
        with pytest.raises(Unavailable, match="is locked by another session"):
            await log.record([entry(1)])
    await log.record([entry(1)])


async def test_a_server_that_cannot_be_used_is_explained(server: Server) -> None:
    server.execute(f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")
    database = server.new_database()
    closed = free_ports(1)[0]
    cases = {
        server.url(database, password="wr0ng" + PASSWORD): "refuses the user or the password: check both in",
        server.url(database, user="stranger"): "refuses the user or the password",
        server.url("nowhere"): 'fails: database "nowhere" does not exist',
        server.url(database, user="guest"): "refuses what its user may not do: let that user create tables",
        server.url(database, sslmode="require"): "fails: server does not support SSL",
        server.url(database, color="blue"): 'fails: invalid connection option "color"',
        server.url(database).replace(
            str(server.port), str(closed)
        ): f"127.0.0.1:{closed}, .*connection refused",
        server.url(database).replace("127.0.0.1", "db.invalid"): r"db.invalid:\d+, .* \(no such host",
        f"postgresql://tenantry@127.0.0.1:{server.port}/{database}": "asks for a password",
    }
    for url, says in cases.items():
        with pytest.raises(LedgerError, match=says) as met:
            await open_ledger(url)
        _holds_no_secret(met.value)
        assert "\n" not in str(met.value)


async def test_a_file_that_cannot_be_used_is_explained(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database\n" * 1_000)
    (tmp_path / "link").symlink_to(tmp_path / "gone" / "ledger.db")
    for name, says in {
        "text": "is not an SQLite database",
        "gone/ledger.db": "has no directory: create .*/gone first",
        ".": "is a directory",
        "link": "cannot be opened: check that the path",
    }.items():
        with pytest.raises(LedgerError, match=says):
            await open_ledger(f"sqlite:///{tmp_path / name}")


def _holds_no_secret(error: BaseException) -> None:
    told = "".join(traceback.format_exception(error))
    assert PASSWORD not in told
    assert quote(PASSWORD, safe="") not in told
