"""Probes and metrics over HTTP, served from the operator's own event loop: when it freezes, they fail too."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

logger = logging.getLogger(__name__)

STUCK_AFTER = 120.0
"""Seconds that a ready key may wait, or a reconcile may run, before reconciling counts as stopped."""

LIST_INTERVALS = 2.5
"""A full re-list may fail once, and be slow once, before it counts as stopped."""


Probe = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the operator at one moment; all times in seconds."""

    leading: bool
    synced: bool
    """The watches have told everything there was when they began."""
    waits_for: str = ""
    """The kinds that are not listed yet, and why."""
    ended: tuple[str, ...] = ()
    """Names of tasks (workers, watches) that ended and should be running."""
    oldest_wait: float = 0.0
    """How long the oldest ready key has waited."""
    since_finished: float = 0.0
    """Since the last reconcile finished."""
    longest_run: float = 0.0
    """How long the longest of the present reconciles has run."""
    since_listed: float | None = None
    """Since the last successful full list, or since one was first due; None where none is due."""
    list_interval: float = 600.0


def liveness(now: Snapshot) -> str | None:
    """Return why the process should be restarted, one line naming the check; None where it works."""
    if now.ended:
        return f"tasks: {', '.join(now.ended)} ended"
    if not now.leading:
        return None
    if min(now.oldest_wait, now.since_finished) > STUCK_AFTER:
        return (
            f"queue: the oldest key has waited {now.oldest_wait:.0f} s, "
            f"and no reconcile has finished for {now.since_finished:.0f} s"
        )
    if now.longest_run > STUCK_AFTER:
        return f"reconcile: one has been running for {now.longest_run:.0f} s and cannot be cancelled"
    if now.since_listed is not None and now.since_listed > LIST_INTERVALS * now.list_interval:
        return (
            f"list: the last full list succeeded {now.since_listed:.0f} s ago, "
            f"it is due every {now.list_interval:.0f} s"
        )
    return None


def readiness(now: Snapshot) -> str | None:
    """Return why the replica cannot do its part, one line naming the check; None where it can.

    A standby is ready: it does its part by waiting, and a rollout must not wait for it to lead.
    """
    if now.leading and not now.synced:
        missing = f", it waits for {now.waits_for}" if now.waits_for else ""
        return f"caches: the first list of all objects is not complete yet{missing}"
    return None


class HealthServer:
    """Serves `/healthz`, `/readyz` (200 `ok` or `standby`, or 503 and the failing check) and `/metrics`."""

    def __init__(
        self, host: str, port: int, snapshot: Callable[[], Snapshot], registry: CollectorRegistry
    ) -> None:
        """`port` 0 takes a free one; `self.port` tells it after `start`."""
        self.host = host
        self.port = port
        self._snapshot = snapshot
        self._registry = registry
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen. Raises OSError, with a sentence that names the address, where that is not possible."""
        app = web.Application()
        app.router.add_get("/healthz", self._probe(liveness))
        app.router.add_get("/readyz", self._probe(readiness))
        app.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self.port).start()
        except OSError as error:
            await runner.cleanup()
            reason = error.strerror or str(error)
            raise OSError(
                error.errno,
                f"cannot serve probes on {self.host}:{self.port} ({reason}); choose another address",
            ) from error
        self._runner = runner
        self.port = runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening; does nothing where it never began."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _probe(self, check: Callable[[Snapshot], str | None]) -> Probe:
        async def answer(_: web.Request) -> web.Response:
            try:
                now = self._snapshot()
            except Exception as error:
                logger.exception("The state of the operator could not be read")
                return web.Response(status=503, text=f"probe: {type(error).__name__}: {error}\n")
            reason = check(now)
            if reason is not None:
                return web.Response(status=503, text=f"{reason}\n")
            return web.Response(text="ok\n" if now.leading else "standby\n")

        return answer

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )
