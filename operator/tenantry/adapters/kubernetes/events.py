"""Events as people know them from kubectl: in order of time, and one that comes again is one line that counts.

kubectl shows the Events of one second by their names, so names count the time up. Without counting, another
controller that fights ours over a child would add a line to `kubectl describe` with every round.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tenantry.adapters.kubernetes.client import MERGE, Client
from tenantry.adapters.kubernetes.kinds import EVENTS
from tenantry.api.common import rfc3339
from tenantry.domain import names
from tenantry.reconcile.ports import Manifest

logger = logging.getLogger(__name__)

NAMESPACE = "default"
"""Where Events about cluster-scoped objects live."""

MOST_WAITING = 200
"""Events on their way at once; more are dropped: reconciles do not wait for them, so they could pile up."""

SERIES = timedelta(minutes=10)
"""What comes again within this time is counted, not sent anew. This and the next two are client-go's figures."""

MOST_ALIKE = 10
"""So many messages about one object, with one reason, are Events of their own; further ones share one Event."""

REMEMBERED = 4096
"""Pairs of object and reason whose Events are remembered."""

_COMBINED = "(combined from similar events)"
_MESSAGE_LIMIT = 1024


@dataclass(slots=True)
class _Series:
    """One Event. It happened `count` times; the API server knows of `told`."""

    name: str
    first: datetime
    last: datetime
    message: str = ""
    count: int = 0
    told: int = 0
    under_way: bool = False


class Events:
    """Sends Events about objects of ours. leads: a process that has lost its Lease sends none."""

    def __init__(self, client: Client, leads: Callable[[], bool]) -> None:
        self._client = client
        self._leads = leads
        self._tasks: set[asyncio.Task[None]] = set()
        self._alike: OrderedDict[tuple[str, ...], dict[str, _Series]] = OrderedDict()
        self._newest = 0

    def send(self, about: Manifest, reason: str, message: str, warning: bool) -> None:
        """Send an Event beside whatever goes on. Never raises or waits."""
        if not self._leads():
            return
        if len(self._tasks) >= MOST_WAITING:
            logger.warning("no Event %s about %s: too many wait already", reason, about["metadata"]["name"])
            return
        series = self._counted(about, reason, message, datetime.now(UTC))
        if series.under_way:
            return
        series.under_way = True
        task = asyncio.create_task(self._tell(series, about, reason, warning))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, seconds: float) -> None:
        """Give the Events that are on their way so long, and no longer."""
        waiting = list(self._tasks)
        if waiting:
            await asyncio.wait(waiting, timeout=seconds)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    def _counted(self, about: Manifest, reason: str, message: str, now: datetime) -> _Series:
        metadata = about["metadata"]
        group = (about["kind"], metadata["name"], metadata.get("uid", ""), reason)
        alike = {
            text: series for text, series in self._alike.pop(group, {}).items() if now - series.last <= SERIES
        }
        self._alike[group] = alike
        if len(self._alike) > REMEMBERED:
            self._alike.popitem(last=False)
        own = message in alike or len(alike) < MOST_ALIKE
        text = message if own else _COMBINED
        series = alike.setdefault(text, _Series(self._next_name(metadata["name"]), now, now))
        series.count, series.last = series.count + 1, now
        series.message = (message if own else f"{_COMBINED}: {message}")[:_MESSAGE_LIMIT]
        return series

    def _next_name(self, name: str) -> str:
        self._newest = max(time.time_ns(), self._newest + 1)
        return f"{name}.{self._newest:x}"

    async def _tell(self, series: _Series, about: Manifest, reason: str, warning: bool) -> None:
        try:
            while series.told < series.count:
                count = series.count
                await self._write(series, about, reason, warning)
                series.told = count
        except Exception as error:  # noqa: BLE001 - nobody waits for it
            logger.warning("no Event %s about %s: %s", reason, about["metadata"]["name"], error)
        finally:
            series.under_way = False

    async def _write(self, series: _Series, about: Manifest, reason: str, warning: bool) -> None:
        if series.told:
            path = EVENTS.path(series.name, NAMESPACE)
            body = {
                "count": series.count,
                "lastTimestamp": rfc3339(series.last),
                "message": series.message,
            }
            try:
                await self._client.send(
                    "PATCH", path, body=body, content_type=MERGE, allowed=self._leads, attempts=1
                )
                return
            except LookupError:  # the API server keeps Events for an hour
                pass
        event = _event(series, about, reason, warning)
        path = EVENTS.path(namespace=NAMESPACE)
        await self._client.send("POST", path, body=event, allowed=self._leads, attempts=1)


def _event(series: _Series, about: Manifest, reason: str, warning: bool) -> Manifest:
    metadata = about["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": series.name, "namespace": NAMESPACE},
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "name": metadata["name"],
            "uid": metadata.get("uid", ""),
            "resourceVersion": metadata.get("resourceVersion", ""),
        },
        "type": "Warning" if warning else "Normal",
        "reason": reason,
        "message": series.message,
        "count": series.count,
        "firstTimestamp": rfc3339(series.first),
        "lastTimestamp": rfc3339(series.last),
        "source": {"component": names.MANAGER},
        "reportingComponent": "tenantry.dev/operator",
    }
