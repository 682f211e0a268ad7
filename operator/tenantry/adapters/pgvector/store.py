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

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from psycopg import AsyncConnection, sql

from tenantry.adapters.pgvector.hardening import OWNER, SCHEMA, lock
from tenantry.api.tenant import Metric
from tenantry.domain.vectors import Shape

TABLE: Final = "items"
INDEX: Final = "items_embedding"
LOGINS: Final = ("a", "b")

NOBODY: Final = "/canary"
"""Whose the canary rows are: no tenant can be called that. Every shared table has one, for probes of isolation to try
and read."""

CANARY: Final = "canary"

CONNECTIONS: Final = 20
"""How many sessions each login may have at once: no tenant takes all of a server's."""

_OPERATORS: Final = {Metric.COSINE: "cosine", Metric.L2: "l2", Metric.INNER_PRODUCT: "ip"}


_ITEMS: Final = """
CREATE TABLE {parent} (
    tenant_id   text COLLATE "C" NOT NULL,
    id          text COLLATE "C" NOT NULL,
    embedding   {type} NOT NULL,
    content     text,
    metadata    jsonb NOT NULL DEFAULT '{{}}',
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
) PARTITION BY LIST (tenant_id)
"""
"""What tenants of a shape share."""

GRANTEES: Final = f"""
SELECT DISTINCT r.rolname
  FROM (SELECT (aclexplode(relacl)).grantee FROM pg_class WHERE oid = to_regclass(%(table)s)
        UNION ALL SELECT (aclexplode(attacl)).grantee FROM pg_attribute WHERE attrelid = to_regclass(%(table)s)
        UNION ALL SELECT (aclexplode(nspacl)).grantee FROM pg_namespace WHERE nspname = %(role)s) given
  LEFT JOIN pg_roles r ON r.oid = given.grantee
 WHERE r.rolname IS NULL OR r.rolname NOT IN (%(role)s, '{OWNER}')
"""
"""Who else has a right on a tenant's table or schema; NULL is everybody."""


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
        return sql.Identifier(*self.parent_name.split("."))

    @property
    def parent_name(self) -> str:
        """Return the name of that table."""
        return f"{SCHEMA}.{self.shape.type}_{self.shape.dimensions}"

    @property
    def table(self) -> sql.Identifier:
        """Return the tenant's own table."""
        return sql.Identifier(self.role, TABLE)


async def provision(connection: AsyncConnection[Any], place: Place) -> None:
    """Bring a tenant's place to what it should be; every step may be repeated. Who may log in stays as it is."""
    async with connection.transaction():
        await lock(connection)
        await _roles(connection, place)
        await _parent(connection, place)
        await _table(connection, place)


async def clear(connection: AsyncConnection[Any], place: Place) -> bool:
    """Drop a tenant's table, which is to have another shape; False: it holds rows and stays. In a transaction."""
    cursor = await connection.execute("SELECT to_regclass(%s)", (f"{place.role}.{TABLE}",))
    if await cursor.fetchone() == (None,):
        return True
    await connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(place.table))
    cursor = await connection.execute(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(place.table))
    if await cursor.fetchone() == (True,):
        return False
    await connection.execute(sql.SQL("DROP TABLE {}").format(place.table))
    return True


async def remove(connection: AsyncConnection[Any], place: Place) -> None:
    """End a tenant's sessions and remove its place and all that is in it; what is gone already is no error."""
    await close_logins(connection, place, LOGINS)
    await _detach(connection, place)
    async with connection.transaction():
        await lock(connection)
        await connection.execute(
            sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(place.role))
        )
        for slot in LOGINS:
            await connection.execute(
                sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(place.login(slot)))
            )
        await connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(place.role)))


async def set_password(connection: AsyncConnection[Any], place: Place, slot: str, password: str) -> None:
    """Let applications log in by one of the two roles; the server gets a verifier, not the password."""
    login = place.login(slot)
    verifier = connection.pgconn.encrypt_password(
        password.encode(), login.encode(), b"scram-sha-256"
    ).decode()
    await connection.execute(
        sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(login), sql.Literal(verifier))
    )


async def close_logins(connection: AsyncConnection[Any], place: Place, slots: Iterable[str]) -> None:
    """Let nobody log in by these roles any more, and end the sessions that did."""
    logins = [place.login(slot) for slot in slots]
    cursor = await connection.execute(
        "SELECT rolname FROM pg_authid WHERE rolname = ANY(%s) AND (rolcanlogin OR rolpassword IS NOT NULL)",
        (logins,),
    )
    for (login,) in await cursor.fetchall():
        await connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN PASSWORD NULL").format(sql.Identifier(login)))
    await connection.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = ANY(%s)", (logins,)
    )


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


async def finish_detaching(connection: AsyncConnection[Any], place: Place) -> None:
    """End what `remove` has begun with a tenant's table and not ended: nothing else can be done with it before.

    There can be only one such table of each shape, and it may be another tenant's.
    """
    cursor = await connection.execute(
        "SELECT inhparent::regclass::text, inhrelid::regclass::text FROM pg_inherits"
        " WHERE inhdetachpending AND inhparent = to_regclass(%s)",
        (place.parent_name,),
    )
    for parent, table in await cursor.fetchall():
        await connection.execute(f"ALTER TABLE {parent} DETACH PARTITION {table} FINALIZE")


async def _detach(connection: AsyncConnection[Any], place: Place) -> None:
    """Take a tenant's table out of the shared one, so that dropping it waits for no other tenant.

    Dropping a partition locks the shared table, which a neighbour's open transaction may hold; everybody else's
    inserts would wait behind that. The connection is in autocommit.
    """
    await finish_detaching(connection, place)
    cursor = await connection.execute(
        "SELECT 1 FROM pg_inherits WHERE inhrelid = to_regclass(%s)", (f"{place.role}.{TABLE}",)
    )
    if await cursor.fetchone() is not None:
        await connection.execute(
            sql.SQL("ALTER TABLE {} DETACH PARTITION {} CONCURRENTLY").format(place.parent, place.table)
        )


async def _roles(connection: AsyncConnection[Any], place: Place) -> None:
    logins = {place.login(slot) for slot in LOGINS}
    names = (place.role, *sorted(logins))
    cursor = await connection.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", (list(names),))
    present = {name for (name,) in await cursor.fetchall()}
    for name in names:
        role = sql.Identifier(name)
        if name not in present:
            await connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(role))
        inherit = "INHERIT" if name in logins else "NOINHERIT"
        await connection.execute(
            sql.SQL(
                f"ALTER ROLE {{}} NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOREPLICATION {inherit}"
                " CONNECTION LIMIT {}"
            ).format(role, sql.Literal(CONNECTIONS))
        )
    await _memberships(connection, place)
    for login in sorted(logins):
        await connection.execute(
            sql.SQL("ALTER ROLE {} SET search_path = {}, public").format(
                sql.Identifier(login), sql.Identifier(place.role)
            )
        )


async def _memberships(connection: AsyncConnection[Any], place: Place) -> None:
    """Have the two logins be members of the tenant's role, and nobody else of any, nor they of others."""
    logins = [place.login(slot) for slot in LOGINS]
    cursor = await connection.execute(
        "SELECT roleid::regrole::text, member::regrole::text FROM pg_auth_members"
        " WHERE %(names)s::name[] && ARRAY[(SELECT rolname FROM pg_roles WHERE oid = roleid),"
        " (SELECT rolname FROM pg_roles WHERE oid = member)]",
        {"names": [place.role, *logins]},
    )
    for granted, member in await cursor.fetchall():
        if granted != place.role or member not in logins:
            await connection.execute(
                sql.SQL("REVOKE {} FROM {} CASCADE").format(sql.SQL(granted), sql.SQL(member))
            )
    for login in logins:
        await connection.execute(
            sql.SQL("GRANT {} TO {} WITH ADMIN FALSE, INHERIT TRUE, SET TRUE").format(
                sql.Identifier(place.role), sql.Identifier(login)
            )
        )


async def _parent(connection: AsyncConnection[Any], place: Place) -> None:
    """Make the table that tenants of a shape share; no tenant has any right on it.

    One that is there is left alone: altering it would wait for every tenant's transactions.
    """
    name = f"{place.shape.type}_{place.shape.dimensions}"
    cursor = await connection.execute("SELECT to_regclass(%s)", (f"{SCHEMA}.{name}",))
    if await cursor.fetchone() != (None,):
        return
    shape = place.shape
    canary = sql.Identifier(SCHEMA, f"{CANARY}_{name}")
    parts = {
        "parent": place.parent,
        "type": sql.SQL(f"{shape.type}({shape.dimensions})"),
        "owner": sql.Identifier(OWNER),
        "canary": canary,
        "nobody": sql.Literal(NOBODY),
        "dimensions": sql.Literal(shape.dimensions),
    }
    for statement in (
        _ITEMS,
        "ALTER TABLE {parent} OWNER TO {owner}",
        "ALTER TABLE {parent} ENABLE ROW LEVEL SECURITY",
        "CREATE TABLE {canary} PARTITION OF {parent} FOR VALUES IN ({nobody})",
        "ALTER TABLE {canary} OWNER TO {owner}",
        "ALTER TABLE {canary} ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE {canary} FORCE ROW LEVEL SECURITY",
        "INSERT INTO {canary} VALUES ({nobody}, 'canary', array_fill(1::real, ARRAY[{dimensions}])::{type})",
    ):
        await connection.execute(sql.SQL(statement).format(**parts))


async def _table(connection: AsyncConnection[Any], place: Place) -> None:
    """Make the tenant's own table, or mend it, and let the tenant at it last of all."""
    names = {
        "schema": sql.Identifier(place.role),
        "role": sql.Identifier(place.role),
        "owner": sql.Identifier(OWNER),
        "table": place.table,
        "parent": place.parent,
        "tenant": sql.Literal(place.tenant),
        "who": sql.SQL(f"(SELECT {SCHEMA}.tenant())"),
    }

    async def run(*statements: str) -> None:
        for statement in statements:
            await connection.execute(sql.SQL(statement).format(**names))

    cursor = await connection.execute(
        "SELECT to_regclass(%(table)s), EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass(%(table)s))",
        {"table": f"{place.role}.{TABLE}"},
    )
    table, attached = await cursor.fetchone() or (None, False)
    await run(
        "CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {owner}", "ALTER SCHEMA {schema} OWNER TO {owner}"
    )
    if table is None:
        await run("CREATE TABLE {table} (LIKE {parent} INCLUDING ALL)")
    else:
        await _revoke(connection, place)
    await run(
        "ALTER TABLE {table} OWNER TO {owner}",
        # Applications need not name the tenant; what they name must be it.
        f"ALTER TABLE {{table}} ALTER tenant_id SET DEFAULT {SCHEMA}.tenant()",
        "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        "DROP POLICY IF EXISTS own ON {table}",
        "CREATE POLICY own ON {table} TO {role} USING (tenant_id = {who}) WITH CHECK (tenant_id = {who})",
    )
    if not attached:
        await run("ALTER TABLE {parent} ATTACH PARTITION {table} FOR VALUES IN ({tenant})")
    await run(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {role}",
        "GRANT USAGE ON SCHEMA {schema} TO {role}",
    )


async def _revoke(connection: AsyncConnection[Any], place: Place) -> None:
    """Take from a tenant's table every right and every policy that lets rows out but the tenant's own."""
    cursor = await connection.execute(
        "SELECT polname FROM pg_policy WHERE polrelid = to_regclass(%s) AND polpermissive AND polname <> 'own'",
        (f"{place.role}.{TABLE}",),
    )
    for (name,) in await cursor.fetchall():
        await connection.execute(sql.SQL("DROP POLICY {} ON {}").format(sql.Identifier(name), place.table))
    cursor = await connection.execute(GRANTEES, {"role": place.role, "table": f"{place.role}.{TABLE}"})
    for (grantee,) in await cursor.fetchall():
        who = sql.SQL("PUBLIC") if grantee is None else sql.Identifier(grantee)
        for what in (place.table, sql.SQL("SCHEMA {}").format(sql.Identifier(place.role))):
            await connection.execute(sql.SQL("REVOKE ALL ON {} FROM {} CASCADE").format(what, who))
