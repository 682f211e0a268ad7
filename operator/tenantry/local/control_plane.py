"""etcd, kube-apiserver and kube-controller-manager as daemons on the loopback address.

A real cluster's control plane but for what needs nodes: RBAC, admission, quota, garbage collection and
namespace deletion are the real ones; nothing schedules or runs pods.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil
import yaml

from tenantry.local import processes
from tenantry.local.binaries import Binaries, find_binaries
from tenantry.local.certificates import Certificates, KeyPair
from tenantry.local.errors import LocalError, plain_os_errors
from tenantry.local.files import write_private
from tenantry.local.ports import LOOPBACK, free_ports, is_free

Report = Callable[[str], None]
"""Takes one line of progress."""

ETCD, API_SERVER, CONTROLLER_MANAGER = "etcd", "kube-apiserver", "kube-controller-manager"
STOP_ORDER = (CONTROLLER_MANAGER, API_SERVER, ETCD)

_SERVICE_RANGE = "10.96.0.0/16"
_SERVICE_ADDRESS = "10.96.0.1"
_ISSUER = "https://kubernetes.default.svc.cluster.local"

# Controllers of nodes, of volumes on nodes and of devices: without a node they have nothing to do.
_CONTROLLERS_OFF = (
    "device-taint-eviction-controller",
    "node-ipam-controller",
    "node-lifecycle-controller",
    "persistentvolume-attach-detach-controller",
    "persistentvolume-expander-controller",
    "resourceclaim-controller",
    "taint-eviction-controller",
    "ttl-controller",
)

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_ATTEMPTS = 5


class ControlPlane:
    """A control plane with everything it has under one folder; start and stop are idempotent.

        with ControlPlane(tmp_path, durable=False) as cluster:
            load_kube_config(cluster.kubeconfig)

    `port` fixes the API server's port, otherwise it is a free one and stays the same over restarts while
    nobody else takes it. Without `durable`, etcd does not wait for the disk: faster, for data that is thrown
    away. `binaries` and `report` default to those found or built, and to no progress lines.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        port: int | None = None,
        durable: bool = True,
        binaries: Binaries | None = None,
        report: Report = lambda _: None,
    ) -> None:
        self.state_dir = state_dir
        self.kubeconfig = state_dir / "kubeconfig"
        """For clients: a member of system:masters, who may do everything."""
        self.certificates = Certificates(state_dir / "certificates")
        self._fixed_port = port
        self._durable = durable
        self._binaries = binaries
        self._report = report
        self._ports_file = state_dir / "ports.json"
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
    def url(self) -> str:
        """The API server's address, once started."""
        return f"https://{LOOPBACK}:{self._remembered_ports()[API_SERVER]}"

    def log(self, part: str) -> Path:
        """Return the log file of a part."""
        return self.state_dir / "logs" / f"{part}.log"

    def start(self) -> list[str]:
        """Start what is not running and return its names; on return the API answers and its controllers run.

        Raises LocalError, and then leaves running only what was running before.
        """
        with plain_os_errors("cannot start the control plane"):
            self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            _ = self.binaries
            self.certificates.ensure(_SERVICE_ADDRESS)
            for _attempt in range(_ATTEMPTS):
                with suppress(_PortTakenError):
                    return self._start_parts()
        raise LocalError(
            f"found no ports that stay free in {_ATTEMPTS} attempts (logs: {self.log(ETCD).parent})"
        )

    def stop(self) -> int:
        """End all processes of this folder, also of a start that was killed; return how many there were."""
        count = processes.stop_all(self.state_dir, STOP_ORDER, _STOP_SECONDS)
        self._started.clear()
        return count

    def running(self) -> dict[str, psutil.Process]:
        """Return the parts that are running, by name."""
        found = processes.find(self.state_dir)
        return {part: found[part][0] for part in (ETCD, API_SERVER, CONTROLLER_MANAGER) if part in found}

    def is_ready(self) -> bool:
        """Tell whether the API server says that it is ready."""
        return self._get(API_SERVER, "/readyz")[0] == http.HTTPStatus.OK

    def _start_parts(self) -> list[str]:
        self._started.clear()
        ports = self._choose_ports()
        self._write_kubeconfigs(ports)
        names: list[str] = []
        try:
            for part, command, ready in (
                (ETCD, self._etcd(ports), self._etcd_ready),
                (API_SERVER, self._api_server(ports), self.is_ready),
                (CONTROLLER_MANAGER, self._controller_manager(ports), self._controllers_ready),
            ):
                if self._start_part(part, command, ready):
                    names.append(part)
        except BaseException:
            processes.stop(reversed(self._started), grace=2.0)
            raise
        return names

    def _start_part(self, part: str, command: Sequence[str], ready: Callable[[], bool]) -> bool:
        """Have one part running with exactly this command; tell whether it had to be started."""
        log = self.log(part)
        same, others = _split(processes.find(self.state_dir).get(part, []), command)
        processes.stop(others, _STOP_SECONDS)
        started = time.monotonic()
        log_start = processes.log_size(log) if not same else None
        process = same[0] if same else processes.spawn(self.state_dir, part, command, log, _environment())
        if not same:
            self._started.append(process)

        def settled() -> bool:
            return ready() or not processes.is_running(process)

        in_time = processes.await_condition(settled, _START_SECONDS)
        if not processes.is_running(process):
            raise self._died(part, processes.log_tail(log, log_start or 0))
        if not in_time:
            raise LocalError(f"{part} is not ready after {_START_SECONDS:.0f} s (log: {log})")
        if not same:
            self._report(f"started {part} in {time.monotonic() - started:.1f} s")
        return not same

    def _died(self, part: str, log: str) -> LocalError:
        if processes.says_port_taken(log):
            if part == API_SERVER and self._fixed_port:
                return _taken(self._fixed_port)
            return _PortTakenError(f"{part} found its port taken (log: {self.log(part)})")
        if processes.says_disk_full(log):
            return LocalError(
                f"{part} stopped because the disk of {self.state_dir} is full (log: {self.log(part)})"
            )
        return LocalError(f"{part} stopped while it was starting (log: {self.log(part)})")

    def _choose_ports(self) -> dict[str, int]:
        """Return a port for each listener: the remembered one while it is ours or free, else a new one."""
        remembered = self._remembered_ports()
        running = self.running()
        fresh = dict(zip((ETCD, "etcd-peer", API_SERVER), free_ports(3), strict=True))
        ports = {}
        for name, port in fresh.items():
            known = remembered.get(name)
            held = name.removesuffix("-peer") in running
            ports[name] = known if known and (held or is_free(known)) else port
        wanted = self._fixed_port
        if wanted:
            if not is_free(wanted) and not (API_SERVER in running and remembered.get(API_SERVER) == wanted):
                raise _taken(wanted)
            ports[API_SERVER] = wanted
        if ports != remembered:
            write_private(self._ports_file, json.dumps(ports).encode())
        return ports

    def _remembered_ports(self) -> dict[str, int]:
        try:
            ports = json.loads(self._ports_file.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return (
            {name: port for name, port in ports.items() if isinstance(port, int)}
            if isinstance(ports, dict)
            else {}
        )

    def _etcd(self, ports: Mapping[str, int]) -> list[str]:
        files = self.certificates
        client, peer = (f"https://{LOOPBACK}:{ports[name]}" for name in (ETCD, "etcd-peer"))
        tls = {
            "cert-file": files.etcd_server.certificate,
            "key-file": files.etcd_server.key,
            "trusted-ca-file": files.etcd_authority.certificate,
        }
        return [
            str(self.binaries.etcd),
            "--name=tenantry",
            f"--data-dir={self.state_dir / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=tenantry={peer}",
            *(f"--{prefix}{flag}={path}" for prefix in ("", "peer-") for flag, path in tls.items()),
            "--client-cert-auth",
            "--peer-client-cert-auth",
            "--log-format=console",
            # Alone, it need not listen for a second whether there is another leader.
            "--heartbeat-interval=20",
            "--election-timeout=200",
            *([] if self._durable else ["--unsafe-no-fsync"]),
        ]

    def _api_server(self, ports: Mapping[str, int]) -> list[str]:
        files = self.certificates
        return [
            str(self.binaries.kube_apiserver),
            f"--bind-address={LOOPBACK}",
            f"--advertise-address={LOOPBACK}",
            f"--secure-port={ports[API_SERVER]}",
            # Endpoints of the `kubernetes` Service may not be loopback addresses.
            "--endpoint-reconciler-type=none",
            f"--service-cluster-ip-range={_SERVICE_RANGE}",
            f"--etcd-servers=https://{LOOPBACK}:{ports[ETCD]}",
            f"--etcd-cafile={files.etcd_authority.certificate}",
            f"--etcd-certfile={files.etcd_client.certificate}",
            f"--etcd-keyfile={files.etcd_client.key}",
            f"--tls-cert-file={files.api_server.certificate}",
            f"--tls-private-key-file={files.api_server.key}",
            f"--client-ca-file={files.authority.certificate}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--service-account-issuer={_ISSUER}",
            f"--service-account-key-file={files.service_account_key}",
            f"--service-account-signing-key-file={files.service_account_key}",
            "--profiling=false",
        ]

    def _controller_manager(self, ports: Mapping[str, int]) -> list[str]:
        del ports  # it finds the API server by its kubeconfig and listens on nothing
        return [
            str(self.binaries.kube_controller_manager),
            f"--kubeconfig={self._controller_manager_kubeconfig}",
            "--secure-port=0",
            # There is one, and after a kill -9 nothing should wait for its lease to run out.
            "--leader-elect=false",
            # As kubeadm has it: each controller has its own ServiceAccount, which admission policies see.
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={self.certificates.service_account_key}",
            f"--root-ca-file={self.certificates.authority.certificate}",
            f"--cluster-signing-cert-file={self.certificates.authority.certificate}",
            f"--cluster-signing-key-file={self.certificates.authority.key}",
            f"--controllers=*,{','.join(f'-{name}' for name in _CONTROLLERS_OFF)}",
            # A burst of hundreds of tenants should meet the operator's limits, not these.
            "--kube-api-qps=1000",
            "--kube-api-burst=2000",
            "--concurrent-namespace-syncs=50",
            "--concurrent-gc-syncs=40",
            "--concurrent-resource-quota-syncs=20",
            "--concurrent-serviceaccount-token-syncs=20",
        ]

    @property
    def _controller_manager_kubeconfig(self) -> Path:
        return self.state_dir / "kube-controller-manager.kubeconfig"

    def _write_kubeconfigs(self, ports: Mapping[str, int]) -> None:
        url = f"https://{LOOPBACK}:{ports[API_SERVER]}"
        authority = self.certificates.authority.certificate
        for path, user, pair in (
            (self.kubeconfig, "admin", self.certificates.admin),
            (self._controller_manager_kubeconfig, CONTROLLER_MANAGER, self.certificates.controller_manager),
        ):
            content = _kubeconfig(url, authority, user, pair)
            if not path.exists() or path.read_bytes() != content:
                write_private(path, content)

    def _etcd_ready(self) -> bool:
        status, body = self._get(ETCD, "/health")
        return status == http.HTTPStatus.OK and b'"true"' in body

    def _controllers_ready(self) -> bool:
        # Made by the ServiceAccount controller: from then on pods can be created and namespaces are complete.
        return (
            self._get(API_SERVER, "/api/v1/namespaces/default/serviceaccounts/default")[0]
            == http.HTTPStatus.OK
        )

    def _get(self, part: str, path: str) -> tuple[int, bytes]:
        """GET from etcd or the API server; status 0 when it does not answer."""
        files = self.certificates
        authority, client = (
            (files.etcd_authority, files.etcd_client) if part == ETCD else (files.authority, files.admin)
        )
        port = self._remembered_ports().get(part)
        if port is None or not client.key.exists():
            return 0, b""
        context = ssl.create_default_context(cafile=str(authority.certificate))
        context.load_cert_chain(client.certificate, client.key)
        connection = http.client.HTTPSConnection(LOOPBACK, port, timeout=5, context=context)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()


class _PortTakenError(LocalError):
    """A port that was free when it was chosen is not any more."""


def _taken(port: int) -> LocalError:
    return LocalError(
        f"port {port} on {LOOPBACK} is taken by another program: choose another with --port, or none"
    )


def _split(
    running: Sequence[psutil.Process], command: Sequence[str]
) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """Return at most one process that runs exactly `command`, and all others."""
    same: list[psutil.Process] = []
    others: list[psutil.Process] = []
    for process in running:
        with suppress(psutil.NoSuchProcess):
            fits = not same and process.cmdline() == list(command)
            (same if fits else others).append(process)
    return same, others


def _environment() -> dict[str, str]:
    # Not ours: a proxy or a Go debugging variable of the user's shell has no business in a control plane.
    return {name: value for name in ("PATH", "HOME", "TMPDIR") if (value := os.environ.get(name))}


def _kubeconfig(url: str, authority: Path, user: str, pair: KeyPair) -> bytes:
    def data(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "tenantry",
                    "cluster": {"server": url, "certificate-authority-data": data(authority)},
                }
            ],
            "users": [
                {
                    "name": user,
                    "user": {
                        "client-certificate-data": data(pair.certificate),
                        "client-key-data": data(pair.key),
                    },
                }
            ],
            "contexts": [{"name": "tenantry", "context": {"cluster": "tenantry", "user": user}}],
            "current-context": "tenantry",
        }
    ).encode()
