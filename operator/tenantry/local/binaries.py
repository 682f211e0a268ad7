"""The programs of the control plane and its tools: in KUBEBUILDER_ASSETS, in the cache, or built with Go.

The cache is `$XDG_CACHE_HOME/tenantry/tools` (else `~/.cache/tenantry/tools`), one folder per Go module and
content of its go.mod and go.sum, so that a new version of a tool is built next to the old one.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tenantry.local.errors import LocalError, plain_os_errors
from tenantry.local.files import locked
from tenantry.local.golang import Go, find_go

_MODULES = Path(__file__).parent / "tools"


@dataclass(frozen=True)
class Binaries:
    """Where the programs are."""

    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path
    kubectl: Path


@dataclass(frozen=True)
class _Module:
    """A Go module in `tools/` and the programs that are built from it."""

    folder: str
    path: str
    """Of the Go module that decides the version."""
    packages: Mapping[str, str]
    """Program to Go package."""
    minutes: str
    """How long a first build takes on two cores."""
    stamp: str = ""
    """The package whose variables say which version a program is, where the linker has to set them."""

    @property
    def source(self) -> Path:
        return _MODULES / self.folder

    def version(self) -> str:
        match = re.search(rf"^\s*{re.escape(self.path)} (v\S+)", self._go_mod(), re.MULTILINE)
        if match is None:
            raise LocalError(f"{self.source / 'go.mod'} does not require {self.path}")
        return match[1]

    def minimum_go(self) -> tuple[int, int]:
        match = re.search(r"^go (\d+)\.(\d+)", self._go_mod(), re.MULTILINE)
        if match is None:
            raise LocalError(f"{self.source / 'go.mod'} has no go line")
        return int(match[1]), int(match[2])

    def linker_flags(self) -> str:
        flags = "-s -w"
        if self.stamp:
            version = self.version()
            major, minor = version.removeprefix("v").split(".")[:2]
            values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
            flags += "".join(f" -X {self.stamp}.{variable}={value}" for variable, value in values.items())
        return flags

    def digest(self) -> str:
        content = [
            self._go_mod(),
            (self.source / "go.sum").read_text(),
            self.linker_flags(),
            *self.packages.values(),
        ]
        return hashlib.sha256("\0".join(content).encode()).hexdigest()[:12]

    def _go_mod(self) -> str:
        return (self.source / "go.mod").read_text()


_ETCD = _Module(
    folder="etcd",
    path="go.etcd.io/etcd/server/v3",
    packages={"etcd": "go.etcd.io/etcd/server/v3"},
    minutes="about 1 minute",
)
_KUBERNETES = _Module(
    folder="kubernetes",
    path="k8s.io/kubernetes",
    packages={
        name: f"k8s.io/kubernetes/cmd/{name}"
        for name in ("kube-apiserver", "kube-controller-manager", "kubectl")
    },
    minutes="5 to 10 minutes",
    # Unstamped, the API server calls itself v0.0.0 and clients take it for one that lacks everything.
    stamp="k8s.io/component-base/version",
)
_TOOLS = {
    "helm": _Module(
        folder="helm",
        path="helm.sh/helm/v4",
        packages={"helm": "helm.sh/helm/v4/cmd/helm"},
        minutes="about 2 minutes",
    ),
    # Says which traffic NetworkPolicies allow; only the tests need it.
    "cyclonus": _Module(
        folder="cyclonus",
        path="github.com/mattfenwick/cyclonus",
        packages={"cyclonus": "github.com/mattfenwick/cyclonus/cmd/cyclonus"},
        minutes="about 1 minute",
    ),
    # Checks and tests the alerts. `cmd/prometheus` is in go.mod too; it needs no more than a line here.
    "promtool": _Module(
        folder="prometheus",
        path="github.com/prometheus/prometheus",
        packages={"promtool": "github.com/prometheus/prometheus/cmd/promtool"},
        minutes="about 3 minutes",
    ),
    # The second engine of VectorShards; only the tests start it.
    "weaviate-server": _Module(
        folder="weaviate",
        path="github.com/weaviate/weaviate",
        packages={"weaviate-server": "github.com/weaviate/weaviate/cmd/weaviate-server"},
        minutes="3 to 5 minutes",
    ),
    # An object store; only the tests start it.
    "versitygw": _Module(
        folder="versitygw",
        path="github.com/versity/versitygw",
        packages={"versitygw": "github.com/versity/versitygw/cmd/versitygw"},
        minutes="about 1 minute",
    ),
}


def find_binaries(report: Callable[[str], None], marks: Mapping[str, str] | None = None) -> Binaries:
    """Return the programs, building what is missing; `report` gets lines of progress.

    `marks` is the environment variables by which a build can be found among the processes. Raises LocalError.
    """
    with plain_os_errors("cannot prepare the control plane's programs"):
        assets = os.environ.get("KUBEBUILDER_ASSETS")
        if assets:
            return _from_assets(Path(assets), report, marks or {})
        etcd = _built(_ETCD, report, marks or {})
        kubernetes = _built(_KUBERNETES, report, marks or {})
        return Binaries(
            etcd=etcd / "etcd",
            kube_apiserver=kubernetes / "kube-apiserver",
            kube_controller_manager=kubernetes / "kube-controller-manager",
            kubectl=kubernetes / "kubectl",
        )


def find_tool(name: str, report: Callable[[str], None], marks: Mapping[str, str] | None = None) -> Path:
    """Return a program beside the control plane's: from KUBEBUILDER_ASSETS where it is there, else built.

    `name` is one of `helm`, `cyclonus`, `promtool` and `weaviate-server`. Raises LocalError.
    """
    with plain_os_errors(f"cannot prepare {name}"):
        assets = os.environ.get("KUBEBUILDER_ASSETS")
        if assets and _is_program(Path(assets) / name):
            return Path(assets) / name
        return _built(_TOOLS[name], report, marks or {}) / name


def cache_folder() -> Path:
    """Return the folder that built programs are kept in."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tenantry" / "tools"


def _from_assets(assets: Path, report: Callable[[str], None], marks: Mapping[str, str]) -> Binaries:
    missing = [name for name in ("kube-apiserver", "etcd", "kubectl") if not _is_program(assets / name)]
    if missing:
        raise LocalError(
            f"KUBEBUILDER_ASSETS={assets} has no program {' and no '.join(missing)}: "
            f"put it there, or unset KUBEBUILDER_ASSETS to have everything built"
        )
    # The folder that setup-envtest makes has no controller manager.
    controller_manager = assets / "kube-controller-manager"
    if not _is_program(controller_manager):
        controller_manager = _built(_KUBERNETES, report, marks) / "kube-controller-manager"
    return Binaries(assets / "etcd", assets / "kube-apiserver", controller_manager, assets / "kubectl")


def _built(module: _Module, report: Callable[[str], None], marks: Mapping[str, str]) -> Path:
    """Return the folder with the module's programs, building them unless that was done before."""
    cache = cache_folder()
    name = f"{module.folder}-{module.version()}-{module.digest()}"
    target = cache / name
    if target.is_dir():
        return target
    with locked(
        cache / f"{name}.lock", lambda: report(f"another process builds {module.folder}: waiting for it")
    ):
        if not target.is_dir():
            _build(module, find_go(module.minimum_go()), target, report, marks)
    return target


def _build(
    module: _Module, go: Go, target: Path, report: Callable[[str], None], marks: Mapping[str, str]
) -> None:
    scratch = target.with_name(f"{target.name}.new")
    shutil.rmtree(scratch, ignore_errors=True)  # of a build that was killed
    scratch.mkdir(parents=True)
    log = target.with_name(f"{target.name}.log")
    report(
        f"building {', '.join(module.packages)} {module.version()} with Go {go.version[0]}.{go.version[1]}: "
        f"{module.minutes} the first time, cached after that (log: {log})"
    )
    started = time.monotonic()
    try:
        # Several programs go into a folder under the names of their packages; one alone can be named.
        output = f"{scratch}/" if len(module.packages) > 1 else str(scratch / next(iter(module.packages)))
        arguments = ["-ldflags", module.linker_flags(), "-o", output, *module.packages.values()]
        go.build(module.source, arguments, log, report, marks)
        scratch.replace(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    report(f"built {', '.join(module.packages)} in {time.monotonic() - started:.0f} s")


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
