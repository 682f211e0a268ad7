"""The operator as one of the environment's daemons."""

from __future__ import annotations

import http.client
import os
import sys
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path

import psutil

from tenantry.local import processes
from tenantry.local.errors import LocalError
from tenantry.local.files import digest
from tenantry.local.ports import LOOPBACK, free_ports

OPERATOR = "operator"

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_ATTEMPTS = 3


class OperatorDaemon:
    """`tenantry run` in the background, its own state under `<environment>/operator`.

    `settings` are environment variables; what the user's shell has set goes before them. `port` is where it
    served health and metrics last; `remember` is told a new one before it is used.
    """

    def __init__(
        self,
        environment: Path,
        kubeconfig: Path,
        log: Path,
        settings: Mapping[str, str],
        port: int | None,
        remember: Callable[[int], None],
    ) -> None:
        self._environment = environment
        self._kubeconfig = kubeconfig
        self._log = log
        self._settings = settings
        self._port = port
        self._remember = remember
        self._process: psutil.Process | None = None
        self._started = False

    def start(self) -> float | None:
        """Have it running and ready: the seconds that took, None when it was. Raises LocalError, OSError."""
        begin = time.monotonic()
        command = [sys.executable, "-m", "tenantry", "run", f"--kubeconfig={self._kubeconfig}"]
        reads = f"{digest(self._kubeconfig)} {sorted(self._settings.items())}"
        # Its port counts too: nobody could ask one whose port was forgotten.
        inputs = f"{reads} {self._port}"
        self._process = processes.keep(self._environment, OPERATOR, command, inputs, _STOP_SECONDS)
        if self._process is not None:
            self._await_ready(self._process)
            return None
        for _attempt in range(_ATTEMPTS):
            log_begin = processes.log_size(self._log)
            self._port = free_ports(1)[0]
            self._remember(self._port)
            inputs = f"{reads} {self._port}"
            self._process = processes.spawn(
                self._environment, OPERATOR, command, self._log, inputs=inputs, variables=self._variables()
            )
            self._started = True
            self._await_ready(self._process)
            if processes.is_running(self._process):
                return time.monotonic() - begin
            if not processes.says_port_taken(processes.log_tail(self._log, log_begin)):
                break
        raise LocalError(f"the operator stopped while it was starting (log: {self._log})")

    def check(self) -> None:
        """Raise LocalError when it has stopped since `start`."""
        if self._process is not None and not processes.is_running(self._process):
            raise LocalError(f"the operator stopped (log: {self._log})")

    def stop_started(self) -> None:
        """End it if `start` has started it."""
        if self._process is not None and self._started:
            processes.stop([self._process], _STOP_SECONDS)

    def _await_ready(self, process: psutil.Process) -> None:
        """Return when it is ready or has stopped."""

        def settled() -> bool:
            return self._answers() or not processes.is_running(process)

        if not processes.await_condition(settled, _START_SECONDS):
            raise LocalError(f"the operator is not ready after {_START_SECONDS:.0f} s (log: {self._log})")

    def _variables(self) -> dict[str, str]:
        """Return the settings of the user's shell, but for what belongs to this environment."""
        return {
            **self._settings,
            **os.environ,
            "TENANTRY_STATE_DIR": str(self._environment / OPERATOR),
            "TENANTRY_HTTP_HOST": LOOPBACK,
            "TENANTRY_HTTP_PORT": str(self._port),
            "PYTHONUNBUFFERED": "1",
        }

    def _answers(self) -> bool:
        if self._port is None:
            return False
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
