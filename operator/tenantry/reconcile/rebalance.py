"""The planner of moves between shards."""

from __future__ import annotations

from tenantry.reconcile.ports import Context
from tenantry.reconcile.result import Key, Result


async def reconcile(key: Key, cx: Context) -> Result:  # noqa: ARG001 - the one shape of a controller
    """Do nothing yet."""
    return Result.done()
