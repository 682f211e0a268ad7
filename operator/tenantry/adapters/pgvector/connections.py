"""A few connections to a server, opened when they are wanted, and none that waits for ever.

Not psycopg_pool: it opens connections behind those who wait, who then learn that it took too long, and not that the
password is wrong.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus

from tenantry.adapters.pgvector.server import connect, translated
from tenantry.reconcile.ports import Unavailable

MOST: Final = 4
"""Connections at a time to one server: a server has a hundred or so for all its tenants' applications."""

LONGEST: Final = 30.0
"""Seconds that one use of a connection takes at most. Beyond, the server is hung: statements end after 15 s there."""

WAIT: Final = 15.0
"""Seconds to wait for one of the connections."""

_SETTLE: Final = 5.0

_AT_LEISURE: Final = (
    "statement_timeout = 0",
    # Building an index waits for all transactions that are older, of any tenant.
    "lock_timeout = '5min'",
    # A process that is gone leaves no index half built for hours, nor locks.
    "client_connection_check_interval = '10s'",
)


class Connections:
    """Connections to one address. Raises Refused or Unavailable, and nothing of psycopg's."""

    def __init__(self, address: str, most: int = MOST) -> None:
        self._address = address
        self._free = asyncio.Semaphore(most)
        self._idle: list[AsyncConnection[Any]] = []
        self._closed = False

    @asynccontextmanager
    async def use(self, seconds: float = LONGEST) -> AsyncIterator[AsyncConnection[Any]]:
        """Give a connection in autocommit, for so many seconds at most."""
        try:
            await asyncio.wait_for(self._free.acquire(), WAIT)
        except TimeoutError:
            raise Unavailable("all connections of the operator to the server are in use") from None
        try:
            connection = await self._take()
            try:
                with watched(connection, seconds):
                    yield connection
            except psycopg.Error as error:
                raise translated(error) from error
            finally:
                await self._give_back(connection)
        finally:
            self._free.release()

    @asynccontextmanager
    async def own(self) -> AsyncIterator[AsyncConnection[Any]]:
        """Give a connection on which statements may take as long as they do: to build an index, to copy."""
        if self._closed:
            raise Unavailable("the connection is closed")
        connection = await connect(self._address)
        try:
            for setting in _AT_LEISURE:
                await connection.execute(f"SET {setting}")
            yield connection
        except psycopg.Error as error:
            raise translated(error) from error
        finally:
            await _end(connection)

    async def close(self) -> None:
        """Close all that are not in use; those that are will be when they are given back."""
        self._closed = True
        while self._idle:
            await _end(self._idle.pop())

    async def _take(self) -> AsyncConnection[Any]:
        """Return a connection that answers: the server may have gone and come back since its last use."""
        while self._idle and not self._closed:
            connection = self._idle.pop()
            try:
                with watched(connection, _SETTLE):
                    await connection.execute("")
            except psycopg.Error:
                await _end(connection)
            except BaseException:
                await _end(connection)
                raise
            else:
                return connection
        if self._closed:
            raise Unavailable("the connection is closed")
        return await connect(self._address)

    async def _give_back(self, connection: AsyncConnection[Any]) -> None:
        """Keep a connection that is as it was; whatever is in the middle of something is closed."""
        idle = connection.info.transaction_status is TransactionStatus.IDLE
        if idle and not connection.closed and not self._closed:
            self._idle.append(connection)
        else:
            await _end(connection)


class watched:  # noqa: N801 - reads as a clause of `with`
    """Hang up on a server that does not answer in time: psycopg would wait for the answer even when cancelled.

    What waits raises psycopg's OperationalError then.
    """

    def __init__(self, connection: AsyncConnection[Any], seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, _hang_up, connection)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


def _hang_up(connection: AsyncConnection[Any]) -> None:
    """End the conversation; whoever waits for an answer is told that the server has closed the connection."""
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


async def _end(connection: AsyncConnection[Any]) -> None:
    with suppress(psycopg.Error, OSError):
        await connection.close()
