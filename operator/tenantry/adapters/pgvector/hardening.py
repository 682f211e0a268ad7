"""What makes a PostgreSQL database fit for tenants that must learn nothing of each other, not even their size.

Row-level security guards rows. What the size or the number of somebody's rows can be read from, PostgreSQL shows to
everybody: the estimates in `pg_class`, the functions that measure relations, the counters of the statistics views,
the sessions and locks of others. None of that is a tenant's business. Advisory locks and large objects belong to all
sessions of a database and would be a way for one tenant to hinder another.

Roles and schemas of tenants have names that tell nothing (see `store`), since every session can list them, and what
policies say names no tenant either. Monitoring keeps its view of everything: what is taken from everybody is given to
PostgreSQL's own role `pg_monitor`.
"""

from __future__ import annotations

from typing import Any, Final

from psycopg import AsyncConnection, sql

from tenantry.adapters.pgvector import changes, fence

SCHEMA: Final = "tenantry"
OWNER: Final = "tenantry_owner"
"""Owns what tenants use. It bypasses row-level security, which applying a replicated row needs, and nobody may log in
as it or become it."""

LOCK: Final = 0x7E4A_A417
"""The advisory lock that serialises changes of the catalogue, among replicas of the operator."""

_TELLING_COLUMNS: Final = ("reltuples", "relpages", "relallvisible", "relallfrozen", "relpartbound")
"""Of `pg_class`: how many rows and pages a relation has, and which tenant's a partition is."""

_TELLING_FUNCTIONS: Final = (
    r"^pg_(relation|table|indexes|total_relation|database|tablespace)_size$",
    r"^pg_stat_get_",
    r"^pg_stat_(have_stats|reset)",
    r"^pg_(lock_status|show_all_file_settings|get_replication_slots|replication_slots)",
    r"^pg_(try_)?advisory_",
    r"^(lo_|loread|lowrite)",
    r"^pg_logical_emit_message$",
    r"^pg_(snapshot|current_xact|xact|last_committed_xact|get_multixact)",
    r"^pg_(notification_queue_usage|blocking_pids|safe_snapshot_blocking_pids|isolation_test)",
    r"^pg_(mcv_list_items|get_partition_constraintdef|current_wal|available_wal|wal_summary|get_wal|control)",
)
"""Names of functions in `pg_catalog`, as patterns."""

_TELLING_VIEWS: Final = r"^pg_(stat|locks$|prepared_xacts$|replication|publication|subscription|largeobject)"
"""Names of views and tables in `pg_catalog`, as a pattern."""

KEY_TABLE: Final = f"{SCHEMA}.key"
"""Of one row: what tenants' passwords are derived from."""

_TABLES: Final = f"""
CREATE TABLE IF NOT EXISTS {SCHEMA}.owners (
    tenant      text COLLATE "C" PRIMARY KEY,
    id          text NOT NULL UNIQUE,
    uid         text NOT NULL,
    epoch       bigint NOT NULL,
    state       text NOT NULL CHECK (state IN ('owner', 'importing', 'blocked', 'moved', 'archived')),
    dimensions  integer NOT NULL,
    metric      text NOT NULL,
    type        text NOT NULL,
    owner       text NOT NULL,
    open        boolean NOT NULL,
    generation  bigint NOT NULL CHECK (generation > 0),
    since       timestamptz NOT NULL,
    mark        text NOT NULL,
    previous    boolean NOT NULL,
    updated_at  timestamptz NOT NULL DEFAULT now()
)
"""

_KEY: Final = f"""
CREATE TABLE IF NOT EXISTS {KEY_TABLE} (
    one  boolean PRIMARY KEY DEFAULT true CHECK (one),
    key  bytea NOT NULL
)
"""

MARKERS: Final = f"{SCHEMA}.markers"
"""What moves send through the replication to see how far it is."""

_MARKERS: Final = f"""
CREATE TABLE IF NOT EXISTS {MARKERS} (
    move    text COLLATE "C" NOT NULL,
    number  bigint NOT NULL,
    PRIMARY KEY (move, number)
)
"""

_WHO: Final = f"""
CREATE OR REPLACE FUNCTION {SCHEMA}.tenant() RETURNS text STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = ''
RETURN (SELECT tenant FROM {SCHEMA}.owners WHERE id = substring(session_user::text FROM '^t_([0-9a-f]{{16}})_[ab]$'))
"""
"""Whose session it is, by the role that logged in, which SET ROLE does not change."""


async def prepare(connection: AsyncConnection[Any]) -> None:
    """Bring a database to what tenants need; every step may be repeated. Needs a superuser."""
    async with connection.transaction():
        await lock(connection)
        await connection.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
        await _owner(connection)
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA} AUTHORIZATION {OWNER}")
        await connection.execute(_TABLES)
        await connection.execute(f"ALTER TABLE {SCHEMA}.owners OWNER TO {OWNER}")
        # Of whoever runs this, a superuser: not even the owner of all else reads it.
        await connection.execute(_KEY)
        await connection.execute(f"REVOKE ALL ON {KEY_TABLE} FROM PUBLIC")
        await connection.execute(_MARKERS)
        await connection.execute(f"ALTER TABLE {MARKERS} OWNER TO {OWNER}")
        await connection.execute(changes.TABLE)
        await connection.execute(changes.INDEX)
        await connection.execute(f"ALTER TABLE {changes.CHANGES} OWNER TO {OWNER}")
        for name, function in (("fence", fence.FUNCTION), ("changed", changes.FUNCTION)):
            await connection.execute(function)
            await connection.execute(f"ALTER FUNCTION {SCHEMA}.{name} OWNER TO {OWNER}")
            await connection.execute(f"REVOKE ALL ON FUNCTION {SCHEMA}.{name} FROM PUBLIC")
        await connection.execute(_WHO)
        await connection.execute(f"ALTER FUNCTION {SCHEMA}.tenant OWNER TO {OWNER}")
        await _close(connection)


async def lock(connection: AsyncConnection[Any]) -> None:
    """Let nobody else change the catalogue of tenants until the end of the transaction."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))


async def _owner(connection: AsyncConnection[Any]) -> None:
    cursor = await connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (OWNER,))
    if await cursor.fetchone() is None:
        await connection.execute(f"CREATE ROLE {OWNER} NOLOGIN BYPASSRLS")


async def _close(connection: AsyncConnection[Any]) -> None:
    """Take from everybody what tells of others; superusers keep it."""
    cursor = await connection.execute("SELECT current_database()")
    (database,) = await cursor.fetchone() or ("",)
    await connection.execute(
        sql.SQL("REVOKE CREATE, TEMPORARY ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database))
    )
    await connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    await _close_class(connection)
    cursor = await connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('v', 'r')"
        " AND relname ~ %s",
        (_TELLING_VIEWS,),
    )
    for (name,) in await cursor.fetchall():
        await _to_monitors(connection, sql.SQL("pg_catalog.{}").format(sql.Identifier(name)), "SELECT")
    cursor = await connection.execute(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace"
        " AND proname ~ ANY(%s)",
        (list(_TELLING_FUNCTIONS),),
    )
    for (signature,) in await cursor.fetchall():
        await _to_monitors(connection, sql.SQL("FUNCTION {}").format(sql.SQL(signature)), "EXECUTE")


async def _to_monitors(connection: AsyncConnection[Any], what: sql.Composed, right: str) -> None:
    await connection.execute(sql.SQL("REVOKE ALL ON {} FROM PUBLIC").format(what))
    await connection.execute(sql.SQL("GRANT {} ON {} TO pg_monitor").format(sql.SQL(right), what))


async def _close_class(connection: AsyncConnection[Any]) -> None:
    """Leave of `pg_class` to everybody all columns but those that count rows."""
    cursor = await connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'pg_class'::regclass AND NOT attisdropped"
        " AND attname <> ALL(%s) ORDER BY attnum",
        (list(_TELLING_COLUMNS),),
    )
    columns = sql.SQL(", ").join(sql.Identifier(name) for (name,) in await cursor.fetchall())
    await connection.execute("REVOKE SELECT ON pg_catalog.pg_class FROM PUBLIC")
    await connection.execute(sql.SQL("GRANT SELECT ({}) ON pg_catalog.pg_class TO PUBLIC").format(columns))
