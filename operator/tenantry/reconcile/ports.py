"""What reconciling needs of the world outside, as Protocols; `adapters` implement them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from tenantry.api.archive import TenantArchive
from tenantry.api.move import TenantMove
from tenantry.api.plan import Plan
from tenantry.api.shard import EngineKind, VectorShard
from tenantry.desired.network import Surroundings
from tenantry.domain.audit import AuditEntry
from tenantry.domain.conditions import PLAN_GRACE
from tenantry.domain.fitness import Fitness
from tenantry.domain.moves import Terms
from tenantry.domain.observed import ChildKey, Observed, RevisionDetail, TenantClaim
from tenantry.domain.places import Place, Record, Rotation
from tenantry.domain.rebalancing import RebalanceTerms
from tenantry.reconcile.brake import Brake
from tenantry.reconcile.deferred import Deferred
from tenantry.reconcile.exports import Exports
from tenantry.reconcile.fleet import Fleet
from tenantry.reconcile.mover import Mover
from tenantry.reconcile.result import Key

Manifest = dict[str, Any]
Before = Callable[[], Awaitable[None]]
"""What is to happen before something counts."""


class Clock(Protocol):
    """The time, given from outside so that tests decide it."""

    def now(self) -> datetime:
        """Return the present moment, aware, in UTC."""


class Conflict(Exception):  # noqa: N818
    """The object changed since it was read (HTTP 409): read again and decide anew."""


class Missing(Conflict):
    """What was to be written is not there, or its namespace is not (HTTP 404)."""


class Refused(Exception):  # noqa: N818
    """The API server refuses what was written (HTTP 400, 403, 413, 422); `str()` is its sentence."""


class Unavailable(Exception):  # noqa: N818
    """The API server or the ledger cannot be reached or is overloaded; `retry_after` in seconds, if it said."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Objects(Protocol):
    """Reads and writes on the API server. Every write checks first that this process still leads.

    Raises Conflict, Refused or Unavailable.
    """

    async def get(self, kind: str, name: str, namespace: str = "") -> Manifest | None:
        """Read one object as it is now; None where there is none."""

    async def apply(self, manifest: Manifest, *, manager: str = "tenantry") -> Manifest:
        """Server-side apply, forced; returns the object as stored."""

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object; one of that name that is there already raises Conflict."""

    async def apply_status(self, manifest: Manifest, *, manager: str = "tenantry") -> Manifest:
        """Server-side apply on the status subresource; returns the object as stored."""

    async def replace(self, manifest: Manifest) -> Manifest:
        """Replace the object; `metadata.resourceVersion` is the condition."""

    async def patch(self, manifest: Manifest, changes: Mapping[str, Any]) -> Manifest | None:
        """Merge changes into the metadata of the very object read: uid and resourceVersion are the condition.

        Returns the object as stored, None where it went away meanwhile.
        """

    async def delete(
        self, kind: str, name: str, namespace: str = "", *, uid: str, resource_version: str | None = None
    ) -> None:
        """Delete that very object; one that is gone, or another by the same name, is no error.

        With a resourceVersion, an object that changed since raises Conflict.
        """

    async def try_create(self, manifest: Manifest) -> None:
        """Have the API server judge an object, which is not created: Refused where it would not let it in.

        That one of its name is there already is no reason.
        """

    async def may(self, verb: str, kind: str, name: str) -> bool:
        """Return whether the API server would let us do that to a cluster-scoped object; it is not done."""

    async def emit(self, about: Manifest, reason: str, message: str, *, warning: bool = False) -> None:
        """Send an Event about an object. Never raises or waits: an Event is a courtesy."""


class Observations(Protocol):
    """What the watches have seen, at least as new as our own last writes."""

    def namespace(self, name: str) -> Observed | None:
        """Return the namespace by that name."""

    def children(self, namespace: str) -> Mapping[ChildKey, Observed]:
        """Return all objects in a namespace that carry our label (and revisions by our name)."""

    def deleted(self, namespace: str) -> Mapping[ChildKey, Observed]:
        """Return the children that somebody else deleted and that have not come back since, as last seen.

        One that lost our label is among them, and is there still. A restart forgets them.
        """

    def lost_revisions(self, namespace: str) -> Sequence[RevisionDetail]:
        """Return the last ten revisions of the namespace's tenant that somebody else deleted, oldest first.

        Without them only the one in effect could be put back; a restart loses them.
        """

    def cluster_roles(self) -> Mapping[ChildKey, Observed]:
        """Return the ClusterRoles that carry the label of a role."""

    def plan(self, name: str) -> Plan | None:
        """Return a Plan."""

    def deleted_plan(self, name: str) -> Plan | None:
        """Return a Plan of that name that was deleted, as last seen, until `plan_deletion_recorded`.

        The first of several; a restart forgets them. There may be another Plan of that name by now.
        """

    def plan_deletion_recorded(self, plan: Plan) -> None:
        """Forget a deleted Plan: its audit row is written."""

    def tenant(self, name: str) -> TenantClaim | None:
        """Return what is known of one tenant."""

    def tenant_object(self, name: str) -> Manifest | None:
        """Return a Tenant as last seen, the caller's to change; None where it has to be read.

        Never older than our own last write; after a write of it that met a Conflict it has to be read.
        """

    def claims(self, namespace: str) -> Sequence[TenantClaim]:
        """Return every tenant that wants this namespace."""

    def tenants_on(self, plan: str) -> Sequence[TenantClaim]:
        """Return every tenant whose effective plan has that name."""

    def shard(self, name: str) -> VectorShard | None:
        """Return a VectorShard."""

    def shards(self) -> Sequence[VectorShard]:
        """Return every VectorShard, by name."""

    def placed_on(self, shard: str) -> Sequence[TenantClaim]:
        """Return every tenant whose status places it on that shard."""

    def moves_of(self, tenant: str) -> Sequence[TenantMove]:
        """Return the TenantMoves of a tenant that are active."""

    def moves(self) -> Sequence[TenantMove]:
        """Return every TenantMove that is active."""

    def ended_moves(self) -> Sequence[TenantMove]:
        """Return every TenantMove that is over and still there as a record."""

    def archives_of(self, tenant: str) -> Sequence[TenantArchive]:
        """Return the archives of former tenants of that name."""


class Watcher(Protocol):
    """Told what a reconcile found, for the metrics."""

    def became_ready(self, seconds: float) -> None:
        """A tenant is Ready for the first time, so long after its creation."""

    def repaired(self, kind: str) -> None:
        """A child was put back."""

    def probed(self, leaks: int) -> None:
        """A tenant tried to read its neighbours' rows, and found so many ways that let it."""

    def moved(self, *, completed: bool) -> None:
        """A move is over: completed, or rolled back."""

    def paused(self, seconds: float) -> None:
        """A move held a tenant's writes back for so long."""

    def roles_amiss(self, problems: Sequence[str]) -> None:
        """Tenants' ClusterRoles are not as they should be, one sentence for each; none: all of them are."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the settings decide for every tenant."""

    default_plan: str = "free"
    around: Surroundings = field(default_factory=Surroundings)
    archive_history: timedelta = timedelta(days=30)
    plan_grace: timedelta = PLAN_GRACE
    rotation: Rotation = field(default_factory=Rotation)
    default_dimensions: int = 1536
    own_namespace: str = "tenantry-system"
    shard_pause: timedelta = timedelta(seconds=30)
    moves: Terms = field(default_factory=Terms)
    rebalance: RebalanceTerms = field(default_factory=RebalanceTerms)


class AuditLog(Protocol):
    """The append-only audit table of the ledger."""

    async def record(self, entries: Sequence[AuditEntry]) -> None:
        """Append entries; one whose identity is there already adds nothing. Raises Unavailable."""

    async def latest(self, uid: str, identity_prefix: str = "") -> AuditEntry | None:
        """Return the newest entry about an object, None where there is none. Raises Unavailable."""


class Engine(Protocol):
    """A vector database server as one VectorShard. Raises Refused (it does not accept what is asked) or Unavailable.

    Every method may be called again after it was interrupted anywhere.
    """

    @property
    def endpoint(self) -> tuple[str, int]:
        """Return host and port of the server, as its address has them."""

    @property
    def more_ports(self) -> Sequence[int]:
        """Return the further ports of the server that applications need."""

    async def prepare(self) -> Fitness:
        """Connect, look whether the server is fit for tenants, and make it so where that is ours to do."""

    async def records(self) -> Sequence[Record]:
        """Return what is on record of every tenant, with measures, in a bounded number of requests."""

    async def find(self, tenant: str) -> Record | None:
        """Return what is on record of one tenant."""

    async def ensure(self, place: Place, instead_of: Place | None = None) -> Record:
        """Bring a tenant's place to be as described, and put it on record; the name tells whose it is.

        instead_of: raises Unavailable where another place than this is on record by now.
        """

    async def remove(self, tenant: str) -> None:
        """End a tenant's sessions and remove its place, all that is in it, and the record of it, last."""

    def access(self, record: Record) -> Mapping[str, str]:
        """Return what an application needs to use the place: the contents of Secret `vector-store`.

        The same record gives the same contents, in any process, after `prepare`. Nothing is asked of the server.
        """

    async def index(self, tenant: str) -> None:
        """Build the approximate index of a tenant, or build it to its end, while applications go on."""

    async def probe(self, record: Record, neighbours: Sequence[Record]) -> Sequence[str]:
        """Try, as the tenant, to read its neighbours' rows; return a sentence for each way that let it."""

    def export(self, tenant: str) -> AsyncGenerator[bytes, None]:
        """Yield a tenant's rows as they are at one moment: lines of JSON, in pieces that need not end with one.

        Over a connection of its own, however long it takes; whoever stops before the end closes the generator.
        """

    async def restore(self, tenant: str, lines: AsyncIterator[bytes], before: Before | None = None) -> int:
        """Put exported rows into a tenant's place, which must be there and empty: all or none. Return how many.

        before: awaited when all are there and before they count; what it raises undoes them.
        """

    async def close(self) -> None:
        """Give up the connections."""


class Engines(Protocol):
    """Opens engines."""

    def open(self, shard: str, kind: EngineKind, address: str) -> Engine:
        """Return an engine of that kind at an address, which is not connected to yet. Raises Refused."""

    def mover(self, source: Engine, target: Engine, tenant: str) -> Mover:
        """Return what moves a tenant's place between two engines. Raises Refused where these cannot do that."""


class NoEngines:
    """Opens none: for what has nothing to do with shards."""

    def open(self, shard: str, kind: EngineKind, address: str) -> Engine:  # noqa: ARG002 - as the port has it
        """Raise Refused."""
        raise Refused(f"this process opens no engines of kind {kind}")

    def mover(self, source: Engine, target: Engine, tenant: str) -> Mover:
        """Raise Refused."""
        raise Refused(
            f"this process moves no tenants, nor {tenant} from {source.endpoint} to {target.endpoint}"
        )


@dataclass(frozen=True, slots=True)
class Context:
    """All that a reconcile is given."""

    objects: Objects
    seen: Observations
    audit: AuditLog
    clock: Clock
    policy: Policy
    watch: Watcher
    brake: Brake = field(default_factory=Brake)
    deferred: Deferred = field(default_factory=Deferred)
    engines: Engines = field(default_factory=NoEngines)
    fleet: Fleet = field(default_factory=Fleet)
    exports: Exports = field(default_factory=Exports)
    wake: Callable[[Key], None] = lambda _: None
