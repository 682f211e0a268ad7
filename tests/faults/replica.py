"""The operator as a process that starts in a moment, so that hundreds of them can be killed.

Nine tenths of the start of `tenantry run` is Python importing modules. A server process (multiprocessing's
forkserver) imports them once; each replica is a fork of it, and runs the command `tenantry run` from there.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Collection
from multiprocessing.process import BaseProcess
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tenantry.local.ports import free_ports
from tests.conftest import Cluster
from tests.integration.conftest import Api

PRELOADED = (
    "tenantry.cli",
    "tenantry.settings",
    "tenantry.runtime.operator",
    "tenantry.adapters.ledger",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "pytest",  # which is the main module, and so imported by each fork
    "tests.faults.replica",
)

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(list(PRELOADED))

POLL_SECONDS = 0.01
START_SECONDS = 60.0


class Replica:
    """`tenantry run` with the chart's rights and settings, to be started again and again with one ledger.

    The ledger is SQLite in `folder`. A start after a kill waits for nothing: the dead one's Lease is taken away, so
    that it may be as long as by default, and a busy machine loses none.
    """

    def __init__(self, cluster: Cluster, api: Api, folder: Path, **settings: str) -> None:
        self.log = folder / "operator.log"
        self._api = api
        self._port = free_ports(1)[0]
        self._kubeconfig = cluster.operator_kubeconfig
        self._variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TENANTRY_")},
            **cluster.settings,
            "TENANTRY_STATE_DIR": str(folder),
            "TENANTRY_HTTP_PORT": str(self._port),
            "TENANTRY_HTTP_HOST": "127.0.0.1",
            **settings,
        }
        self.ledger_url = f"sqlite:///{folder / 'ledger.db'}"
        self._process: BaseProcess | None = None

    async def start(self) -> None:
        """Start it; on return it leads, has listed everything, and works."""
        # Time passes: the Lease of one that was killed runs out. Here that is done by hand, to save the seconds.
        namespace = self._variables.get("TENANTRY_LEASE_NAMESPACE", "default")
        await self._api.delete("Lease", "tenantry-operator", namespace)
        await self._spawn({"ok\n"}, START_SECONDS)

    async def _spawn(self, answers: Collection[str], patience: float) -> None:
        """Start the process and wait until /readyz says one of these."""
        arguments = (self._kubeconfig, self._variables, str(self.log))
        self._process = _forks.Process(target=_run, args=arguments, daemon=True)
        self._process.start()
        async with asyncio.timeout(patience), aiohttp.ClientSession() as session:
            while await self._ask(session, "readyz") not in answers:
                alive = self._process.exitcode is None
                assert alive, f"the operator ended:\n{self.log.read_text()[-3000:]}"
                await asyncio.sleep(POLL_SECONDS)

    async def reconciled(self, count: int, timeout: float = 60.0) -> None:
        """Wait until it has done so many reconciles since its start, and nothing waits for a worker."""
        async with asyncio.timeout(timeout), aiohttp.ClientSession() as session:
            while True:
                done, waiting = _work(await self._ask(session, "metrics") or "")
                if done >= count and not waiting:
                    return
                await asyncio.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """Kill it with SIGKILL; on return it is gone. Does nothing where none runs."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    async def stop(self) -> None:
        """Let it end what it is doing, as the kubelet does by SIGTERM."""
        assert self._process is not None
        self._process.terminate()
        await asyncio.to_thread(self._process.join, 60)
        assert self._process.exitcode == 0, f"it ended with {self._process.exitcode}"
        self._process = None

    async def _ask(self, session: aiohttp.ClientSession, path: str) -> str | None:
        try:
            async with session.get(f"http://127.0.0.1:{self._port}/{path}") as answer:
                return await answer.text() if answer.status == 200 else None
        except aiohttp.ClientError:
            return None


def _work(metrics: str) -> tuple[float, float]:
    """Return how many reconciles have ended, and how many keys wait for one."""
    done = waiting = 0.0
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == "tenantry_reconcile_duration_seconds_count":
                done += sample.value
            elif sample.name == "tenantry_queue_depth":
                waiting = sample.value
    return done, waiting


def _run(kubeconfig: str, variables: dict[str, str], log: str) -> None:
    """Be `tenantry run`; called in the fork."""
    from tenantry import cli

    os.setsid()  # a Ctrl-C at the terminal is pytest's alone
    os.environ.clear()
    os.environ.update(variables)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(output, stream)
    cli.app(["run", "--kubeconfig", kubeconfig])
