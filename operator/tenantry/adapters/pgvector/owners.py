"""What a shard has on record of its tenants, in table `tenantry.owners`, and what is measured beside it.

Measures come from counters that PostgreSQL keeps anyway. They are not read by way of its views, which join far more
than is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any, Final

from psycopg import AsyncConnection

from tenantry.adapters.pgvector.hardening import SCHEMA
from tenantry.adapters.pgvector.store import INDEX, TABLE
from tenantry.api.tenant import Metric, VectorType
from tenantry.domain.places import Place, PlaceState, Record
from tenantry.domain.vectors import Shape

_COLUMNS: Final = (
    *("tenant", "id", "uid", "owner", "epoch", "state", "dimensions", "metric", "type"),
    *("open", "generation", "since", "mark", "previous"),
)

# The counters begin at nothing after a crash of the server; the next vacuum or analyze of a table sets that of its
# live rows right. What was known before is in pg_class, -1 where nothing was: such a table, which is not empty, has
# about as many rows as fit into it.
_READ: Final = f"""
SELECT {", ".join(f"o.{name}" for name in _COLUMNS)},
       CASE WHEN coalesce(pg_relation_size(c.oid), 0) = 0 THEN 0
            WHEN coalesce(pg_stat_get_last_analyze_time(c.oid), pg_stat_get_last_autoanalyze_time(c.oid),
                          pg_stat_get_last_vacuum_time(c.oid), pg_stat_get_last_autovacuum_time(c.oid)) IS NOT NULL
                 THEN pg_stat_get_live_tuples(c.oid)
            WHEN c.reltuples < 0 AND pg_stat_get_tuples_inserted(c.oid) = 0
                 THEN pg_table_size(c.oid) / (o.dimensions * CASE o.type WHEN 'halfvec' THEN 2 ELSE 4 END + 100)
            WHEN pg_stat_get_tuples_inserted(c.oid) >= c.reltuples THEN pg_stat_get_live_tuples(c.oid)
            ELSE greatest(c.reltuples::bigint + pg_stat_get_tuples_inserted(c.oid)
                          - pg_stat_get_tuples_deleted(c.oid), 0)
       END,
       coalesce(pg_total_relation_size(c.oid), 0),
       coalesce(i.indisvalid, false)
  FROM {SCHEMA}.owners o
  LEFT JOIN pg_class c ON c.oid = to_regclass('t_' || o.id || '.{TABLE}')
  LEFT JOIN pg_index i ON i.indexrelid = to_regclass('t_' || o.id || '.{INDEX}') AND i.indrelid = c.oid
"""

_SET: Final = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])

_WRITE: Final = f"""
INSERT INTO {SCHEMA}.owners ({", ".join(_COLUMNS)}) VALUES ({", ".join(["%s"] * len(_COLUMNS))})
ON CONFLICT (tenant) DO UPDATE SET updated_at = now(), {_SET}
"""


async def read(connection: AsyncConnection[Any]) -> Sequence[Record]:
    """Return the records of all tenants, by name."""
    cursor = await connection.execute(f"{_READ} ORDER BY o.tenant")
    return [_record(row) for row in await cursor.fetchall()]


async def find(connection: AsyncConnection[Any], tenant: str, *, lock: bool = False) -> Record | None:
    """Return the record of one tenant. lock: nobody changes it until the end of the transaction."""
    locked = " FOR UPDATE OF o" if lock else ""
    cursor = await connection.execute(f"{_READ} WHERE o.tenant = %s{locked}", (tenant,))
    row = await cursor.fetchone()
    return _record(row) if row is not None else None


async def write(connection: AsyncConnection[Any], place: Place, id_: str) -> None:
    """Put a place on record."""
    shape = place.shape
    await connection.execute(
        _WRITE,
        (
            *(place.tenant, id_, place.uid, place.owner, place.epoch, place.state),
            *(shape.dimensions, shape.metric, shape.type),
            *(place.open, place.generation, place.since, place.mark, place.previous),
        ),
    )


async def forget(connection: AsyncConnection[Any], tenant: str) -> None:
    """Remove a record."""
    await connection.execute(f"DELETE FROM {SCHEMA}.owners WHERE tenant = %s", (tenant,))


def _record(row: Sequence[Any]) -> Record:
    tenant, id_, uid, owner, epoch, state, dimensions, metric, type_ = row[:9]
    open_, generation, since, mark, previous, rows, size, indexed = row[9:]
    shape = Shape(dimensions, Metric(metric), VectorType(type_))
    place = Place(
        tenant,
        uid,
        owner,
        epoch,
        shape,
        since.astimezone(UTC),
        PlaceState(state),
        open_,
        generation,
        mark,
        previous,
    )
    return Record(place, id_, rows=rows, size=size, indexed=indexed)
