"""The chart as a cluster gets it, rendered by the real helm; installed here without its Deployment.

The operator runs as a process on this machine, but as the account that the chart makes for it and with the settings
that the chart gives it: a rule or a setting that is missing there is missing here.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tenantry.local.errors import LocalError, plain_os_errors
from tenantry.local.kubectl import Kubectl

RELEASE = "tenantry"
NAMESPACE = "tenantry-system"

TOKEN_LIFETIME = "87600h"
_SECONDS = 60.0

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Account:
    """Who the operator is in a cluster, and what the chart tells it."""

    name: str
    namespace: str
    variables: Mapping[str, str]
    """Settings as environment variables; those whose value only a pod has are left out."""


def render(helm: Path, chart: Path, values: Mapping[str, Any], namespace: str = NAMESPACE) -> list[Manifest]:
    """Return what `helm template` makes of a chart. Raises LocalError with helm's own words."""
    text = template(helm, chart, values, f"--namespace={namespace}")
    return [document for document in yaml.safe_load_all(text) if document]


def template(helm: Path, chart: Path, values: Mapping[str, Any], *options: str) -> str:
    """Return what `helm template` prints with those options. Raises LocalError with helm's own words."""
    command = [str(helm), "template", RELEASE, str(chart), "--values=-", *options]
    given = json.dumps(values)
    try:
        with plain_os_errors("cannot run helm"):
            answer = subprocess.run(
                command, input=given, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
    except subprocess.TimeoutExpired:
        raise LocalError(f"helm did not render {chart} within {_SECONDS:.0f} s") from None
    if answer.returncode != 0:
        raise LocalError(f"helm cannot render {chart}: {_one_line(answer.stderr)}")
    return answer.stdout


def install(kubectl: Kubectl, documents: Iterable[Manifest], namespace: str = NAMESPACE) -> Account:
    """Apply everything but the Deployment; return whose token the operator needs. Raises LocalError."""
    rendered = list(documents)
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    kubectl.apply(documents=[made])
    kubectl.apply(documents=[each for each in rendered if each["kind"] != "Deployment"])
    return account(rendered)


def account(documents: Iterable[Manifest]) -> Account:
    """Return the account and the settings of the Deployment among `documents`. Raises LocalError."""
    deployments = [each for each in documents if each["kind"] == "Deployment"]
    if len(deployments) != 1:
        raise LocalError(f"the chart has {len(deployments)} Deployments, and one was expected")
    namespace = deployments[0]["metadata"]["namespace"]
    spec = deployments[0]["spec"]["template"]["spec"]
    given = spec["containers"][0].get("env", [])
    variables = {each["name"]: each["value"] for each in given if "value" in each}
    return Account(spec["serviceAccountName"], namespace, variables)


def token(kubectl: Kubectl, who: Account) -> str:
    """Return a token of the account, as a pod of its own would have one. Raises KubectlError."""
    command = ("create", "token", who.name, f"--namespace={who.namespace}", f"--duration={TOKEN_LIFETIME}")
    return kubectl.run(*command).strip()


def _one_line(text: str) -> str:
    """Return helm's error, which may go over several lines and ends with advice for developers of charts."""
    words = " ".join(text.partition("Use --debug flag")[0].split())
    return words.removeprefix("Error: ") or "no reason given"
