"""`tenantry run`: one process of the operator, from its Lease to its last write.

standby ──(Lease)──► list everything ──► workers, watches, re-list ──(Lease lost, SIGTERM)──► drain, stop
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kubernetes.aio.client.configuration import Configuration
from prometheus_client import CollectorRegistry

from tenantry.adapters.engines import RealEngines
from tenantry.adapters.exports import FsspecStore
from tenantry.adapters.kubernetes.client import Client
from tenantry.adapters.kubernetes.kinds import CHILD_KINDS
from tenantry.adapters.kubernetes.objects import ApiObjects
from tenantry.adapters.kubernetes.reflector import Reflector
from tenantry.adapters.kubernetes.seen import Seen
from tenantry.adapters.ledger import Ledger
from tenantry.desired.network import Surroundings
from tenantry.domain.audit import AuditEntry
from tenantry.domain.places import Rotation
from tenantry.reconcile import archive, move, plan, rebalance, roles, shard, tenant
from tenantry.reconcile.deferred import Deferred
from tenantry.reconcile.exports import Exports
from tenantry.reconcile.fleet import Fleet
from tenantry.reconcile.ports import AuditLog, Context, Policy, Unavailable
from tenantry.reconcile.result import Key, Result
from tenantry.runtime.health import HealthServer, Snapshot
from tenantry.runtime.lease import Leadership, LeaseTerms
from tenantry.runtime.listing import Gaps, Listing
from tenantry.runtime.metrics import Metrics
from tenantry.runtime.queue import WorkQueue
from tenantry.runtime.router import wake
from tenantry.runtime.watching import watch_kinds
from tenantry.settings import Settings

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 5.0
EVENT_SECONDS = 1.0
"""How long a process that stops gives the Events that are on their way."""

FIRST_LOOK_SECONDS = 10.0
"""How long tenants wait, after a start, for the first look at their shards."""

RECONCILERS = {
    "Tenant": tenant.reconcile,
    "Plan": plan.reconcile,
    "VectorShard": shard.reconcile,
    "TenantMove": move.reconcile,
    rebalance.KEY.kind: rebalance.reconcile,
    "TenantArchive": archive.reconcile,
    "ClusterRole": roles.reconcile,
}


AFTER_SHARDS = frozenset({"Tenant", "TenantMove", "TenantArchive", rebalance.KEY.kind})
"""Kinds whose reconciles decide by what the shards have on record."""


class SystemClock:
    """The time of this machine."""

    def now(self) -> datetime:
        """Return the present moment in UTC."""
        return datetime.now(UTC)


class _Watcher:
    """Passes what reconciles found on to the metrics, and to the log what no object's conditions can say."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.problems: tuple[str, ...] = ()
        """What is wrong with tenants' ClusterRoles."""

    def became_ready(self, seconds: float) -> None:
        """A tenant is Ready for the first time."""
        self._metrics.tenant_ready.observe(seconds)

    def repaired(self, kind: str) -> None:
        """A child was put back."""
        self._metrics.drift_repaired.labels(kind).inc()

    def probed(self, leaks: int) -> None:
        """A tenant tried to read its neighbours' rows."""
        self._metrics.probes.labels("leak" if leaks else "denied").inc()

    def moved(self, *, completed: bool) -> None:
        """A move is over."""
        self._metrics.moves.labels("completed" if completed else "aborted").inc()

    def paused(self, seconds: float) -> None:
        """A move held a tenant's writes back."""
        self._metrics.write_pause.observe(seconds)

    def roles_amiss(self, problems: Sequence[str]) -> None:
        """Tenants' ClusterRoles are not as they should be; said once as long as it stays so."""
        if problems and tuple(problems) != self.problems:
            logger.warning(
                "%s: tenants' members do not have the rights that this version gives them. The operator may not "
                "write ClusterRoles: install the chart of its version (helm upgrade)",
                "; ".join(problems),
            )
        elif self.problems and not problems:
            logger.info("Tenants' ClusterRoles are as this version wants them")
        self.problems = tuple(problems)


class _LeadersAudit:
    """The audit log of a process that records only while it leads.

    A reconcile that a lost Lease interrupts still wants to record what it saw: old news by then, which would stand
    behind what the next leader has recorded, as if somebody had changed the object back.
    """

    def __init__(self, audit: AuditLog, leads: Callable[[], bool]) -> None:
        self._audit = audit
        self._leads = leads
        self.latest = audit.latest

    async def record(self, entries: Sequence[AuditEntry]) -> None:
        """Append entries. Raises Unavailable, also where this process does not lead."""
        if not self._leads():
            raise Unavailable("this process does not hold the Lease: it records nothing")
        await self._audit.record(entries)


class Operator:
    """One process of the operator."""

    def __init__(self, settings: Settings, configuration: Configuration, ledger: Ledger) -> None:
        self._settings = settings
        self._configuration = configuration
        self._ledger = ledger
        self._metrics = Metrics(CollectorRegistry())
        self._watcher = _Watcher(self._metrics)
        self._client = Client(configuration, self._count)
        self._lease_client = Client(configuration)
        duration = settings.lease_seconds
        terms = LeaseTerms(
            namespace=settings.lease_namespace,
            duration=duration,
            renew_deadline=duration * 2 / 3,
            retry_period=duration * 2 / 15,
        )
        self._leadership = Leadership(terms, self._lease_client)
        self._queue = WorkQueue()
        self._seen = Seen(settings.default_plan, lambda *_: None)
        self._fleet = Fleet()
        self._store = FsspecStore(settings.export_url) if settings.export_url else None
        self._exports = Exports(self._store)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._synced = False
        self._listing: Listing | None = None
        self._gaps: Gaps | None = None
        self._listed_at: float | None = None
        self._health = HealthServer(
            settings.http_host, settings.http_port, self._snapshot, self._metrics.registry
        )
        self._metrics.read_tenants_by(
            lambda: self._seen.count_by_phase_and_plan(), lambda: self._seen.unready()
        )
        self._metrics.read_purges_by(lambda: self._seen.purges())
        self._metrics.read_shards_by(lambda: self._fleet)
        self._metrics.read_listing_by(lambda: self._synced, self._list_age, settings.relist_seconds)
        self._metrics.read_queue_by(lambda: self._queue.depth, lambda: self._queue.oldest_wait)
        self._metrics.read_leader_by(self._leadership.held)
        self._metrics.read_roles_by(lambda: len(self._watcher.problems) if self._leadership.held() else 0)

    async def run(self) -> None:
        """Serve probes, wait for the Lease, lead until SIGTERM or until the Lease is lost."""
        await self._health.start()
        logger.info("Probes and metrics on port %d", self._health.port)
        task = asyncio.create_task(self._leadership.run(self._lead), name="leadership")
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            logger.info("Stopped")
        finally:
            await self._health.stop()
            await self._client.close()
            await self._lease_client.close()

    async def _lead(self) -> None:
        """List everything, then reconcile until cancelled; raises what ends any of the tasks."""
        self._synced, self._listed_at = False, None
        self._queue = queue = WorkQueue(observe=self._observe)
        self._seen = seen = Seen(
            self._settings.default_plan, lambda kind, where, name: wake(seen, queue, kind, where, name)
        )
        self._fleet = fleet = Fleet()
        self._exports = exports = Exports(self._store)
        objects = self._objects(seen)
        cx = self._context(objects, seen, queue)
        reflectors = [Reflector(self._client, kind, seen) for kind in CHILD_KINDS]
        self._listing = Listing(self._client, seen, reflectors)
        self._gaps = gaps = Gaps(self._client, seen)
        stop, ready = asyncio.Event(), asyncio.Event()
        parts: dict[str, Coroutine[Any, Any, None]] = {
            f"watch of {kind.plural}": reflector.run()
            for kind, reflector in zip(CHILD_KINDS, reflectors, strict=True)
        }
        parts["watch of our kinds"] = watch_kinds(self._configuration, self._event, stop=stop, ready=ready)
        parts["gaps of that watch"] = gaps.run(ready)
        parts["reconciling"] = self._work(queue, cx, self._listing)
        self._tasks = {name: asyncio.create_task(part, name=name) for name, part in parts.items()}
        try:
            done, _ = await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
                raise RuntimeError(f"{task.get_name()} ended")
        finally:
            stop.set()
            await queue.drain(DRAIN_SECONDS)
            await objects.drain(EVENT_SECONDS)
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            await exports.close()
            await fleet.close()
            self._tasks = {}
            self._forget()

    def _forget(self) -> None:
        """Know nothing, as every standby: what this one saw is old now, and the next leader tells its own."""
        self._queue = WorkQueue()
        self._seen = Seen(self._settings.default_plan, lambda *_: None)
        self._fleet = Fleet()
        self._synced, self._listed_at = False, None

    def _objects(self, seen: Seen) -> ApiObjects:
        return ApiObjects(
            self._client,
            self._leadership.held,
            seen.wrote,
            lambda kind, namespace, name, uid: seen.gone(kind, namespace, name, uid, by_us=True),
            seen.writing,
            seen.distrust,
        )

    def _context(self, objects: ApiObjects, seen: Seen, queue: WorkQueue) -> Context:
        settings = self._settings
        around = Surroundings(
            dns_namespace=settings.dns_namespace,
            scraper_namespaces=settings.scraper_namespaces,
            api_server_cidrs=settings.api_server_cidrs,
        )
        policy = Policy(
            settings.default_plan,
            around,
            archive_history=timedelta(days=settings.archive_history_days),
            plan_grace=timedelta(seconds=settings.plan_grace_seconds),
            rotation=Rotation(
                age=timedelta(days=settings.credential_age_days),
                grace=timedelta(seconds=settings.credential_grace_seconds),
            ),
            default_dimensions=settings.default_dimensions,
            own_namespace=settings.own_namespace,
            shard_pause=timedelta(seconds=settings.shard_seconds),
            rebalance=settings.rebalance_terms,
        )
        audit = _LeadersAudit(self._metrics.counted(self._ledger.audit), self._leadership.held)
        deferred = Deferred(lambda: queue.has_fresh)
        return Context(
            objects,
            seen,
            audit,
            SystemClock(),
            policy,
            self._watcher,
            deferred=deferred,
            engines=RealEngines(),
            fleet=self._fleet,
            exports=self._exports,
            wake=queue.add,
        )

    async def _work(self, queue: WorkQueue, cx: Context, listing: Listing) -> None:
        """Wait until everything is known, then work, and list everything anew from time to time."""
        await listing.first()
        self._listed_at = time.monotonic()
        self._add_all(low=False)
        shards = [item.metadata.name for item in self._seen.shards()]
        for name in shards:
            queue.add_first(Key("VectorShard", name))
        self._synced = True
        logger.info("Knows %d tenants and %d plans", len(self._seen.tenants()), len(self._seen.plans()))

        shards_read = asyncio.Event()

        async def reconcile(key: Key) -> Result:
            if key.kind in AFTER_SHARDS:
                await shards_read.wait()
            return await RECONCILERS[key.kind](key, cx)

        async def read_shards() -> None:
            """Let tenants wait until their shards are read: each would say at first that its shard is unknown."""
            await cx.fleet.looked_at(shards, FIRST_LOOK_SECONDS)
            shards_read.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(read_shards(), name="first look at shards")
            group.create_task(queue.run(reconcile, self._settings.workers), name="workers")
            group.create_task(self._relist(listing), name="re-list")

    async def _relist(self, listing: Listing) -> None:
        """List everything every so often, and look at every object of ours again."""
        while True:
            await asyncio.sleep(self._settings.relist_seconds)
            if await listing.again():
                self._listed_at = time.monotonic()
            self._add_all(low=True)

    def _add_all(self, *, low: bool) -> None:
        self._queue.add(roles.KEY, low=low)
        for item in self._seen.shards():
            self._queue.add(Key("VectorShard", item.metadata.name), low=low)
        for name in self._seen.all_moves():
            self._queue.add(Key("TenantMove", name), low=low)
        self._queue.add(rebalance.KEY, low=low)
        for name in self._seen.plans():
            self._queue.add(Key("Plan", name), low=low)
        for name in self._seen.tenants():
            self._queue.add(Key("Tenant", name), low=low)
        for name in self._seen.archives():
            self._queue.add(Key("TenantArchive", name), low=low)

    def _event(self, what: str | None, manifest: dict[str, Any]) -> None:
        """Take in an event of Kopf about one of our kinds."""
        if what == "DELETED":
            metadata = manifest["metadata"]
            self._seen.gone(manifest["kind"], "", metadata["name"], metadata["uid"])
            return
        if what is None and self._gaps is not None:
            self._gaps.listed(manifest["kind"])
        self._seen.saw(manifest)

    def _observe(self, key: Key, outcome: str, seconds: float) -> None:
        self._metrics.observe_reconcile(key.kind, outcome, seconds)

    def _count(self, verb: str, code: str) -> None:
        self._metrics.api_requests.labels(verb, code).inc()

    def _list_age(self) -> float | None:
        return None if self._listed_at is None else time.monotonic() - self._listed_at

    def _snapshot(self) -> Snapshot:
        now = time.monotonic()
        return Snapshot(
            leading=self._leadership.held(),
            synced=self._synced,
            waits_for=self._listing.waits_for if self._listing else "",
            ended=tuple(name for name, task in self._tasks.items() if task.done()),
            oldest_wait=self._queue.oldest_wait,
            since_finished=now - self._queue.last_finished,
            longest_run=self._queue.longest_run,
            since_listed=self._list_age(),
            list_interval=self._settings.relist_seconds,
        )


def prepare_state_dir(folder: Path) -> None:
    """Make the folder of the SQLite ledger. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
