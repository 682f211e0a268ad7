"""What goes wrong for one replica of several, by its door."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from tests.faults.fleet import Member
from tests.faults.proxy import WRITES, Answer, Cut, Fault, Request
from tests.faults.writers import HARMLESS


class Hold(Fault):
    """Holds writes of whoever leads until it is opened: before they are passed on, or (`after`) when they are done.

    matches: which; of these from the k-th on (`first`), and so many of them (`most`). lost: what was held never
    gets through. Nothing else is touched, and nothing of a successor's.
    """

    def __init__(
        self,
        matches: Callable[[Request], bool] = lambda _: True,
        *,
        first: int = 1,
        most: int = 1,
        after: bool = False,
        lost: bool = False,
    ) -> None:
        self.held: list[Request] = []
        self.door = ""
        """Whose writes are held; empty until the first one is."""
        self._matches, self._after, self._lost = matches, after, lost
        self._numbers = range(first, first + most)
        self._open = asyncio.Event()
        self._count = 0
        self._awaited: set[int] = set()

    async def before(self, request: Request) -> Answer | None:
        if self._is_one(request):
            if self._after:
                self._awaited.add(request.number)
            else:
                await self._hold(request)
        return None

    async def after(self, request: Request, answer: Answer) -> Answer:
        if request.number in self._awaited:
            await self._hold(request)
        return answer

    def open(self) -> None:
        """Let go what is held, and hold nothing more."""
        self._numbers = range(0)
        self._open.set()

    def _is_one(self, request: Request) -> bool:
        if request.verb not in WRITES or request.kind in HARMLESS or not self._matches(request):
            return False
        self._count += 1
        if self._count not in self._numbers or self.door not in ("", request.door):
            return False
        self.door = request.door
        return True

    async def _hold(self, request: Request) -> None:
        self.held.append(request)
        await self._open.wait()
        if self._lost:
            raise Cut


class NoLease(Fault):
    """Keeps one replica from writing the Lease: with an answer in place of the API server's, or with none at all."""

    def __init__(self, door: Member, answer: Answer | None) -> None:
        self._door, self._answer = door.name, answer

    async def before(self, request: Request) -> Answer | None:
        if request.door == self._door and request.kind == "leases" and request.verb in WRITES:
            return self._answer or await _never()
        return None


class Silence(Fault):
    """Whatever one replica asks, nobody answers."""

    def __init__(self, door: Member) -> None:
        self._door = door.name

    async def before(self, request: Request) -> Answer | None:
        return await _never() if request.door == self._door else None


class Clocks(Fault):
    """Has replicas write the Lease as if their clocks were wrong by so much."""

    def __init__(self, wrong: Mapping[str, timedelta]) -> None:
        self._wrong = wrong

    async def before(self, request: Request) -> Answer | None:
        if request.kind == "leases" and request.verb in WRITES and request.door in self._wrong:
            lease = request.content
            for name in {"renewTime", "acquireTime"} & lease["spec"].keys():
                shown = datetime.fromisoformat(lease["spec"][name]) + self._wrong[request.door]
                lease["spec"][name] = shown.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            request.body = json.dumps(lease).encode()
        return None


class Together(Fault):
    """Has so many replicas create the Lease in the same moment."""

    def __init__(self, count: int) -> None:
        self._barrier = asyncio.Barrier(count)

    async def before(self, request: Request) -> Answer | None:
        if (request.verb, request.kind) == ("create", "leases"):
            await self._barrier.wait()
        return None


async def _never() -> Answer:
    await asyncio.Event().wait()
    raise AssertionError
