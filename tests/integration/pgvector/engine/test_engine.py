"""What the engine does with PostgreSQL that no other engine has."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import psycopg
import pytest
from psycopg import AsyncConnection, sql
from psycopg.conninfo import make_conninfo

from tenantry.adapters.pgvector.connections import Connections, watched
from tenantry.adapters.pgvector.engine import PgvectorEngine
from tenantry.domain.places import Place, Record
from tenantry.local import processes
from tenantry.local.postgres import PostgresServer
from tenantry.reconcile.ports import Refused, Unavailable
from tests.integration.engines.conftest import described
from tests.integration.pgvector.conftest import Connection, admit, dsn

Rows = list[tuple[object, ...]]


async def asked(connection: AsyncConnection[object], question: str, *parameters: object) -> Rows:
    return await (await connection.execute(question, parameters)).fetchall()  # type: ignore[return-value]


async def until(connection: AsyncConnection[object], question: str) -> None:
    """Wait until a question has an answer."""
    async with asyncio.timeout(60):
        while not await asked(connection, question):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.05)


DETACHING = "FROM pg_stat_activity WHERE query ~ '^ALTER TABLE .* DETACH' AND wait_event_type = 'Lock'"

DRIFT = {
    "a password": "ALTER ROLE {role}_a PASSWORD 'another'",
    "a login closed": "ALTER ROLE {role}_a NOLOGIN",
    "a login opened": "ALTER ROLE {role}_b LOGIN PASSWORD 'another'",
    "a right gone": "REVOKE INSERT ON {role}.items FROM {role}",
    "the schema's right gone": "REVOKE USAGE ON SCHEMA {role} FROM {role}",
    "a membership gone": "REVOKE {role} FROM {role}_a",
    "a membership of another": "GRANT {role} TO tenantry_owner",
    "a right for everybody": "GRANT SELECT ON {role}.items TO PUBLIC",
    "a right on a column": "GRANT SELECT (content) ON {role}.items TO PUBLIC",
    "row-level security off": "ALTER TABLE {role}.items DISABLE ROW LEVEL SECURITY",
    "row-level security not forced": "ALTER TABLE {role}.items NO FORCE ROW LEVEL SECURITY",
    "no policy": "DROP POLICY own ON {role}.items",
    "another policy": "CREATE POLICY open ON {role}.items USING (true)",
    "an open policy": "ALTER POLICY own ON {role}.items USING (true)",
    "a policy for all": "ALTER POLICY own ON {role}.items TO PUBLIC",
    "a superuser": "ALTER ROLE {role}_a SUPERUSER",
    "a role that bypasses": "ALTER ROLE {role} BYPASSRLS",
    "no partition": "ALTER TABLE tenantry.vector_3 DETACH PARTITION {role}.items",
    "another owner": "ALTER TABLE {role}.items OWNER TO postgres",
    "no schema": "DROP SCHEMA {role} CASCADE",
}


@pytest.mark.parametrize("what", DRIFT)
async def test_what_somebody_changed_by_hand_is_put_back(
    engine: PgvectorEngine, admin: Connection, what: str
) -> None:
    place = described(f"drift-{sorted(DRIFT).index(what)}")
    record = await engine.ensure(place)
    await admin.execute(DRIFT[what].format(role=f"t_{record.id}"))
    assert (await engine.ensure(place)).place == place
    closed = make_conninfo(engine.access(record)["dsn"], user=f"t_{record.id}_b", password="another")
    with pytest.raises(psycopg.OperationalError, match=r"not permitted|authentication"):
        await AsyncConnection.connect(closed)
    async with await AsyncConnection.connect(engine.access(record)["dsn"]) as application:
        await application.execute("INSERT INTO items (id, embedding) VALUES ('row', '[1,2,3]')")
        assert await asked(application, "SELECT tenant_id, id FROM items") == [(place.tenant, "row")]
    assert await engine.probe(record, []) == []
    before = await admin.execute("SELECT xmin::text FROM tenantry.owners WHERE tenant = %s", (place.tenant,))
    await engine.ensure(place)
    after = await admin.execute("SELECT xmin::text FROM tenantry.owners WHERE tenant = %s", (place.tenant,))
    assert await before.fetchall() == await after.fetchall(), "it is put back once"


async def test_a_tenant_is_removed_while_its_neighbours_are_in_the_middle_of_something(
    engine: PgvectorEngine, admin: Connection
) -> None:
    """A neighbour's open transaction delays it; whoever else inserts waits for neither."""
    holds, leaves, works = [await engine.ensure(described(name)) for name in ("holds", "leaves", "works")]
    insert = "INSERT INTO items (id, embedding) VALUES ('row', '[1,2,3]')"
    async with await AsyncConnection.connect(engine.access(holds)["dsn"]) as open_:
        await open_.execute(insert)
        removal = asyncio.create_task(engine.remove("leaves"))
        await until(admin, f"SELECT 1 {DETACHING}")
        async with await AsyncConnection.connect(engine.access(works)["dsn"], autocommit=True) as other:
            await other.execute("SET statement_timeout = '10s'")
            await other.execute(insert)
        await open_.commit()
    with suppress(Unavailable):  # where all this took longer than it waits
        await removal
    await engine.remove("leaves")
    assert await engine.find("leaves") is None
    assert await engine.ensure(leaves.place)


async def test_a_removal_that_waited_too_long_is_ended_by_the_next_one(
    engine: PgvectorEngine, admin: Connection
) -> None:
    holds, leaves = [await engine.ensure(described(name)) for name in ("holds-on", "leaves-late")]
    async with await AsyncConnection.connect(engine.access(holds)["dsn"]) as open_:
        await open_.execute("INSERT INTO items (id, embedding) VALUES ('row', '[1,2,3]')")
        removal = asyncio.create_task(engine.remove("leaves-late"))
        await until(admin, f"SELECT pg_cancel_backend(pid) {DETACHING}")
        with pytest.raises(Unavailable):
            await removal
        # The same tenant may have come back meanwhile, and another one come.
        assert await engine.ensure(described("comes-meanwhile"))
        assert (await engine.ensure(leaves.place)).place == leaves.place
        assert await engine.probe(leaves, [holds]) == []
    await engine.remove("leaves-late")
    assert await engine.find("leaves-late") is None


async def test_a_second_database_of_a_server_is_no_second_shard(
    server: PostgresServer, engine: PgvectorEngine, admin: Connection
) -> None:
    await engine.ensure(described("in-both"))
    await admin.execute("CREATE DATABASE second")
    other = PgvectorEngine("two", server.dsn("second"))
    await other.prepare()
    with pytest.raises(Refused, match="one server for each VectorShard"):
        await other.ensure(described("in-both"))
    assert await other.find("in-both") is None
    await other.close()


async def test_an_unfit_server_is_not_touched(server: PostgresServer, admin: Connection) -> None:
    await admin.execute("CREATE DATABASE untouched")
    place = await admit(admin, "ordinary-operator")
    engine = PgvectorEngine("one", dsn(server, place, dbname="untouched"))
    fitness = await engine.prepare()
    assert fitness.unfit is not None
    assert "no superuser" in fitness.unfit
    async with await AsyncConnection.connect(server.dsn("untouched")) as inside:
        assert await asked(inside, "SELECT 1 FROM pg_namespace WHERE nspname = 'tenantry'") == []
    await engine.close()


async def test_rows_are_known_after_a_crash_of_the_server() -> None:
    """The counters are lost then; a table never analyzed has about so many rows as fit into it."""
    with TemporaryDirectory(prefix="tenantry-test-") as path:
        Path(path).chmod(0o711)
        server = PostgresServer(Path(path) / "server", durable=False)
        server.start()
        try:
            engine = PgvectorEngine("one", server.dsn())
            await engine.prepare()
            records = [await engine.ensure(described(name)) for name in ("analyzed", "never", "empty")]
            for record in records[:2]:
                async with await AsyncConnection.connect(engine.access(record)["dsn"]) as application:
                    await application.execute(
                        "INSERT INTO items (id, embedding) SELECT n::text, '[1,2,3]' FROM generate_series(1, 3000) n"
                    )
            async with await AsyncConnection.connect(server.dsn(), autocommit=True) as admin:
                await admin.execute(sql.SQL("ANALYZE {}").format(engine.site(records[0]).table))
            await engine.close()
            processes.kill(_processes(server))
            server.start()
            engine = PgvectorEngine("one", server.dsn())
            await engine.prepare()
            rows = {record.place.tenant: record.rows for record in await engine.records()}
            assert rows["analyzed"] == 3000
            assert 1000 < rows["never"] < 9000
            assert rows["empty"] == 0
            await engine.close()
        finally:
            server.stop()


def _processes(server: PostgresServer) -> list[psutil.Process]:
    data = str((server.folder / "data").resolve())
    return [process for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == data]


async def test_a_server_that_hangs_is_given_up(server: PostgresServer, admin: Connection) -> None:
    """It takes what is sent to it and never answers."""
    connections = Connections(server.dsn())
    async with connections.use() as connection:
        process = psutil.Process(connection.info.backend_pid)
    process.send_signal(signal.SIGSTOP)
    try:
        # A connection that was used before is asked whether it answers, and another one taken where it does not.
        async with asyncio.timeout(60), connections.use() as another:
            assert await asked(another, "SELECT 1") == [(1,)]
            hangs = psutil.Process(another.info.backend_pid)
            assert hangs.pid != process.pid
            hangs.send_signal(signal.SIGSTOP)
            try:
                with watched(another, 1.0), pytest.raises(psycopg.OperationalError):
                    await another.execute("SELECT 1")
            finally:
                hangs.send_signal(signal.SIGCONT)
    finally:
        process.send_signal(signal.SIGCONT)
    async with connections.use() as connection:
        assert await asked(connection, "SELECT 1") == [(1,)]
    await connections.close()


async def test_what_was_in_the_middle_of_something_is_not_used_again(server: PostgresServer) -> None:
    connections = Connections(server.dsn(), most=1)

    async def dies() -> None:
        async with connections.use() as connection:
            await connection.execute("BEGIN")
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        await dies()
    async with connections.use() as connection:
        assert connection.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
    with pytest.raises(Unavailable, match="division by zero"):
        async with connections.use() as connection:
            await connection.execute("SELECT 1/0")
    await connections.close()


async def test_no_more_connections_than_a_few(server: PostgresServer, admin: Connection) -> None:
    engine = PgvectorEngine("one", f"{server.dsn()}?application_name=few")
    await engine.prepare()
    wanted: list[Place] = [described(f"few-{number}") for number in range(10)]
    work = asyncio.gather(*(engine.ensure(place) for place in wanted))
    most = 0
    while not work.done():
        found = await asked(
            admin,
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'few'",
        )
        most = max(most, int(str(found[0][0])))
        await asyncio.sleep(0)
    assert len(await work) == 10
    assert 1 <= most <= 4
    await engine.close()


async def test_the_line_is_encrypted_for_applications_as_for_the_operator(server: PostgresServer) -> None:
    engine = PgvectorEngine("one", f"{server.dsn()}?sslmode=prefer&connect_timeout=9")
    await engine.prepare()
    record: Record = await engine.ensure(described("encrypted"))
    assert engine.access(record)["dsn"].endswith("/postgres?sslmode=prefer")
    async with await AsyncConnection.connect(engine.access(record)["dsn"]) as application:
        assert await asked(application, "SELECT 1 FROM items") == []
    assert engine.access(replace(record, rows=3)) == engine.access(record)
    await engine.close()
