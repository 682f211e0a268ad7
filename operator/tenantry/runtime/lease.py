"""Leader election on a `coordination.k8s.io` Lease, and the fence that every write asks.

    t = 0          the leader sends a renewal; the API server stores it
    t = deadline   not renewed since: `held()` is False, the leader stops by itself
    t = duration   a standby that saw the renewal at t >= 0 may take the Lease

Only a Lease that its holder released is free before that. One that somebody edited or deleted by hand is not: its
holder believes in it until it asks again, and takes it back.

`kubernetes.aio.leaderelection` (37.0) is not used. It measures by the wall clock, which jumps; sends requests
without a time limit, so that a hung connection outlives the Lease; lets aiohttp's errors end the election;
writes local time marked as UTC; cannot release a Lease; and waits for its own duration instead of the
holder's, which differ during a rollout. Its typed Lease loses the fraction of a time of whole seconds, which
the API server then refuses: here a Lease stays the JSON that the server sent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from tenantry.reconcile.ports import Conflict

logger = logging.getLogger(__name__)

RELEASED = {"holderIdentity": "", "leaseDurationSeconds": 1}
"""What a holder writes that has stopped; client-go writes the same."""


class Requests(Protocol):
    """Sends JSON to the API server, as `adapters.kubernetes.client.Client` does."""

    async def send(self, method: str, path: str, *, body: Any = None) -> dict[str, Any]:
        """Return the answer. Raises LookupError for 404, Conflict for 409, others with a sentence."""


def boot_time() -> float:
    """Return monotonic seconds that count suspended time too, where the system has such a clock."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


def new_identity() -> str:
    """Return a name for this process that no other process has, nor a later one of the same pod."""
    return f"{socket.gethostname()}_{os.getpid()}_{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """Which Lease, and for how long; seconds."""

    namespace: str = "default"
    name: str = "tenantry-operator"
    identity: str = field(default_factory=new_identity)
    duration: int = 15
    """How long others wait after the last renewal that they saw."""
    renew_deadline: float = 10.0
    """How long this process believes in a Lease that it could not renew."""
    retry_period: float = 2.0

    def __post_init__(self) -> None:
        if not self.retry_period * 1.2 < self.renew_deadline < self.duration:
            raise ValueError(
                f"the Lease needs 1.2 * retry period < renew deadline < duration, "
                f"not {self.retry_period:g}, {self.renew_deadline:g}, {self.duration} s"
            )

    @property
    def request_timeout(self) -> float:
        """Half of the deadline: one request that hangs leaves time for another."""
        return self.renew_deadline / 2


class Leadership:
    """Waits for a Lease as a hot standby, leads while it is held, and releases it."""

    def __init__(
        self, terms: LeaseTerms, requests: Requests, *, clock: Callable[[], float] = boot_time
    ) -> None:
        """`requests` should be the election's own, so that renewals never queue behind other requests."""
        self.terms = terms
        self.holder: str | None = None
        """Who holds the Lease by what was last seen; for logs."""
        self._requests = requests
        self._clock = clock
        self._renewed_at: float | None = None
        self._seen: dict[str, Any] | None = None
        self._version = ""
        self._free_at = 0.0
        self._wrote = ""
        self._trouble = ""
        self._work: asyncio.Future[None] | None = None
        self._where = f"{terms.namespace}/{terms.name}"
        self._leases = f"/apis/coordination.k8s.io/v1/namespaces/{terms.namespace}/leases"
        self._path = f"{self._leases}/{terms.name}"

    def held(self) -> bool:
        """Tell whether writing is safe: the last renewal that succeeded began less than the deadline ago.

        To be asked before every write, with no await between the answer and the sending.
        """
        return self.time_left() > 0

    def time_left(self) -> float:
        """Return the seconds for which `held` stays True without another renewal; 0 where it is False."""
        if self._renewed_at is None:
            return 0.0
        return max(0.0, self._renewed_at + self.terms.renew_deadline - self._clock())

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Wait for the Lease, run `lead()` while it is held, cancel it when it is lost, and wait anew.

        Returns when `lead` returns, raises what it raises. The Lease is renewed until `lead` has ended, also
        after cancellation, and then released, so that a successor starts within its retry period.
        """
        try:
            while True:
                await self._acquire()
                logger.info("Leading as %s", self.terms.identity)
                if await self._lead(lead):
                    return
                logger.warning("Lost the Lease %s, on standby again", self._where)
        finally:
            self._renewed_at = None
            if self._work is None or self._work.done():  # a second cancellation may have left it running
                await self._release()

    async def _acquire(self) -> None:
        announced: str | None = None
        while not await self._attempt(self.terms.request_timeout):
            if self.holder and self.holder != announced:
                logger.info("On standby, %s leads", self.holder)
                announced = self.holder
            # Spread, so that standbys do not ask in step.
            await asyncio.sleep(self.terms.retry_period * random.uniform(1.0, 1.2))

    async def _lead(self, lead: Callable[[], Awaitable[None]]) -> bool:
        """Lead until `lead` ends (True) or the Lease is lost (False); on return nothing of it runs."""
        self._work = work = asyncio.ensure_future(lead())
        renewing = asyncio.create_task(self._renew_while_held(), name="lease-renewal")
        try:
            await asyncio.wait({work, renewing}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return False
        finally:
            try:
                if not work.done():
                    work.cancel()
                    await asyncio.wait({work})
            finally:
                renewing.cancel()
                await asyncio.wait({renewing})
                self._renewed_at = None
        await work
        return True

    async def _renew_while_held(self) -> None:
        pause = self.terms.retry_period
        while True:
            # A pause that ends after the deadline would be one renewal too few.
            await asyncio.sleep(min(pause, self.time_left()))
            # A process that was frozen past its deadline has lost the Lease even if nobody has taken it:
            # what it was about to do was decided on old facts.
            if not self.held():
                break
            renewed = await self._attempt(min(self.terms.request_timeout, self.time_left()))
            if not renewed and self.holder not in (None, self.terms.identity):
                break
            pause = self.terms.retry_period if renewed else self.terms.retry_period / 4
        self._renewed_at = None

    async def _attempt(self, timeout: float) -> bool:  # noqa: ASYNC109 - the last one before a deadline has less
        """Take or renew the Lease if it is free or ours; False where it is not, or where that is unknown."""
        began = self._clock()
        try:
            async with asyncio.timeout(timeout):
                taken = await self._take()
        except Conflict:
            self._seen = None  # somebody was faster, or our last answer got lost: read it next time
            return False
        except TimeoutError:
            return self._troubled(f"no answer within {timeout:.1f} s")
        except Exception as error:  # noqa: BLE001 - whatever it is, the election goes on
            self._seen = None
            return self._troubled(" ".join(str(error).split()) or type(error).__name__)
        self._trouble = ""
        if taken:
            self._renewed_at = began
        return taken

    async def _take(self) -> bool:
        """Write our name where the Lease allows that; Conflict where it changed since it was read."""
        if self._seen is None or self.holder != self.terms.identity:
            await self._read()
        if not self._is_free():
            return False
        if self._seen is None:
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self.terms.name},
                "spec": self._spec({}),
            }
            self._note(await self._requests.send("POST", self._leases, body=lease))
            return True
        await self._replace(self._seen, self._spec(self._seen.get("spec") or {}))
        return True

    def _is_free(self) -> bool:
        """Tell whether nobody else can believe in the Lease any more."""
        if self._clock() >= self._free_at:
            return True
        if self.holder not in (None, self.terms.identity):
            return False
        written = self._seen is not None and (self._seen.get("spec") or {}).get("renewTime") == self._wrote
        return self.held() or (self.holder is not None and written)

    async def _read(self) -> None:
        try:
            self._note(await self._requests.send("GET", self._path))
        except LookupError:
            if (
                self._version
            ):  # Deleted: its holder, who writes it anew, may have been told to wait for very long.
                self._free_at = min(self._free_at, self._clock() + self.terms.duration)
            self._seen, self._version, self.holder = None, "", None

    async def _replace(self, lease: dict[str, Any], spec: dict[str, Any]) -> None:
        """Replace the Lease as it was read; its resourceVersion is the condition."""
        self._note(await self._requests.send("PUT", self._path, body={**lease, "spec": spec}))

    def _note(self, lease: dict[str, Any]) -> None:
        """Remember the Lease, and until when it is somebody's, by our own clock: the holder's may be wrong."""
        spec = lease.get("spec") or {}
        self.holder = spec.get("holderIdentity") or None
        held_for = spec.get("leaseDurationSeconds") or self.terms.duration
        if lease["metadata"]["resourceVersion"] != self._version:
            released = self.holder is None and held_for == RELEASED["leaseDurationSeconds"]
            self._free_at = self._clock() + (0 if released else held_for)
        self._seen, self._version = lease, lease["metadata"]["resourceVersion"]

    def _spec(self, old: dict[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        mine = {
            "holderIdentity": self.terms.identity,
            "leaseDurationSeconds": self.terms.duration,
            "renewTime": now,
        }
        self._wrote = now
        if old.get("holderIdentity") != self.terms.identity:
            mine["acquireTime"] = now
            mine["leaseTransitions"] = (old.get("leaseTransitions") or 0) + (1 if old else 0)
        return {**old, **mine}

    async def _release(self) -> None:
        """Give the Lease back if it is ours; a courtesy, so it never raises."""
        try:
            async with asyncio.timeout(self.terms.request_timeout):
                await self._read()
                if self.holder == self.terms.identity and self._seen is not None:
                    await self._replace(self._seen, {**self._seen["spec"], **RELEASED})
                    logger.info("Released the Lease %s", self._where)
        except Exception as error:  # noqa: BLE001
            logger.warning(
                "The Lease %s was not released, others take it %d s after its last renewal: %s",
                self._where,
                self.terms.duration,
                " ".join(str(error).split()) or type(error).__name__,
            )

    def _troubled(self, reason: str) -> bool:
        """Log what is in the way, once as long as it stays the same."""
        if reason != self._trouble:
            logger.warning("Cannot take or renew the Lease %s: %s", self._where, reason)
            self._trouble = reason
        return False
