"""PostgreSQL servers with pgvector as the vector shards of an environment: one server, one VectorShard each."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from tenantry.local import chart
from tenantry.local.ports import is_free
from tenantry.local.postgres import PostgresServer
from tenantry.local.status import Part

_PORT = "last-port"


class LocalShards:
    """The servers of an environment; those that an earlier `up` has made are found by their folders."""

    def __init__(self, state_dir: Path, *, durable: bool = True) -> None:
        self._folder = _folder(state_dir)
        self._durable = durable
        self._started: list[PostgresServer] = []

    def start(self, count: int) -> list[str]:
        """Have so many servers running, and those that are there already; return who had to be started.

        Raises LocalError.
        """
        names = sorted({*map(_name, range(count)), *self._present()})
        servers = {name: self.server(name) for name in names}
        stopped = [name for name, server in servers.items() if not server.processes()]
        self._started = [servers[name] for name in stopped]
        with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
            # All of them: what runs already only tells its port.
            list(pool.map(PostgresServer.start, servers.values()))
        for name, server in servers.items():
            port = server.dsn().rpartition(":")[2].partition("/")[0]
            (self._folder / name / _PORT).write_text(port)
        return stopped

    def stop(self, *, keep_data: bool) -> int:
        """End all servers, and remove what they hold unless told not to; return how many processes there were."""
        servers = [self.server(name) for name in self._present()]
        count = sum(len(server.processes()) for server in servers)
        for server in servers:
            server.stop()
        if not keep_data:
            shutil.rmtree(self._folder, ignore_errors=True)
        return count

    def stop_started(self) -> None:
        """End those that `start` has started."""
        for server in self._started:
            server.stop()

    def parts(self) -> list[Part]:
        """Return the servers as parts of the environment."""
        found = []
        for name in self._present():
            server = self.server(name)
            pids = [process.pid for process in server.processes()]
            found.append(Part(name, min(pids) if pids else None, server.log))
        return found

    def documents(self) -> list[dict[str, Any]]:
        """Return a Secret and a VectorShard for each server, with where it listens now. They are running."""
        found: list[dict[str, Any]] = []
        for number, name in enumerate(self._present()):
            metadata = {"name": name, "namespace": chart.NAMESPACE}
            dsn = self.server(name).dsn()
            found.append(
                {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"dsn": dsn}}
            )
            spec = {
                "engine": "pgvector",
                "connection": {"secretRef": {"name": name, "key": "dsn"}},
                "weight": number + 1,
                "capacity": {"storage": f"{100 * (number + 1)}Gi"},
            }
            found.append(
                {
                    "apiVersion": "tenantry.dev/v1alpha1",
                    "kind": "VectorShard",
                    "metadata": {"name": name},
                    "spec": spec,
                }
            )
        return found

    def _present(self) -> Sequence[str]:
        if not self._folder.is_dir():
            return []
        return sorted(path.name for path in self._folder.iterdir() if path.name.startswith("shard-"))

    def server(self, name: str) -> PostgresServer:
        """Return the server of that name."""
        return PostgresServer(self._folder / name, port=self._last_port(name), durable=self._durable)

    def _last_port(self, name: str) -> int | None:
        """Return where it listened last, if that is free: applications find it again at once."""
        with suppress(OSError, ValueError):
            port = int((self._folder / name / _PORT).read_text())
            return port if is_free(port) else None
        return None


def _name(number: int) -> str:
    return f"shard-{'abcdefghi'[number]}"


def _folder(state_dir: Path) -> Path:
    """Return the servers' folder: within the environment's, but for root.

    PostgreSQL does not run as root, and nobody else may enter the folder of an environment.
    """
    if os.geteuid() != 0:
        return state_dir / "shards"
    mark = hashlib.sha256(str(state_dir).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"tenantry-shards-{mark}"
