"""One real control plane for the whole run: embedded, on kind, or a context that is named."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tenantry.local.binaries import find_binaries
from tenantry.local.control_plane import ControlPlane

REPOSITORY = Path(__file__).resolve().parent.parent

Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tenantry")
    group.addoption(
        "--control-plane",
        choices=("embedded", "kind", "context"),
        default="embedded",
        help="where integration tests run; context takes TENANTRY_TEST_KUBECONFIG",
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the control plane before the first test: with a cold cache it takes longer than a test may."""
    config = session.config
    wanted = any("integration" in item.path.parts for item in session.items)
    if not wanted or config.option.collectonly or config.getoption("--control-plane") == "kind":
        return
    terminal = config.pluginmanager.getplugin("terminalreporter")
    find_binaries(terminal.write_line if terminal else print)


@dataclass(frozen=True)
class Cluster:
    """A cluster with our CRDs in it."""

    kubeconfig: str
    kubectl_program: str

    def kubectl(
        self, *args: str, input: str | None = None, check: bool = True, kubeconfig: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the real kubectl; raises with its stderr where it fails and `check` is set."""
        done = subprocess.run(
            [self.kubectl_program, *args],
            input=input,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, "KUBECONFIG": kubeconfig or self.kubeconfig},
        )
        assert not check or done.returncode == 0, f"kubectl {' '.join(args)}: {done.stderr}"
        return done


@pytest.fixture(scope="session")
def control_plane(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A cluster with the CRDs installed, for the whole run."""
    where = request.config.getoption("--control-plane")
    if where == "embedded":
        yield from _embedded(tmp_path_factory.mktemp("control-plane"))
    elif where == "kind":
        kind = request.getfixturevalue("kind_cluster")
        yield _installed(Cluster(str(kind.kubeconfig_path), str(kind.kubectl_path)))
    else:
        named = os.environ.get("TENANTRY_TEST_KUBECONFIG")
        if not named:
            pytest.fail("--control-plane context needs TENANTRY_TEST_KUBECONFIG to name a kubeconfig")
        yield _installed(Cluster(named, "kubectl"))


def _embedded(folder: Path) -> Iterator[Cluster]:
    binaries = find_binaries(print)
    plane = ControlPlane(folder, durable=False, binaries=binaries)
    with plane:
        yield _installed(Cluster(str(plane.kubeconfig), str(binaries.kubectl)))


def _installed(cluster: Cluster) -> Cluster:
    cluster.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    return cluster


@pytest.fixture(scope="session")
def kubectl(control_plane: Cluster) -> Kubectl:
    """The real kubectl against the test's cluster."""
    return control_plane.kubectl
