"""etcd, kube-apiserver and kube-controller-manager as daemons on the loopback address.

A real cluster's control plane but for what needs nodes: RBAC, admission, quota, garbage collection and
namespace deletion are the real ones; nothing schedules or runs pods.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from types import TracebackType

import psutil

from tenantry.local import arguments, kubeconfig, processes
from tenantry.local.arguments import Audit, Ports
from tenantry.local.binaries import Binaries, find_binaries
from tenantry.local.certificates import Certificates, KeyPair
from tenantry.local.errors import LocalError, plain_os_errors
from tenantry.local.files import digest, write_private
from tenantry.local.ports import LOOPBACK, free_ports, is_free

Report = Callable[[str], None]
"""Takes one line of progress."""

ETCD, API_SERVER, CONTROLLER_MANAGER = PARTS = ("etcd", "kube-apiserver", "kube-controller-manager")
STOP_ORDER = tuple(reversed(PARTS))

FILES = ("certificates", "etcd", "logs", "kubeconfig", "kube-controller-manager.kubeconfig", "ports.json")
"""Everything that a control plane has in its folder."""

# Nobody uses it, so that its absence hurts nobody and its return tells that the controllers are at work.
_CANARY = "/api/v1/namespaces/kube-node-lease/serviceaccounts/default"
_DEFAULT_SERVICE_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"

_START_SECONDS = 60.0
STOP_SECONDS = 10.0
_ATTEMPTS = 5


class ControlPlane:
    """A control plane with everything it has under one folder; start and stop are idempotent.

        with ControlPlane(tmp_path, durable=False) as cluster:
            load_kube_config(cluster.kubeconfig)

    `port` fixes the API server's port, otherwise it is a free one and stays the same over restarts while
    nobody else takes it. Without `durable`, etcd does not wait for the disk: faster, for data that is thrown
    away. `audit_policy` is a file with an audit Policy, by which the API server writes requests down in
    `audit_log`; without it, none. `binaries` and `report` default to those found or built, and to no progress lines.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        port: int | None = None,
        durable: bool = True,
        audit_policy: Path | None = None,
        binaries: Binaries | None = None,
        report: Report = lambda _: None,
    ) -> None:
        self.state_dir = Path(os.path.realpath(state_dir))
        self.kubeconfig = self.state_dir / "kubeconfig"
        """For clients: a member of system:masters, who may do everything."""
        self.certificates = Certificates(self.state_dir / "certificates")
        self._fixed_port = port
        self._durable = durable
        self.audit_log = self.log("audit")
        """Where requests are written down, where there is a policy for that: one JSON document in each line."""
        self._audit = Audit(audit_policy, self.audit_log) if audit_policy else None
        self._binaries = binaries
        self._report = report
        self._started: list[psutil.Process] = []

    def __enter__(self) -> ControlPlane:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def binaries(self) -> Binaries:
        """The programs; the first access finds or builds them. Raises LocalError."""
        if self._binaries is None:
            self._binaries = find_binaries(self._report, processes.marks(self.state_dir, "build"))
        return self._binaries

    @property
    def url(self) -> str | None:
        """The API server's address, None before the first start."""
        ports = self._remembered_ports()
        return f"https://{LOOPBACK}:{ports.api_server}" if ports else None

    def log(self, part: str) -> Path:
        """Return the log file of a part."""
        return self.state_dir / "logs" / f"{part}.log"

    def start(self) -> list[str]:
        """Start what is not running and return its names; on return the API answers and its controllers work.

        Raises LocalError, and then leaves running only what was running before.
        """
        with plain_os_errors("cannot start the control plane"):
            self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            _ = self.binaries
            self.certificates.ensure(arguments.SERVICE_ADDRESS)
            for _attempt in range(_ATTEMPTS):
                with suppress(_PortTakenError):
                    return self._start_parts()
        raise LocalError(
            f"found no ports that stay free in {_ATTEMPTS} attempts (logs: {self.log(ETCD).parent})"
        )

    def stop(self) -> int:
        """End all processes of this folder, also of a start that was killed; return how many there were."""
        count = processes.stop_all(self.state_dir, STOP_ORDER, STOP_SECONDS)
        self._started.clear()
        return count

    def stop_started(self) -> None:
        """End what the last `start` has started, and nothing that was running before."""
        processes.stop(reversed(self._started), STOP_SECONDS)
        self._started.clear()

    def is_ready(self) -> bool:
        """Tell whether the API server says that it is ready."""
        return self._ask_api_server("GET", "/readyz") == HTTPStatus.OK

    def _start_parts(self) -> list[str]:
        self._started.clear()
        ports = self._choose_ports()
        self._write_kubeconfigs(ports)
        programs, files = self.binaries, self.certificates
        data = self.state_dir / "etcd"
        etcd = arguments.etcd(programs.etcd, data, files, ports, durable=self._durable)
        api_server = arguments.api_server(programs.kube_apiserver, files, ports, self._audit)
        controller_manager = arguments.controller_manager(
            programs.kube_controller_manager, self._controller_manager_kubeconfig, files
        )
        try:
            started = [
                self._start_part(ETCD, etcd, files.etcd_server.certificate, self._etcd_ready),
                self._start_part(API_SERVER, api_server, files.api_server.certificate, self.is_ready),
                self._start_part(
                    CONTROLLER_MANAGER,
                    controller_manager,
                    self._controller_manager_kubeconfig,
                    self._controllers_ready,
                ),
            ]
        except BaseException:
            self.stop_started()
            raise
        return [part for part, new in zip(PARTS, started, strict=True) if new]

    def _start_part(self, part: str, command: Sequence[str], reads: Path, ready: Callable[[], bool]) -> bool:
        """Have exactly this command running as `part`, and ready; tell whether it had to be started.

        `reads` is a file that changes whenever the part's credentials or addresses do.
        """
        begin, log = time.monotonic(), self.log(part)
        log_begin = processes.log_size(log)
        inputs = digest(reads)
        kept = processes.keep(self.state_dir, part, command, inputs, STOP_SECONDS)
        if kept is None and part == CONTROLLER_MANAGER:
            self._ask_api_server("DELETE", _CANARY)
        process = kept or processes.spawn(
            self.state_dir, part, command, log, inputs=inputs, variables=_environment()
        )
        if kept is None:
            self._started.append(process)
        settled = processes.await_condition(
            lambda: ready() or not processes.is_running(process), _START_SECONDS
        )
        if not processes.is_running(process):
            raise self._died(part, processes.log_tail(log, log_begin))
        if not settled:
            raise LocalError(f"{part} is not ready after {_START_SECONDS:.0f} s (log: {log})")
        if kept is None:
            self._report(f"started {part} in {time.monotonic() - begin:.1f} s")
        return kept is None

    def _died(self, part: str, log: str) -> LocalError:
        if processes.says_port_taken(log):
            if part == API_SERVER and self._fixed_port:
                return _taken(self._fixed_port)
            return _PortTakenError(f"{part} found its port taken (log: {self.log(part)})")
        if processes.says_disk_full(log):
            return LocalError(f"{part} stopped: the disk of {self.state_dir} is full (log: {self.log(part)})")
        return LocalError(f"{part} stopped while it was starting (log: {self.log(part)})")

    def _choose_ports(self) -> Ports:
        """Return a port for each listener: the remembered one while it is ours or free, else a new one."""
        remembered = self._remembered_ports()
        running = processes.find(self.state_dir)
        known = remembered.as_dict() if remembered else {}

        def usable(name: str, part: str) -> bool:
            return name in known and (part in running or is_free(known[name]))

        new = iter(free_ports(3))
        ports = Ports(
            api_server=known["api_server"] if usable("api_server", API_SERVER) else next(new),
            etcd=known["etcd"] if usable("etcd", ETCD) else next(new),
            etcd_peer=known["etcd_peer"] if usable("etcd_peer", ETCD) else next(new),
        )
        if wanted := self._fixed_port:
            ours = API_SERVER in running and known.get("api_server") == wanted
            if not ours and not is_free(wanted):
                raise _taken(wanted)
            ports = Ports(wanted, ports.etcd, ports.etcd_peer)
        if ports != remembered:
            write_private(self._ports_file, json.dumps(ports.as_dict()).encode())
        return ports

    @property
    def _ports_file(self) -> Path:
        return self.state_dir / "ports.json"

    def _remembered_ports(self) -> Ports | None:
        try:
            ports = Ports(**json.loads(self._ports_file.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return ports if all(type(port) is int for port in ports.as_dict().values()) else None

    @property
    def _controller_manager_kubeconfig(self) -> Path:
        return self.state_dir / "kube-controller-manager.kubeconfig"

    def _write_kubeconfigs(self, ports: Ports) -> None:
        url = f"https://{LOOPBACK}:{ports.api_server}"
        files = self.certificates
        for path, user, pair in (
            (self.kubeconfig, "admin", files.admin),
            (self._controller_manager_kubeconfig, CONTROLLER_MANAGER, files.controller_manager),
        ):
            kubeconfig.write_for_certificate(path, url, files.authority.certificate, user, pair)

    def _etcd_ready(self) -> bool:
        files, ports = self.certificates, self._remembered_ports()
        return (
            ports is not None
            and _ask("GET", ports.etcd, "/health", files.etcd_authority, files.etcd_client) == HTTPStatus.OK
        )

    def _controllers_ready(self) -> bool:
        return all(
            self._ask_api_server("GET", path) == HTTPStatus.OK for path in (_CANARY, _DEFAULT_SERVICE_ACCOUNT)
        )

    def _ask_api_server(self, method: str, path: str) -> int:
        files, ports = self.certificates, self._remembered_ports()
        return _ask(method, ports.api_server, path, files.authority, files.admin) if ports else 0


class _PortTakenError(LocalError):
    """A port that was free when it was chosen is not any more."""


def _taken(port: int) -> LocalError:
    return LocalError(
        f"port {port} on {LOOPBACK} is taken by another program: choose another with --port, or none"
    )


def _environment() -> dict[str, str]:
    # Not ours: a proxy or a Go debugging variable of the user's shell has no business in a control plane.
    return {name: value for name in ("PATH", "HOME", "TMPDIR") if (value := os.environ.get(name))}


def _ask(method: str, port: int, path: str, authority: KeyPair, client: KeyPair) -> int:
    """Send a request to a daemon and return the HTTP status, 0 when it does not answer."""
    if not client.key.exists():
        return 0
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.load_cert_chain(client.certificate, client.key)
    connection = http.client.HTTPSConnection(LOOPBACK, port, timeout=5, context=context)
    try:
        connection.request(method, path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
