"""Holds a tenant's writes back at one server while it is decided where they go on, and sends them away afterwards.

The fence is a trigger on the tenant's table. That it is there is read from the catalogue, which is current in every
transaction, however old its snapshot; what it reads in `tenantry.owners` is current only under READ COMMITTED. There
a write waits for the decision; under any other isolation level it fails at once, and is to be tried again.

    TN001   the vectors have moved to another shard: read the Secret vector-store again, connect there, write again
    TN002   writes are held back for a moment: write again

Reads never meet it, nor does what replication applies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg import AsyncConnection, sql

from tenantry.adapters.pgvector.server import flush

if TYPE_CHECKING:
    from tenantry.adapters.pgvector.store import Place

SCHEMA: Final = "tenantry"
TRIGGER: Final = "tenantry_fence"
MOVED: Final = "TN001"
HELD: Final = "TN002"

LOCK_WAIT: Final = "150ms"
"""How long a trigger waits for open transactions, while new writers wait behind it."""

WAIT: Final = f"SELECT set_config('lock_timeout', '{LOCK_WAIT}', true)"

LIGHTLY: Final = f"{WAIT}, set_config('synchronous_commit', 'off', true)"
"""Nor does anybody wait for the disk while the lock is held: `flush` follows when it is not."""

_CANCEL_VACUUM: Final = """
SELECT pg_cancel_backend(worker.pid) FROM pg_stat_activity worker JOIN pg_locks lock USING (pid)
WHERE backend_type = 'autovacuum worker' AND granted AND locktype = 'relation' AND relation = to_regclass(%s)
    AND query !~ 'to prevent wraparound'
"""

_ALWAYS: Final = sql.SQL("true")

_DISABLE: Final = f"""
{LIGHTLY}; LOCK TABLE ONLY {{table}} IN SHARE ROW EXCLUSIVE MODE;
DO $$BEGIN IF {{where}} THEN ALTER TABLE {{table}} DISABLE TRIGGER {{trigger}}; END IF; END$$
"""

FUNCTION: Final = f"""
CREATE OR REPLACE FUNCTION {SCHEMA}.fence() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
    found text;
    patience timestamptz := clock_timestamp() + interval '5 seconds';
BEGIN
    LOOP
        SELECT o.state INTO found FROM {SCHEMA}.owners o WHERE o.id = substring(TG_TABLE_SCHEMA FROM 3);
        IF found = 'moved' THEN
            RAISE EXCEPTION 'these vectors have moved to another shard' USING ERRCODE = '{MOVED}',
                HINT = 'Read the Secret vector-store again, connect as it says, and write again.';
        END IF;
        IF current_setting('transaction_isolation') <> 'read committed' OR clock_timestamp() > patience THEN
            RAISE EXCEPTION 'writes are held back for a moment' USING ERRCODE = '{HELD}', HINT = 'Write again.';
        END IF;
        IF found = 'owner' THEN
            RETURN NULL;
        END IF;
        PERFORM pg_sleep(0.005);
    END LOOP;
END
$$
"""


def raised(place: Place) -> sql.Composed:
    """Return the statements that put the fence up; they wait for those that have written and are not done."""
    made = (
        "CREATE OR REPLACE TRIGGER {trigger} BEFORE INSERT OR UPDATE OR DELETE ON {table} FOR EACH STATEMENT"
        f" EXECUTE FUNCTION {SCHEMA}.fence(); ALTER TABLE {{table}} ENABLE TRIGGER {{trigger}}"
    )
    return sql.SQL(made).format(trigger=sql.Identifier(TRIGGER), table=place.table)


async def cancel_vacuum(connection: AsyncConnection[Any], place: Place) -> None:
    """End the server's own vacuum of a tenant's table, which may hold its lock for hours, and begins again by itself.

    The server does so for whoever waits for a second: longer than `LOCK_WAIT`.
    """
    await connection.execute(_CANCEL_VACUUM, (f"{place.role}.items",))


async def up(connection: AsyncConnection[Any], place: Place) -> None:
    """Put the fence up."""
    await connection.execute(raised(place))


async def down(connection: AsyncConnection[Any], place: Place) -> None:
    """Take the fence down where writes may pass; one that is not there is no error. Raises LockNotAvailable.

    Not in the transaction that lets writes pass: those that wait in the fence would keep it waiting, and it them.
    The fence stays, disabled: dropping it would wait for everybody who reads.
    """
    pass_ = sql.SQL(f"EXISTS (SELECT FROM {SCHEMA}.owners WHERE id = {{}} AND state = 'owner')")
    await disable(connection, place, TRIGGER, pass_.format(sql.Literal(place.id)))


async def disable(
    connection: AsyncConnection[Any], place: Place, trigger: str, where: sql.Composable = _ALWAYS
) -> None:
    """Disable a trigger of a tenant's table, unless it is or is not there. Raises LockNotAvailable.

    where: asked with the table locked, so that what enables the trigger is either seen or comes after.
    """
    cursor = await connection.execute(
        "SELECT 1 FROM pg_trigger WHERE tgrelid = to_regclass(%s) AND tgname = %s AND tgenabled <> 'D'",
        (f"{place.role}.items", trigger),
    )
    if await cursor.fetchone() is not None:
        await cancel_vacuum(connection, place)
        await connection.execute(
            sql.SQL(_DISABLE).format(table=place.table, trigger=sql.Identifier(trigger), where=where)
        )
        await flush(connection)
