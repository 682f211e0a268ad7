"""The metrics as a scrape sees them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from tenantry import __version__
from tenantry.domain.audit import AuditEntry
from tenantry.domain.observed import Unready
from tenantry.reconcile.ports import Unavailable
from tenantry.runtime.metrics import Metrics


def scrape(registry: CollectorRegistry) -> list[str]:
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    found = registry.get_sample_value(name, labels)
    assert found is not None, f"no {name}{labels} in\n" + "\n".join(scrape(registry))
    return found


def ago(**time: float) -> datetime:
    return datetime.now(UTC) - timedelta(**time)


def test_tenants_are_counted_at_every_scrape_and_leave_nothing_behind() -> None:
    registry = CollectorRegistry()
    counts = {("Ready", "pro"): 2, ("Pending", "free"): 1}
    Metrics(registry).read_tenants_by(lambda: counts, lambda: ())
    assert 'tenantry_tenants{phase="Ready",plan="pro"} 2.0' in scrape(registry)
    counts.clear()
    counts["Ready", "free"] = 3
    tenants = [line for line in scrape(registry) if line.startswith("tenantry_tenants")]
    assert tenants == ['tenantry_tenants{phase="Ready",plan="free"} 3.0']


def test_tenants_that_are_not_ready_are_told_by_state_and_reason_with_the_longest_of_each() -> None:
    registry = CollectorRegistry()
    unready = [
        Unready(ago(minutes=2), "PlanNotFound", stalled=False),
        Unready(ago(hours=1), "PlanNotFound", stalled=True),
        Unready(ago(hours=3), "PlanNotFound", stalled=True),
    ]
    Metrics(registry).read_tenants_by(dict, lambda: unready)
    stalled = {"state": "stalled", "reason": "PlanNotFound"}
    waiting = {"state": "reconciling", "reason": "PlanNotFound"}
    assert value(registry, "tenantry_tenants_not_ready", **stalled) == 2
    assert value(registry, "tenantry_tenants_not_ready", **waiting) == 1
    assert value(registry, "tenantry_tenants_not_ready_oldest_seconds", **stalled) == pytest.approx(
        10800, abs=9
    )
    assert value(registry, "tenantry_tenants_not_ready_oldest_seconds", **waiting) == pytest.approx(
        120, abs=9
    )
    unready.clear()
    assert not [line for line in scrape(registry) if line.startswith("tenantry_tenants_not_ready")]


def test_a_purge_is_overdue_from_its_moment_on_and_the_oldest_counts() -> None:
    registry = CollectorRegistry()
    due = [ago(hours=-1)]
    Metrics(registry).read_purges_by(lambda: due)
    assert value(registry, "tenantry_purge_overdue_seconds") == 0
    due += [ago(minutes=1), ago(hours=2)]
    assert value(registry, "tenantry_purge_overdue_seconds") == pytest.approx(7200, abs=9)
    due.clear()
    assert value(registry, "tenantry_purge_overdue_seconds") == 0


def test_the_age_of_the_list_is_told_once_there_is_one() -> None:
    registry = CollectorRegistry()
    state: dict[str, float | None] = {"age": None}
    Metrics(registry).read_listing_by(lambda: state["age"] is not None, lambda: state["age"], 600)
    assert value(registry, "tenantry_synced") == 0
    assert value(registry, "tenantry_list_interval_seconds") == 600
    assert registry.get_sample_value("tenantry_list_age_seconds") is None
    state["age"] = 4.5
    assert value(registry, "tenantry_synced") == 1
    assert value(registry, "tenantry_list_age_seconds") == 4.5


class Ledger:
    """An audit log that may be out of reach."""

    def __init__(self) -> None:
        self.reachable = True

    async def record(self, entries: Sequence[AuditEntry]) -> None:
        if not self.reachable:
            raise Unavailable("the ledger does not answer")

    async def latest(self, uid: str, identity_prefix: str = "") -> AuditEntry | None:
        await self.record([])
        return None


async def test_failures_of_the_ledger_are_counted_and_raised_on() -> None:
    registry, ledger = CollectorRegistry(), Ledger()
    audit = Metrics(registry).counted(ledger)
    await audit.record([])
    assert await audit.latest("uid") is None
    assert value(registry, "tenantry_ledger_failures_total", operation="write") == 0
    ledger.reachable = False
    for _ in range(2):
        with pytest.raises(Unavailable):
            await audit.record([])
    with pytest.raises(Unavailable):
        await audit.latest("uid")
    assert value(registry, "tenantry_ledger_failures_total", operation="write") == 2
    assert value(registry, "tenantry_ledger_failures_total", operation="read") == 1


def test_gauges_are_read_at_every_scrape() -> None:
    registry = CollectorRegistry()
    state = {"depth": 4.0, "oldest": 1.5, "leads": False}
    metrics = Metrics(registry)
    metrics.read_queue_by(lambda: state["depth"], lambda: state["oldest"])
    metrics.read_leader_by(lambda: bool(state["leads"]))
    metrics.read_roles_by(lambda: 2)
    lines = scrape(registry)
    assert "tenantry_queue_depth 4.0" in lines
    assert "tenantry_queue_oldest_seconds 1.5" in lines
    assert "tenantry_leader 0.0" in lines
    assert "tenantry_roles_amiss 2.0" in lines
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
