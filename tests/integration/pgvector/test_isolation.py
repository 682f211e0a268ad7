"""One tenant's session against another's rows: nothing of them comes out, not even how many they are."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from tenantry.adapters.pgvector.store import Place
from tenantry.local.postgres import PostgresServer
from tests.integration.pgvector.attacks import ATTACKS, Attack, Ends
from tests.integration.pgvector.conftest import OWN_ROWS, ROWS, SECRET, Connection, admit, dsn

pytestmark = pytest.mark.usefixtures("umbrella")

TELLING = (SECRET, "umb-", "'umbrella'")


def tells(text: str) -> str:
    """Return what in a text tells of the victim: a row, its name in the catalogue, or about how many rows it has."""
    for mark in TELLING:
        if mark in text:
            return mark
    # The names of roles are random, and tell nothing whatever digits are in them.
    for number in re.findall(r"\d+", re.sub(r"\bt_[0-9a-f]{16}", "", text)):
        if 0.9 * ROWS <= int(number) <= 1.1 * ROWS:
            return str(number)
    return ""


async def played(connection: AsyncConnection[Any], attack: Attack, mine: Place, other: Place) -> str:
    """Run an attack; return all that comes out of its last statement."""
    *before, last = (statement.format(other=other.role, mine=mine.role) for statement in attack.statements)
    for statement in before:
        await connection.execute(statement)
    cursor = connection.cursor()
    if last.startswith("COPY") and last.endswith("STDOUT"):
        async with cursor.copy(last) as copy:
            return "".join([bytes(chunk).decode() async for chunk in copy])
    await cursor.execute(last)
    if cursor.description is None:
        return ""
    return "\n".join(" | ".join(map(str, row)) for row in await cursor.fetchall())


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_nothing_of_another_tenant_comes_out(
    server: PostgresServer, acme: Place, umbrella: Place, attack: Attack
) -> None:
    notices: list[str] = []
    async with await AsyncConnection.connect(dsn(server, acme), autocommit=True) as connection:
        connection.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
        state = None
        try:
            out = await played(connection, attack, acme, umbrella)
        except psycopg.Error as error:
            state = error.sqlstate
            out = f"{error} {error.diag.message_detail} {error.diag.message_hint}"
    for quoted in ("[7919,5,6]", "'umbrella'", f"'{SECRET}'"):
        # An answer that quotes what the attacker has said himself tells nothing.
        if quoted.replace("'umbrella-secret'", "umbrella-") in attack.statements[-1]:
            out = out.replace(quoted, "")
    told = tells(out) or tells(" ".join(notices))
    assert not told, f"{told!r} is in {out[:2000]}"
    assert state == (attack.state if attack.ends is Ends.REFUSED else None), out[:500]


async def test_the_catalogue_is_taken_seriously(admin: Connection, umbrella: Place) -> None:
    """What the attacks ask for is there to be found by somebody who may."""
    cursor = await admin.execute(
        "SELECT count(*), max(content) FROM tenantry.vector_3 WHERE tenant_id = 'umbrella'"
    )
    assert tells(repr(await cursor.fetchone()))
    cursor = await admin.execute(
        "SELECT reltuples::int FROM pg_class WHERE oid = to_regclass(%s)", (f"{umbrella.role}.items",)
    )
    assert await cursor.fetchone() == (ROWS,)


async def test_the_attacker_still_has_all_that_is_his(server: PostgresServer, acme: Place) -> None:
    async with await AsyncConnection.connect(dsn(server, acme), autocommit=True) as connection:
        cursor = await connection.execute("SELECT count(*), min(tenant_id), max(tenant_id) FROM items")
        assert await cursor.fetchone() == (OWN_ROWS, "acme", "acme")


async def test_a_key_of_the_victim_and_one_of_nobody_are_answered_alike(
    server: PostgresServer, acme: Place
) -> None:
    said = []
    async with await AsyncConnection.connect(dsn(server, acme), autocommit=True) as connection:
        for key in ("umb-1", "nobody-1"):
            for ending in (
                "",
                " ON CONFLICT DO NOTHING",
                " ON CONFLICT (tenant_id, id) DO UPDATE SET content = 'x'",
            ):
                with pytest.raises(psycopg.Error) as error:
                    await connection.execute(
                        "INSERT INTO items (tenant_id, id, embedding) VALUES ('umbrella', %s, '[1,2,3]')"
                        + ending,
                        (key,),
                    )
                said.append(str(error.value).replace(key, "KEY"))
        assert said[:3] == said[3:]
        # One's own row may have the victim's key: it is another row.
        await connection.execute("INSERT INTO items (id, embedding) VALUES ('umb-1', '[1,2,3]')")
        await connection.execute("DELETE FROM items WHERE id = 'umb-1'")


async def test_nobody_replicates_by_a_tenants_password(server: PostgresServer, acme: Place) -> None:
    with pytest.raises(psycopg.OperationalError, match="REPLICATION"):
        await AsyncConnection.connect(dsn(server, acme, replication="database"))


async def test_nobody_logs_in_as_the_group_or_the_owner(server: PostgresServer, acme: Place) -> None:
    for role in (acme.role, "tenantry_owner"):
        with pytest.raises(psycopg.OperationalError, match=r"not permitted to log in|password"):
            await AsyncConnection.connect(server.dsn().replace("postgres:", f"{role}:", 1))


async def test_no_tenant_takes_all_sessions(server: PostgresServer, admin: Connection) -> None:
    greedy = await admit(admin, "greedy")  # of whom no session of another test is left
    open_ = [await AsyncConnection.connect(dsn(server, greedy)) for _ in range(20)]
    try:
        with pytest.raises(psycopg.OperationalError, match="too many connections"):
            await AsyncConnection.connect(dsn(server, greedy))
    finally:
        for connection in open_:
            await connection.close()
