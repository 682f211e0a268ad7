"""A tenant's place in a PostgreSQL database: roles, a schema of its own, a table with row-level security.

    t_<id>          NOLOGIN   the policies and rights name this one
    t_<id>_a, _b    LOGIN     members of it; one is in use, the other one is for the next password
    t_<id>.items              the tenant's table: a partition of tenantry.<type>_<dimensions>

Tenants of one shape share a partitioned table, in which each has a partition of its own from the beginning. Two
tenants in one partition could count each other's rows, whatever row-level security says: `EXPLAIN ANALYZE` of a
sequential scan, which any session can ask for, tells how many rows the policy has removed. What a tenant that
grows gets is an approximate index on its partition.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from psycopg import AsyncConnection, sql

from tenantry.adapters.pgvector.hardening import LOCK, OWNER, SCHEMA
from tenantry.api.tenant import Metric
from tenantry.domain.vectors import Shape

TABLE: Final = "items"
INDEX: Final = "items_embedding"
LOGINS: Final = ("a", "b")

CONNECTIONS: Final = 20
"""How many sessions each login may have at once: no tenant takes all of a server's."""

_OPERATORS: Final = {Metric.COSINE: "cosine", Metric.L2: "l2", Metric.INNER_PRODUCT: "ip"}


@dataclass(frozen=True, slots=True)
class Place:
    """A tenant on this server. id: what its roles and its schema are called after; it tells nothing."""

    tenant: str
    id: str
    shape: Shape

    @property
    def role(self) -> str:
        """Return the role that policies name."""
        return f"t_{self.id}"

    def login(self, slot: str) -> str:
        """Return one of the two roles that applications log in as: slot a or b."""
        return f"{self.role}_{slot}"

    @property
    def parent(self) -> sql.Identifier:
        """Return the partitioned table of all tenants of this shape."""
        return sql.Identifier(SCHEMA, f"{self.shape.type}_{self.shape.dimensions}")

    @property
    def table(self) -> sql.Identifier:
        """Return the tenant's own table."""
        return sql.Identifier(self.role, TABLE)


def id_of(uid: str) -> str:
    """Return the id of a tenant by the UID that it was first seen with: random, so nobody can guess it."""
    return sha256(uid.encode()).hexdigest()[:16]


async def provision(connection: AsyncConnection[Any], place: Place) -> None:
    """Make all of a tenant's place that is not there; every step may be repeated. Nobody can log in yet."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        await _roles(connection, place)
        await _parent(connection, place)
        cursor = await connection.execute("SELECT to_regclass(%s)", (f"{place.role}.{TABLE}",))
        if await cursor.fetchone() == (None,):
            await _table(connection, place)


async def remove(connection: AsyncConnection[Any], place: Place) -> None:
    """End a tenant's sessions and remove its place and all that is in it; what is gone already is no error."""
    logins = [place.login(slot) for slot in LOGINS]
    await _end_sessions(connection, logins)
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        await connection.execute(
            sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(place.role))
        )
        for role in (*logins, place.role):
            await connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))


async def set_password(connection: AsyncConnection[Any], place: Place, slot: str, password: str) -> None:
    """Let applications log in by one of the two roles; the server gets a verifier, not the password."""
    login = place.login(slot)
    verifier = connection.pgconn.encrypt_password(
        password.encode(), login.encode(), b"scram-sha-256"
    ).decode()
    await connection.execute(
        sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(login), sql.Literal(verifier))
    )


async def close_login(connection: AsyncConnection[Any], place: Place, slot: str) -> None:
    """Let nobody log in by one of the two roles any more, and end the sessions that did."""
    login = place.login(slot)
    await connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN PASSWORD NULL").format(sql.Identifier(login)))
    await _end_sessions(connection, [login])


async def build_index(connection: AsyncConnection[Any], place: Place) -> bool:
    """Build the approximate index while the application goes on; False: no index takes so many dimensions.

    The connection is in autocommit. An index that a crash left half built is built anew.
    """
    kind = place.shape.index_type
    if kind is None:
        return False
    cursor = await connection.execute(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", (f"{place.role}.{INDEX}",)
    )
    found = await cursor.fetchone()
    if found == (True,):
        return True
    index = sql.Identifier(place.role, INDEX)
    if found is not None:
        await connection.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(index))
    column: sql.Composable = sql.SQL("embedding")
    if kind != place.shape.type:
        column = sql.SQL("(embedding::{})").format(sql.SQL(f"{kind}({place.shape.dimensions})"))
    await connection.execute(
        sql.SQL("CREATE INDEX CONCURRENTLY {} ON {} USING hnsw ({} {})").format(
            sql.Identifier(INDEX),
            place.table,
            column,
            sql.SQL(f"{kind}_{_OPERATORS[place.shape.metric]}_ops"),
        )
    )
    return True


async def _end_sessions(connection: AsyncConnection[Any], logins: list[str]) -> None:
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = ANY(%s)", (logins,)
    )


async def _roles(connection: AsyncConnection[Any], place: Place) -> None:
    cursor = await connection.execute("SELECT rolname FROM pg_roles WHERE rolname ^@ %s", (place.role,))
    present = {name for (name,) in await cursor.fetchall()}
    role = sql.Identifier(place.role)
    if place.role not in present:
        await connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(role))
    for slot in LOGINS:
        if place.login(slot) in present:
            continue
        login = sql.Identifier(place.login(slot))
        await connection.execute(
            sql.SQL("CREATE ROLE {} NOLOGIN INHERIT CONNECTION LIMIT {} IN ROLE {}").format(
                login, sql.Literal(CONNECTIONS), role
            )
        )
        await connection.execute(
            sql.SQL("ALTER ROLE {} SET search_path = {}, public").format(login, sql.Identifier(place.role))
        )


async def _parent(connection: AsyncConnection[Any], place: Place) -> None:
    """Make the table that tenants of a shape share; no tenant has any right on it."""
    shape = place.shape
    await connection.execute(
        sql.SQL(
            "CREATE TABLE IF NOT EXISTS {} ("
            ' tenant_id text COLLATE "C" NOT NULL,'
            ' id text COLLATE "C" NOT NULL,'
            " embedding {} NOT NULL,"
            " content text,"
            " metadata jsonb NOT NULL DEFAULT '{{}}',"
            " created_at timestamptz NOT NULL DEFAULT now(),"
            " PRIMARY KEY (tenant_id, id)"
            ") PARTITION BY LIST (tenant_id)"
        ).format(place.parent, sql.SQL(f"{shape.type}({shape.dimensions})"))
    )
    await connection.execute(
        sql.SQL("ALTER TABLE {} OWNER TO {}").format(place.parent, sql.Identifier(OWNER))
    )
    await connection.execute(sql.SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(place.parent))


async def _table(connection: AsyncConnection[Any], place: Place) -> None:
    """Make the tenant's own table, and let the tenant at it last of all."""
    schema, role, owner = sql.Identifier(place.role), sql.Identifier(place.role), sql.Identifier(OWNER)
    names = {
        "schema": schema,
        "role": role,
        "owner": owner,
        "table": place.table,
        "parent": place.parent,
        "tenant": sql.Literal(place.tenant),
        "who": sql.SQL(f"(SELECT {SCHEMA}.tenant())"),
    }
    for statement in (
        "CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {owner}",
        "CREATE TABLE {table} (LIKE {parent} INCLUDING ALL)",
        "ALTER TABLE {table} OWNER TO {owner}",
        # Applications need not name the tenant; what they name must be it.
        f"ALTER TABLE {{table}} ALTER tenant_id SET DEFAULT {SCHEMA}.tenant()",
        "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        "CREATE POLICY own ON {table} TO {role} USING (tenant_id = {who}) WITH CHECK (tenant_id = {who})",
        "ALTER TABLE {parent} ATTACH PARTITION {table} FOR VALUES IN ({tenant})",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {role}",
        "GRANT USAGE ON SCHEMA {schema} TO {role}",
    ):
        await connection.execute(sql.SQL(statement).format(**names))
