"""The generated tenants fit the sample plans; the tables show them."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from tenantry.local.manifests import find_manifests
from tenantry.local.showcase import showcase_tenants
from tenantry.local.status import Part, Status, TenantRow
from tenantry.local.tables import print_next_steps, print_parts, print_tenants


def sample_plans() -> dict[str, dict[str, Any]]:
    documents = list(yaml.safe_load_all(find_manifests().plans().read_text()))
    return {each["metadata"]["name"]: each["spec"] for each in documents if each["kind"] == "Plan"}


def test_there_are_twelve_over_all_plans_and_none_is_a_sample() -> None:
    tenants = showcase_tenants()
    names = {each["metadata"]["name"] for each in tenants}
    assert len(names) == 12
    assert not names & {"acme", "umbrella"}
    assert {each["spec"]["plan"] for each in tenants} == {"free", "pro", "enterprise"}
    assert tenants == showcase_tenants()


@pytest.mark.parametrize("tenant", showcase_tenants(), ids=lambda tenant: tenant["metadata"]["name"])
def test_a_tenant_overrides_only_what_its_plan_allows(tenant: dict[str, Any]) -> None:
    allowed = sample_plans()[tenant["spec"]["plan"]]["overridable"]
    overrides = tenant["spec"].get("overrides", {})
    assert {f"{group}.{field}" for group, fields in overrides.items() for field in fields} <= set(allowed)


def test_a_row_is_read_from_a_tenant_that_is_ready_and_from_one_nobody_has_seen() -> None:
    created = "2026-01-01T10:00:00Z"
    metadata = {"name": "initech", "creationTimestamp": created}
    ready = {
        "type": "Ready",
        "status": "True",
        "lastTransitionTime": "2026-01-01T10:00:02Z",
        "message": "fine",
    }
    row = TenantRow.of(
        {
            "metadata": metadata,
            "spec": {"plan": "free"},
            "status": {"plan": "pro", "phase": "Ready", "namespace": "tenant-initech", "conditions": [ready]},
        }
    )
    assert (row.plan, row.phase, row.namespace, row.ready, row.message) == (
        "pro",
        "Ready",
        "tenant-initech",
        "True",
        "",
    )
    assert row.ready_since == datetime(2026, 1, 1, 10, 0, 2, tzinfo=UTC)
    unseen = TenantRow.of({"metadata": metadata, "spec": {}})
    assert (unseen.plan, unseen.phase, unseen.ready, unseen.ready_since) == ("", "Pending", "Unknown", None)


def example(*, stopped: bool = False) -> Status:
    created = datetime.now(UTC) - timedelta(minutes=3)
    rows = (
        TenantRow(
            "initech", "pro", "Ready", "tenant-initech", "True", created, created + timedelta(seconds=2), ""
        ),
        TenantRow(
            "hooli", "pro", "Degraded", "tenant-hooli", "False", created, None, "plan pro does not exist"
        ),
    )
    parts = (Part("etcd", None if stopped else 7, Path("/s/logs/etcd.log")),)
    state = Path("/s t")
    return Status(state, state / "kubeconfig", Path("/b/kubectl"), "https://h", 8080, parts, True, rows)


def printed(*, stopped: bool = False) -> str:
    output = io.StringIO()
    console = Console(file=output, width=200)
    print_parts(console, example(stopped=stopped))
    print_tenants(console, example())
    print_next_steps(console, example())
    return output.getvalue()


def test_the_tables_show_state_reason_and_next_steps() -> None:
    text = printed()
    assert [line.split() for line in text.splitlines() if line.startswith("initech ")] == [
        ["initech", "pro", "Ready", "tenant-initech", "True", "2s", "3m"]
    ]
    assert "hooli: plan pro does not exist" in text
    assert "export KUBECONFIG='/s t/kubeconfig'" in text
    assert "describe tenant initech" in text
    assert "http://127.0.0.1:8080/metrics" in text


def test_an_environment_without_one_part_is_not_running() -> None:
    assert example().running
    assert not example(stopped=True).running
    assert "stopped" in printed(stopped=True)
    assert json.loads(json.dumps(example().as_json()))["tenants"][0]["ageSeconds"] in range(180, 240)
