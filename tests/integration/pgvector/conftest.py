"""A PostgreSQL server with two tenants: acme, who attacks, and umbrella, who has something to hide."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo

from tenantry.adapters.pgvector import owners, store
from tenantry.adapters.pgvector.hardening import prepare
from tenantry.adapters.pgvector.store import Place
from tenantry.domain import places
from tenantry.domain.places import id_of
from tenantry.domain.vectors import Shape
from tenantry.local.postgres import PostgresServer

ROWS = 7919
"""Of umbrella: a number that comes up nowhere else."""

OWN_ROWS = 25

SECRET = "umbrella-secret"

Connection = AsyncConnection[Any]


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    """One server for all tests of this folder; each has databases or tenants of its own."""
    with PostgresServer(durable=False) as running:
        yield running


@pytest.fixture(scope="session")
async def admin(server: PostgresServer) -> AsyncIterator[Connection]:
    """The operator's connection to a database that is prepared for tenants."""
    connection = await AsyncConnection.connect(server.dsn(), autocommit=True)
    async with connection:
        await prepare(connection)
        yield connection


async def admit(admin: Connection, tenant: str, dimensions: int = 3) -> Place:
    """Give a tenant a place, with an owner record as the operator writes it, and the password `secret`."""
    place = Place(tenant, id_of(tenant), Shape(dimensions))
    described = places.Place(tenant, tenant, f"digest-of-{tenant}", 1, place.shape, datetime.now(UTC))
    await owners.write(admin, described, place.id)
    await store.provision(admin, place)
    for slot in store.LOGINS:
        await store.set_password(admin, place, slot, "secret")
    return place


def dsn(server: PostgresServer, place: Place, slot: str = "a", **more: Any) -> str:
    """Return how an application of the tenant connects."""
    return make_conninfo(server.dsn(), user=place.login(slot), password="secret", **more)


@pytest.fixture(scope="session")
async def acme(admin: Connection) -> Place:
    """The attacker's place, with some rows."""
    place = await admit(admin, "acme")
    await admin.execute(
        "INSERT INTO tenantry.vector_3 (tenant_id, id, embedding, content)"
        " SELECT 'acme', 'own-' || n, ARRAY[n, 1, 2]::vector(3), 'own text ' || n FROM generate_series(1, %s) n",
        (OWN_ROWS,),
    )
    return place


@pytest.fixture(scope="session")
async def umbrella(admin: Connection) -> Place:
    """The victim's place, with many rows and everything that statistics can know of them."""
    place = await admit(admin, "umbrella")
    await admin.execute(
        "INSERT INTO tenantry.vector_3 (tenant_id, id, embedding, content)"
        " SELECT 'umbrella', 'umb-' || n, ARRAY[n, 5, 6]::vector(3), %s FROM generate_series(1, %s) n",
        (SECRET, ROWS),
    )
    await admin.execute("ANALYZE tenantry.vector_3")
    await admin.execute(psycopg.sql.SQL("ANALYZE {}").format(place.table))
    return place
