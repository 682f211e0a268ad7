"""What the chart refuses, and how it says so."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tenantry.local import chart
from tests.conftest import REPOSITORY
from tests.unit.chart.conftest import CHART, DATABASE, EPHEMERAL, the

pytestmark = pytest.mark.tool("helm")

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
OF_A_PARENT = {"global", "enabled"}

OF_KUBERNETES = (
    *(
        "affinity.",
        "topologySpreadConstraints[]",
        "extraEnv[].valueFrom",
        "extraVolumes[]",
        "extraVolumeMounts[]",
    ),
    *("networkPolicy.ingress.from[].", "networkPolicy.egress.extra[].", "global"),
)
"""Pieces of Kubernetes' own API: the API server knows their fields, and refuses others."""


def objects(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of an object with its path."""
    if "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].removeprefix("#/definitions/")]
    if schema.get("type") == "object":
        yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from objects(field, f"{path}.{name}".removeprefix("."))
    if "items" in schema:
        yield from objects(schema["items"], f"{path}[]")


def test_no_name_is_accepted_that_means_nothing() -> None:
    open_ones = [path for path, schema in objects(SCHEMA) if "additionalProperties" not in schema]
    assert open_ones
    assert [path for path in open_ones if not path.startswith(OF_KUBERNETES)] == []


def described(schema: dict[str, Any], values: dict[str, Any], path: str = "") -> Iterator[str]:
    """Paths where schema and values.yaml differ, or where the schema does not say what a value means."""
    fields = schema["properties"].keys() - (OF_A_PARENT if not path else set())
    yield from (f"{path}{name}: only in one of both" for name in fields ^ values.keys())
    for name in fields & values.keys():
        field, value = schema["properties"][name], values[name]
        if not field.get("description", "").endswith((".", ")")):
            yield f"{path}{name}: no sentence"
        if isinstance(value, dict) and "properties" in field and value:
            yield from described(field, value, f"{path}{name}.")


def test_schema_and_values_have_the_same_names_each_described() -> None:
    assert list(described(SCHEMA, VALUES)) == []


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a typo": ({"replica": 3}, "additional properties 'replica' not allowed"),
    "a typo deeper": (
        {"ledger": {"secret": {"named": "db"}}},
        "at '/ledger/secret': additional properties 'named' not allowed",
    ),
    "a setting that is not there": (
        {"settings": {"defaultPlann": "pro"}},
        "at '/settings': additional properties 'defaultPlann' not allowed",
    ),
    "a word for a number": ({"replicas": "three"}, "at '/replicas': got string, want null or integer"),
    "a number for a word": (
        {"settings": {"defaultPlan": 1}},
        "at '/settings/defaultPlan': got number, want string",
    ),
    "a word for a list": (
        {"settings": {"scraperNamespaces": "monitoring"}},
        "at '/settings/scraperNamespaces': got string, want array",
    ),
    "a word for yes": ({"ledger": {"ephemeral": "yes"}}, "at '/ledger/ephemeral': got string, want boolean"),
    "too few": ({"replicas": -1}, "at '/replicas': minimum: got -1, want 0"),
    "a level that is not there": (
        {"settings": {"logLevel": "TRACE"}},
        "at '/settings/logLevel': value must be one of 'DEBUG', 'INFO', 'WARNING', 'ERROR'",
    ),
    "a tag in the repository": (
        {"image": {"repository": "ghcr.io/tenantry/tenantry@sha256:0"}},
        "at '/image/repository'",
    ),
    "a short digest": (
        {"image": {"digest": "sha256:abc"}},
        "at '/image/digest': 'sha256:abc' does not match",
    ),
    "a pull policy": ({"image": {"pullPolicy": "Sometimes"}}, "'Always', 'IfNotPresent', 'Never'"),
    "capital letters in a name": ({"fullnameOverride": "Tenantry"}, "at '/fullnameOverride': 'Tenantry'"),
    "a label that is no word": (
        {"podLabels": {"tier": True}},
        "at '/podLabels/tier': got boolean, want string",
    ),
    "memory in words": (
        {"resources": {"limits": {"memory": "1 GB"}}},
        "at '/resources/limits/memory': '1 GB' does not match",
    ),
    "an address without a mask": (
        {"networkPolicy": {"egress": {"apiServer": {"cidrs": ["10.0.0.1"]}}}},
        "at '/networkPolicy/egress/apiServer/cidrs/0': '10.0.0.1' does not match",
    ),
    "a port that is not there": (
        {"networkPolicy": {"egress": {"database": {"ports": [70000]}}}},
        "maximum: got 70,000, want 65,535",
    ),
    "root": ({"podSecurityContext": {"runAsUser": 0}}, "at '/podSecurityContext/runAsUser': minimum: got 0"),
    "a trusted user that is no list": (
        {"admission": {"trusted": {"users": "argocd"}}},
        "at '/admission/trusted/users': got string, want array",
    ),
    "a pause without a unit": ({"serviceMonitor": {"interval": "30"}}, "at '/serviceMonitor/interval': '30'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_is_refused_and_named(refusal: Callable[..., str], case: str) -> None:
    values, words = REFUSED[case]
    assert words in refusal(values, {} if "ledger" in values else DATABASE)


def test_without_a_database_it_says_how_to_name_one(refusal: Callable[..., str]) -> None:
    said = refusal(ledger={"ledger": {"secret": {"key": "dsn"}}})
    assert "ledger.secret.name is missing" in said
    assert (
        "kubectl create secret generic tenantry-database --namespace tenantry-system "
        "--from-literal=dsn=postgresql://user:password@host/tenantry" in said
    )
    assert "set ledger.secret.name=tenantry-database" in said
    assert "ledger.ephemeral=true" in said


def test_replicas_cannot_share_a_ledger_that_is_a_file(refusal: Callable[..., str]) -> None:
    said = refusal({"replicas": 2}, EPHEMERAL)
    assert "replicas is 2 and ledger.ephemeral is true: an ephemeral ledger is a file in one pod" in said
    assert "Set replicas to 1, or name a database in ledger.secret.name" in said


def test_two_ledgers_are_one_too_many(refusal: Callable[..., str]) -> None:
    said = refusal(ledger={"ledger": {"secret": {"name": "db"}, "ephemeral": True}})
    assert "ledger.secret.name is db and ledger.ephemeral is true: keep one of them" in said


def test_it_works_as_a_part_of_another_chart(helm: Path, tmp_path: Path) -> None:
    dependency = {"name": "tenantry", "version": "0.1.0", "condition": "tenantry.enabled"}
    about = {"apiVersion": "v2", "name": "platform", "version": "1.0.0", "dependencies": [dependency]}
    (tmp_path / "Chart.yaml").write_text(json.dumps(about))
    shutil.copytree(CHART, tmp_path / "charts/tenantry")
    values = {"tenantry": {"enabled": True, **DATABASE}, "global": {"region": "eu"}}
    assert the("Deployment", chart.render(helm, tmp_path, values))["spec"]["replicas"] == 2


@pytest.mark.parametrize("name", ["tenantry", "tenantry-crds"])
def test_helm_finds_nothing_to_complain_about(helm: Path, name: str) -> None:
    values = ["--set", "ledger.ephemeral=true"] if name == "tenantry" else []
    command = [str(helm), "lint", "--strict", str(REPOSITORY / "helm" / name), *values]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout
