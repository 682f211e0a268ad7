"""One real control plane for the whole run: embedded, on kind, or a context that is named."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tenantry.local import chart, kubeconfig
from tenantry.local.binaries import find_binaries, find_tool
from tenantry.local.control_plane import ControlPlane
from tenantry.local.kubectl import Kubectl as LocalKubectl

REPOSITORY = Path(__file__).resolve().parent.parent
PLANS = REPOSITORY / "manifests/samples/plans.yaml"

Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]

CI_SEED = 7


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tenantry")
    group.addoption(
        "--control-plane",
        choices=("embedded", "kind", "context"),
        default="embedded",
        help="where integration tests run; context takes TENANTRY_TEST_KUBECONFIG",
    )
    group.addoption("--seed", type=int, help="repeat the random tests of another run, which printed its seed")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """One seed for everything that is random: ours, and Hypothesis's where it is not told to repeat itself.

    CI always takes the same one: what fails there is by the change that it looks at. `make soak` looks for more.
    Where processes share the tests (`make test`), it is the seed of the one that prints it.
    """
    shared = getattr(config, "workerinput", {})
    if config.option.seed is None:
        drawn = CI_SEED if os.environ.get("CI") else secrets.randbelow(2**32)
        config.option.seed = shared.get("seed", drawn)
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(config.option.seed)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give a process of pytest-xdist the seed."""
    node.workerinput["seed"] = node.config.option.seed


def pytest_report_header(config: pytest.Config) -> str:
    """Print the seed, to run the same again."""
    return f"random tests: --seed {config.option.seed}"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the programs before the first test: with a cold cache that takes longer than a test may."""
    config = session.config
    if config.option.collectonly:
        return
    terminal = config.pluginmanager.getplugin("terminalreporter")
    report = terminal.write_line if terminal else print
    tools = {name for item in session.items for mark in item.iter_markers("tool") for name in mark.args}
    real = ("integration" in item.path.parts or _is_real_fault(item.path) for item in session.items)
    integration = any(real)
    if integration and config.getoption("--control-plane") != "kind":
        find_binaries(report)
    if integration:
        tools.add("helm")
    for name in sorted(tools):
        find_tool(name, report)


def _is_real_fault(path: Path) -> bool:
    return "faults" in path.parts and "simulated" not in path.parts


@dataclass(frozen=True)
class Cluster:
    """A cluster with our CRDs in it, and with the chart but for its Deployment."""

    kubeconfig: str
    """Of the administrator."""
    kubectl_program: str
    operator_kubeconfig: str = ""
    """Of the operator's own account, which has the chart's rights and no more."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What the chart tells the operator, as environment variables."""

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

    @property
    def as_admin(self) -> LocalKubectl:
        """Return kubectl as the embedded environment has it."""
        return LocalKubectl(Path(self.kubectl_program), Path(self.kubeconfig), {})

    def established(self, *definitions: str) -> None:
        """Wait until the kinds of definitions are served."""
        self.as_admin.wait_established(*definitions)


@pytest.fixture(scope="session")
def control_plane(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A cluster with the CRDs installed, for the whole run."""
    where = request.config.getoption("--control-plane")
    folder = tmp_path_factory.mktemp("control-plane")
    if where == "embedded":
        with embedded(folder) as cluster:
            yield cluster
    elif where == "kind":
        kind = request.getfixturevalue("kind_cluster")
        yield installed(Cluster(str(kind.kubeconfig_path), str(kind.kubectl_path)), folder)
    else:
        named = os.environ.get("TENANTRY_TEST_KUBECONFIG")
        if not named:
            pytest.fail("--control-plane context needs TENANTRY_TEST_KUBECONFIG to name a kubeconfig")
        yield installed(Cluster(named, shutil.which("kubectl") or "kubectl"), folder)


@contextmanager
def embedded(folder: Path, *, plans: bool = False) -> Iterator[Cluster]:
    """A control plane of its own under `folder`, with CRDs and chart; with `plans`, those of the samples too."""
    binaries = find_binaries(print)
    with ControlPlane(folder, durable=False, binaries=binaries) as plane:
        cluster = installed(Cluster(str(plane.kubeconfig), str(binaries.kubectl)), folder)
        if plans:
            cluster.kubectl("apply", "--server-side", "-f", str(PLANS))
        yield cluster


def installed(cluster: Cluster, folder: Path) -> Cluster:
    """Install the CRDs and the chart, as an administrator does; the operator's kubeconfig goes to `folder`."""
    cluster.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
    cluster.established("crd", "--all")
    as_admin = cluster.as_admin
    rendered = chart.render(
        find_tool("helm", print), REPOSITORY / "helm/tenantry", {"ledger": {"ephemeral": True}}
    )
    who = chart.install(as_admin, rendered)
    path = folder / "operator.kubeconfig"
    credentials = {"token": chart.token(as_admin, who)}
    kubeconfig.write_as(path, Path(cluster.kubeconfig), who.name, credentials)
    return replace(cluster, operator_kubeconfig=str(path), settings=who.variables)


@pytest.fixture(scope="session")
def kubectl(control_plane: Cluster) -> Kubectl:
    """The real kubectl against the test's cluster."""
    return control_plane.kubectl
