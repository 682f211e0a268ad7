"""What the operator tells Prometheus about itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

RECONCILE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
READY_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120)

TenantCounts = Callable[[], Mapping[tuple[str, str], int]]
"""Returns how many tenants there are by (phase, plan)."""


class _Tenants(Collector):
    """Counts tenants when asked, from what the operator knows anyway: no gauge to keep in step."""

    def __init__(self, counts: TenantCounts) -> None:
        self._counts = counts

    def describe(self) -> Iterator[Metric]:
        """Name the metric, so that registering it counts nothing yet."""
        yield self._family()

    def collect(self) -> Iterator[Metric]:
        """Count the tenants of this moment."""
        family = self._family()
        for (phase, plan), count in sorted(self._counts().items()):
            family.add_metric([phase, plan], count)
        yield family

    @staticmethod
    def _family() -> GaugeMetricFamily:
        return GaugeMetricFamily(
            "tenantry_tenants", "Tenants by phase and effective plan.", labels=["phase", "plan"]
        )


@dataclass(slots=True)
class Metrics:
    """All metrics of the operator, on a registry of their own so that tests do not share them."""

    registry: CollectorRegistry
    reconcile_duration: Histogram = field(init=False)
    tenant_ready: Histogram = field(init=False)
    drift_repaired: Counter = field(init=False)
    api_requests: Counter = field(init=False)

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
            "Requests to the Kubernetes API server by verb and HTTP status; code 0: no answer came.",
            ["verb", "code"],
            registry=self.registry,
        )
        build = Info("tenantry_build", "Version of the operator.", registry=self.registry)
        build.info({"version": version("tenantry")})
        ProcessCollector(registry=self.registry)

    def observe_reconcile(self, kind: str, outcome: str, seconds: float) -> None:
        """Record one reconcile."""
        self.reconcile_duration.labels(kind, outcome).observe(seconds)

    def count_tenants_by(self, counts: TenantCounts) -> None:
        """Give the function that counts tenants at every scrape."""
        self.registry.register(_Tenants(counts))

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
