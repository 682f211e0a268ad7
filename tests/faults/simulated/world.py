"""The world around the reconcilers: fakes of the ports, a clock that tests turn, and a queue that runs dry."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

from tenantry.adapters.kubernetes.client import Client
from tenantry.adapters.kubernetes.kinds import CHILD_KINDS, KINDS
from tenantry.adapters.kubernetes.reflector import Reflector
from tenantry.adapters.kubernetes.seen import Seen
from tenantry.api.common import API_VERSION
from tenantry.domain import names
from tenantry.domain.audit import AuditEntry
from tenantry.domain.rebalancing import RebalanceTerms
from tenantry.reconcile import archive, move, plan, rebalance, roles, shard, tenant
from tenantry.reconcile.deferred import Deferred
from tenantry.reconcile.exports import Exports
from tenantry.reconcile.fleet import Fleet
from tenantry.reconcile.ports import Conflict, Context, Manifest, Policy, Refused, Unavailable
from tenantry.reconcile.result import Key, Result
from tenantry.runtime.listing import Listing
from tenantry.runtime.operator import AFTER_SHARDS
from tenantry.runtime.router import wake
from tests.faults.simulated.apiserver import OWN, ApiServer, Event, Ref, is_watched
from tests.faults.simulated.faults import Crash, Fault, Write
from tests.faults.simulated.lists import Lists
from tests.faults.simulated.news import Late, News
from tests.faults.simulated.shards import Servers
from tests.memory_engine import MemoryServer, MemoryStore
from tests.unit.builders import EMAIL, T0, sample

RECONCILERS: dict[str, Callable[[Key, Context], Awaitable[Result]]] = {
    "Tenant": tenant.reconcile,
    "Plan": plan.reconcile,
    "TenantArchive": archive.reconcile,
    "VectorShard": shard.reconcile,
    "TenantMove": move.reconcile,
    rebalance.KEY.kind: rebalance.reconcile,
    "ClusterRole": roles.reconcile,
}

OPERATORS = Policy().own_namespace

BACKOFF_SECONDS = 0.2
PATIENCE = timedelta(minutes=1)
"""How far ahead `settle` turns the clock to what is due; what is due later is left for the test."""

MOST_RECONCILES = 400


class Clock:
    """Stands still until it is turned."""

    def __init__(self) -> None:
        self.time = T0

    def now(self) -> datetime:
        """Return the present moment."""
        return self.time

    def turn(self, **amount: float) -> None:
        """Let time pass: seconds=5, days=31."""
        self.time += timedelta(**amount)


class Audit:
    """The ledger's audit log. `down`: it raises Unavailable."""

    def __init__(self, process: Callable[[], Process]) -> None:
        self._process = process
        self.rows: list[AuditEntry] = []
        self.down = False

    async def record(self, entries: Sequence[AuditEntry]) -> None:
        """Append all entries whose identity is new, or none."""
        process = self._process()
        name = ",".join(entry.identity for entry in entries)
        async with process.writing(Write("record", "AuditEntry", name)):
            self._check_up()
            for entry in entries:
                known = next((row for row in self.rows if row.identity == entry.identity), None)
                if known is None:
                    self.rows.append(entry)
                else:
                    # A row of another meaning under this identity would be lost without a word.
                    same = (known.action, known.after) == (entry.action, entry.after)
                    # What was before may be gone by the second time, and is on record then.
                    before = entry.before in (known.before, None)
                    assert (same, before) == (True, True), f"{entry} is recorded as {known}"

    async def latest(self, uid: str, identity_prefix: str = "") -> AuditEntry | None:
        """Return the newest entry about an object."""
        self._check_up()
        found = (row for row in reversed(self.rows) if row.uid == uid)
        return next((row for row in found if row.identity.startswith(identity_prefix)), None)

    def _check_up(self) -> None:
        if self.down:
            raise Unavailable("the database does not answer")

    def actions(self, name: str = "acme") -> list[str]:
        """Return what was recorded about the objects of a tenant, in order."""
        return [row.action for row in self.rows if name in (row.tenant, row.name)]


class Objects:
    """The port `Objects` of one process on the fake API server."""

    def __init__(self, api: ApiServer, process: Process) -> None:
        self._api = api
        self._process = process

    async def get(self, kind: str, name: str, namespace: str = "") -> Manifest | None:
        """Read one object."""
        self._process.check_alive()
        is_old = self._process.news.is_old(Ref(kind, namespace, name))
        return (self._api.get_old if is_old else self._api.get)(kind, name, namespace)

    async def apply(self, manifest: Manifest, *, manager: str = names.MANAGER) -> Manifest:
        """Server-side apply, forced."""
        return await self._write("apply", manifest, lambda: self._api.apply(manifest, manager))

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object."""
        return await self._write("create", manifest, lambda: self._api.create(manifest, names.MANAGER))

    async def apply_status(self, manifest: Manifest, *, manager: str = names.MANAGER) -> Manifest:
        """Server-side apply of the status."""
        return await self._write("status", manifest, lambda: self._api.apply(manifest, manager, "status"))

    async def replace(self, manifest: Manifest) -> Manifest:
        """Replace an object."""
        return await self._write("replace", manifest, lambda: self._api.replace(manifest, names.MANAGER))

    async def patch(self, manifest: Manifest, changes: Mapping[str, Any]) -> Manifest | None:
        """Merge changes into the metadata of the very object read."""
        kept = {key: manifest["metadata"].get(key) for key in ("name", "namespace", "uid", "resourceVersion")}
        metadata = {key: value for key, value in kept.items() if value is not None}
        body = {"kind": manifest["kind"], "metadata": {**metadata, **changes}}
        if self._api.get(body["kind"], metadata["name"], metadata.get("namespace", "")) is None:
            return None
        return await self._write("patch", body, lambda: self._api.merge(body, names.MANAGER))

    async def delete(
        self, kind: str, name: str, namespace: str = "", *, uid: str, resource_version: str | None = None
    ) -> None:
        """Delete that very object."""
        async with self._process.writing(Write("delete", kind, name, namespace)):
            try:
                left = self._api.delete(kind, name, namespace, uid=uid, version=resource_version)
            except Conflict:
                if resource_version is not None:
                    raise
                return
        if left is None:
            self._process.seen.gone(kind, namespace, name, uid, by_us=True)
        else:
            self._process.seen.wrote(left)

    async def try_create(self, manifest: Manifest) -> None:
        """Ask whether an object would be let in."""
        metadata = manifest["metadata"]
        asked = Write("try", manifest["kind"], metadata["name"], metadata.get("namespace", ""))
        self._process.check_alive()
        self._process.fault.before(asked)

    async def may(self, verb: str, kind: str, name: str) -> bool:
        """Ask whether a write would be let through."""
        self._process.check_alive()
        self._process.reviews.append((verb, kind, name))
        return kind not in self._api.forbidden

    async def emit(self, about: Manifest, reason: str, message: str, *, warning: bool = False) -> None:
        """Remember an Event."""
        self._process.check_alive()
        self._process.events.append((about["kind"], about["metadata"]["name"], reason, message))

    async def _write(self, verb: str, manifest: Manifest, act: Callable[[], Manifest]) -> Manifest:
        metadata = manifest["metadata"]
        write = Write(verb, manifest["kind"], metadata["name"], metadata.get("namespace", ""))
        async with self._process.writing(write):
            if manifest["kind"] in self._api.forbidden:
                raise Refused(f"you may not {verb} {manifest['kind']}")
            try:
                stored = act()
            except Conflict:
                self._process.seen.distrust(write.kind, write.name)
                raise
        self._process.seen.wrote(stored)
        return stored


class _Writing:
    """One write: what the fault has to say before it and after it."""

    def __init__(self, process: Process, write: Write) -> None:
        self._process = process
        self._write = write

    async def __aenter__(self) -> None:
        await asyncio.sleep(0)  # others that run side by side get their turn, as on a network
        self._process.check_alive()
        self._process.meet(lambda: self._process.fault.before(self._write))
        self._process.writes.append(self._write)

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self._process.meet(lambda: self._process.fault.after(self._write))


@dataclass(slots=True)
class Process:
    """One process of the operator: all that a crash takes with it. `repaired`: kinds of what it put back."""

    fault: Fault
    news: News = field(default_factory=News)
    lists: Lists = field(init=False)
    listing: Listing = field(init=False)
    seen: Seen = field(init=False)
    cx: Context = field(init=False)
    due: dict[Key, datetime] = field(default_factory=dict)
    failures: dict[Key, int] = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)
    events: list[tuple[str, str, str, str]] = field(default_factory=list)
    results: dict[Key, Result] = field(default_factory=dict)
    repairs: list[str] = field(default_factory=list)
    reviews: list[tuple[str, str, str]] = field(default_factory=list)
    roles_problems: list[str] = field(default_factory=list)
    dead: bool = False

    def writing(self, write: Write) -> _Writing:
        """Return the context of a write."""
        return _Writing(self, write)

    def check_alive(self) -> None:
        """Raise Crash in whatever still runs after one."""
        if self.dead:
            raise Crash

    def meet(self, fault: Callable[[], None]) -> None:
        """Let a fault speak; a Crash is the end of all that runs."""
        try:
            fault()
        except Crash:
            self.dead = True
            raise

    def became_ready(self, seconds: float) -> None:
        """Part of the port Watcher."""

    def repaired(self, kind: str) -> None:
        """Part of the port Watcher."""
        self.repairs.append(kind)

    def probed(self, leaks: int) -> None:
        """Part of the port Watcher."""

    def moved(self, *, completed: bool) -> None:
        """Part of the port Watcher."""

    def paused(self, seconds: float) -> None:
        """Part of the port Watcher."""

    def roles_amiss(self, problems: Sequence[str]) -> None:
        """Part of the port Watcher."""
        self.roles_problems = list(problems)


class World:
    """An API server, a ledger, a clock, and one process of the operator at a time."""

    def __init__(self, **policy: Any) -> None:
        self.clock = Clock()
        self._undelivered: list[Event] = []
        self.happened: list[Event] = []
        self.api = ApiServer(self.clock, self._note)
        self.audit = Audit(lambda: self.process)
        self.servers = Servers(lambda: self.process)
        self.store: MemoryStore | None = self.servers.store
        # Most flows move tenants themselves, also away from where they are pinned: the planner would move them back.
        self._policy = Policy(**{"rebalance": RebalanceTerms(enabled=False), **policy})
        self.process = self.restart()

    @property
    def cx(self) -> Context:
        """Return what a reconcile is given."""
        return self.process.cx

    def restart(self, fault: Fault | None = None, behind: int = 0) -> Process:
        """Start the operator anew: it lists everything, and looks at every object of ours.

        behind: how much has happened since the lists were made; its watches tell when all the rest is done.
        """
        self.process = process = Process(fault or Fault())

        def changed(kind: str, where: str, name: str) -> None:
            wake(process.seen, self, kind, where, name)

        process.seen = Seen(self._policy.default_plan, changed)
        objects = Objects(self.api, process)
        process.lists = Lists(self.api, self.deliver)
        client = cast("Client", process.lists)
        reflectors = [Reflector(client, kind, process.seen) for kind in CHILD_KINDS]
        process.listing = Listing(client, process.seen, reflectors)
        deferred = Deferred(lambda: any(at <= self.clock.now() for at in process.due.values()))
        process.cx = Context(
            objects,
            process.seen,
            self.audit,
            self.clock,
            self._policy,
            process,
            deferred=deferred,
            engines=self.servers,
            fleet=Fleet(),
            exports=Exports(self.store),
            wake=self.add,
        )
        self._undelivered.clear()
        listed = {ref: stored for ref, stored in self.api.objects.items() if ref.kind in KINDS}
        unknown = self.happened[-behind:] if behind else []
        process.news = Late(unknown)
        for event in reversed(unknown):
            listed.pop(event.ref, None)
            if event.before is not None:
                listed[event.ref] = event.before
        for stored in listed.values():
            if is_watched(stored.manifest):
                process.seen.saw(stored.rendered())
        # What has a shard is looked at first, as after a real start.
        for name in process.seen.shards():
            self.add(Key("VectorShard", name.metadata.name))
        self.add(rebalance.KEY)
        self.add(roles.KEY)
        return process

    async def look_at_shards(self) -> None:
        """Look at every shard, as a process does before it reconciles tenants."""
        for each in self.process.seen.shards():
            await self.reconcile(Key("VectorShard", each.metadata.name))
        await self.process.cx.fleet.finish()

    def relist(self) -> None:
        """Look at every object of ours again, as the full list does every ten minutes."""
        for each in self.process.seen.shards():
            self.add(Key("VectorShard", each.metadata.name))
        for each in self.process.seen.moves():
            self.add(Key("TenantMove", each.metadata.name))
        for name in self.process.seen.plans():
            self.add(Key("Plan", name))
        for name in self.process.seen.tenants():
            self.add(Key("Tenant", name))
        for name in self.process.seen.archives():
            self.add(Key("TenantArchive", name))
        self.add(rebalance.KEY)
        self.add(roles.KEY)

    async def list_anew(self) -> None:
        """List everything as the operator does every ten minutes, and look at every object of ours again."""
        assert await self.process.listing.again()
        self.relist()

    def add(self, key: Key, after: float = 0.0, *, low: bool = False) -> None:
        """Part of the queue's interface that waking needs."""
        at = self.clock.now() + timedelta(seconds=after)
        self.process.due[key] = min(at, self.process.due.get(key, at))

    async def settle(self, patience: timedelta = PATIENCE) -> None:
        """Reconcile until nothing more is due for a while. Raises Crash; anything else that is raised is a bug."""
        until = self.clock.now() + patience
        for _ in range(MOST_RECONCILES):
            if await self.step():
                continue
            if self.api.collect() or self._tell(self.process.news.late()):
                continue
            if await self.process.cx.fleet.finish():
                continue
            following = min(self.process.due.values(), default=None)
            if following is None or following > until:
                return
            self.clock.time = max(self.clock.time, following)
        raise AssertionError(f"not at rest after {MOST_RECONCILES} reconciles: {self.process.due}")

    async def step(self) -> bool:
        """Deliver what the watches have to tell and reconcile the first key that is due; False where none is."""
        self.deliver()
        due = self.process.due
        # Shards first, as after a real start.
        key = min(due, key=lambda item: (due[item], item.kind in AFTER_SHARDS), default=None)
        if key is None or due[key] > self.clock.now():
            return False
        del due[key]
        await self.reconcile(key)
        return True

    async def reconcile(self, key: Key) -> Result:
        """Reconcile one key, and ask for the next time as the queue does."""
        process = self.process
        try:
            result = await RECONCILERS[key.kind](key, process.cx)
        except (Conflict, Unavailable):
            result = Result(failed=True, outcome="error")
        process.results[key] = result
        after = result.after
        if result.failed:
            process.failures[key] = process.failures.get(key, 0) + 1
            after = max(after or 0.0, min(60.0, BACKOFF_SECONDS * 2.0 ** (process.failures[key] - 1)))
        else:
            process.failures.pop(key, None)
        if after is not None:
            self.add(key, after)
        return result

    def _note(self, event: Event) -> None:
        self._undelivered.append(event)
        self.happened.append(event)

    def deliver(self) -> None:
        """Tell the process what the watches bring."""
        events = list(self._undelivered)
        self._undelivered.clear()
        self._tell(self.process.news.passed_on(events))

    def _tell(self, events: Sequence[Event]) -> bool:
        for before, after in events:
            if after is not None and is_watched(after.manifest):
                self.process.seen.saw(after.rendered())
            elif before is not None and is_watched(before.manifest):
                last = (after or before).manifest
                metadata, own = last["metadata"], last["kind"] in OWN
                version = None if own else int(metadata["resourceVersion"])  # Kopf names none
                namespace, name, uid = metadata.get("namespace", ""), metadata["name"], metadata["uid"]
                self.process.seen.gone(last["kind"], namespace, name, uid, version)
        return bool(events)

    # --- what users do -------------------------------------------------------------------------------------------

    def plan(self, name: str = "pro", *, manager: str = "kubectl", **spec: Any) -> None:
        """Apply a sample Plan with some fields of its own."""
        document = sample("plans.yaml", name)
        self.api.apply({**document, "spec": {**document["spec"], **spec}}, manager)

    def tenant(self, name: str = "acme", *, manager: str = "kubectl", **spec: Any) -> None:
        """Apply a Tenant whose spec is all that is given."""
        content = {"owner": {"email": EMAIL}, "plan": "pro", **spec}
        metadata = {"name": name}
        self.api.apply(
            {"apiVersion": API_VERSION, "kind": "Tenant", "metadata": metadata, "spec": content}, manager
        )

    def shard(self, name: str = "shard-a", *, manager: str = "kubectl", **spec: Any) -> None:
        """Apply a VectorShard with a simulated server, and the Secret with its address."""
        if self.api.get("Namespace", OPERATORS) is None:
            self.api.create(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OPERATORS}}, manager
            )
        address = base64.b64encode(f"memory://{name}".encode()).decode()
        metadata = {"name": name, "namespace": OPERATORS}
        self.api.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"dsn": address}}, manager
        )
        content = {"engine": "pgvector", "connection": {"secretRef": {"name": name, "key": "dsn"}}, **spec}
        self.api.apply(
            {"apiVersion": API_VERSION, "kind": "VectorShard", "metadata": {"name": name}, "spec": content},
            manager,
        )

    def move(self, target: str, tenant: str = "acme", *, manager: str = "kubectl", **spec: Any) -> None:
        """Apply a TenantMove."""
        metadata = {"name": f"{tenant}-to-{target}"}
        content = {"tenant": tenant, "targetShard": target, **spec}
        self.api.apply(
            {"apiVersion": API_VERSION, "kind": "TenantMove", "metadata": metadata, "spec": content}, manager
        )

    def server(self, shard: str) -> MemoryServer:
        """Return the server of a shard."""
        return self.servers.server(f"memory://{shard}")

    def edit(
        self, kind: str, name: str, namespace: str = "", *, manager: str = "kubectl-edit", **fields: Any
    ) -> None:
        """Merge fields into an object; metadata={"labels": ...} or spec=..."""
        metadata = {"name": name, **fields.pop("metadata", {})}
        if namespace:
            metadata["namespace"] = namespace
        self.api.merge({"kind": kind, "metadata": metadata, **fields}, manager)

    # --- what is there then --------------------------------------------------------------------------------------

    def found(self, kind: str, name: str, namespace: str = "") -> Manifest:
        """Return an object that must be there."""
        manifest = self.api.get(kind, name, namespace)
        assert manifest is not None, f"{kind} {name} is not there"
        return manifest

    def status(self, name: str = "acme", kind: str = "Tenant") -> Manifest:
        """Return the status of an object of ours."""
        status: Manifest = self.found(kind, name)["status"]
        return status

    def condition(self, type_: str, name: str = "acme", kind: str = "Tenant") -> tuple[str, str]:
        """Return (status, reason) of a condition, ("", "") where there is none."""
        listed = self.status(name, kind)["conditions"]
        return next(((item["status"], item["reason"]) for item in listed if item["type"] == type_), ("", ""))

    def children(self, namespace: str = "tenant-acme") -> set[tuple[str, str]]:
        """Return (kind, name) of all that is in a namespace."""
        return {(item["kind"], item["metadata"]["name"]) for item in self.api.list(namespace=namespace)}


async def ready_world(**spec: Any) -> World:
    """Return a world at rest with plans free and pro and Tenant acme on pro."""
    world = World()
    world.plan("free")
    world.plan("pro")
    world.tenant(**spec)
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")
    return world
