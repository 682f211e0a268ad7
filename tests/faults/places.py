"""Tenants' places on the vector shard of a fault test, beside what there is of them in Kubernetes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from tenantry.adapters.pgvector.engine import PgvectorEngine
from tenantry.local.postgres import PostgresServer

_PLACES = """
SELECT tenant, epoch, state, open, generation, previous, mark, dimensions,
       to_regclass('t_' || id || '.items') IS NOT NULL AS has_table,
       ARRAY(SELECT right(rolname, 1) FROM pg_roles
              WHERE rolcanlogin AND rolname IN ('t_' || id || '_a', 't_' || id || '_b') ORDER BY 1) AS logins
  FROM tenantry.owners WHERE tenant = ANY(%s)
"""
"""What is on record of tenants, whether the table is there, and by which logins somebody gets in."""

_STRAYS = """
SELECT name FROM (SELECT rolname AS name FROM pg_roles UNION SELECT nspname FROM pg_namespace) named
 WHERE name ~ '^t_[0-9a-f]{16}' AND substring(name FROM 3 FOR 16) NOT IN (SELECT id FROM tenantry.owners)
"""
"""Roles and schemas that belong to no place on record."""


class Places:
    """What a shard has of tenants, by its own record and its catalogue."""

    def __init__(self, connection: AsyncConnection[Any], engine: PgvectorEngine) -> None:
        self._connection, self._engine = connection, engine

    async def of(self, tenants: Collection[str]) -> dict[str, dict[str, Any]]:
        """Return the places of tenants, by name; names, times and identities left out."""
        cursor = self._connection.cursor(row_factory=dict_row)
        await cursor.execute(_PLACES, (list(tenants),))
        return {place.pop("tenant"): place for place in await cursor.fetchall()}

    async def strays(self) -> list[str]:
        """Return what must not be at any moment: roles and schemas of nobody."""
        cursor = await self._connection.execute(_STRAYS)
        return [name for (name,) in await cursor.fetchall()]

    async def forget(self, tenants: Iterable[str]) -> None:
        """Remove places while no operator runs: a fresh one would probe them all."""
        for tenant in tenants:
            await self._engine.remove(tenant)


@asynccontextmanager
async def places_on(server: PostgresServer) -> AsyncIterator[Places]:
    """Look at a server as its superuser does."""
    engine = PgvectorEngine("looked-at", server.dsn())
    try:
        async with await AsyncConnection.connect(server.dsn(), autocommit=True) as connection:
            yield Places(connection, engine)
    finally:
        await engine.close()
