"""The leak canary: a tenant's own session tries to read what is others'.

It logs in by the tenant's own login and password, as an application does: what lets an application through lets it
through. To fail it needs no rows of neighbours: that it may read a table at all is a leak, empty or not. All the same
every shared table has a canary row, which any tenant would find in it.

It asks PostgreSQL first which tables and roles of others it may use: that covers every neighbour in two queries. Then
it tries itself on some of them, each on those next to it by id, so that all are tried by somebody.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.conninfo import make_conninfo

from tenantry.adapters.pgvector.connections import LONGEST, watched
from tenantry.adapters.pgvector.hardening import KEY_TABLE, OWNER, SCHEMA
from tenantry.adapters.pgvector.server import connect, translated
from tenantry.adapters.pgvector.store import NOBODY, Place
from tenantry.domain.places import Record

CLOSEST: Final = 3
"""Neighbours on whom all ways are tried."""

_ANSWER: Final = "tenantry.probe"
"""The setting of the probe's session in which the attempts leave the numbers of those that were let."""

_ATTEMPTS: Final = """
DO $probe$
DECLARE let int[] := '{{}}';
BEGIN
{each}
PERFORM set_config({answer}, array_to_json(let)::text, false);
END $probe$
"""
"""Errors that the block itself catches are not in the server's log, which would be full of them."""

_ATTEMPT: Final = """
BEGIN
EXECUTE {statement}; let := let || {number}; RAISE EXCEPTION 'undone';
EXCEPTION {telling} WHEN OTHERS THEN NULL;
END;
"""

_OUT_OF_PARTITION: Final = "WHEN check_violation THEN let := let || {number};"
"""Row-level security has let a row of another tenant by, and only the partition has stopped it."""

_READABLE: Final = f"""
WITH mine AS MATERIALIZED (
    SELECT 0::oid AS oid UNION ALL SELECT oid FROM pg_roles WHERE pg_has_role(session_user, oid, 'MEMBER')
), others AS MATERIALIZED (
    SELECT c.oid, c.relowner, c.relacl, n.nspname || '.' || c.relname AS name
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname <> %(own)s
       AND (n.nspname = '{SCHEMA}' OR n.nspname ~ '^t_[0-9a-f]{{16}}$')
)
SELECT name FROM others WHERE relowner IN (SELECT oid FROM mine)
UNION SELECT name FROM others, aclexplode(relacl) x WHERE x.grantee IN (SELECT oid FROM mine)
UNION SELECT name FROM others JOIN pg_attribute ON attrelid = others.oid, aclexplode(attacl) x
       WHERE attacl IS NOT NULL AND x.grantee IN (SELECT oid FROM mine)
 ORDER BY 1 LIMIT 5
"""
"""Not by PostgreSQL's own functions for rights, which look up every column of every table."""

_ROLES: Final = f"""
SELECT rolname FROM pg_roles
 WHERE rolname NOT IN (%(own)s, session_user) AND pg_has_role(session_user, oid, 'MEMBER')
   AND (rolname = '{OWNER}' OR rolname ~ '^t_[0-9a-f]{{16}}')
 ORDER BY 1 LIMIT 5
"""

_SUPER: Final = (
    "SELECT rolname FROM pg_roles WHERE rolname IN (%(own)s, session_user) AND (rolsuper OR rolbypassrls)"
)

_FOREIGN: Final = (
    "(SELECT tenant_id FROM {table} WHERE tenant_id < {tenant} LIMIT 1) UNION ALL"
    " (SELECT tenant_id FROM {table} WHERE tenant_id > {tenant} LIMIT 1) UNION ALL"
    " (SELECT tenant_id FROM (SELECT tenant_id FROM {table} LIMIT 100) few WHERE tenant_id <> {tenant} LIMIT 1)"
)
"""Rows of others in one's own table: by what they are called, by a key's order, and without any predicate."""


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A statement that must be denied, and what is said where it is not. telling: errors that are no denial."""

    said: str
    statement: str
    telling: str = ""


_OF_ALL: Final = (
    _Attempt("reads the table that tenants share", "SELECT 1 FROM {parent} LIMIT 1"),
    # Where no row comes out there is nothing to divide by, which is an error.
    _Attempt("reads the canary's row", "SELECT 1 / count(*) FROM {parent} WHERE tenant_id = {nobody}"),
    _Attempt("reads the record of all tenants", f"SELECT 1 FROM {SCHEMA}.owners LIMIT 1"),
    _Attempt("reads the key of all passwords", f"SELECT 1 FROM {KEY_TABLE} LIMIT 1"),
    _Attempt("becomes the owner of all tables", f"SET ROLE {OWNER}"),
    _Attempt("reads how many rows others have (pg_class)", "SELECT max(reltuples) FROM pg_class"),
    _Attempt(
        "reads how many rows others have (pg_stat_user_tables)",
        "SELECT max(n_live_tup) FROM pg_stat_user_tables",
    ),
    _Attempt("reads samples of others' values (pg_stats)", "SELECT 1 FROM pg_stats LIMIT 1"),
    _Attempt("sees the sessions of others (pg_stat_activity)", "SELECT 1 FROM pg_stat_activity LIMIT 1"),
    _Attempt("sees the locks of others (pg_locks)", "SELECT 1 FROM pg_locks LIMIT 1"),
    _Attempt("measures relations", "SELECT pg_total_relation_size('{table}')"),
)

_OF_EACH: Final = (
    _Attempt("reads the table of {name}", "SELECT 1 FROM {other} LIMIT 1"),
    _Attempt(
        "reads rows of {name} in the shared table",
        "SELECT 1 / count(*) FROM (SELECT FROM {parent} WHERE tenant_id = {their} LIMIT 1) one",
    ),
    _Attempt("becomes the role of {name}", "SET ROLE {role}"),
    _Attempt("locks the table of {name}", "LOCK TABLE {other} IN ACCESS SHARE MODE"),
)


_OWN_TABLE: Final = _Attempt(
    "row-level security of its own table lets rows of others by",
    "INSERT INTO {table} (tenant_id, id, embedding) VALUES ({nobody}, '', {vector})",
    _OUT_OF_PARTITION,
)


async def probe(address: str, password: str, record: Record, neighbours: Sequence[Place]) -> Sequence[str]:
    """Return a sentence for each way that let a tenant at what is others'. Raises Refused or Unavailable."""
    mine = Place(record.place.tenant, record.id, record.place.shape)
    login = mine.login(record.place.slot)
    connection = await connect(make_conninfo(address, user=login, password=password))
    try:
        async with connection:
            with watched(connection, LONGEST):
                found = await _rights(connection, mine)
                return found + await _let(connection, _attempts(mine, _closest(mine, neighbours)))
    except psycopg.Error as error:
        raise translated(error) from error


def _closest(mine: Place, neighbours: Iterable[Place]) -> list[Place]:
    """Return the neighbours that come next by id, in a ring."""
    ring = sorted((place for place in neighbours if place.id != mine.id), key=lambda place: place.id)
    at = bisect([place.id for place in ring], mine.id)
    return (ring[at:] + ring[:at])[:CLOSEST]


async def _rights(connection: AsyncConnection[Any], mine: Place) -> list[str]:
    """Ask what the session may, and what it sees in its own table."""
    table = sql.SQL(_FOREIGN).format(table=mine.table, tenant=sql.Literal(mine.tenant))
    found = []
    for said, question in (
        ("row-level security does not hold for role {}", sql.SQL(_SUPER)),
        ("has rights on {}", sql.SQL(_READABLE)),
        ("is a member of role {}", sql.SQL(_ROLES)),
        ("finds a row of {} in its own table", table),
    ):
        cursor = await connection.execute(question, {"own": mine.role})
        found += [said.format(name) for (name,) in await cursor.fetchall()]
    return found


def _attempts(mine: Place, neighbours: Sequence[Place]) -> list[tuple[str, sql.Composable, str]]:
    """Return what to try: what to say where it is let, the statement, and errors that tell the same."""
    names: dict[str, sql.Composable] = {
        "table": mine.table,
        "parent": mine.parent,
        "nobody": sql.Literal(NOBODY),
        "vector": sql.Literal(str([1] * mine.shape.dimensions)),
    }
    found: list[tuple[str, sql.Composable, str]] = [
        (item.said, sql.SQL(item.statement).format(**names), item.telling) for item in (*_OF_ALL, _OWN_TABLE)
    ]
    for other in neighbours:
        theirs = {
            "other": other.table,
            "role": sql.Identifier(other.role),
            "parent": other.parent,
            "their": sql.Literal(other.tenant),
        }
        found += [
            (item.said.format(name=other.tenant), sql.SQL(item.statement).format(**theirs), item.telling)
            for item in _OF_EACH
        ]
    return found


async def _let(
    connection: AsyncConnection[Any], attempts: Sequence[tuple[str, sql.Composable, str]]
) -> list[str]:
    """Try all of them and undo what was let; return what is said of those."""
    each = [
        sql.SQL(_ATTEMPT).format(
            statement=sql.Literal(statement.as_string(connection)),
            number=sql.Literal(number),
            telling=sql.SQL(telling).format(number=sql.Literal(number)),
        )
        for number, (_, statement, telling) in enumerate(attempts)
    ]
    await connection.execute(
        sql.SQL(_ATTEMPTS).format(each=sql.SQL("").join(each), answer=sql.Literal(_ANSWER))
    )
    cursor = await connection.execute("SELECT current_setting(%s)::json", (_ANSWER,))
    (let,) = await cursor.fetchone() or ((),)
    return [attempts[number][0] for number in let]
