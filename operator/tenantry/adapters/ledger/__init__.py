"""The ledger: what the operator must not lose and Kubernetes does not keep. So far the audit log.

`open_ledger` is the way in.
"""

from __future__ import annotations

import asyncio

from sqlalchemy.ext.asyncio import AsyncEngine

from tenantry.adapters.ledger.audit import SqlAuditLog
from tenantry.adapters.ledger.database import async_engine, parse_url
from tenantry.adapters.ledger.errors import LedgerError
from tenantry.adapters.ledger.migrations import migrate


class Ledger:
    """An open ledger; `durable`: it outlives the pod that writes it (not so an SQLite file)."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.audit = SqlAuditLog(engine)
        self.durable = engine.dialect.name != "sqlite"

    async def close(self) -> None:
        """Return when what was being written is written and every connection is closed."""
        await self.audit.close()
        await self._engine.dispose()


async def open_ledger(url: str) -> Ledger:
    """Bring the database at `url` to the newest schema and open it; see `parse_url`. Raises LedgerError."""
    parsed = parse_url(url)
    await asyncio.to_thread(migrate, parsed)
    return Ledger(async_engine(parsed))


__all__ = ["Ledger", "LedgerError", "SqlAuditLog", "open_ledger"]
