"""The copy of a move as a share of what `COPY` from one server to the other does, into a table with the same keys.

Both in turn, several rounds, between the same two servers; the ratio is the median of the rounds'.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime

from psycopg import sql

from tenantry.adapters.pgvector.engine import PgvectorEngine
from tenantry.adapters.pgvector.moving import PgvectorMover
from tenantry.adapters.pgvector.store import Place as Site
from tenantry.domain.moves import importing
from tenantry.domain.places import Place, Record
from tenantry.domain.vectors import Shape
from tenantry.local.postgres import PostgresServer

ROWS, DIMENSIONS, ROUNDS = 100_000, 384, 5
TENANT = "copied"

_FILL = (
    "INSERT INTO {} (tenant_id, id, embedding, content)"
    " SELECT {}, 'row-' || n,"
    " (SELECT array_agg((random() + 0 * (n + d))::real) FROM generate_series(1, {}) d)::vector,"
    " repeat('text ', 20) FROM generate_series(1, {}) n"
)


@dataclass
class Copies:
    """What was measured, in megabytes of the source's table a second."""

    rows: int
    moved: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Return the median of the rounds' ratios."""
        return statistics.median(mine / plain for mine, plain in zip(self.moved, self.plain, strict=True))


async def measure(rows: int) -> Copies:
    """Copy one tenant again and again, both ways."""
    found = Copies(rows)
    with ExitStack() as stack:
        servers = [stack.enter_context(PostgresServer()) for _ in range(2)]
        source, target = (PgvectorEngine(f"shard-{n}", each.dsn()) for n, each in enumerate(servers))
        try:
            for engine in (source, target):
                await engine.prepare()
            here = await source.ensure(
                Place(TENANT, "uid-copied", "owner", 1, Shape(DIMENSIONS), datetime.now(UTC))
            )
            await _fill(source, source.site(here), rows)
            here = await source.find(TENANT) or here
            for _ in range(ROUNDS):
                found.moved.append(here.size / 1e6 / await _moved(source, target, here))
                found.plain.append(here.size / 1e6 / await _plain(source, target, source.site(here)))
        finally:
            await source.close()
            await target.close()
    return found


async def _fill(source: PgvectorEngine, site: Site, rows: int) -> None:
    async with source.own_connection() as connection:
        await connection.execute(
            sql.SQL(_FILL).format(site.table, sql.Literal(TENANT), sql.Literal(DIMENSIONS), sql.Literal(rows))
        )
        await connection.execute(sql.SQL("VACUUM (ANALYZE, FREEZE) {}").format(site.table))


async def _moved(source: PgvectorEngine, target: PgvectorEngine, here: Record) -> float:
    """Return the seconds from the beginning of a move until all rows are on the target; then give the move up."""
    mover = PgvectorMover(source, target, TENANT)
    begin = time.monotonic()
    await mover.prepare(importing(here.place))
    while True:
        progress = await mover.progress()
        if progress.copied:
            break
        await asyncio.sleep(0.01)
    seconds = time.monotonic() - begin
    await mover.clean_target()
    return seconds


async def _plain(source: PgvectorEngine, target: PgvectorEngine, site: Site) -> float:
    """Return the seconds of a COPY of the same rows into a table with the same keys."""
    async with source.own_connection() as here, target.own_connection() as there:
        await there.execute(sql.SQL("CREATE TABLE copied (LIKE {} INCLUDING ALL)").format(site.parent))
        begin = time.monotonic()
        async with (
            here.cursor().copy(sql.SQL("COPY {} TO STDOUT").format(site.table)) as rows,
            there.cursor().copy("COPY copied FROM STDIN") as stored,
        ):
            async for piece in rows:
                await stored.write(piece)
        seconds = time.monotonic() - begin
        await there.execute("DROP TABLE copied")
    return seconds
