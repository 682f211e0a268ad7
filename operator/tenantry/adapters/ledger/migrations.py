"""Bringing a database to the newest schema.

Schemas only grow (no revision removes or renames anything), so during a rollout an operator of an older
version works beside a newer one on the newer schema.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from contextlib import closing
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, func, inspect, select, text
from sqlalchemy.exc import SQLAlchemyError

from tenantry.adapters.ledger.database import migration_engine
from tenantry.adapters.ledger.errors import LedgerError, location, sentence
from tenantry.adapters.ledger.tables import audit

_log = logging.getLogger(__name__)

VERSION_TABLE: Final = "tenantry_schema"
"""Where Alembic notes the revision; not its default name, which another application may use."""

# Any number will do that no other application in the same database takes: "tenantry" in ASCII.
_ADVISORY_LOCK: Final = int.from_bytes(b"tenantry", "big", signed=True)
_WAIT_SECONDS: Final = 60

# Alembic hands the context of a migration to env.py through a global of its module.
_one_at_a_time = threading.Lock()


def configuration() -> Config:
    """Return Alembic's configuration, which needs no alembic.ini."""
    config = Config()
    config.set_main_option("script_location", "tenantry.adapters.ledger:alembic")
    return config


def migrate(url: URL) -> None:
    """Bring the database at a URL of `parse_url` to the newest schema; blocks. Raises LedgerError.

    Of several processes that start at once one migrates and the others wait for it. All or nothing: what a
    crash interrupts leaves no trace.
    """
    engine = migration_engine(url)
    try:
        with _one_at_a_time:
            if engine.dialect.name == "sqlite":
                _use_write_ahead_log(str(url.database))
            with engine.begin() as connection:
                _wait_for_turn(connection)
                _upgrade(connection, url)
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise LedgerError(sentence(error, url)) from error
    finally:
        engine.dispose()


def _wait_for_turn(connection: Connection) -> None:
    """Take the right to migrate until the transaction ends; on SQLite BEGIN IMMEDIATE already did."""
    if connection.dialect.name == "postgresql":
        for timeout in ("lock_timeout", "statement_timeout"):
            connection.execute(text(f"SET LOCAL {timeout} = '{_WAIT_SECONDS}s'"))
        connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))


def _upgrade(connection: Connection, url: URL) -> None:
    config = configuration()
    known = {revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()}
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    newer = set(context.get_current_heads()) - known
    if newer:
        _check_newer(connection, url, ", ".join(sorted(newer)))
        return
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _check_newer(connection: Connection, url: URL, revision: str) -> None:
    if not inspect(connection).has_table(audit.name):
        raise LedgerError(
            f"the ledger ({location(url)}) is at revision {revision}, unknown to this version, and "
            f"has no table {audit.name}: name a database of Tenantry's own"
        )
    _log.warning(
        "The ledger is at revision %s, newer than this version of Tenantry knows: used as it is",
        revision,
    )


def _use_write_ahead_log(path: str) -> None:
    """Let readers and the writer of an SQLite file work at the same time; the file remembers it.

    SQLite does not wait for a lock here, so of two processes that create the file one may have to try again.
    """
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
