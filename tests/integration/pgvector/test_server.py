"""How a shard's server is reached, and what is said where it is not; no password is in any of it."""

from __future__ import annotations

import pytest

from tenantry.adapters.pgvector.server import connect, examine
from tenantry.domain.fitness import unfit
from tenantry.local.ports import free_ports
from tenantry.local.postgres import PostgresServer
from tenantry.reconcile.ports import Refused, Unavailable
from tests.integration.pgvector.conftest import Connection, admit, dsn


async def test_a_server_of_the_package_is_fit(server: PostgresServer, admin: Connection) -> None:
    async with await connect(server.dsn()) as connection:
        facts = await examine(connection)
    assert str(facts) == "PostgreSQL 18.4, pgvector 0.8.5"
    assert unfit(facts) is None


async def test_an_older_pgvector_is_refused(server: PostgresServer, admin: Connection) -> None:
    await admin.execute("UPDATE pg_extension SET extversion = '0.8.1' WHERE extname = 'vector'")
    try:
        async with await connect(server.dsn()) as connection:
            said = unfit(await examine(connection))
    finally:
        await admin.execute("UPDATE pg_extension SET extversion = '0.8.5' WHERE extname = 'vector'")
    assert said is not None
    assert "pgvector 0.8.1" in said
    assert "ALTER EXTENSION vector UPDATE" in said


async def test_an_ordinary_user_is_not_enough(server: PostgresServer, admin: Connection) -> None:
    place = await admit(admin, "ordinary")
    async with await connect(dsn(server, place)) as connection:
        said = unfit(await examine(connection))
    assert said is not None
    assert "no superuser" in said


async def test_what_is_said_of_a_server_that_cannot_be_reached(server: PostgresServer) -> None:
    with pytest.raises(Unavailable) as error:
        await connect(f"postgresql://postgres:hunter2@127.0.0.1:{free_ports(1)[0]}/postgres")
    assert "Connection refused" in str(error.value)
    assert "hunter2" not in str(error.value)


NO_ADDRESS = "is no address: write postgresql://user:password@host:5432/database"


@pytest.mark.parametrize(
    ("find", "replacement", "said"),
    [
        ("//postgres:", "//postgres:wrong", 'password authentication failed for user "postgres"'),
        ("//postgres:", "//nobody:", 'password authentication failed for user "nobody"'),
        ("/postgres", "/nothing", 'database "nothing" does not exist'),
        ("postgresql://postgres", "hunter2 postgresql//postgres", NO_ADDRESS),
        ("postgresql://postgres", "postgresql://postgres:hunter2@[x/", NO_ADDRESS),
    ],
)
async def test_what_is_said_of_an_address_that_is_refused(
    server: PostgresServer, find: str, replacement: str, said: str
) -> None:
    head, _, tail = server.dsn().rpartition(find)
    with pytest.raises(Refused) as error:
        await connect(f"{head}{replacement}{tail}")
    assert str(error.value) == said
