"""A tenant's application: it writes and reads where the Secret says, and knows what was acknowledged.

Each write adds a row and is counted in another one, in one statement: one that is lost or done twice shows. Only what
the server says was not done is done again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import psycopg
from psycopg import AsyncConnection

from tenantry.adapters.pgvector import fence
from tests.integration.conftest import Api
from tests.integration.shards import secret_of

PAUSE_SECONDS = 0.005
"""Between two writes of one writer, and two reads."""

SAMPLE = 50
"""So many rows a read asks for; all of them would keep a core busy."""

PATIENCE_SECONDS = 60.0

_SEED = (
    "INSERT INTO items (id, embedding, content) SELECT 'seed-' || n, array_fill(random()::real, ARRAY[%s])::vector,"
    " 'seed ' || repeat('text ', 20) FROM generate_series(1, %s) n"
)
_COUNTER = (
    "INSERT INTO items (id, embedding, content) VALUES (%s, array_fill(1::real, ARRAY[%s])::vector, '0')"
)
_WRITE = (
    "WITH added AS (INSERT INTO items (id, embedding) VALUES (%s, array_fill(1::real, ARRAY[%s])::vector))"
    " UPDATE items SET content = (content::int + 1)::text WHERE id = %s"
)


class Application:
    """Some writers and a reader; to be used with `async with`, after `fill`, as often as one likes.

    written: acknowledged writes of each writer. reads: since it was last entered. `take_longest` measures writes from
    the first try to the acknowledgement.
    """

    def __init__(
        self, api: Api, tenant: str, *, dimensions: int = 8, rows: int = 500, writers: int = 3
    ) -> None:
        self._api, self._tenant = api, tenant
        self._dimensions, self._rows = dimensions, rows
        self._seeds = [f"seed-{n}" for n in range(1, rows + 1)]
        self.written = [0] * writers
        self.reads = 0
        self._longest = 0.0
        self._shards: dict[str, str] = {}
        self._stopped = False
        self._news = asyncio.Event()
        self._tasks = asyncio.TaskGroup()

    async def fill(self) -> None:
        """Store what is there before anything moves."""
        async with await AsyncConnection.connect((await self._secret())["dsn"]) as connection:
            await connection.execute(_SEED, (self._dimensions, self._rows))
            for number in range(len(self.written)):
                await connection.execute(_COUNTER, (f"counter-{number}", self._dimensions))

    async def __aenter__(self) -> Application:
        self._stopped, self._shards, self.reads = False, {}, 0
        self._tasks = await asyncio.TaskGroup().__aenter__()
        for number in range(len(self.written)):
            self._tasks.create_task(self._write(number))
        self._tasks.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        await self._tasks.__aexit__(kind, error, trace)

    def take_longest(self) -> float:
        """Return the longest write since the last time."""
        longest, self._longest = self._longest, 0.0
        return longest

    async def goes_on(self, shard: str, writes: int = 20) -> None:
        """Wait until every writer and the reader are at a shard, and so many more writes are acknowledged."""
        before = sum(self.written)
        everybody = {*map(str, range(len(self.written))), "reader"}
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self._shards != dict.fromkeys(everybody, shard) or sum(self.written) < before + writes:
                self._news.clear()
                await self._news.wait()

    async def check(self) -> None:
        """Compare what is stored with what was acknowledged; nobody writes any more."""
        async with await AsyncConnection.connect((await self._secret())["dsn"]) as connection:
            cursor = await connection.execute("SELECT id FROM items")
            found = [id_ for (id_,) in await cursor.fetchall()]
            cursor = await connection.execute("SELECT id, content::int FROM items WHERE id ^@ 'counter-'")
            counted = dict(await cursor.fetchall())
        expected = {*self._seeds}
        for number, count in enumerate(self.written):
            expected |= {f"counter-{number}", *(f"new-{number}-{n}" for n in range(count))}
        assert len(found) == len(set(found))
        assert set(found) == expected
        assert counted == {f"counter-{number}": count for number, count in enumerate(self.written)}

    async def _write(self, number: int) -> None:
        """Write until stopped; each write is tried until it is acknowledged."""
        async with self._connected() as connect:
            while not self._stopped:
                begin = time.monotonic()
                given = (f"new-{number}-{self.written[number]}", self._dimensions, f"counter-{number}")
                while True:
                    connection, shard = await connect()
                    try:
                        cursor = await connection.execute(_WRITE, given)
                    except psycopg.Error as error:
                        if error.sqlstate not in (fence.MOVED, fence.HELD):
                            raise
                        await connection.close()
                        continue
                    break
                assert cursor.rowcount == 1
                self._longest = max(self._longest, time.monotonic() - begin)
                self.written[number] += 1
                self._tell(str(number), shard)
                await asyncio.sleep(PAUSE_SECONDS)

    async def _read(self) -> None:
        """Read until stopped, each time where the Secret says; no read fails, and none misses a row."""
        async with self._connected() as connect:
            while not self._stopped:
                connection, shard = await connect(anew=True)
                some = random.sample(self._seeds, min(SAMPLE, self._rows))
                cursor = await connection.execute("SELECT count(*) FROM items WHERE id = ANY(%s)", (some,))
                assert await cursor.fetchone() == (len(some),)
                self.reads += 1
                self._tell("reader", shard)
                await asyncio.sleep(PAUSE_SECONDS)

    def _tell(self, who: str, shard: str) -> None:
        self._shards[who] = shard
        self._news.set()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Callable[..., Any]]:
        """Give a function that returns a connection and its shard: the one before, unless that is closed.

        anew: another one too where the Secret says something else by now.
        """
        connection: AsyncConnection[Any] | None = None
        given: dict[str, str] = {}

        async def connect(*, anew: bool = False) -> tuple[AsyncConnection[Any], str]:
            nonlocal connection, given
            read = await self._secret() if anew or connection is None or connection.closed else given
            if connection is None or connection.closed or read != given:
                if connection is not None:
                    await connection.close()
                given = read
                connection = await AsyncConnection.connect(given["dsn"], autocommit=True)
            return connection, given["shard"]

        try:
            yield connect
        finally:
            if connection is not None:
                await connection.close()

    async def _secret(self) -> dict[str, str]:
        return await secret_of(self._api, self._tenant)
