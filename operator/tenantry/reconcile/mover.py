"""What moves one tenant's place from one engine to another: the port that a move's controller works by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tenantry.domain.places import Place


class Busy(Exception):  # noqa: N818
    """Something does not end in time, such as a writer's transaction; nothing is held back on its account."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a copy has come. rows: on the target. lag_bytes: of the source's log that the target has not seen.

    copied: all that was there at the beginning is on the target. lost: the source has thrown away what was to be
    sent, so the copy must begin anew.
    """

    rows: int
    lag_bytes: int
    copied: bool
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Blocked:
    """Writes are held back, and the target has all of them. seconds: since the first writer may have waited."""

    seconds: float


class Mover(Protocol):
    """The move of one tenant; every step may be repeated by another process. Raises Refused or Unavailable."""

    async def prepare(self, place: Place) -> None:
        """Have everything that a move needs, and copying begin. place: on the target, in state IMPORTING.

        Raises Busy where as many others move as a server has room for.
        """

    async def progress(self) -> Progress:
        """Return how far the copy has come."""

    async def index(self) -> bool:
        """Have the target build the index that the source has; True when it is there."""

    async def verify(self) -> str | None:
        """Compare both while writes go on; return what differs beyond what is on its way, None where nothing does.

        Raises Busy where that is not known yet.
        """

    async def block(self) -> Blocked:
        """Hold writes back at the source until all are on the target and compared.

        Raises Busy, and Refused where the two still differ; writes are held back then until `unblock`.
        """

    async def unblock(self) -> None:
        """Before the decision: let writes go on at the source."""

    async def activate(self, place: Place) -> None:
        """After the decision: have the target take writes. place: on the target, in state OWNER."""

    async def redirect(self) -> None:
        """After that: have the source send writers on."""

    async def detach(self) -> None:
        """End the copying, once both know where the tenant is."""

    async def clean_target(self) -> None:
        """Roll back: remove everything of the move, and let the source go on as if it had never been."""

    async def clean_source(self) -> None:
        """Remove what is left at the source, and of the move."""

    async def close(self) -> None:
        """Give up the connections."""
