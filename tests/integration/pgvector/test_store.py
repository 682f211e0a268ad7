"""A tenant's place: made twice is made once, two logins that take turns, an index that is built meanwhile."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import AsyncConnection, sql

from tenantry.adapters.pgvector import store
from tenantry.adapters.pgvector.hardening import prepare
from tenantry.adapters.pgvector.store import Place
from tenantry.api.tenant import Metric, VectorType
from tenantry.domain.places import id_of
from tenantry.domain.vectors import Shape
from tenantry.local.postgres import PostgresServer
from tests.integration.pgvector.conftest import Connection, admit, dsn

CATALOGUE = """
SELECT 'class', oid::regclass::text, relowner::regrole::text, relacl::text, relrowsecurity::text FROM pg_class
 WHERE relnamespace <> 'pg_toast'::regnamespace
UNION ALL SELECT 'role', rolname, rolcanlogin::text, rolconnlimit::text, rolconfig::text FROM pg_roles
UNION ALL SELECT 'function', oid::regprocedure::text, proacl::text, proowner::regrole::text, '' FROM pg_proc
UNION ALL SELECT 'policy', polrelid::regclass::text, polname, polroles::text, '' FROM pg_policy
ORDER BY 1, 2, 3
"""


async def everything(admin: Connection) -> list[tuple[str, ...]]:
    return await (await admin.execute(CATALOGUE)).fetchall()


async def indexes(admin: Connection, place: Place) -> list[tuple[str, bool]]:
    """Return each index of a tenant's table but that of its key, and whether it is valid."""
    cursor = await admin.execute(
        "SELECT indexdef, indisvalid FROM pg_indexes JOIN pg_index ON indexrelid = format('%%I.%%I', schemaname,"
        " indexname)::regclass WHERE schemaname = %s AND NOT indisprimary",
        (place.role,),
    )
    return await cursor.fetchall()


async def test_what_is_made_twice_is_made_once(admin: Connection) -> None:
    await admit(admin, "twice")
    before = await everything(admin)
    await prepare(admin)
    await admit(admin, "twice")
    assert await everything(admin) == before


async def test_nobody_can_log_in_before_there_is_a_password(
    server: PostgresServer, admin: Connection
) -> None:
    place = await admit(admin, "closed")
    await store.close_logins(admin, place, store.LOGINS)
    for slot in store.LOGINS:
        with pytest.raises(psycopg.OperationalError, match=r"not permitted to log in|password"):
            await AsyncConnection.connect(dsn(server, place, slot))


async def test_credentials_take_turns_and_no_session_of_the_new_one_ends(
    server: PostgresServer, admin: Connection
) -> None:
    place = await admit(admin, "turns")
    old = await AsyncConnection.connect(dsn(server, place, "a"), autocommit=True)
    new = await AsyncConnection.connect(dsn(server, place, "b"), autocommit=True)
    await old.execute("INSERT INTO items (id, embedding) VALUES ('1', '[1,2,3]')")
    await store.close_logins(admin, place, "a")
    with pytest.raises(psycopg.OperationalError):
        await old.execute("SELECT 1")
    assert await (await new.execute("SELECT id, tenant_id FROM items")).fetchall() == [("1", "turns")]
    await store.set_password(admin, place, "a", "another")
    async with await AsyncConnection.connect(dsn(server, place, "a").replace("secret", "another")):
        pass
    await old.close()
    await new.close()


async def test_the_server_is_not_told_a_password(admin: Connection) -> None:
    place = await admit(admin, "verifier")
    cursor = await admin.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", (place.login("a"),))
    (stored,) = await cursor.fetchone() or ("",)
    assert stored.startswith("SCRAM-SHA-256$")


@pytest.mark.parametrize(
    ("shape", "definition"),
    [
        (Shape(16), "hnsw (embedding vector_cosine_ops)"),
        (Shape(16, Metric.L2), "hnsw (embedding vector_l2_ops)"),
        (Shape(16, Metric.INNER_PRODUCT, VectorType.HALFVEC), "hnsw (embedding halfvec_ip_ops)"),
        (Shape(3072), "hnsw (((embedding)::halfvec(3072)) halfvec_cosine_ops)"),
        (Shape(5000), None),
    ],
)
async def test_the_index_is_that_of_the_shape(
    admin: Connection, shape: Shape, definition: str | None
) -> None:
    name = f"index-{shape.dimensions}-{shape.metric}-{shape.type}"
    place = Place(name, id_of(name), shape)
    await store.provision(admin, place)
    assert await store.build_index(admin, place) is (definition is not None)
    assert await store.build_index(admin, place) is (definition is not None)
    found = [(text.partition("USING ")[2], valid) for text, valid in await indexes(admin, place)]
    assert found == ([(definition, True)] if definition else [])


async def test_an_index_that_a_crash_left_half_built_is_built_anew(admin: Connection) -> None:
    place = await admit(admin, "half")
    await store.build_index(admin, place)
    await admin.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass",
        (f"{place.role}.{store.INDEX}",),
    )
    assert [valid for _, valid in await indexes(admin, place)] == [False]
    await store.build_index(admin, place)
    assert [valid for _, valid in await indexes(admin, place)] == [True]


async def test_the_application_uses_the_index_without_naming_its_tenant(
    server: PostgresServer, admin: Connection
) -> None:
    place = await admit(admin, "searches")
    async with await AsyncConnection.connect(dsn(server, place), autocommit=True) as application:
        await application.execute(
            "INSERT INTO items (id, embedding) SELECT n::text, ARRAY[n, n % 7, 1]::vector(3)"
            " FROM generate_series(1, 3000) n"
        )
        await store.build_index(admin, place)
        await admin.execute(sql.SQL("ANALYZE {}").format(place.table))
        nearest = "SELECT id FROM items ORDER BY embedding <=> '[2000, 5, 1]' LIMIT 3"
        plan = await (await application.execute(f"EXPLAIN {nearest}")).fetchall()
        assert store.INDEX in str(plan)
        assert len(await (await application.execute(nearest)).fetchall()) == 3


async def test_what_is_removed_is_gone_and_nothing_else(server: PostgresServer, admin: Connection) -> None:
    await admit(admin, "stays")
    before = await everything(admin)
    place = await admit(admin, "leaves")
    session = await AsyncConnection.connect(dsn(server, place))
    for _ in range(2):
        await store.remove(admin, place)
    assert await everything(admin) == before
    with pytest.raises(psycopg.OperationalError):
        await session.execute("SELECT 1")
    await session.close()
