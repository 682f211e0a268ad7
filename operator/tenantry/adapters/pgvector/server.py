"""A shard's PostgreSQL server: how it is reached, and what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tenantry.domain.fitness import ServerFacts
from tenantry.reconcile.ports import Refused, Unavailable

_DEFAULTS: Final[dict[str, Any]] = {
    "application_name": "tenantry",
    "connect_timeout": 5,
    "tcp_user_timeout": 15_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "options": "-c statement_timeout=15s -c lock_timeout=5s -c idle_in_transaction_session_timeout=60s",
}
"""For libpq; what the address says itself wins."""

_FACTS: Final = """
SELECT split_part(current_setting('server_version'), ' ', 1),
       (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
       (SELECT default_version FROM pg_available_extensions WHERE name = 'vector'),
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
       pg_is_in_recovery()
"""

NO_ADDRESS: Final = "is no address: write postgresql://user:password@host:5432/database"

_REFUSALS: Final = ("28", "3D", "42501")
"""Classes of SQLSTATE that trying again does not change: who logs in, which database, what he may do."""


async def connect(address: str) -> AsyncConnection[Any]:
    """Open a connection in autocommit. Raises Refused (the address, the user or the password) or Unavailable.

    No error holds the password: libpq names host, port, user and database only.
    """
    try:
        given = conninfo_to_dict(address)
        return await AsyncConnection.connect(make_conninfo("", **{**_DEFAULTS, **given}), autocommit=True)
    except psycopg.OperationalError as error:
        said = _line(error)
        if any(
            f"FATAL:  {phrase}" in str(error)
            for phrase in ("password auth", "role ", "database ", "no pg_hba")
        ) or "no password supplied" in str(error):
            raise Refused(said) from error
        raise Unavailable(said) from error
    except psycopg.ProgrammingError:
        # What libpq cannot read it repeats, the password with it.
        raise Refused(NO_ADDRESS) from None


def parts(address: str) -> dict[str, str]:
    """Return what an address says of host, port, user and database, the first one of several. Raises Refused."""
    try:
        given = conninfo_to_dict(address)
    except psycopg.ProgrammingError:
        raise Refused(NO_ADDRESS) from None
    found = {name: str(value or "").partition(",")[0] for name, value in given.items()}
    said = {name: value for name, value in found.items() if value}
    port = said.get("port", "5432")
    if "host" not in said or "user" not in said or not (port.isdecimal() and 0 < int(port) < 65536):
        raise Refused(NO_ADDRESS)
    return {"dbname": said["user"], **said, "port": port}


async def examine(connection: AsyncConnection[Any]) -> ServerFacts:
    """Return what a server says of itself. Raises Refused or Unavailable."""
    try:
        row = await (await connection.execute(_FACTS)).fetchone()
    except psycopg.Error as error:
        raise translated(error) from error
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    return ServerFacts(*row)


async def flush(connection: AsyncConnection[Any]) -> None:
    """Have on a server's disk all that can be seen there."""
    await connection.execute(
        "SELECT set_config('synchronous_commit', 'on', true), pg_logical_emit_message(true, 'tenantry', '')"
    )


@contextmanager
def translating() -> Iterator[None]:
    """Raise what an error of the server means instead of it."""
    try:
        yield
    except psycopg.Error as error:
        raise translated(error) from error


def translated(error: psycopg.Error) -> Refused | Unavailable:
    """Return what an error of the server means to a reconcile."""
    state = error.sqlstate or ""
    return Refused(_line(error)) if state.startswith(_REFUSALS) else Unavailable(_line(error))


def _line(error: psycopg.Error) -> str:
    """Return the server's own sentence."""
    text = str(error).strip().partition("\n")[0]
    return text.rpartition("FATAL:  ")[2].strip().rstrip(".") or type(error).__name__
