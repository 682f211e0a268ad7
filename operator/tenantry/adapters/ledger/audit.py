"""The append-only audit log, with group commit.

Calls of `record` that arrive while a transaction is under way share the next one:

    record(a) ──▶ [commit a]
    record(b) ──────┐         record(d) ──┐
    record(c) ──────┴▶ [commit b c] ──────┴▶ [commit d]

A lone call waits for nobody, a burst pays for a few transactions instead of hundreds. Each call returns when
its own rows are committed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Insert, Integer, Row, Text, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from tenantry.adapters.ledger.errors import sentence
from tenantry.adapters.ledger.tables import audit
from tenantry.domain.audit import AuditEntry
from tenantry.reconcile.ports import Unavailable

# Longer than every timeout below it (connecting, statement, lock, SQLite's busy timeout).
_DEADLINE_SECONDS: Final = 30.0
# PostgreSQL indexes no value above 2,704 bytes; one that it refused would fail its whole group, every time.
_IDENTITY_BYTES: Final = 1_024


_LATEST = (
    select(audit)
    .where(audit.c.uid == bindparam("uid"))
    # Not LIKE, which ignores case on SQLite.
    .where(
        func.substr(audit.c.identity, 1, bindparam("length", type_=Integer))
        == bindparam("prefix", type_=Text)
    )
    .order_by(audit.c.id.desc())
    .limit(1)
)
"""Built once: to build a query takes longer than to run it."""


@dataclass(slots=True)
class _Call:
    """One call of `record` that waits for its rows to be committed."""

    rows: list[dict[str, Any]]
    done: asyncio.Future[None]


class SqlAuditLog:
    """`reconcile.ports.AuditLog` on a database; belongs to the event loop that it is first used in."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._insert = _insert_new(engine.dialect.name)
        self._waiting: list[_Call] = []
        self._writer: asyncio.Task[None] | None = None
        self._closed = False

    async def record(self, entries: Sequence[AuditEntry]) -> None:
        """Append entries; returns when they are committed. One whose identity is there already adds nothing.

        A call that is cancelled may have appended its entries, or not: recording them again is safe.
        Raises Unavailable, then as well; ValueError or TypeError where an entry can never be stored (a bug).
        """
        rows = [_row(entry) for entry in entries]
        if not rows:
            return
        if self._closed:
            raise Unavailable("the ledger is closed")
        call = _Call(rows, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write(), name="ledger-audit")
        await call.done

    async def latest(self, uid: str, identity_prefix: str = "") -> AuditEntry | None:
        """Return the last recorded entry about an object, None where there is none. Raises Unavailable."""
        prefix = _text(identity_prefix)
        asked = {"uid": _text(uid), "prefix": prefix, "length": len(prefix)}
        async with self._available(), self._engine.connect() as connection:
            row = (await connection.execute(_LATEST, asked)).one_or_none()
        return None if row is None else _entry(row)

    async def entries(
        self, tenant: str | None = None, since: datetime | None = None, limit: int = 100
    ) -> list[AuditEntry]:
        """Return at most `limit` entries by the time of the change, newest first. Raises Unavailable.

        `tenant`: only of that one. `since`: an aware moment, only entries of then or later.
        """
        query = select(audit).order_by(audit.c.at.desc(), audit.c.id.desc()).limit(limit)
        if tenant is not None:
            query = query.where(audit.c.tenant == _text(tenant))
        if since is not None:
            query = query.where(audit.c.at >= since)
        async with self._available(), self._engine.connect() as connection:
            rows = (await connection.execute(query)).all()
        return [_entry(row) for row in rows]

    async def close(self) -> None:
        """Refuse further entries and return when those that wait are written, or have failed."""
        self._closed = True
        if self._writer is not None:
            await asyncio.wait([self._writer])

    async def _write(self) -> None:
        """Commit one group after another until nobody waits."""
        group: list[_Call] = []
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                _settle(group, await self._commit(row for call in group for row in call.rows))
        finally:
            # Calls are left here only when this task was cancelled (the event loop ends) or met a bug.
            _settle([*group, *self._waiting], Unavailable("the ledger stopped before the entry was written"))
            self._waiting = []
            self._writer = None

    async def _commit(self, rows: Iterable[dict[str, Any]]) -> Unavailable | None:
        """Write rows in one transaction; returns what was wrong, None when they are committed."""
        try:
            async with self._available(), self._engine.begin() as connection:
                await connection.execute(self._insert, list(rows))
        except Unavailable as error:
            return error
        return None

    @asynccontextmanager
    async def _available(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                yield
        except (SQLAlchemyError, OSError) as error:  # TimeoutError is an OSError
            raise Unavailable(sentence(error, self._engine.url)) from error


def _settle(group: Iterable[_Call], error: Unavailable | None) -> None:
    """Answer every call that still waits."""
    for call in group:
        if call.done.done():  # cancelled meanwhile
            continue
        if error is None:
            call.done.set_result(None)
        else:
            # One exception each: an instance that is raised in several tasks collects all their tracebacks.
            answer = Unavailable(str(error), error.retry_after)
            answer.__cause__ = error.__cause__
            call.done.set_exception(answer)


def _insert_new(dialect: str) -> Insert:
    if dialect == "sqlite":
        return sqlite.insert(audit).on_conflict_do_nothing(index_elements=[audit.c.identity])
    return postgresql.insert(audit).on_conflict_do_nothing(index_elements=[audit.c.identity])


def _row(entry: AuditEntry) -> dict[str, Any]:
    """Return an entry as it is stored; one that cannot be raises here, where it fails no other call."""
    if not 0 < len(entry.identity.encode(errors="replace")) <= _IDENTITY_BYTES:
        raise ValueError(
            f"an audit entry's identity has 1 to {_IDENTITY_BYTES} bytes: {entry.identity[:80]!r}"
        )
    if entry.at.tzinfo is None:
        raise ValueError(f"audit entry {entry.identity} is at {entry.at.isoformat()}, without a time zone")
    return {
        "identity": _text(entry.identity),
        "at": entry.at,
        "actor": _text(entry.actor),
        "action": _text(entry.action),
        "kind": _text(entry.kind),
        "name": _text(entry.name),
        "uid": _text(entry.uid),
        "tenant": None if entry.tenant is None else _text(entry.tenant),
        "before": _document(entry.before),
        "after": _document(entry.after),
        "message": _text(entry.message),
    }


def _entry(row: Row[Any]) -> AuditEntry:
    columns = dict(row._mapping)
    del columns["id"]
    return AuditEntry(**columns)


def _text(value: str) -> str:
    """Return text that both databases take: unlike JSON they know no NUL and no lone surrogates."""
    if "\0" not in value and value.isprintable():
        return value
    return value.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _document(value: Any) -> Any:
    """Return a JSON value with every text as `_text` has it. Raises TypeError where it is not JSON."""
    match value:
        case None | bool() | int():
            return value
        case str():
            return _text(value)
        case float() if math.isfinite(value):
            return value
        case list() | tuple():
            return [_document(item) for item in value]
        case dict():
            return {_text(key): _document(item) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} {value!r:.80} is not JSON")
