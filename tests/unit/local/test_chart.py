"""Rendering a chart by the real helm's stand-in, and who the operator is by what it rendered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tenantry.local import chart
from tenantry.local.errors import LocalError
from tenantry.local.manifests import Manifests


def helm(folder: Path, script: str) -> Path:
    program = folder / "helm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def deployment(**container: Any) -> dict[str, Any]:
    spec = {"serviceAccountName": "robot", "containers": [container]}
    metadata = {"name": "operator", "namespace": "somewhere"}
    return {"kind": "Deployment", "metadata": metadata, "spec": {"template": {"spec": spec}}}


def test_helm_gets_the_values_and_what_is_empty_is_left_out(tmp_path: Path) -> None:
    program = helm(tmp_path, 'echo "---\n# a comment\n---\nkind: Role\nargs: $*\nvalues: $(cat)"')
    (document,) = chart.render(program, tmp_path / "mine", {"ledger": {"ephemeral": True}}, "elsewhere")
    assert document["kind"] == "Role"
    assert document["args"] == f"template tenantry {tmp_path / 'mine'} --values=- --namespace=elsewhere"
    assert document["values"] == {"ledger": {"ephemeral": True}}


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (
            "echo 'Error: x.yaml:1:2\n    nil pointer\n\nUse --debug flag to render' >&2; exit 1",
            "x.yaml:1:2 nil pointer",
        ),
        ("exit 1", "no reason given"),
    ],
    ids=["several lines", "no words"],
)
def test_what_helm_refuses_is_one_line(tmp_path: Path, script: str, problem: str) -> None:
    with pytest.raises(LocalError) as error:
        chart.render(helm(tmp_path, script), tmp_path / "mine", {})
    assert str(error.value) == f"helm cannot render {tmp_path / 'mine'}: {problem}"


def test_a_helm_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chart, "_SECONDS", 0.1)
    with pytest.raises(LocalError, match=f"helm did not render {tmp_path / 'mine'} within 0 s"):
        chart.render(helm(tmp_path, "exec sleep 300"), tmp_path / "mine", {})


def test_a_helm_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=f"cannot run helm: No such file or directory at {tmp_path}/helm"):
        chart.render(tmp_path / "helm", tmp_path / "mine", {})


def test_a_missing_chart_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=f"no chart in {tmp_path}/helm/tenantry: install tenantry from a"):
        Manifests(tmp_path).chart()


def test_the_account_is_that_of_the_deployment_with_its_plain_settings() -> None:
    secret = {"name": "TENANTRY_DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": "db", "key": "url"}}}
    env = [{"name": "TENANTRY_WORKERS", "value": "3"}, secret]
    found = chart.account([{"kind": "Role"}, deployment(env=env)])
    assert (found.namespace, found.name) == ("somewhere", "robot")
    assert found.variables == {"TENANTRY_WORKERS": "3"}
    assert chart.account([deployment()]).variables == {}


@pytest.mark.parametrize("count", [0, 2])
def test_a_chart_with_no_or_two_deployments_is_refused(count: int) -> None:
    with pytest.raises(LocalError, match=f"the chart has {count} Deployments, and one was expected"):
        chart.account([deployment()] * count)
