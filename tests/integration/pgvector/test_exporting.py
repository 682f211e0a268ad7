"""Exports: out of one PostgreSQL table as a file that anybody can read, and into another without a difference."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import sys
import textwrap
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection, sql

from tenantry.adapters.exports import FsspecStore
from tenantry.adapters.pgvector.exporting import export, restore
from tenantry.adapters.pgvector.store import Place
from tenantry.api.common import rfc3339
from tenantry.domain.places import id_of
from tenantry.local.postgres import PostgresServer
from tenantry.reconcile.exports import Exported, Source, StoreFailed
from tenantry.reconcile.ports import Refused
from tests.integration.buckets import bucket_in
from tests.integration.pgvector.conftest import Connection, admit, dsn
from tests.unit.builders import T0

pytestmark = pytest.mark.tool("versitygw")

ODD = [
    ("plain", "[1,2,3]", "text", "{}"),
    ("none", "[0,0,0]", None, "{}"),
    (
        "digits",
        "[1e-38,0.1,3.4028235e+38]",
        "",
        '{"a": 1.10, "b": [null, true, "x"], "n": 12345678901234567890}',
    ),
    (
        "quotes \"'\\",
        "[-1.17549435e-38,16777217,-0.33333334]",
        'a "b" \\n \\. \t\n\r , ; \\\\ \u2028',
        '{"k\\n": "\\\\"}',
    ),
    ("\u00e4\u6f22\U0001f600", "[1,1,1]", "\u00e4\u6f22\U0001f600 \x01\x02\x7f", '{"\u00e4": "\U0001f600"}'),
    ("\\.", "[1,1,2]", "\\N", '{"x": "\\u0001"}'),
]
"""Rows with whatever COPY, CSV or JSON could trip over."""


def source(tenant: str, epoch: int = 1) -> Source:
    return Source(
        tenant,
        f"uid-{tenant}",
        "digest",
        f"{tenant}-uid",
        f"au-{tenant}",
        epoch,
        "one",
        "PostgreSQL 18",
        3,
        "cosine",
        "vector",
    )


async def content(admin: Connection, place: Place) -> list[tuple[Any, ...]]:
    """Return every row but the tenant's name, as PostgreSQL writes it."""
    query = 'SELECT id, embedding::text, content, metadata::text, created_at FROM {} ORDER BY id COLLATE "C"'
    return await (await admin.execute(sql.SQL(query).format(place.table))).fetchall()


async def fill(admin: Connection, place: Place, rows: int) -> None:
    await admin.execute(
        sql.SQL(
            "INSERT INTO {} (tenant_id, id, embedding, content, created_at)"
            " SELECT %s, 'row-' || n, ARRAY[n, n / 3.0, 0.1]::vector(3), repeat('text ', 20), now() FROM"
            " generate_series(1, %s) n"
        ).format(place.table),
        (place.tenant, rows),
    )


async def fill_oddly(admin: Connection, place: Place) -> None:
    for number, row in enumerate(ODD):
        await admin.execute(
            sql.SQL(
                "INSERT INTO {} (tenant_id, id, embedding, content, metadata, created_at)"
                " VALUES (%s, %s, %s, %s, %s, timestamptz '2026-01-01 00:00:00.123456+02' + %s * interval '1 day')"
            ).format(place.table),
            (place.tenant, *row, number),
        )


def now() -> datetime:
    return T0


@pytest.fixture
def store(tmp_path: Path) -> FsspecStore:
    return FsspecStore(f"file://{tmp_path}/exports")


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket on a server of its own."""
    with bucket_in(tmp_path / "store", monkeypatch) as url:
        yield url


@pytest.mark.parametrize("kind", ["file", "memory", "s3"])
async def test_all_comes_back_as_it_was(
    admin: Connection, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    """In a folder, in a store without folders, and in a bucket."""
    urls = {"file": f"file://{tmp_path}/e", "memory": "memory://e"}
    store = FsspecStore(urls.get(kind) or request.getfixturevalue("bucket"))
    before, after = await admit(admin, f"odd-{kind}"), await admit(admin, f"odd-again-{kind}")
    await fill_oddly(admin, before)
    exported = await store.put(source("odd"), export(admin, before), now)
    assert exported.rows == len(ODD)
    assert await store.put(source("odd"), export(admin, before), now) == exported
    with pytest.raises(ConnectionResetError):
        await store.put(source("odd", 2), interrupted(export(admin, before)), now)
    assert await asyncio.to_thread(store.list) == [exported]
    again = await asyncio.to_thread(FsspecStore, exported.url)
    assert await restore(admin, after, again.lines(await asyncio.to_thread(again.open))) == len(ODD)
    assert await content(admin, after) == await content(admin, before) != []


async def test_a_person_reads_an_export_with_what_every_machine_has(
    admin: Connection, store: FsspecStore, tmp_path: Path
) -> None:
    place = await admit(admin, "readable")
    await fill_oddly(admin, place)
    await store.put(source("readable"), export(admin, place), now)
    folder = tmp_path / "exports/readable/au-readable-1"
    manifest = json.loads((folder / "manifest.json").read_text())
    file = folder / manifest["file"]
    assert manifest == manifest | {
        "format": "tenantry.dev/vectors/v1",
        "tenant": "readable",
        "tenantUid": "uid-readable",
        "owner": "digest",
        "archive": "readable-uid",
        "archiveUid": "au-readable",
        "epoch": 1,
        "shard": "one",
        "dimensions": 3,
        "metric": "cosine",
        "type": "vector",
        "rows": len(ODD),
        "bytes": file.stat().st_size,
        "server": "PostgreSQL 18",
        "finishedAt": rfc3339(T0),
    }
    said = await asyncio.to_thread(subprocess.check_output, ["sha256sum", str(file)], text=True)
    assert said.split()[0] == manifest["sha256"]
    rows = {row["id"]: row for row in map(json.loads, gzip.decompress(file.read_bytes()).splitlines())}
    assert rows.keys() == {row[0] for row in ODD}
    assert rows["digits"]["metadata"]["b"] == [None, True, "x"]
    assert rows["plain"]["created_at"] == "2025-12-31T22:00:00.123456+00:00"
    assert [path.name for path in sorted(folder.iterdir())] == ["manifest.json", file.name]


async def test_rows_of_another_tenant_are_never_in_it(admin: Connection, store: FsspecStore) -> None:
    place, other = await admit(admin, "mine"), await admit(admin, "theirs")
    await fill(admin, place, 10)
    await fill(admin, other, 20)
    exported = await store.put(source("mine"), export(admin, place), now)
    assert exported.rows == 10


async def test_writes_meanwhile_are_in_it_whole_or_not_at_all(
    server: PostgresServer, admin: Connection, store: FsspecStore
) -> None:
    place = await admit(admin, "busy")
    await fill(admin, place, 20_000)
    pieces = export(admin, place)
    first = await anext(pieces)
    async with await AsyncConnection.connect(dsn(server, place), autocommit=True) as application:
        await application.execute("DELETE FROM items WHERE id LIKE '%7'")
        await application.execute("INSERT INTO items (id, embedding) VALUES ('late', '[1,2,3]')")
    text = first + b"".join([piece async for piece in pieces])
    ids = {json.loads(line)["id"] for line in text.splitlines()}
    assert ids == {f"row-{number}" for number in range(1, 20_001)}


async def test_a_table_with_rows_is_not_added_to(admin: Connection, store: FsspecStore) -> None:
    place = await admit(admin, "full")
    await fill(admin, place, 3)
    exported = await store.put(source("full"), export(admin, place), now)
    kept = FsspecStore(exported.url)
    with pytest.raises(Refused, match="holds vectors already"):
        await restore(admin, place, kept.lines(kept.open()))
    assert len(await content(admin, place)) == 3


async def put_rows(
    admin: Connection, store: FsspecStore, tenant: str, rows: int
) -> tuple[Exported, Place, Path]:
    """Export a tenant with some rows; return the export, an empty place, and the file."""
    place, empty = await admit(admin, tenant), await admit(admin, f"{tenant}-empty")
    await fill(admin, place, rows)
    exported = await store.put(source(tenant), export(admin, place), now)
    return exported, empty, Path(exported.url.removeprefix("file://")) / exported.file


@pytest.mark.parametrize("damage", ["a byte", "the end", "a row less", "not there"])
async def test_a_damaged_export_leaves_the_place_empty(
    admin: Connection, store: FsspecStore, damage: str
) -> None:
    exported, empty, file = await put_rows(admin, store, f"damaged-{damage.replace(' ', '-')}", 20_000)
    data = file.read_bytes()
    match damage:
        case "a byte":
            file.write_bytes(data[:-5000] + bytes([data[-5000] ^ 1]) + data[-4999:])
        case "the end":
            file.write_bytes(data[: len(data) // 2])
        case "a row less":
            file.write_bytes(gzip.compress(b"".join(gzip.decompress(data).splitlines(keepends=True)[1:])))
        case _:
            file.unlink()
    kept = FsspecStore(exported.url)
    with pytest.raises(StoreFailed, match=r"damaged|cannot read"):
        await restore(admin, empty, kept.lines(kept.open()))
    assert await content(admin, empty) == []
    # Nor does a purge take it for the export that it needs: it makes another.
    assert await store.find(exported.source.name) is None
    former = await admit(admin, exported.source.tenant)
    better = await store.put(exported.source, export(admin, former), now)
    assert (better.rows, better.file != exported.file) == (exported.rows, True)
    assert sorted(path.name for path in file.parent.iterdir()) == ["manifest.json", better.file]
    assert await restore(admin, empty, kept.lines(kept.open())) == exported.rows


async def test_what_no_place_takes_is_refused_with_the_servers_sentence(admin: Connection) -> None:
    place = await admit(admin, "fitting")

    async def lines(text: bytes) -> AsyncGenerator[bytes, None]:
        yield text

    row = {
        "id": "1",
        "embedding": [1, 2],
        "content": None,
        "metadata": {},
        "created_at": "2026-01-01T00:00:00Z",
    }
    with pytest.raises(Refused, match="expected 3 dimensions, not 2"):
        await restore(admin, place, lines(json.dumps(row).encode() + b"\n"))
    with pytest.raises(Refused, match="line 1 is no row of an export"):
        await restore(admin, place, lines(b'{"id": "1"}\n'))
    with pytest.raises(Refused, match="not complete"):
        await restore(admin, place, lines(json.dumps(row).encode()))
    assert await content(admin, place) == []


# --- trouble in the middle ---------------------------------------------------------------------------------------


async def interrupted(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(pieces):
        yield await anext(pieces)
        raise ConnectionResetError("in the middle")


async def test_an_export_that_is_interrupted_is_none_and_the_next_try_makes_one(
    admin: Connection, store: FsspecStore, tmp_path: Path
) -> None:
    place = await admit(admin, "twice-tried")
    await fill(admin, place, 20_000)
    with pytest.raises(ConnectionResetError):
        await store.put(source("twice-tried"), interrupted(export(admin, place)), now)
    assert store.list() == []
    # A process that is killed cleans nothing up.
    folder = tmp_path / "exports/twice-tried/au-twice-tried-1"
    (folder / "rows-dead.jsonl.gz").write_bytes(b"half")
    (folder / ".dead.tmp").write_bytes(b'{"format": "tenantry')
    first = await store.put(source("twice-tried"), export(admin, place), now)
    second = await store.put(source("twice-tried"), export(admin, place), now)
    assert first == second == (await asyncio.to_thread(store.list))[0]
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", first.file]


async def test_of_two_processes_that_export_at_once_one_export_stays(
    admin: Connection, store: FsspecStore, tmp_path: Path
) -> None:
    place = await admit(admin, "at-once")
    await fill(admin, place, 20_000)

    async def overtaken() -> AsyncGenerator[bytes, None]:
        async for piece in export(admin, place):
            yield piece
        # The next leader has begun and ended, while this one was frozen.
        next_ones = FsspecStore(f"file://{tmp_path}/exports")
        others.append(await next_ones.put(source("at-once"), export(admin, place), now))

    others: list[Exported] = []
    mine = await store.put(source("at-once"), overtaken(), now)
    assert [mine] == others == store.list()
    assert await store.find(mine.source.name) == mine
    names = sorted(path.name for path in (tmp_path / "exports/at-once/au-at-once-1").iterdir())
    assert names == ["manifest.json", mine.file]


async def test_a_manifest_of_another_format_is_no_export(admin: Connection, store: FsspecStore) -> None:
    exported, _, file = await put_rows(admin, store, "of-tomorrow", 3)
    path = file.parent / "manifest.json"
    path.write_text(path.read_text().replace("vectors/v1", "vectors/v2"))
    assert store.list() == []
    with pytest.raises(StoreFailed, match="no complete export"):
        FsspecStore(exported.url).open()


async def test_a_store_that_cannot_be_written_says_which_file(admin: Connection, tmp_path: Path) -> None:
    (tmp_path / "exports").write_text("a file where the folder should be")
    place = await admit(admin, "nowhere")
    await fill(admin, place, 3)
    with pytest.raises(StoreFailed, match=rf"cannot \w+ {tmp_path}/exports/nowhere"):
        await FsspecStore(f"file://{tmp_path}/exports").put(source("nowhere"), export(admin, place), now)


async def test_the_same_rows_under_another_epoch_are_another_export(
    admin: Connection, store: FsspecStore
) -> None:
    place = await admit(admin, "moved-before")
    await fill(admin, place, 3)
    await store.put(source("moved-before"), export(admin, place), now)
    await store.put(replace(source("moved-before"), epoch=2), export(admin, place), now)
    assert [item.source.epoch for item in store.list()] == [1, 2]


MEASURED = """
import asyncio, re, sys
from pathlib import Path
from tenantry.adapters.exports import FsspecStore
from tenantry.adapters.pgvector.exporting import export, restore
from tenantry.adapters.pgvector.server import connect
from tenantry.adapters.pgvector.store import Place
from tenantry.domain.places import id_of
from tenantry.domain.vectors import Shape
from tenantry.reconcile.exports import Source
from datetime import datetime, UTC

def most():
    "The most memory that this program has had at once, in KiB; ru_maxrss would begin with that of its parent."
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

async def main():
    dsn, url, verb, tenant = sys.argv[1:]
    connection = await connect(dsn)
    place = Place(tenant, id_of(tenant), Shape(384))
    await connection.execute("SELECT 1")
    store = FsspecStore(url)
    before = most()
    if verb == "export":
        origin = Source("large", "u", "d", "a", "au", 1, "one", "PostgreSQL", 384, "cosine", "vector")
        done = await store.put(origin, export(connection, place), lambda: datetime.now(UTC))
        rows = done.rows
    else:
        kept = FsspecStore(store.list()[0].url)
        rows = await restore(connection, place, kept.lines(kept.open()))
    print(rows, most() - before)

asyncio.run(main())
"""

ROOM_KIB = 80 * 1024
"""What 100,000 rows of 384 dimensions, some 400 MB of JSON, may take of memory on their way."""


@pytest.mark.timeout(600)
async def test_memory_does_not_grow_with_the_rows(
    server: PostgresServer, admin: Connection, tmp_path: Path
) -> None:
    place = await admit(admin, "large", 384)
    await admit(admin, "large-again", 384)
    await admin.execute(
        sql.SQL(
            "INSERT INTO {} (tenant_id, id, embedding, content) SELECT 'large', n, (SELECT array_agg(sin(n * d))"
            " FROM generate_series(1, 384) d)::vector(384), 'text' FROM generate_series(1, 100000) n"
        ).format(place.table)
    )
    program = tmp_path / "measured.py"
    program.write_text(textwrap.dedent(MEASURED))
    for verb, tenant in (("export", "large"), ("restore", "large-again")):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(program),
            server.dsn(),
            f"file://{tmp_path}/exports",
            verb,
            tenant,
            stdout=subprocess.PIPE,
        )
        output, _ = await process.communicate()
        rows, grown = map(int, output.split())
        print(f"{verb}: {rows} rows, {grown} KiB more")
        assert (process.returncode, rows) == (0, 100_000)
        assert grown < ROOM_KIB
    columns = "SELECT id, embedding::text, content, created_at FROM"
    again = Place("large-again", id_of("large-again"), place.shape)
    for one, other in ((place, again), (again, place)):
        query = sql.SQL(f"{columns} {{}} EXCEPT {columns} {{}}").format(one.table, other.table)
        assert await (await admin.execute(query)).fetchall() == []
