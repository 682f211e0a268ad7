"""The embedded environment: a control plane, the operator, and tenants to look at, under one folder."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tenantry.local import chart, control_plane, kubeconfig, processes
from tenantry.local.binaries import Binaries, find_tool
from tenantry.local.control_plane import ControlPlane, Report
from tenantry.local.errors import LocalError, plain_os_errors
from tenantry.local.files import locked, write_private
from tenantry.local.kubectl import Kubectl
from tenantry.local.manifests import Manifests, find_manifests
from tenantry.local.operator_daemon import OPERATOR, OperatorDaemon
from tenantry.local.shards import LocalShards
from tenantry.local.showcase import showcase_tenants
from tenantry.local.status import Part, Status, TenantRow

PARTS = (*control_plane.PARTS, OPERATOR)

_LOCK = "tenantry.lock"
_TOKEN, _OPERATOR_KUBECONFIG = "operator.token", "operator.kubeconfig"
_FILES = (*control_plane.FILES, "state.json", OPERATOR, _TOKEN, _OPERATOR_KUBECONFIG, "kubectl-cache")

_TENANTS_SECONDS = 120.0
_NAME_AND_READY = "{.metadata.name} {.status.conditions[?(@.type=='Ready')].status}"

# The ledger of an environment is SQLite in its folder, and nobody scrapes it.
_VALUES = {"ledger": {"ephemeral": True}}


def default_state_dir() -> Path:
    """Return `TENANTRY_STATE_DIR`, else the folder for it that the XDG directories define."""
    if given := os.environ.get("TENANTRY_STATE_DIR"):
        return Path(given)
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "tenantry"


@dataclass
class _State:
    """What an environment remembers; the running processes are not part of it, they are looked up."""

    kubectl: str = ""
    """The program that this environment was started with."""
    installed: str = ""
    """Digest of the manifests that the API server has."""
    populated: bool = False
    """Whether plans and tenants were created: later they belong to the user."""
    shards: list[str] = field(default_factory=list)
    """Whose VectorShards were created: later they belong to the user too."""
    operator_port: int | None = None
    settings: dict[str, str] = field(default_factory=dict)
    """What the chart tells the operator."""


class Environment:
    """The environment in one folder. `up` and `down` may be called in any state of it, and at the same time.

    `durable=False` is for data that is thrown away. `shards` is how many vector shards it has at least. `report` gets
    lines of progress.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        port: int | None = None,
        durable: bool = True,
        binaries: Binaries | None = None,
        manifests: Manifests | None = None,
        shards: int = 0,
        report: Report = lambda _: None,
    ) -> None:
        self.state_dir = Path(os.path.realpath(state_dir))
        self.shards = LocalShards(self.state_dir, durable=durable)
        self._shards = shards
        self.control_plane = ControlPlane(
            self.state_dir, port=port, durable=durable, binaries=binaries, report=report
        )
        self._manifests = manifests
        self._report = report
        self._operator: OperatorDaemon | None = None

    def up(self, *, operator: bool = True, tenants: bool = True) -> list[str]:
        """Have everything running, all tenants Ready; return the parts that had to be started.

        Without `operator` or `tenants` those steps are left out. Raises LocalError: what runs by then stays
        for a look at it, but for a control plane that did not start. Interrupted, it ends what it
        has started.
        """
        with self._locked("cannot start the environment"):
            try:
                started = self._start_servers()
                self._save(kubectl=str(self.control_plane.binaries.kubectl))
                self._install()
                self._apply_shards()
                if operator:
                    started += self._run_operator()
                if tenants:
                    self._populate()
                if self._operator:
                    self._await_tenants(self._operator)
            except LocalError:
                raise
            except BaseException:
                if self._operator:
                    self._operator.stop_started()
                self.shards.stop_started()
                self.control_plane.stop_started()
                raise
        return started

    def down(self, *, keep_data: bool = False) -> int:
        """End every process and remove the environment's files; return how many there were, a shard's as one.

        With `keep_data` only logs and data stay, and `up` continues from there. Raises LocalError.
        """
        with self._locked("cannot stop the environment"):
            count = processes.stop_all(
                self.state_dir, (OPERATOR, *control_plane.STOP_ORDER), control_plane.STOP_SECONDS
            )
            count += self.shards.stop(keep_data=keep_data)
            if not keep_data:
                self._remove_files()
        return count

    def status(self) -> Status:
        """Return what runs and the tenants, changing nothing. Raises LocalError."""
        with plain_os_errors("cannot read the environment"):
            found = processes.find(self.state_dir)
            state, plane = self._load(), self.control_plane
            api_ready = control_plane.API_SERVER in found and plane.is_ready()
            tenants: tuple[TenantRow, ...] = ()
            if api_ready and state.installed:
                tenants = self._tenants(self._kubectl())
            pids = {name: found[name][0].pid for name in PARTS if name in found}
            return Status(
                state_dir=self.state_dir,
                kubeconfig=plane.kubeconfig,
                kubectl=Path(state.kubectl) if state.kubectl else None,
                url=plane.url,
                operator_port=state.operator_port if OPERATOR in found else None,
                parts=(
                    *(Part(name, pids.get(name), plane.log(name)) for name in PARTS),
                    *self.shards.parts(),
                ),
                api_ready=api_ready,
                tenants=tenants,
            )

    @contextmanager
    def _locked(self, doing: str) -> Iterator[None]:
        """Hold the folder against another `up` or `down`; a folder with somebody else's files is refused."""
        with plain_os_errors(doing):
            if self.state_dir.is_dir():
                entries = [entry.name for entry in self.state_dir.iterdir()]
                if entries and _LOCK not in entries:
                    raise LocalError(
                        f"{self.state_dir} holds other files and is not an environment of tenantry: "
                        f"name another folder with --state-dir or TENANTRY_STATE_DIR"
                    )
            waiting = f"another tenantry works on {self.state_dir}: waiting for it"
            with locked(self.state_dir / _LOCK, lambda: self._report(waiting)):
                yield

    def _start_servers(self) -> list[str]:
        """Have the control plane and the shards running, side by side; return who had to be started."""
        with ThreadPoolExecutor(max_workers=1) as pool:
            shards = pool.submit(self.shards.start, self._shards)
            try:
                started = self.control_plane.start()
            except LocalError:
                # Servers without a control plane are of no use to anybody.
                with suppress(LocalError):
                    shards.result()
                self.shards.stop_started()
                raise
            begun = shards.result()
        if begun:
            self._report(f"started PostgreSQL for {' and '.join(begun)}")
        return [*started, *begun]

    def _apply_shards(self) -> None:
        """Tell the operator where the shards are: a server that was started again may have another port."""
        kubectl, created = self._kubectl(), self._load().shards
        kubectl.apply(documents=self.shards.secrets())
        new = [each for each in self.shards.resources() if each["metadata"]["name"] not in created]
        if new:
            kubectl.apply(documents=new)
            self._save(shards=self.shards.names())

    def _install(self) -> None:
        """Install the definitions and the operator's own account and roles, unless that was done."""
        manifests = self._manifests or find_manifests()
        state = self._load()
        digest, token = manifests.digest(), self.state_dir / _TOKEN
        if state.installed == digest and token.is_file():
            return
        kubectl = self._kubectl()
        files = manifests.crds()
        kubectl.apply(*(f"--filename={path}" for path in files))
        kubectl.wait_established(*map(_crd, files))
        self._report(f"installed {len(files)} kinds")
        marks = processes.marks(self.state_dir, "build")
        helm = find_tool("helm", self._report, marks)
        who = chart.install(kubectl, chart.render(helm, manifests.chart(), _VALUES))
        write_private(token, chart.token(kubectl, who).encode())
        self._report(f"installed the chart; the operator is ServiceAccount {who.namespace}/{who.name}")
        self._save(installed=digest, settings=dict(who.variables))

    def _populate(self) -> None:
        if self._load().populated:
            return
        tenants = showcase_tenants()
        plans = list(yaml.safe_load_all((self._manifests or find_manifests()).plans().read_text()))
        self._kubectl().apply(documents=[*plans, *tenants])
        self._save(populated=True)
        self._report(f"created {len(plans)} plans and {len(tenants)} tenants")

    def _run_operator(self) -> list[str]:
        """Have the operator running and ready; return its name if it had to be started."""
        plane, token = self.control_plane, self.state_dir / _TOKEN
        path = self.state_dir / _OPERATOR_KUBECONFIG
        authority = plane.certificates.authority.certificate
        kubeconfig.write_for_token(path, plane.url or "", authority, OPERATOR, token.read_text())
        self._operator = OperatorDaemon(
            self.state_dir,
            path,
            plane.log(OPERATOR),
            self._load().settings,
            self._load().operator_port,
            lambda port: self._save(operator_port=port),
        )
        seconds = self._operator.start()
        if seconds is None:
            return []
        self._report(f"started {OPERATOR} in {seconds:.1f} s")
        return [OPERATOR]

    def _await_tenants(self, operator: OperatorDaemon) -> None:
        kubectl = self._kubectl()
        ready = {row.name: row.ready for row in self._tenants(kubectl)}
        begin = reported = time.monotonic()

        def check() -> None:
            operator.check()
            if time.monotonic() - begin > _TENANTS_SECONDS:
                raise self._not_ready(kubectl)

        if set(ready.values()) <= {"True"}:
            return
        with closing(kubectl.watch("tenants", _NAME_AND_READY, check)) as lines:
            for line in lines:
                name, _, ready[name] = line.partition(" ")
                count = list(ready.values()).count("True")
                if count == len(ready):
                    break
                if time.monotonic() - reported > 1:
                    reported = time.monotonic()
                    self._report(f"  {count} of {len(ready)} tenants are Ready")
        self._report(f"{len(ready)} tenants are Ready after {time.monotonic() - begin:.1f} s")

    def _not_ready(self, kubectl: Kubectl) -> LocalError:
        log = self.control_plane.log(OPERATOR)
        row = next((row for row in self._tenants(kubectl) if row.ready != "True"), None)
        reason = f"tenant {row.name} is not: {row.message}" if row else "they are only now"
        return LocalError(f"not all tenants are Ready after {_TENANTS_SECONDS:.0f} s, {reason} (log: {log})")

    def _tenants(self, kubectl: Kubectl) -> tuple[TenantRow, ...]:
        return tuple(map(TenantRow.of, kubectl.json("get", "tenants")["items"]))

    def _remove_files(self) -> None:
        """Remove what an environment has in its folder, and the folder unless something else is in it."""
        for name in _FILES:
            for path in (self.state_dir / name, self.state_dir / f"{name}.new"):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        # The lock last: as long as it is there, the folder is known to be an environment's.
        (self.state_dir / _LOCK).unlink()
        with suppress(OSError):
            self.state_dir.rmdir()

    def _kubectl(self) -> Kubectl:
        marks = processes.marks(self.state_dir, "kubectl")
        return Kubectl(Path(self._load().kubectl), self.control_plane.kubeconfig, marks)

    def _load(self) -> _State:
        try:
            return _State(**json.loads((self.state_dir / "state.json").read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            # Each step can be repeated, so a lost file costs a second.
            return _State()

    def _save(self, **changes: Any) -> None:
        state = {**asdict(self._load()), **changes}
        write_private(self.state_dir / "state.json", json.dumps(state).encode())


def _crd(file: Path) -> str:
    return f"crd/{yaml.safe_load(file.read_text())['metadata']['name']}"
