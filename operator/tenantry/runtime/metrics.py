"""What the operator tells Prometheus about itself; `docs/metrics.md` explains each metric."""

from __future__ import annotations

from collections import Counter as Counting
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tenantry.domain.audit import AuditEntry
from tenantry.domain.observed import Unready
from tenantry.reconcile.fleet import Fleet, Known
from tenantry.reconcile.ports import AuditLog, Unavailable

RECONCILE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
PAUSE_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
READY_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120)

Samples = Mapping[tuple[str, ...], float]
"""Values by the values of the labels, in the order of their names."""

# A series of its own that says when each other one began: twice as many, and nothing that we ask for.
disable_created_metrics()  # type: ignore[no-untyped-call]


class _Read(Collector):
    """A gauge that is read when asked, from what the operator knows anyway: no copy to keep in step."""

    def __init__(self, name: str, text: str, labels: Sequence[str], read: Callable[[], Samples]) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._read = read

    def describe(self) -> Iterator[Metric]:
        """Name the metric, so that registering it reads nothing yet."""
        yield self._family()

    def collect(self) -> Iterator[Metric]:
        """Read it at this moment."""
        family = self._family()
        for labels, value in sorted(self._read().items()):
            family.add_metric(labels, value)
        yield family

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(self._name, self._text, labels=self._labels)


class _CountedAudit:
    """The audit log, with its failures counted."""

    def __init__(self, audit: AuditLog, failures: Counter) -> None:
        self._audit = audit
        self._failures = failures

    async def record(self, entries: Sequence[AuditEntry]) -> None:
        """Append entries. Raises Unavailable."""
        with self._counting("write"):
            await self._audit.record(entries)

    async def latest(self, uid: str, identity_prefix: str = "") -> AuditEntry | None:
        """Return the newest entry about an object. Raises Unavailable."""
        with self._counting("read"):
            return await self._audit.latest(uid, identity_prefix)

    @contextmanager
    def _counting(self, operation: str) -> Iterator[None]:
        try:
            yield
        except Unavailable:
            self._failures.labels(operation).inc()
            raise


@dataclass(slots=True)
class Metrics:
    """All metrics of the operator, on a registry of their own so that tests do not share them."""

    registry: CollectorRegistry
    reconcile_duration: Histogram = field(init=False)
    tenant_ready: Histogram = field(init=False)
    drift_repaired: Counter = field(init=False)
    api_requests: Counter = field(init=False)
    ledger_failures: Counter = field(init=False)
    probes: Counter = field(init=False)
    moves: Counter = field(init=False)
    write_pause: Histogram = field(init=False)

    def __post_init__(self) -> None:
        self.reconcile_duration = Histogram(
            "tenantry_reconcile_duration_seconds",
            "Time that one reconcile took, by kind and by how it ended.",
            ["kind", "outcome"],
            buckets=RECONCILE_BUCKETS,
            registry=self.registry,
        )
        self.tenant_ready = Histogram(
            "tenantry_tenant_ready_seconds",
            "Time from the creation of a Tenant to the first time it was Ready.",
            buckets=READY_BUCKETS,
            registry=self.registry,
        )
        self.drift_repaired = Counter(
            "tenantry_drift_repaired_total",
            "Children put back after somebody else had changed or deleted them, by kind of child.",
            ["kind"],
            registry=self.registry,
        )
        self.api_requests = Counter(
            "tenantry_api_requests_total",
            "Requests to the Kubernetes API server by verb and HTTP status; code error: no answer came.",
            ["verb", "code"],
            registry=self.registry,
        )
        self.ledger_failures = Counter(
            "tenantry_ledger_failures_total",
            "Reads and writes of the ledger that failed.",
            ["operation"],
            registry=self.registry,
        )
        for operation in ("read", "write"):
            self.ledger_failures.labels(operation)  # from 0, so that the first failure is an increase
        self.probes = Counter(
            "tenantry_isolation_probes_total",
            "Times that a tenant's own credentials were tried on its neighbours' vectors, by what came of it.",
            ["result"],
            registry=self.registry,
        )
        for result in ("denied", "leak"):
            self.probes.labels(result)
        self.moves = Counter(
            "tenantry_moves_total",
            "Moves of tenants between shards that are over, by how they ended.",
            ["result"],
            registry=self.registry,
        )
        for result in ("completed", "aborted"):
            self.moves.labels(result)
        self.write_pause = Histogram(
            "tenantry_move_write_pause_seconds",
            "For how long a move held a tenant's writes back.",
            buckets=PAUSE_BUCKETS,
            registry=self.registry,
        )
        build = Info("tenantry_build", "Version of the operator.", registry=self.registry)
        build.info({"version": version("tenantry")})
        ProcessCollector(registry=self.registry)

    def observe_reconcile(self, kind: str, outcome: str, seconds: float) -> None:
        """Record one reconcile."""
        self.reconcile_duration.labels(kind, outcome).observe(seconds)

    def counted(self, audit: AuditLog) -> AuditLog:
        """Return the audit log with its failures counted."""
        return _CountedAudit(audit, self.ledger_failures)

    def read_tenants_by(
        self, counts: Callable[[], Mapping[tuple[str, ...], int]], unready: Callable[[], Iterable[Unready]]
    ) -> None:
        """Give what counts tenants by (phase, plan) at every scrape, and tells how those stand that are not Ready."""
        self._labelled("tenantry_tenants", "Tenants by phase and effective plan.", ["phase", "plan"], counts)
        labels = ["state", "reason"]
        self._labelled(
            "tenantry_tenants_not_ready",
            "Tenants that are not Ready, by whether somebody must act (stalled) or it goes on by itself "
            "(reconciling), and by the reason.",
            labels,
            lambda: Counting(map(_standing, unready())),
        )
        self._labelled(
            "tenantry_tenants_not_ready_oldest_seconds",
            "For how long that Tenant has not been Ready which has not been for longest, by the same.",
            labels,
            lambda: _longest(unready()),
        )

    def read_purges_by(self, due: Callable[[], Iterable[datetime]]) -> None:
        """Give what tells at every scrape when the archives that keep something are to be gone."""

        def overdue() -> float:
            now = datetime.now(UTC)
            return max(((now - moment).total_seconds() for moment in due()), default=0.0)

        self._gauge(
            "tenantry_purge_overdue_seconds",
            "How long ago the data of a deleted tenant was to be gone that is still there; 0: none is.",
            lambda: max(0.0, overdue()),
        )

    def read_listing_by(
        self, synced: Callable[[], bool], age: Callable[[], float | None], interval: float
    ) -> None:
        """Give whether everything was listed, and the seconds since; None where no list was made yet."""

        def known_age() -> Samples:
            seconds = age()
            return {} if seconds is None else {(): seconds}

        self._gauge("tenantry_synced", "1 once the leader has listed everything and works.", synced)
        self._labelled(
            "tenantry_list_age_seconds", "Since everything was last listed without a failure.", [], known_age
        )
        self._gauge(
            "tenantry_list_interval_seconds", "How often everything is to be listed anew.", lambda: interval
        )

    def read_roles_by(self, amiss: Callable[[], float]) -> None:
        """Give what counts at every scrape the ClusterRoles of tenants' members that are not as they should be."""
        self._gauge(
            "tenantry_roles_amiss",
            "ClusterRoles of tenants' members that are missing or not as this version wants them.",
            amiss,
        )

    def read_shards_by(self, fleet: Callable[[], Fleet]) -> None:
        """Give what knows the shards at every scrape. Their names are labels: there are few of them."""

        def read(value: Callable[[Known], float | None]) -> Callable[[], Samples]:
            def samples() -> Samples:
                found = {(name,): value(known) for name, known in fleet().known.items()}
                return {labels: number for labels, number in found.items() if number is not None}

            return samples

        for name, text, value in (
            ("ready", "1 where a shard can be reached and is fit for tenants.", _is_usable),
            ("places", "Places of tenants that a shard has on record.", _places),
            ("bytes", "Bytes of tenants' vectors and indexes on a shard, as last measured.", _bytes),
        ):
            self._labelled(f"tenantry_shard_{name}", text, ["shard"], read(value))

    def read_queue_by(self, depth: Callable[[], float], oldest_wait: Callable[[], float]) -> None:
        """Give the functions that tell the state of the work queue at every scrape."""
        self._gauge("tenantry_queue_depth", "Keys that wait for a worker.", depth)
        self._gauge(
            "tenantry_queue_oldest_seconds", "How long the oldest key has waited for a worker.", oldest_wait
        )

    def read_leader_by(self, held: Callable[[], bool]) -> None:
        """Give the function that tells whether this replica leads."""
        self._gauge("tenantry_leader", "1 on the replica that leads, 0 on a standby.", held)

    def _gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        Gauge(name, text, registry=self.registry).set_function(read)

    def _labelled(self, name: str, text: str, labels: Sequence[str], read: Callable[[], Samples]) -> None:
        self.registry.register(_Read(name, text, labels, read))


def _is_usable(known: Known) -> float | None:
    return float(known.usable) if known.looked.is_set() else None


def _places(known: Known) -> float | None:
    return None if known.records is None else float(len(known.records))


def _bytes(known: Known) -> float | None:
    return None if known.records is None else float(known.size)


def _standing(tenant: Unready) -> tuple[str, str]:
    return ("stalled" if tenant.stalled else "reconciling", tenant.reason)


def _longest(unready: Iterable[Unready]) -> Samples:
    now = datetime.now(UTC)
    longest: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for tenant in unready:
        standing = _standing(tenant)
        longest[standing] = max(longest[standing], (now - tenant.since).total_seconds())
    return longest
