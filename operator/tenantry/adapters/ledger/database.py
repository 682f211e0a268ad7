"""Engines for the ledger's two databases.

PostgreSQL is the ledger of an operator in a cluster. SQLite serves one process on one machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Engine, NullPool, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from tenantry.adapters.ledger.errors import LedgerError

_SQLITE_BUSY_MS: Final = 5_000

# Defaults for libpq; what the URL says itself wins. A statement of ours takes milliseconds: one that takes
# 15 s waits for something that will not come. `tcp_user_timeout` (ms) notices a host that is gone without a
# word, `target_session_attrs` keeps us off a standby after a failover.
_POSTGRESQL_DEFAULTS: Final[dict[str, str | int]] = {
    "application_name": "tenantry",
    "connect_timeout": 5,
    "tcp_user_timeout": 15_000,
    "target_session_attrs": "read-write",
    "options": "-c statement_timeout=15s -c lock_timeout=10s -c idle_in_transaction_session_timeout=60s",
}


def parse_url(url: str) -> URL:
    """Read a `sqlite:///path`, `postgresql://` or `postgres://` URL. Raises LedgerError."""
    forms = "sqlite:///<path> or postgresql://<user>:<password>@<host>:<port>/<database>"
    unreadable = f"the ledger's URL cannot be read: write {forms}, special characters percent-encoded"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise LedgerError(unreadable) from None  # the parser's message may hold a piece of the password
    match parsed.drivername.partition("+")[0]:
        case "sqlite":
            return _checked_file(parsed)
        case "postgresql" | "postgres":
            if (
                url.count("@") > 1
            ):  # of a password with an "@" the rest would be taken for the host, and shown
                raise LedgerError(unreadable)
            return parsed.set(drivername="postgresql")
    raise LedgerError(f"the ledger's URL names a database that Tenantry does not know: write {forms}")


def _checked_file(url: URL) -> URL:
    if url.database in (None, "", ":memory:"):
        raise LedgerError("the ledger's URL names no file: write sqlite:///<path>")
    path = Path(str(url.database))
    if not path.parent.is_dir():
        raise LedgerError(f"the ledger's SQLite file {path} has no directory: create {path.parent} first")
    if path.is_dir():
        raise LedgerError(f"the ledger's SQLite file {path} is a directory: name a file in it")
    return url.set(drivername="sqlite")


def async_engine(url: URL) -> AsyncEngine:
    """Return the engine to work with, for a URL of `parse_url`; it connects when first used."""
    # `hide_parameters`: what tenants are called and who owns them is nobody's business in a log of errors.
    if url.get_backend_name() == "sqlite":
        engine = create_async_engine(url.set(drivername="sqlite+aiosqlite"), hide_parameters=True)
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        return engine
    engine = create_async_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args=_postgresql_arguments(url),
        hide_parameters=True,
        # One connection writes (see audit.py), the others read; a small pool leaves room for other replicas.
        pool_size=2,
        max_overflow=3,
        pool_timeout=10,
        pool_pre_ping=True,
    )
    event.listen(engine.sync_engine, "handle_error", _leave_standby)
    return engine


def migration_engine(url: URL) -> Engine:
    """Return an engine without a pool whose transactions include DDL and may write from their beginning."""
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, poolclass=NullPool, hide_parameters=True)
        event.listen(engine, "connect", _prepare_sqlite)
        # Python's sqlite3 begins no transaction before DDL: a crash would leave half a migration.
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        return engine
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args=_postgresql_arguments(url),
        poolclass=NullPool,
        hide_parameters=True,
    )


def _postgresql_arguments(url: URL) -> dict[str, Any]:
    # No server-side prepared statements: a pooler in between (PgBouncer) may send the next one elsewhere.
    defaults = {name: value for name, value in _POSTGRESQL_DEFAULTS.items() if name not in url.query}
    return {**defaults, "prepare_threshold": None}


def _prepare_sqlite(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_SQLITE_BUSY_MS}")
    cursor.execute("PRAGMA foreign_keys=ON")
    # NORMAL, the usual companion of WAL, loses the last commits when the power fails, and an audit row that
    # was acknowledged must not be lost. Group commit pays the price of the fsync once for many rows.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _leave_standby(context: ExceptionContext) -> None:
    # A primary that became a standby stays reachable: drop its connections, so that the next look anew.
    if getattr(context.original_exception, "sqlstate", None) == "25006":
        context.is_disconnect = True
