"""What the contract needs of a real server of any engine, besides the port itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol
from unittest import mock

from tenantry.api.shard import EngineKind
from tenantry.domain.places import Record
from tenantry.reconcile.ports import Unavailable


class Denied(Exception):  # noqa: N818
    """The server does not let an application in, or not any more."""


class Application(Protocol):
    """A tenant's application, connected with what is in its Secret. Raises Denied."""

    async def insert(self, ids: Sequence[str], dimensions: int = 3) -> None:
        """Store vectors by these ids."""

    async def ids(self) -> list[str]:
        """Return the ids of all vectors that it sees, in order."""


class Rig(Protocol):
    """One server."""

    kind: EngineKind
    secret: str
    """The operator's password there."""

    def address(self) -> str:
        """Return how the operator reaches it."""

    def wrong_addresses(self) -> Sequence[str]:
        """Return addresses at which it refuses the operator."""

    def unreachable_address(self) -> str:
        """Return an address with nothing behind it."""

    def application(self, access: Mapping[str, str]) -> AbstractAsyncContextManager[Application]:
        """Connect as an application does that knows these credentials. Raises Denied."""

    async def traces(self, record: Record) -> object:
        """Return something that is another after each write to a place or to its record."""

    async def spoil_index(self, record: Record) -> None:
        """Leave the index as a crash in the middle of its building does."""

    def crashes(self) -> AsyncIterator[AbstractAsyncContextManager[None]]:
        """Yield surroundings in each of which what an engine does meets a crash one step later than in the last.

        Ends after one in which nothing was left to crash.
        """

    def kill(self) -> None:
        """End all its processes at once."""

    def start(self) -> None:
        """Have it running, at the same address."""

    def stop(self) -> None:
        """End it for good."""


Crash = Callable[[int, Callable[[], None]], AbstractAsyncContextManager[None]]
"""Surroundings that crash at a step, counted from 0, and call back when they come to it."""


async def one_step_later(crash: Crash) -> AsyncIterator[AbstractAsyncContextManager[None]]:
    """Yield surroundings that crash one step later each time, up to those in which nothing was left to crash."""
    step = 0
    met = True

    def meet() -> None:
        nonlocal met
        met = True

    while met:
        met = False
        yield crash(step, meet)
        step += 1


def lost_requests(client: type[Any]) -> Crash:
    """Lose a request of an engine's client: first before the server has it, one step later its answer."""

    @asynccontextmanager
    async def crash(at: int, meet: Callable[[], None]) -> AsyncIterator[None]:
        count = 0
        real = client._send

        async def send(sender: Any, *arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count != at // 2 + 1:
                return await real(sender, *arguments)
            meet()
            if at % 2:
                await real(sender, *arguments)
            raise Unavailable("the connection was lost")

        with mock.patch.object(client, "_send", send):
            yield

    return crash
