"""The metrics as a scrape sees them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from tenantry import __version__
from tenantry.runtime.metrics import Metrics


def scrape(registry: CollectorRegistry) -> list[str]:
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def test_tenants_are_counted_at_every_scrape_and_leave_nothing_behind() -> None:
    registry = CollectorRegistry()
    counts = {("Ready", "pro"): 2, ("Pending", "free"): 1}
    Metrics(registry).count_tenants_by(lambda: counts)
    assert 'tenantry_tenants{phase="Ready",plan="pro"} 2.0' in scrape(registry)
    counts.clear()
    counts["Ready", "free"] = 3
    tenants = [line for line in scrape(registry) if line.startswith("tenantry_tenants")]
    assert tenants == ['tenantry_tenants{phase="Ready",plan="free"} 3.0']


def test_gauges_are_read_at_every_scrape() -> None:
    registry = CollectorRegistry()
    state = {"depth": 4.0, "oldest": 1.5, "leads": False}
    metrics = Metrics(registry)
    metrics.read_queue_by(lambda: state["depth"], lambda: state["oldest"])
    metrics.read_leader_by(lambda: bool(state["leads"]))
    lines = scrape(registry)
    assert "tenantry_queue_depth 4.0" in lines
    assert "tenantry_queue_oldest_seconds 1.5" in lines
    assert "tenantry_leader 0.0" in lines
    state["leads"] = True
    assert "tenantry_leader 1.0" in scrape(registry)


def test_reconciles_requests_and_repairs_carry_their_labels() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.observe_reconcile("Tenant", "ok", 0.3)
    metrics.tenant_ready.observe(0.4)
    metrics.drift_repaired.labels("NetworkPolicy").inc()
    metrics.api_requests.labels("patch", "200").inc()
    lines = scrape(registry)
    assert 'tenantry_reconcile_duration_seconds_bucket{kind="Tenant",le="0.5",outcome="ok"} 1.0' in lines
    assert 'tenantry_tenant_ready_seconds_bucket{le="0.25"} 0.0' in lines
    assert 'tenantry_tenant_ready_seconds_bucket{le="0.5"} 1.0' in lines
    assert 'tenantry_drift_repaired_total{kind="NetworkPolicy"} 1.0' in lines
    assert 'tenantry_api_requests_total{code="200",verb="patch"} 1.0' in lines
    assert f'tenantry_build_info{{version="{__version__}"}} 1.0' in lines
