"""The leak canary: each way in which isolation can be broken by hand, and what the probe says of it."""

from __future__ import annotations

import pytest
from psycopg import sql

from tenantry.adapters.pgvector import store
from tenantry.adapters.pgvector.engine import PgvectorEngine
from tenantry.adapters.pgvector.probe import CLOSEST
from tenantry.domain.places import Place, Record
from tenantry.domain.vectors import Shape
from tenantry.local.postgres import PostgresServer
from tenantry.reconcile.ports import Refused
from tests.integration.engines.conftest import SINCE
from tests.integration.pgvector.conftest import Connection


@pytest.fixture(scope="module")
async def pair(engine: PgvectorEngine, admin: Connection) -> tuple[Record, Record]:
    """The tenant that probes, and its neighbour, who has no rows at all."""
    return await place(engine, "prober"), await place(engine, "probed")


async def place(engine: PgvectorEngine, tenant: str, dimensions: int = 3) -> Record:
    return await engine.ensure(Place(tenant, f"uid-of-{tenant}", tenant, 1, Shape(dimensions), SINCE))


BROKEN = {
    "the neighbour's table": (
        ["GRANT USAGE ON SCHEMA {other} TO {mine}", "GRANT SELECT ON {other}.items TO {mine}"],
        ["has rights on {other}.items", "reads the table of probed"],
    ),
    "one column of it": (
        ["GRANT USAGE ON SCHEMA {other} TO {mine}_a", "GRANT SELECT (content) ON {other}.items TO {mine}_a"],
        ["has rights on {other}.items"],
    ),
    "it, for everybody": (
        ["GRANT USAGE ON SCHEMA {other} TO PUBLIC", "GRANT SELECT ON {other}.items TO PUBLIC"],
        ["has rights on {other}.items", "reads the table of probed"],
    ),
    "writing to it": (["GRANT DELETE ON {other}.items TO {mine}"], ["has rights on {other}.items"]),
    "the shared table": (
        ["GRANT USAGE ON SCHEMA tenantry TO {mine}", "GRANT SELECT ON tenantry.vector_3 TO {mine}"],
        [
            "has rights on tenantry.vector_3",
            "reads the table that tenants share",
        ],
    ),
    "the shared table without row-level security": (
        [
            "GRANT USAGE ON SCHEMA tenantry TO {mine}",
            "GRANT SELECT ON tenantry.vector_3 TO {mine}",
            "ALTER TABLE tenantry.vector_3 DISABLE ROW LEVEL SECURITY",
        ],
        [
            "has rights on tenantry.vector_3",
            "reads the table that tenants share",
            "reads the canary's row",
        ],
    ),
    "the canary": (
        ["GRANT USAGE ON SCHEMA tenantry TO {mine}", "GRANT SELECT ON tenantry.canary_vector_3 TO {mine}"],
        ["has rights on tenantry.canary_vector_3"],
    ),
    "the record of owners": (
        ["GRANT USAGE ON SCHEMA tenantry TO {mine}", "GRANT SELECT ON tenantry.owners TO {mine}"],
        ["has rights on tenantry.owners", "reads the record of all tenants"],
    ),
    "the key": (
        ["GRANT USAGE ON SCHEMA tenantry TO {mine}", "GRANT SELECT ON tenantry.key TO {mine}"],
        ["has rights on tenantry.key", "reads the key of all passwords"],
    ),
    "no row-level security": (
        ["ALTER TABLE {mine}.items DISABLE ROW LEVEL SECURITY"],
        ["row-level security of its own table lets rows of others by"],
    ),
    "an open policy": (
        ["CREATE POLICY open ON {mine}.items USING (true)"],
        ["row-level security of its own table lets rows of others by"],
    ),
    "the policy opened": (
        ["ALTER POLICY own ON {mine}.items USING (true) WITH CHECK (true)"],
        ["row-level security of its own table lets rows of others by"],
    ),
    "a role that bypasses": (
        ["ALTER ROLE {mine}_a BYPASSRLS"],
        [
            "row-level security does not hold for role {mine}_a",
            "row-level security of its own table lets rows of others by",
        ],
    ),
    "membership": (
        ["GRANT {other} TO {mine}_a"],
        [
            "has rights on {other}.items",
            "is a member of role {other}",
            "reads the table of probed",
            "becomes the role of probed",
        ],
    ),
    "membership of the owner": (
        ["GRANT tenantry_owner TO {mine}"],
        ["is a member of role tenantry_owner", "becomes the owner of all tables"],
    ),
    "a neighbour's row in a table that is no partition": (
        [
            "ALTER TABLE tenantry.vector_3 DETACH PARTITION {mine}.items",
            "ALTER TABLE {mine}.items DISABLE ROW LEVEL SECURITY",
            "INSERT INTO {mine}.items (tenant_id, id, embedding) VALUES ('probed', 'x', '[1,2,3]')",
        ],
        [
            "finds a row of probed in its own table",
            "row-level security of its own table lets rows of others by",
        ],
    ),
    "estimates": (
        ["GRANT SELECT ON pg_catalog.pg_class TO {mine}"],
        ["reads how many rows others have (pg_class)"],
    ),
    "sessions": (
        [
            "GRANT SELECT ON pg_stat_activity TO {mine}",
            "GRANT EXECUTE ON FUNCTION pg_stat_get_activity TO {mine}",
        ],
        ["sees the sessions of others (pg_stat_activity)"],
    ),
    "sizes": (
        ["GRANT EXECUTE ON FUNCTION pg_total_relation_size TO {mine}"],
        ["measures relations"],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_the_probe_tells(
    engine: PgvectorEngine, admin: Connection, pair: tuple[Record, Record], name: str
) -> None:
    mine, other = pair
    names = {"mine": f"t_{mine.id}", "other": f"t_{other.id}"}
    statements, said = BROKEN[name]
    assert await engine.probe(mine, [other]) == []
    for statement in statements:
        await admin.execute(statement.format(**names))
    try:
        leaks = await engine.probe(mine, [other])
    finally:
        await _put_back(admin, names)
        await engine.ensure(mine.place)
        await engine.ensure(other.place)
    assert {sentence.format(**names) for sentence in said} <= set(leaks), leaks
    assert await engine.probe(mine, [other]) == [], "ensure has put right what concerns the two places"


async def _put_back(admin: Connection, names: dict[str, str]) -> None:
    """Take back what concerns no place; the rest `ensure` puts right."""
    for statement in (
        "REVOKE ALL ON SCHEMA tenantry FROM {mine}",
        "REVOKE ALL ON ALL TABLES IN SCHEMA tenantry FROM {mine}",
        "ALTER TABLE tenantry.vector_3 ENABLE ROW LEVEL SECURITY",
        "REVOKE ALL ON pg_catalog.pg_class, pg_stat_activity FROM {mine}",
        "REVOKE ALL ON FUNCTION pg_stat_get_activity, pg_total_relation_size FROM {mine}",
        "DELETE FROM {mine}.items",
    ):
        await admin.execute(statement.format(**names))


async def test_nothing_of_the_attempts_stays(
    engine: PgvectorEngine, admin: Connection, server: PostgresServer, pair: tuple[Record, Record]
) -> None:
    mine, other = pair
    log = server.log.stat().st_size
    count = "SELECT count(*) FROM tenantry.vector_3 WHERE tenant_id <> %s"
    before = await (await admin.execute(count, (store.NOBODY,))).fetchone()
    assert await engine.probe(mine, [other]) == []
    assert await (await admin.execute(count, (store.NOBODY,))).fetchone() == before
    assert b"permission denied" not in server.log.read_bytes()[log:]


async def test_every_neighbour_is_looked_at_however_many_they_are(
    engine: PgvectorEngine, admin: Connection, pair: tuple[Record, Record]
) -> None:
    """The rights on all are asked for in one query; what is tried goes to the closest."""
    mine = pair[0]
    others = [await place(engine, f"neighbour-{number}") for number in range(CLOSEST + 3)]
    for other in others:
        name = f"t_{other.id}"
        await admin.execute(
            sql.SQL("GRANT SELECT ON {} TO {}").format(
                sql.Identifier(name, "items"), sql.Identifier(f"t_{mine.id}")
            )
        )
        assert f"has rights on {name}.items" in await engine.probe(mine, others)
        await engine.ensure(other.place)
    assert await engine.probe(mine, others) == []


async def test_a_shape_of_ones_own(engine: PgvectorEngine, pair: tuple[Record, Record]) -> None:
    alone = await place(engine, "of-another-shape", 7)
    assert await engine.probe(alone, pair) == []
    assert await engine.probe(alone, []) == []


async def test_neighbours_that_are_gone_are_no_leak(
    engine: PgvectorEngine, pair: tuple[Record, Record]
) -> None:
    gone = await place(engine, "gone-meanwhile")
    await engine.remove("gone-meanwhile")
    assert await engine.probe(pair[0], [gone]) == []


async def test_a_place_that_nobody_logs_in_to_is_not_probed(
    engine: PgvectorEngine, pair: tuple[Record, Record]
) -> None:
    closed = await place(engine, "closed-place")
    await engine.remove("closed-place")
    with pytest.raises(Refused):
        await engine.probe(closed, [pair[0]])
