"""Reports that wait until what others wait for has been done.

A Plan's edit concerns hundreds of tenants. That it has come into effect for one of them is told in a status and an
Event, which cost the API server more than the effect: so all get the effect first, and the reports follow.

What waits is in memory only. A process that dies loses it, and its successor finds the status to be amiss. Each
report is made before its object is looked at again, so none is skipped or overtaken by a later one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tenantry.reconcile.result import Key

MOST = 1000
"""Reports that wait at once; each holds the object that it is about."""

Report = Callable[[], Awaitable[None]]


class Deferred:
    """The reports that wait. others_wait: whether any key with news has not been looked at yet."""

    def __init__(self, others_wait: Callable[[], bool] = lambda: False, most: int = MOST) -> None:
        self._others_wait = others_wait
        self._most = most
        self._reports: dict[Key, Report] = {}

    def put(self, key: Key, report: Report) -> bool:
        """Keep a report until `make`; the caller sees to it that it comes. False: the report is to be made now."""
        if len(self._reports) >= self._most or not self._others_wait():
            return False
        self._reports[key] = report
        return True

    async def make(self, key: Key) -> None:
        """Make the report about an object, if one waits. What it raises is raised; it is not made again."""
        report = self._reports.pop(key, None)
        if report is not None:
            await report()
