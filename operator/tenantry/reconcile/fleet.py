"""What is known of the shards: their engines, what they have on record, and places that were just decided.

In memory only, and read anew after a start. Only this process writes to the shards, so what was read of one stays
true while it cannot be reached: a tenant that it had no record of may be placed elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tenantry.domain.errors import PartError
from tenantry.domain.places import COUNTS, Record

if TYPE_CHECKING:
    from tenantry.reconcile.ports import Engine

logger = logging.getLogger(__name__)

Work = Callable[[], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class Known:
    """One shard. problem: why it cannot be used at present. records: by tenant; None: it has never been read.

    address: of the engine. behind: what goes on behind the looks at it, `next` after that. written: when we wrote to
    a tenant's place.
    """

    engine: Engine | None = None
    address: str = ""
    problem: PartError | None = None
    records: dict[str, Record] | None = None
    server: str = ""
    looked: asyncio.Event = field(default_factory=asyncio.Event)
    behind: asyncio.Task[None] | None = None
    next: Work | None = None
    written: dict[str, int] = field(default_factory=dict)

    def begin(self, work: Work) -> None:
        """Have work done behind, after that which is going on. What it raises is logged: the next look begins again.

        Of what comes meanwhile only the last is done: it knows what those before it knew.
        """
        if self.behind is None or self.behind.done():
            self.behind = asyncio.create_task(self._go_on(work))
        else:
            self.next = work

    async def _go_on(self, work: Work | None) -> None:
        while work is not None:
            await _logged(work())
            work, self.next = self.next, None

    async def close(self) -> None:
        """End what goes on, and give up the connections."""
        if self.behind is not None:
            self.behind.cancel()
            await asyncio.gather(self.behind, return_exceptions=True)
        if self.engine is not None:
            await self.engine.close()

    @property
    def usable(self) -> bool:
        """Return whether tenants can be given a place there now."""
        return self.engine is not None and self.problem is None and self.records is not None

    @property
    def size(self) -> int:
        """Return the bytes of all places."""
        return sum(record.size for record in (self.records or {}).values())

    @property
    def held(self) -> int:
        """Return the bytes of the places that hold tenants' vectors: without copies and what a move left behind."""
        records = (self.records or {}).values()
        return sum(record.size for record in records if record.place.state in COUNTS)


class Fleet:
    """All shards by name. Not for threads: one event loop writes and reads it."""

    def __init__(self) -> None:
        self._known: dict[str, Known] = {}
        self._reserved: dict[str, str] = {}
        self._leaks: dict[str, tuple[str, ...]] = {}
        self._probed: dict[str, int] = {}
        self._suspects: set[str] = set()
        self._turn = 0
        self._told: dict[tuple[str, str], str] = {}

    async def close(self) -> None:
        """End all that goes on, and give up all connections."""
        for known in self._known.values():
            await known.close()
        self._known.clear()

    async def finish(self) -> bool:
        """Wait for the end of what goes on behind; return whether anything did."""
        running = [known.behind for known in self._known.values() if known.behind and not known.behind.done()]
        await asyncio.gather(*running, return_exceptions=True)
        return bool(running)

    def __getitem__(self, shard: str) -> Known:
        """Return what is known of a shard: nothing, where it has not been looked at."""
        return self._known.setdefault(shard, Known())

    @property
    def known(self) -> Mapping[str, Known]:
        """Return what is known of each shard."""
        return self._known

    def forget(self, shard: str) -> Known | None:
        """Forget a shard that is gone; return what was known of it."""
        return self._known.pop(shard, None)

    @property
    def turn(self) -> int:
        """Return a number that grows with each write of ours."""
        return self._turn

    def saw(
        self, shard: str, engine: Engine, records: Iterable[Record], server: str, since: int | None = None
    ) -> set[str]:
        """Take in what was read of a shard; return the tenants for whom anything but a measure has changed.

        since: `turn` when the reading began: what we wrote after that is newer than what was read.
        """
        known = self[shard]
        before = known.records if known.usable else {}
        now = {record.place.tenant: record for record in records}
        for tenant, turn in known.written.items():
            if since is not None and turn > since:
                now.pop(tenant, None)
                if known.records and tenant in known.records:
                    now[tenant] = known.records[tenant]
        known.written = {} if since is None else {who: at for who, at in known.written.items() if at > since}
        known.engine, known.problem, known.records, known.server = engine, None, now, server
        known.looked.set()
        tenants = (before or {}).keys() | now.keys()
        return {name for name in tenants if _differs((before or {}).get(name), now.get(name))}

    def lost(self, shard: str, problem: PartError) -> bool:
        """Take note that a shard cannot be used; return whether that is news."""
        known = self[shard]
        news = known.problem is None or known.problem.reason != problem.reason
        known.problem = problem
        known.looked.set()
        return news

    def put(self, shard: str, record: Record) -> None:
        """Take in the answer to a write of ours."""
        known = self[shard]
        self._wrote(known, record.place.tenant)
        if known.records is not None:
            known.records[record.place.tenant] = record

    def drop(self, shard: str, tenant: str) -> None:
        """Take note that a place was removed."""
        known = self[shard]
        self._wrote(known, tenant)
        if known.records is not None:
            known.records.pop(tenant, None)

    def _wrote(self, known: Known, tenant: str) -> None:
        self._turn += 1
        known.written[tenant] = self._turn

    def unread(self, shards: Iterable[str]) -> list[str]:
        """Return those of the shards that have never been read."""
        return [name for name in shards if self[name].records is None]

    def locate(self, tenant: str, shards: Iterable[str]) -> tuple[str, Record] | None:
        """Return the shard that holds a tenant's vectors by its own record, that of the highest epoch.

        Two of the same epoch are there where a tenant was placed anew before the shard with its vectors was known:
        then one with vectors.
        """
        found = []
        for name in shards:
            record = (self[name].records or {}).get(tenant)
            if record is not None and record.place.state in COUNTS:
                found.append((name, record))
        return max(found, key=lambda item: (item[1].place.epoch, item[1].rows > 0, item[0]), default=None)

    # --- places that are decided and not seen yet ---------------------------------------------------------------

    def reserve(self, tenant: str, shard: str) -> None:
        """Count a tenant on a shard until `settle`: its placement is on its way."""
        self._reserved[tenant] = shard

    def settle(self, tenant: str) -> None:
        """The tenant's placement is seen, or will not be."""
        self._reserved.pop(tenant, None)

    @property
    def reserved(self) -> Mapping[str, str]:
        """Return the shards of tenants whose placements are on their way."""
        return self._reserved

    def news(self, shard: str, topic: str, message: str) -> bool:
        """Take note of what is said about a shard, empty where nothing is; return whether that is worth an Event."""
        before = self._told.pop((shard, topic), "")
        if message:
            self._told[shard, topic] = message
        return bool(message) and message != before

    # --- canaries -----------------------------------------------------------------------------------------------

    def due(self, records: Sequence[Record], most: int) -> list[Record]:
        """Return those that are to be probed next: all that never were or that leaked, and some in turn."""
        urgent = [item for item in records if self._leaks.get(item.place.tenant, ("",))]
        names = {item.place.tenant for item in urgent}
        others = [item for item in records if item.place.tenant not in names]
        turns = sorted(others, key=lambda item: (self._probed[item.place.tenant], item.place.tenant))
        return [*urgent, *turns[:most]]

    def probed(self, tenant: str, leaks: Iterable[str]) -> bool:
        """Take note of what a probe of a tenant has found; return whether that is news."""
        found = tuple(leaks)
        self._turn += 1
        self._probed[tenant] = self._turn
        news = self._leaks.get(tenant) != found
        self._leaks[tenant] = found
        if found:
            self._suspects.add(tenant)
        return news

    def cleared(self, tenant: str) -> bool:
        """Return whether a tenant's place was suspected not to be as its record says, and suspect it no more."""
        suspected = tenant in self._suspects
        self._suspects.discard(tenant)
        return suspected

    def leaks(self, tenant: str) -> tuple[str, ...] | None:
        """Return what the last probe has found; None: there was none in this process."""
        return self._leaks.get(tenant)

    def unprobed(self, tenant: str) -> None:
        """Forget the probes of a tenant that is gone."""
        self._leaks.pop(tenant, None)
        self._probed.pop(tenant, None)

    async def looked_at(self, shards: Iterable[str], seconds: float) -> bool:
        """Wait until each of the shards was looked at once, with or without success; False: not in that time."""
        waits = [self[name].looked.wait() for name in shards]
        try:
            await asyncio.wait_for(asyncio.gather(*waits), seconds)
        except TimeoutError:
            return False
        return True


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception as error:  # noqa: BLE001 - whatever it was, the looks at the shard go on and tell of it
        logger.warning("Behind the looks at a shard: %s: %s", type(error).__name__, error)


def _differs(before: Record | None, now: Record | None) -> bool:
    if before is None or now is None:
        return before is not now
    return not before.is_as(now.place) or not now.settled or before.id != now.id
