"""Watches our kinds by Kopf, and hands on what it sees. Only this and `connecting` import Kopf.

Kopf runs in a thread and event loop of its own, as its documentation has it for embedding: it takes SIGINT and
SIGTERM of the main thread's loop for itself, and when it ends it cancels every task that was created after it in
the same loop, which would be our workers, our Lease and our probes.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, cast

import aiohttp
import kopf
import uvloop
from kubernetes.aio.client.configuration import Configuration

from tenantry.runtime.connecting import credentials, login

logger = logging.getLogger(__name__)

GROUP, VERSION = "tenantry.dev", "v1alpha1"
KINDS = ("tenants", "plans", "vectorshards", "tenantmoves", "tenantarchives")

Manifest = dict[str, Any]
Seen = Callable[[str | None, Manifest], None]
"""Takes ADDED, MODIFIED, DELETED, or None for an object of a first list, and the object. Must not block."""

BATCH = 25
"""Events handed on in one turn of the event loop; more would keep probes and renewals waiting."""

STOP_SECONDS = 10.0
END_SECONDS = 12.0
"""How long Kopf may take to end once one of its tasks has: it waits five seconds for the others by itself."""

CANCELLATIONS = 5
"""How often what is left then is cancelled, a second apart: a watch may forget one of them."""

DISCOVERY_PAUSE_SECONDS = 1.0
DISCOVERY_TIMEOUT_SECONDS = 10.0


class WatchStopped(Exception):  # noqa: N818
    """Kopf ended, so nothing is seen any more; the process must start anew."""


async def watch_kinds(
    configuration: Configuration,
    seen: Seen,
    *,
    stop: asyncio.Event,
    ready: asyncio.Event | None = None,
    kinds: Iterable[str] = KINDS,
) -> None:
    """Call `seen` in this event loop for every event of our kinds, until `stop`.

    Waits first until the API server serves the kinds. `ready` is set when Kopf runs; the first list follows.
    `configuration` is asked for its token anew whenever the API server refuses the old one. An exception of
    `seen` is logged and the event dropped. Raises WatchStopped when Kopf ends by itself.
    """
    loop, kopf_loop = asyncio.get_running_loop(), uvloop.new_event_loop()
    halt = asyncio.Event()  # belongs to Kopf's loop
    ended: asyncio.Future[Any] = loop.create_future()
    handover = _Handover(loop, seen)

    def settle(outcome: BaseException | None) -> None:
        if not ended.done():
            ended.set_result(outcome)

    def work() -> None:
        outcome: BaseException | None = None
        started: concurrent.futures.Future[None] = concurrent.futures.Future()
        if ready is not None:
            started.add_done_callback(lambda _: loop.call_soon_threadsafe(ready.set))
        with asyncio.Runner(loop_factory=lambda: kopf_loop) as runner:
            try:
                runner.run(_run_kopf(configuration, handover.put, tuple(kinds), halt, started))
            except BaseException as error:  # noqa: BLE001 - it is raised where it can be seen
                outcome = error
            with suppress(RuntimeError):  # the main loop may be closed by now
                loop.call_soon_threadsafe(settle, outcome)

    _quiet_kopf()
    kopf_loop.set_exception_handler(_unheard)
    threading.Thread(target=work, name="kopf", daemon=True).start()
    stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        with suppress(RuntimeError):  # closed: it has ended
            kopf_loop.call_soon_threadsafe(halt.set)
        if not ended.done():
            await asyncio.wait([ended], timeout=STOP_SECONDS)
    if not stop.is_set():
        error = ended.result()
        reason = (" ".join(str(error).split()) or type(error).__name__) if error else "no reason given"
        raise WatchStopped(f"watching the API server ended: {reason}") from error


class _Handover:
    """Carries events from Kopf's thread to the operator's loop, in order, some at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seen: Seen) -> None:
        self._loop = loop
        self._seen = seen
        self._events: deque[tuple[str | None, Manifest]] = deque()
        self._scheduled = False

    def put(self, kind_of_event: str | None, manifest: Manifest) -> None:
        """Called in Kopf's thread."""
        self._events.append((kind_of_event, manifest))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False  # before looking: what is put from here on schedules another turn
        for _ in range(min(BATCH, len(self._events))):
            kind_of_event, manifest = self._events.popleft()
            try:
                self._seen(kind_of_event, manifest)
            except Exception as error:  # the next re-list repeats what one bad object lost
                name = manifest.get("metadata", {}).get("name")
                logger.error(
                    "The event of %s %s is dropped: %s: %s",
                    manifest.get("kind"),
                    name,
                    type(error).__name__,
                    error,
                )
                logger.debug("Traceback of the dropped event", exc_info=True)
        if self._events:
            self._scheduled = True
            self._loop.call_soon(self._deliver)


async def _run_kopf(
    configuration: Configuration,
    put: Callable[[str | None, Manifest], None],
    kinds: tuple[str, ...],
    halt: asyncio.Event,
    started: concurrent.futures.Future[None],
) -> None:
    """Run Kopf in its own loop until `halt`; ends early only with an exception."""
    if not await _await_discovery(configuration, kinds, halt):
        return
    ours = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=_registry(configuration, put, kinds),
        settings=_settings(),
        # Nobody sees it. Without, Kopf looks for the name of its user, and in a pod that user mostly has none.
        identity=cast("Any", "tenantry"),
        standalone=True,
        clusterwide=True,
        stop_flag=halt,
        ready_flag=started,
    )
    running = asyncio.ensure_future(kopf.run_tasks(tasks, ignored=ours))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        # A watch that is cancelled while it begins forgets it, and begins again; Kopf waits for it for ever.
        await asyncio.wait({running}, timeout=END_SECONDS)
    finally:
        await _ended(ours)
    if not halt.is_set():
        raise _first_error(tasks) or WatchStopped("Kopf ended without an error")


async def _ended(ours: set[asyncio.Task[Any]]) -> None:
    """See to it that nothing of Kopf is left in its loop."""
    for _ in range(CANCELLATIONS):
        if not (left := asyncio.all_tasks() - ours):
            break
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=1)
    # aiohttp closes TLS connections a little later than its session.
    await asyncio.sleep(0.1)


def _first_error(tasks: Iterable[asyncio.Task[Any]]) -> BaseException | None:
    ended = (task for task in tasks if task.done() and not task.cancelled())
    return next((error for task in ended if (error := task.exception())), None)


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    # Kopf would kill the process ten minutes after it ended by itself: it takes the process for its own.
    settings.process.ultimate_exiting_timeout = None
    # With scanning, a change of a CRD lets Kopf ask for all kinds anew, and when discovery lags behind it stops
    # watching without a word. Without, a kind that goes away is an error, and a restart waits for its return.
    settings.scanning.disabled = True
    # A worker per object lives for this long after its last event; 5 s of them are 10,000 tasks after a list.
    settings.queueing.idle_timeout = 0.1
    settings.queueing.exit_timeout = 0.1
    settings.watching.chunk_size = 500
    settings.networking.connect_timeout = 10.0
    settings.networking.request_timeout = 60.0
    # By default Kopf gives up, and ends, after 54 s of errors; here an API server may be away for ten minutes.
    settings.networking.error_backoffs = (1.0, 1.0, 2.0, 3.0, *[5.0] * 120)
    # Kopf takes its own finalizer off an object that has no handler for it: nobody's finalizer may match.
    settings.persistence.finalizer = "kopf.tenantry.dev/unused"
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    return settings


class _NoDiffBase(kopf.DiffBaseStorage):
    """Spares Kopf a copy of every object at every event, for a comparison that only its other handlers need."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        """Store nothing."""


class _NoProgress(kopf.ProgressStorage):
    """Spares Kopf the search for its own annotations in every object: only its other handlers write them."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        """Store nothing."""

    def purge(self, **_: Any) -> None:
        """There is nothing to take away."""

    def touch(self, **_: Any) -> None:
        """Touch nothing."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


def _registry(
    configuration: Configuration, put: Callable[[str | None, Manifest], None], kinds: Iterable[str]
) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    async def event_seen(event: kopf.RawEvent, **_: Any) -> None:
        put(event["type"], dict(event["object"]))

    kopf.on.login(registry=registry, id="login", backoff=1.0)(login(configuration))
    for plural in kinds:
        kopf.on.event(GROUP, VERSION, plural, registry=registry, id=f"seen-{plural}")(event_seen)
    return registry


async def _await_discovery(configuration: Configuration, kinds: tuple[str, ...], halt: asyncio.Event) -> bool:
    """Wait until the API server serves all our kinds; False when told to stop before that."""
    said = ""
    while not halt.is_set():
        try:
            missing = set(kinds) - await _served(configuration)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = f"the API server cannot be asked for its kinds: {error or type(error).__name__}"
        except (ValueError, TypeError, KeyError):
            reason = "the API server's answer about its kinds makes no sense: is a proxy before it?"
        else:
            if not missing:
                return True
            names = ", ".join(f"{name}.{GROUP}" for name in sorted(missing))
            reason = f"the API server does not know {names} yet; apply the folder crds/"
        if reason != said:
            logger.warning("Waiting: %s", reason)
            said = reason
        with suppress(TimeoutError):
            await asyncio.wait_for(halt.wait(), DISCOVERY_PAUSE_SECONDS)
    return False


async def _served(configuration: Configuration) -> set[str]:
    """Return the plural names of our group and version that the API server serves."""
    known = await credentials(configuration)
    connector = aiohttp.TCPConnector(ssl=known.as_ssl_context())
    timeout = aiohttp.ClientTimeout(total=DISCOVERY_TIMEOUT_SECONDS)
    url = f"{known.server.rstrip('/')}/apis/{GROUP}/{VERSION}"
    async with (
        aiohttp.ClientSession(
            connector=connector, headers=known.as_http_headers(), timeout=timeout
        ) as session,
        session.get(url, proxy=known.proxy_url) as response,
    ):
        if response.status == 404:
            return set()
        response.raise_for_status()
        return {resource["name"] for resource in (await response.json())["resources"]}


def _quiet_kopf() -> None:
    """Leave Kopf's warnings and errors, unless somebody has chosen a level.

    The reactor logs what ends it with tracebacks, which WatchStopped says in a line, and that it leaves the
    signals alone, which is on purpose.
    """
    for name, level in (("kopf", logging.WARNING), ("kopf._core.reactor", logging.CRITICAL)):
        log = logging.getLogger(name)
        if log.level == logging.NOTSET:
            log.setLevel(level)


def _unheard(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Take note of what one of Kopf's tasks has raised for nobody, as when several fail and one ends it."""
    logger.debug("Kopf: %s", context.get("message"), exc_info=context.get("exception"))
