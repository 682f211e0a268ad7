"""Real installs: helm against a control plane of a test's own, and the operator as the account that is installed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from tenantry.local import chart, kubeconfig
from tenantry.local.binaries import find_binaries, find_tool
from tenantry.local.control_plane import ControlPlane
from tenantry.local.kubectl import Kubectl
from tests.conftest import REPOSITORY, Cluster
from tests.integration.conftest import OperatorProcess

Helm = Callable[..., "subprocess.CompletedProcess[str]"]

NAMESPACE = chart.NAMESPACE
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
CRD_CHART, CHART = REPOSITORY / "helm/tenantry-crds", REPOSITORY / "helm/tenantry"


@contextmanager
def bare_plane(folder: Path) -> Iterator[Cluster]:
    """A control plane with nothing of ours in it."""
    binaries = find_binaries(print)
    with ControlPlane(folder, durable=False, binaries=binaries) as plane:
        yield Cluster(str(plane.kubeconfig), str(binaries.kubectl))


@contextmanager
def helm_plane(folder: Path) -> Iterator[tuple[Cluster, Helm]]:
    """A control plane where an administrator has done what the chart's README has done first; and helm for it."""
    with bare_plane(folder) as cluster:
        prepare_namespace(cluster)
        yield cluster, helm_for(cluster, folder)


def install(cluster: Cluster, helm: Helm, *values: str) -> str:
    """Install both charts; return the notes."""
    helm("install", "tenantry-crds", str(CRD_CHART))
    cluster.established("crd", "--all")
    return helm("install", "tenantry", str(CHART), *values).stdout


def installed(helm: Helm) -> list[dict[str, Any]]:
    """The manifests of the release."""
    return documents(helm("get", "manifest", "tenantry").stdout)


def helm_for(cluster: Cluster, folder: Path) -> Helm:
    """The real helm in our namespace of that cluster; raises with its stderr where it fails and `check` is set."""
    homes = {f"HELM_{each}_HOME": str(folder / "helm" / each.lower()) for each in ("CACHE", "CONFIG", "DATA")}
    environment = {**os.environ, **homes, "KUBECONFIG": cluster.kubeconfig}
    program = str(find_tool("helm", print))

    def run(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [program, *arguments, f"--namespace={NAMESPACE}"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=90, env=environment
        )
        assert not check or done.returncode == 0, f"helm {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done

    return run


def prepare_namespace(cluster: Cluster) -> None:
    """What the chart's README has an administrator do first."""
    labels = [f"{name}={value}" for name, value in RESTRICTED.items()]
    cluster.kubectl("create", "namespace", NAMESPACE)
    cluster.kubectl("label", "namespace", NAMESPACE, *labels)
    url = "--from-literal=url=postgresql://user:password@host/tenantry"
    cluster.kubectl("create", "secret", "generic", "tenantry-database", f"--namespace={NAMESPACE}", url)


def operator_of(cluster: Cluster, manifests: Iterable[dict[str, Any]], folder: Path) -> OperatorProcess:
    """The operator as the account and with the settings of an installed Deployment; its ledger is in `folder`."""
    who = chart.account(manifests)
    token = chart.token(Kubectl(Path(cluster.kubectl_program), Path(cluster.kubeconfig), {}), who)
    path = folder / "operator.kubeconfig"
    kubeconfig.write_as(path, Path(cluster.kubeconfig), who.name, {"token": token})
    return OperatorProcess(replace(cluster, operator_kubeconfig=str(path), settings=who.variables), folder)


def documents(text: str) -> list[dict[str, Any]]:
    """The manifests in what helm or kubectl printed."""
    return [each for each in yaml.safe_load_all(text) if each]
