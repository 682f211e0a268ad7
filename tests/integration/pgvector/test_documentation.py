"""The SQL of docs/vectors.md, run as an application of a tenant runs it: each does what the text says of it."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection, AsyncRawCursor

from tenantry.adapters.pgvector import store
from tenantry.adapters.pgvector.store import CONNECTIONS, Place
from tenantry.domain.places import id_of
from tenantry.local.postgres import PostgresServer
from tests.conftest import REPOSITORY
from tests.integration.pgvector.conftest import Connection, admit, dsn

TEXT = (REPOSITORY / "docs/vectors.md").read_text()
TABLE, INSERT, SEARCH = re.findall(r"^```sql\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
HINT, QUERY = (f"{statement.strip()};" for statement in SEARCH.split(";")[:2])

WRITER = "writer"
OTHER = "another"
"""The other tenant of the same server."""

VECTORS = {"near": [1.0, 0.1], "far": [0.1, 1.0], "long": [6.0, 1.5], "elsewhere": [1.0, 0.0]}


def embedding(*first: float, dimensions: int = 3) -> str:
    """Return a vector as text, as an application sends it."""
    return str([*first, *[0.0] * (dimensions - len(first))])


def of(tenant: str, statement: str) -> str:
    """Return a statement of the page for another tenant than acme."""
    assert "'acme'" in statement
    return statement.replace("'acme'", f"'{tenant}'")


@pytest.fixture(scope="module")
async def writer(admin: Connection) -> Place:
    """A tenant's place with the dimensions of the page."""
    await admit(admin, OTHER)
    return await admit(admin, WRITER, 1536)


@pytest.fixture
async def session(server: PostgresServer, writer: Place) -> AsyncIterator[Connection]:
    """An application's connection, whose statements take $1 as they stand on the page."""
    connect = AsyncConnection.connect(dsn(server, writer), cursor_factory=AsyncRawCursor)
    async with await connect as connection:
        yield connection
        await connection.rollback()


async def columns(connection: Connection, table: str) -> dict[str, tuple[Any, ...]]:
    """Return type, whether it may be null and the default of each column; and the primary key."""
    cursor = await connection.execute(
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid)"
        " FROM pg_attribute LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)"
        " WHERE attrelid = $1::regclass AND attnum > 0",
        (table,),
    )
    found = {name: tuple(rest) for name, *rest in await cursor.fetchall()}
    cursor = await connection.execute(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = $1::regclass AND contype = 'p'",
        (table,),
    )
    return {**found, "key": tuple(await cursor.fetchall())}


async def test_the_table_is_as_it_is_described(
    server: PostgresServer, admin: Connection, session: Connection
) -> None:
    connect = AsyncConnection.connect(server.dsn(), cursor_factory=AsyncRawCursor)
    async with await connect as described:  # and rolled back
        await described.execute("CREATE SCHEMA described")
        await described.execute("SET LOCAL search_path = described, public")
        await described.execute(TABLE)
        page = await columns(described, "items")
        await described.rollback()
    there = await columns(session, "items")
    kind, null, default = page.pop("tenant_id")
    assert there.pop("tenant_id") == (kind, null, "tenantry.tenant()"), "filled in by itself"
    assert default is None
    assert there == page


async def test_a_row_is_inserted_then_replaced_and_belongs_to_the_tenant(session: Connection) -> None:
    await session.execute(INSERT, ("a", embedding(1, dimensions=1536), "first", '{"topic": "billing"}'))
    cursor = await session.execute("SELECT tenant_id, content, created_at FROM items")
    ((tenant, content, created),) = await cursor.fetchall()
    assert (tenant, content) == (WRITER, "first")
    await session.commit()
    await session.execute(INSERT, ("a", embedding(0, 1, dimensions=1536), "second", "{}"))
    cursor = await session.execute("SELECT content, metadata, embedding::real[], created_at FROM items")
    ((content, metadata, vector, again),) = await cursor.fetchall()
    assert (content, metadata, vector[:2]) == ("second", {}, [0, 1])
    assert again > created
    await session.execute("DELETE FROM items")
    await session.commit()


async def test_another_tenant_id_is_not_accepted(session: Connection) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await session.execute(
            "INSERT INTO items (tenant_id, id, embedding) VALUES ($1, 'a', $2)",
            (OTHER, embedding(1, dimensions=1536)),
        )


def cosine(one: list[float], other: list[float]) -> float:
    return 1 + negated_product(one, other) / math.hypot(*one) / math.hypot(*other)


def negated_product(one: list[float], other: list[float]) -> float:
    return -sum(map(float.__mul__, one, other))


DISTANCES = {"cosine": cosine, "l2": math.dist, "innerProduct": negated_product}


@pytest.mark.parametrize("metric", DISTANCES)
async def test_a_search_finds_what_is_near_and_passes_the_filter(session: Connection, metric: str) -> None:
    for name, vector in VECTORS.items():
        topic = "other" if name == "elsewhere" else "billing"
        row = (name, embedding(*vector, dimensions=1536), f"text {name}", f'{{"topic": "{topic}"}}')
        await session.execute(INSERT, row)
    (operator,) = re.findall(rf"`(<.>)` (?:is )?for `{metric}`", TEXT)
    await session.execute(HINT)
    asked = of(WRITER, QUERY).replace("<=>", operator)
    cursor = await session.execute(asked, (embedding(1, dimensions=1536),))
    found = await cursor.fetchall()
    wanted = {
        name: DISTANCES[metric]([1.0, 0.0], vector) for name, vector in VECTORS.items() if name != "elsewhere"
    }
    assert [name for name, *_ in found] == sorted(wanted, key=wanted.__getitem__)
    for name, content, distance in found:
        assert content == f"text {name}"
        assert distance == pytest.approx(wanted[name], abs=1e-6)


async def test_with_an_index_the_setting_keeps_a_filter_from_leaving_too_few(
    server: PostgresServer, admin: Connection
) -> None:
    place = await admit(admin, "filters")
    await admin.execute(
        "INSERT INTO tenantry.vector_3 (tenant_id, id, embedding, metadata)"
        " SELECT 'filters', n, ARRAY[cos(n * 0.0005), sin(n * 0.0005), 0]::vector(3),"
        " jsonb_build_object('topic', CASE WHEN n > 2900 THEN 'billing' ELSE 'other' END)"
        " FROM generate_series(1, 3000) n"
    )
    assert await store.build_index(admin, place)
    connect = AsyncConnection.connect(dsn(server, place), cursor_factory=AsyncRawCursor)
    async with await connect as connection:
        await connection.execute("SET enable_sort = off")  # so few rows would be looked at one by one
        plain = await connection.execute(of("filters", QUERY), (embedding(1),))
        assert len(await plain.fetchall()) < 5
        await connection.execute(HINT)
        whole = await connection.execute(of("filters", QUERY), (embedding(1),))
        assert [name for name, *_ in await whole.fetchall()] == ["2901", "2902", "2903", "2904", "2905"]


async def test_too_many_dimensions_for_an_index_are_searched_as_halfvec(
    server: PostgresServer, admin: Connection
) -> None:
    (expression,) = re.findall(r"search with `(.*?)`", TEXT)
    place = await admit(admin, "wide", 3072)
    assert await store.build_index(admin, place)
    wide = of("wide", QUERY).replace("embedding <=> $1", expression)
    connect = AsyncConnection.connect(dsn(server, place), cursor_factory=AsyncRawCursor)
    async with await connect as connection:
        for row in range(1, 6):
            vector = embedding(1, row, dimensions=3072)
            await connection.execute(INSERT, (f"row-{row}", vector, None, '{"topic": "billing"}'))
        await connection.execute("SET enable_sort = off")
        asked = (embedding(1, dimensions=3072),)
        assert "items_embedding" in await plan(connection, wide, asked)
        assert "items_embedding" not in await plan(connection, of("wide", QUERY), asked)
        found = await (await connection.execute(wide, asked)).fetchall()
        assert [name for name, *_ in found] == [f"row-{row}" for row in range(1, 6)]


async def plan(connection: Connection, query: str, parameters: tuple[Any, ...]) -> str:
    cursor = await connection.execute(f"EXPLAIN {query}", parameters)
    return "\n".join(line for (line,) in await cursor.fetchall())


LIMITS = {
    "No temporary tables": ("CREATE TEMPORARY TABLE mine (a int)", "42501"),
    "no tables of your own": ("CREATE TABLE mine (a int)", "42501"),
    "no `TRUNCATE`": ("TRUNCATE items", "42501"),
    "no `COPY FROM`": ("COPY items (id, embedding) FROM STDIN", "0A000"),
    "no advisory locks": ("SELECT pg_advisory_lock(1)", "42501"),
    "no large objects": ("SELECT lo_create(0)", "42501"),
    "Statistics": ("SELECT * FROM pg_stats", "42501"),
    "size functions": ("SELECT pg_table_size('items')", "42501"),
}
"""What the page says that there is not, and how it is refused."""


@pytest.mark.parametrize("limit", LIMITS)
async def test_what_the_page_rules_out_is_refused(session: Connection, limit: str) -> None:
    _, _, limits = TEXT.partition("## Limits")
    assert limit in limits
    statement, state = LIMITS[limit]
    with pytest.raises(psycopg.Error) as error:
        await session.execute(statement)
    assert error.value.sqlstate == state


async def test_whoever_listens_hears_other_tenants(
    server: PostgresServer, writer: Place, session: Connection
) -> None:
    """No right of PostgreSQL's can be taken away here: the page warns of it."""
    assert "do not use `LISTEN` and `NOTIFY`" in TEXT
    other = Place(OTHER, id_of(OTHER), writer.shape)
    async with await AsyncConnection.connect(dsn(server, other), autocommit=True) as speaker:
        await session.execute("LISTEN news")
        await session.commit()
        await speaker.execute("NOTIFY news, 'from another tenant'")
        heard = [notice.payload async for notice in session.notifies(timeout=20, stop_after=1)]
    assert heard == ["from another tenant"]


async def test_so_many_sessions_at_a_time(server: PostgresServer, admin: Connection) -> None:
    assert f"- {CONNECTIONS} sessions at a time" in TEXT
    place = await admit(admin, "crowd")
    opened = [await AsyncConnection.connect(dsn(server, place)) for _ in range(CONNECTIONS)]
    with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
        await AsyncConnection.connect(dsn(server, place))
    for connection in opened:
        await connection.close()


async def test_credentials_that_are_not_valid_any_more(server: PostgresServer, admin: Connection) -> None:
    place = await admit(admin, "replaced")
    async with await AsyncConnection.connect(dsn(server, place), autocommit=True) as connection:
        await store.close_logins(admin, place, ("a",))
        with pytest.raises(psycopg.errors.AdminShutdown):  # 57P01
            await connection.execute("SELECT 1")
    for _ in ("closed", "replaced"):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed") as error:
            await AsyncConnection.connect(dsn(server, place))
        assert error.value.sqlstate is None, "psycopg names no SQLSTATE then, says the page"
        await store.set_password(admin, place, "a", "another")
