"""What the contract needs of a real server of any engine, besides the port itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from tenantry.api.shard import EngineKind
from tenantry.domain.places import Record


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
