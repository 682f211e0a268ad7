"""Every setting of the operator is a value of the chart: judged by what `Settings` reads from the pod's env."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tenantry.settings import Settings
from tests.unit.chart.conftest import EPHEMERAL, Manifest, Render, the

pytestmark = pytest.mark.tool("helm")

CHANGED: dict[str, tuple[Any, Any]] = {
    "state_dir": ("/data", Path("/data")),
    "default_plan": ("pro", "pro"),
    "plan_grace_seconds": (7.5, 7.5),
    "http_host": ("::", "::"),
    "http_port": (9090, 9090),
    "workers": (4, 4),
    "relist_seconds": (90, 90.0),
    "lease_namespace": ("elsewhere", "elsewhere"),
    "lease_seconds": (60, 60),
    "own_namespace": ("elsewhere", "elsewhere"),
    "default_dimensions": (384, 384),
    "credential_age_days": (30, 30),
    "credential_grace_seconds": (0.5, 0.5),
    "shard_seconds": (5, 5.0),
    "rebalance": (False, False),
    "rebalance_theta": (0.1, 0.1),
    "rebalance_over_seconds": (0, 0.0),
    "rebalance_tenant_seconds": (60, 60.0),
    "rebalance_shard_seconds": (0.5, 0.5),
    "dns_namespace": ("openshift-dns", "openshift-dns"),
    "scraper_namespaces": (["monitoring", "metrics"], ("monitoring", "metrics")),
    "api_server_cidrs": (["10.0.0.1", "fd00::/64"], ("10.0.0.1/32", "fd00::/64")),
    "export_url": ("s3://vectors/exports", "s3://vectors/exports"),
    "archive_history_days": (0, 0),
    "log_level": ("DEBUG", "DEBUG"),
}
"""Of each setting another value than its default, in the chart and in the operator."""

FROM_THE_SECRET = {"database_url"}
IN_A_POD = {"state_dir": Path("/var/lib/tenantry"), "lease_namespace": "tenantry-system"}
"""What a pod needs other than a developer's machine."""
OF_THE_MANIFEST = ("state_dir", "http_port", "lease_seconds")
"""What other fields of the Deployment depend on."""


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that the shell of whoever runs the tests has set."""
    for name in [name for name in os.environ if name.startswith("TENANTRY_")]:
        monkeypatch.delenv(name)


def value_name(field: str) -> str:
    first, *others = field.split("_")
    return first + "".join(word.capitalize() for word in others)


def environment(manifests: list[Manifest]) -> list[dict[str, Any]]:
    (container,) = the("Deployment", manifests)["spec"]["template"]["spec"]["containers"]
    entries: list[dict[str, Any]] = container["env"]
    return entries


def read(manifests: list[Manifest]) -> Settings:
    """What the operator reads in the pod."""
    with pytest.MonkeyPatch.context() as patch:
        for entry in environment(manifests):
            if "value" in entry:
                patch.setenv(entry["name"], entry["value"])
        return Settings()


def test_every_setting_is_a_value(render: Render) -> None:
    assert CHANGED.keys() | FROM_THE_SECRET == Settings.model_fields.keys()
    names = [entry["name"] for entry in environment(render())]
    assert sorted(names) == sorted(f"TENANTRY_{field.upper()}" for field in Settings.model_fields)


def test_the_chart_says_the_defaults_of_the_operator(render: Render) -> None:
    assert read(render()) == Settings().model_copy(update=IN_A_POD)


@pytest.mark.parametrize("field", CHANGED)
def test_a_value_changes_its_setting_and_no_other(render: Render, field: str) -> None:
    given, expected = CHANGED[field]
    changed = read(render({"settings": {value_name(field): given}}))
    assert type(getattr(changed, field)) is type(expected)
    assert changed == read(render()).model_copy(update={field: expected})


@pytest.mark.parametrize("field", sorted(CHANGED.keys() - set(OF_THE_MANIFEST)))
def test_a_value_that_is_null_leaves_the_setting_as_it_was(render: Render, field: str) -> None:
    assert read(render({"settings": {value_name(field): None}})) == read(render())


@pytest.mark.parametrize("field", OF_THE_MANIFEST)
def test_what_the_manifest_is_made_from_cannot_be_null(refusal: Any, field: str) -> None:
    said = refusal({"settings": {value_name(field): None}})
    assert f"at '/settings': missing property '{value_name(field)}'" in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", 1),
        ("workers", 256),
        ("leaseSeconds", 2),
        ("leaseSeconds", 300),
        ("relistSeconds", 0.001),
        ("relistSeconds", 10_000_000),
        ("planGraceSeconds", 0),
        ("planGraceSeconds", 1_000_000),
        ("archiveHistoryDays", 36_500),
        ("defaultDimensions", 16_000),
        ("credentialAgeDays", 1),
        ("credentialAgeDays", 36_500),
        ("credentialGraceSeconds", 0),
        ("shardSeconds", 1),
        ("rebalance", "Off"),
        ("rebalanceTheta", 1),
        ("rebalanceOverSeconds", 0),
        ("apiServerCidrs", ["::1", "2001:db8::/32", "192.0.2.7/32"]),
        *(("logLevel", level) for level in ("DEBUG", "INFO", "WARNING", "ERROR")),
    ],
)
def test_what_the_schema_allows_the_operator_takes(render: Render, name: str, value: Any) -> None:
    read(render({"settings": {name: value}}))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("workers", 0, "at '/settings/workers': minimum: got 0, want 1"),
        ("workers", 257, "maximum: got 257, want 256"),
        ("lease_seconds", 1, "minimum: got 1, want 2"),
        ("relist_seconds", 0, "exclusiveMinimum: got 0, want 0"),
        ("plan_grace_seconds", -1, "minimum: got -1, want 0"),
        ("archive_history_days", -1, "minimum: got -1, want 0"),
        ("archive_history_days", 0.5, "got number, want integer"),
        ("default_dimensions", 0, "minimum: got 0, want 1"),
        ("default_dimensions", 16_001, "maximum: got 16,001, want 16,000"),
        ("credential_age_days", 0, "minimum: got 0, want 1"),
        ("credential_grace_seconds", -1, "minimum: got -1, want 0"),
        ("shard_seconds", 0.5, "minimum: got 0.5, want 1"),
        ("rebalance", "Maybe", "value must be one of true, false, 'On', 'Off'"),
        ("rebalance_theta", 0, "exclusiveMinimum: got 0, want 0"),
        ("rebalance_theta", 1.5, "maximum: got 1.5, want 1"),
        ("rebalance_over_seconds", -1, "minimum: got -1, want 0"),
        ("api_server_cidrs", ["kubernetes.default"], "'kubernetes.default' does not match pattern"),
    ],
)
def test_what_the_operator_refuses_the_schema_refuses(
    refusal: Any, field: str, value: Any, words: str
) -> None:
    with pytest.raises(ValidationError):
        Settings(**{field: value})
    assert words in refusal({"settings": {value_name(field): value}})


def test_the_database_comes_from_the_secret_and_is_shown_nowhere_else(render: Render) -> None:
    secret = {"ledger": {"secret": {"name": "db", "key": "dsn"}}}
    entries = {entry["name"]: entry for entry in environment(render(ledger=secret))}
    assert entries["TENANTRY_DATABASE_URL"] == {
        "name": "TENANTRY_DATABASE_URL",
        "valueFrom": {"secretKeyRef": {"name": "db", "key": "dsn"}},
    }
    assert "TENANTRY_DATABASE_URL" not in {entry["name"] for entry in environment(render(ledger=EPHEMERAL))}


def test_more_variables_go_beside_the_settings_and_never_over_them(render: Render, refusal: Any) -> None:
    proxy = {"name": "HTTPS_PROXY", "value": "http://proxy:3128"}
    token = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "t"}}}
    assert environment(render({"extraEnv": [proxy, token]}))[-2:] == [proxy, token]
    said = refusal({"extraEnv": [{"name": "TENANTRY_WORKERS", "value": "3"}]})
    assert "extraEnv names TENANTRY_WORKERS: the operator's own settings are values under `settings`" in said
