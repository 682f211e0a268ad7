"""A list of what a tenant's writers change while it moves, kept by a trigger on its table in their own transactions.

It is begun before all rows are compared and ends with the move. What is compared again when writes are held back is
what stands on it: how long that takes depends on what was written since, and not on how large the tenant is.

Each comparison begins a list of its own, a run, which the trigger names. A process that was taken for dead and comes
back takes nothing off another one's list, and where it has begun one that is noticed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from psycopg import AsyncConnection, sql
from psycopg.errors import LockNotAvailable

from tenantry.adapters.pgvector.fence import LIGHTLY, SCHEMA, cancel_vacuum, disable
from tenantry.adapters.pgvector.server import flush
from tenantry.reconcile.mover import Busy

if TYPE_CHECKING:
    from tenantry.adapters.pgvector.store import Place

TRIGGER: Final = "tenantry_changes"
CHANGES: Final = f"{SCHEMA}.changes"

# A row may stand on it many times: a unique key would have writers above READ COMMITTED fail on each other.
TABLE: Final = f"""
CREATE TABLE IF NOT EXISTS {CHANGES} (
    place  text COLLATE "C" NOT NULL,
    run    text COLLATE "C" NOT NULL,
    id     text COLLATE "C" NOT NULL
)
"""

INDEX: Final = f"CREATE INDEX IF NOT EXISTS changes_place ON {CHANGES} (place)"

FUNCTION: Final = f"""
CREATE OR REPLACE FUNCTION {SCHEMA}.changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO {CHANGES} (place, run, id) VALUES (TG_TABLE_SCHEMA, TG_ARGV[0], OLD.id);
    END IF;
    IF TG_OP = 'INSERT' OR (TG_OP = 'UPDATE' AND NEW.id <> OLD.id) THEN
        INSERT INTO {CHANGES} (place, run, id) VALUES (TG_TABLE_SCHEMA, TG_ARGV[0], NEW.id);
    END IF;
    RETURN NULL;
END
$$
"""


_CREATE: Final = (
    "CREATE OR REPLACE TRIGGER {trigger} AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW"
    f" EXECUTE FUNCTION {SCHEMA}.changed({{run}})"
)


async def begin(connection: AsyncConnection[Any], place: Place) -> str:
    """Begin a list: whatever is committed from now on stands on it; return its run. Raises Busy.

    The lock waits for those who have written and are not done: what they wrote is in the table when it is had.
    """
    pieces = (
        LIGHTLY,
        "LOCK TABLE ONLY {table} IN SHARE ROW EXCLUSIVE MODE",
        _CREATE,
        "ALTER TABLE {table} ENABLE TRIGGER {trigger}",
        f"DELETE FROM {CHANGES} WHERE place = {{place}}",
    )
    await cancel_vacuum(connection, place)
    run = uuid4().hex
    names = {
        "table": place.table,
        "trigger": sql.Identifier(TRIGGER),
        "place": sql.Literal(place.role),
        "run": sql.Literal(run),
    }
    try:
        await connection.execute(sql.SQL("; ").join(sql.SQL(each).format(**names) for each in pieces))
    except LockNotAvailable:
        raise Busy("a transaction that writes does not end") from None
    await flush(connection)
    return run


async def end(connection: AsyncConnection[Any], place: Place) -> None:
    """End the list; one that was never begun is no error. Raises LockNotAvailable."""
    await disable(connection, place, TRIGGER)
    await forget(connection, place)


async def forget(connection: AsyncConnection[Any], place: Place) -> None:
    """Remove what stands on the list."""
    await connection.execute(f"DELETE FROM {CHANGES} WHERE place = %s", (place.role,))


async def take(connection: AsyncConnection[Any], place: Place, run: str) -> set[str]:
    """Take off a list what stands on it, and return that."""
    cursor = await connection.execute(
        f"DELETE FROM {CHANGES} WHERE place = %s AND run = %s RETURNING id", (place.role, run)
    )
    return {row for (row,) in await cursor.fetchall()}


async def listed(connection: AsyncConnection[Any], place: Place, run: str) -> set[str]:
    """Return what stands on a list. Raises Busy where it is not the present one."""
    cursor = await connection.execute(
        "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass(%(table)s) AND tgname = %(trigger)s"
        " AND tgenabled <> 'D' AND tgargs = convert_to(%(run)s, 'UTF8') || '\\x00'),"
        f" ARRAY(SELECT DISTINCT id FROM {CHANGES} WHERE place = %(place)s AND run = %(run)s)",
        {"table": f"{place.role}.items", "trigger": TRIGGER, "place": place.role, "run": run},
    )
    present, ids = await cursor.fetchone() or (False, [])
    if not present:
        raise Busy("another process has begun to compare the rows: they are compared again")
    return set(ids)
