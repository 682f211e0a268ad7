"""Flux's way to the health of an object: its health check expressions, evaluated in the order of RFC 0009."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import celpy
import yaml

from tests.unit.gitops.kstatus import Kstatus

MANIFEST = Path(__file__).resolve().parents[3] / "manifests" / "flux" / "health-checks.yaml"

ORDER = (
    ("inProgress", Kstatus.IN_PROGRESS),
    ("failed", Kstatus.FAILED),
    ("current", Kstatus.CURRENT),
)


def kustomization() -> dict[str, Any]:
    """Return the Kustomization that ships."""
    manifest: dict[str, Any] = yaml.safe_load(MANIFEST.read_text())
    return manifest


@cache
def programs(kind: str) -> dict[str, celpy.Runner]:
    """Return the compiled expressions for a kind, by name."""
    checks = [entry for entry in kustomization()["spec"]["healthCheckExprs"] if entry["kind"] == kind]
    assert len(checks) == 1, f"one entry for {kind}, not {len(checks)}"
    assert checks[0]["apiVersion"] == "tenantry.dev/v1alpha1"
    environment = celpy.Environment()
    return {name: environment.program(environment.compile(checks[0][name])) for name, _ in ORDER}


def flux(item: dict[str, Any]) -> Kstatus:
    """Return what Flux makes of an object. An expression that cannot be evaluated raises, and fails the test."""
    observed = (item.get("status") or {}).get("observedGeneration")
    if observed is not None and observed != item["metadata"]["generation"]:
        return Kstatus.IN_PROGRESS
    expressions = programs(item["kind"])
    variables = {name: celpy.json_to_cel(value) for name, value in item.items()}
    for name, status in ORDER:
        if expressions[name].evaluate(variables):
            return status
    return Kstatus.IN_PROGRESS
