"""PostgreSQL with pgvector, for the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import psutil
import psycopg
from psycopg import AsyncConnection

from tenantry.api.shard import EngineKind
from tenantry.domain.places import Record
from tenantry.local import processes
from tenantry.local.ports import free_ports
from tenantry.local.postgres import PostgresServer
from tests.integration.engines.rig import Application, Denied, one_step_later

_TRACES = """
SELECT 'owners', xmin::text, ctid::text FROM tenantry.owners WHERE tenant = %(tenant)s
UNION ALL SELECT rolname, xmin::text, ctid::text FROM pg_authid WHERE rolname ^@ %(role)s
UNION ALL SELECT relname, c.xmin::text, c.ctid::text FROM pg_class c WHERE relnamespace = to_regnamespace(%(role)s)
UNION ALL SELECT polname, xmin::text, ctid::text FROM pg_policy WHERE polrelid = to_regclass(%(role)s || '.items')
ORDER BY 1, 2, 3
"""


class PostgresApplication:
    """An application on psycopg."""

    def __init__(self, connection: AsyncConnection[Any], table: str) -> None:
        self._connection = connection
        self._table = table

    async def insert(self, ids: Sequence[str], dimensions: int = 3) -> None:
        """Store vectors."""
        await self._run(
            f"INSERT INTO {self._table} (id, embedding) SELECT unnest(%s::text[]), %s",
            (list(ids), str([1] * dimensions)),
        )

    async def ids(self) -> list[str]:
        """Return all ids."""
        return [name for (name,) in await self._run(f"SELECT id FROM {self._table} ORDER BY id")]

    async def _run(self, statement: str, parameters: Any = None) -> list[Any]:
        try:
            cursor = await self._connection.execute(statement, parameters)
            return await cursor.fetchall() if cursor.description else []
        except psycopg.OperationalError as error:
            raise Denied(str(error)) from error


class PostgresRig:
    """One server in a folder of its own, so that it survives being killed."""

    kind = EngineKind.PGVECTOR

    def __init__(self) -> None:
        self._temporary = TemporaryDirectory(prefix="tenantry-test-")
        folder = Path(self._temporary.name)
        folder.chmod(0o711)
        self._server = PostgresServer(folder / "server", port=free_ports(1)[0], durable=False)
        self.secret = ""

    def address(self) -> str:
        """Return the superuser's address."""
        return self._server.dsn()

    def wrong_addresses(self) -> Sequence[str]:
        """Return another password, another user, another database, and what is no address."""
        address = self.address()
        return [
            address.replace(self.secret, "wrong"),
            address.replace("postgres:", "nobody:", 1),
            address + "-of-another-name",
        ]

    def unreachable_address(self) -> str:
        """Return the address with another port."""
        return f"postgresql://postgres:{self.secret}@127.0.0.1:{free_ports(1)[0]}/postgres"

    @asynccontextmanager
    async def application(self, access: Mapping[str, str]) -> AsyncIterator[Application]:
        """Connect by the address in the Secret."""
        try:
            connection = await AsyncConnection.connect(access["dsn"], autocommit=True, connect_timeout=10)
        except psycopg.OperationalError as error:
            raise Denied(str(error)) from error
        try:
            yield PostgresApplication(connection, access["table"])
        finally:
            await connection.close()

    async def traces(self, record: Record) -> object:
        """Return the versions of the rows that PostgreSQL keeps of it."""
        async with await AsyncConnection.connect(self.address()) as admin:
            parameters = {"tenant": record.place.tenant, "role": f"t_{record.id}"}
            return await (await admin.execute(_TRACES, parameters)).fetchall()

    async def spoil_index(self, record: Record) -> None:
        """Mark it as PostgreSQL does until it is built."""
        async with await AsyncConnection.connect(self.address()) as admin:
            await admin.execute(
                "UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass(%s)",
                (f"t_{record.id}.items_embedding",),
            )

    def crashes(self) -> AsyncIterator[AbstractAsyncContextManager[None]]:
        """End the session's server process before each statement in turn; afterwards before none."""
        return one_step_later(_ended_session)

    def kill(self) -> None:
        """End the postmaster and its children as nothing else would."""
        processes.kill(self._processes())

    def start(self) -> None:
        """Start it, or start it again."""
        self._server.start()
        self.secret = (self._server.folder / "password").read_text()

    def stop(self) -> None:
        """End it, and remove its folder."""
        self._server.stop()
        self._temporary.cleanup()

    def _processes(self) -> list[psutil.Process]:
        data = str((self._server.folder / "data").resolve())
        return [process for process in psutil.process_iter() if _folder(process) == data]


@asynccontextmanager
async def _ended_session(at: int, meet: Callable[[], None]) -> AsyncIterator[None]:
    count = 0
    real = AsyncConnection.execute

    async def execute(connection: AsyncConnection[Any], *arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == at + 1:
            meet()
            psutil.Process(connection.info.backend_pid).terminate()
        return await real(connection, *arguments, **options)

    with mock.patch.object(AsyncConnection, "execute", execute):
        yield


def _folder(process: psutil.Process) -> str:
    try:
        return process.cwd()
    except psutil.Error:
        return ""


def rigs() -> Iterator[PostgresRig]:
    """Give one server, running."""
    rig = PostgresRig()
    rig.start()
    try:
        yield rig
    finally:
        rig.stop()
