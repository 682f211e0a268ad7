"""A server for the engine alone: the catalogue of attacks counts what is on its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from psycopg import AsyncConnection

from tenantry.adapters.pgvector.engine import PgvectorEngine
from tenantry.local.postgres import PostgresServer
from tests.integration.pgvector.conftest import Connection


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    """One server for all tests of this folder; each has tenants of its own."""
    with PostgresServer(durable=False) as running:
        yield running


@pytest.fixture(scope="session")
async def engine(server: PostgresServer) -> AsyncIterator[PgvectorEngine]:
    """The engine of that server, prepared."""
    opened = PgvectorEngine("one", server.dsn())
    assert (await opened.prepare()).unfit is None
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
async def admin(server: PostgresServer, engine: PgvectorEngine) -> AsyncIterator[Connection]:
    """A superuser's connection beside it."""
    async with await AsyncConnection.connect(server.dsn(), autocommit=True) as connection:
        yield connection
