"""PostgreSQL servers with pgvector as the vector shards of an environment: one server, one VectorShard each."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from tenantry.local import chart
from tenantry.local.errors import LocalError
from tenantry.local.ports import is_free
from tenantry.local.postgres import PostgresServer
from tenantry.local.status import Part

_PORT = "last-port"


class LocalShards:
    """The servers of an environment; those that an earlier `up` has made are found by their folders."""

    def __init__(self, state_dir: Path, *, durable: bool = True) -> None:
        self.folder = _folder(state_dir)
        """Where the servers are: a folder for each."""
        self._durable = durable
        self._started: list[PostgresServer] = []

    def start(self, count: int) -> list[str]:
        """Have so many servers running, and those that are there already; return who had to be started.

        Raises LocalError.
        """
        names = sorted({*map(_name, range(count)), *self._present()})
        if names:
            _prepare(self.folder)
        servers = {name: self._server(name) for name in names}
        stopped = [name for name, server in servers.items() if server.pid is None]
        self._started = [servers[name] for name in stopped]
        with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
            # All of them: what runs already only tells its port.
            list(pool.map(PostgresServer.start, servers.values()))
        for name, server in servers.items():
            port = server.dsn().rpartition(":")[2].partition("/")[0]
            (self.folder / name / _PORT).write_text(port)
        return stopped

    def stop(self, *, keep_data: bool) -> int:
        """End all servers, and remove what they hold unless told not to; return how many there were."""
        servers = [self._server(name) for name in self._present()]
        count = sum(server.pid is not None for server in servers)
        with ThreadPoolExecutor(max_workers=max(1, len(servers))) as pool:
            list(pool.map(PostgresServer.stop, servers))
        if not keep_data:
            shutil.rmtree(self.folder, ignore_errors=True)
        return count

    def stop_started(self) -> None:
        """End those that `start` has started."""
        for server in self._started:
            server.stop()

    def parts(self) -> list[Part]:
        """Return the servers as parts of the environment."""
        found = []
        for name in self._present():
            server = self._server(name)
            found.append(Part(name, server.pid, server.log))
        return found

    def names(self) -> list[str]:
        """Return what the servers are called, and their VectorShards."""
        return list(self._present())

    def secrets(self) -> list[dict[str, Any]]:
        """Return a Secret for each server, with where it listens now. They are running."""
        return [
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": chart.NAMESPACE},
                "stringData": {"dsn": self._server(name).dsn()},
            }
            for name in self._present()
        ]

    def resources(self) -> list[dict[str, Any]]:
        """Return a VectorShard for each server, each larger than the one before it."""
        return [_resource(name, number) for number, name in enumerate(self._present(), 1)]

    def _present(self) -> Sequence[str]:
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if path.name.startswith("shard-"))

    def _server(self, name: str) -> PostgresServer:
        return PostgresServer(self.folder / name, port=self._last_port(name), durable=self._durable)

    def _last_port(self, name: str) -> int | None:
        """Return where it listened last, if that is free: applications find it again at once."""
        with suppress(OSError, ValueError):
            port = int((self.folder / name / _PORT).read_text())
            return port if is_free(port) else None
        return None


def _name(number: int) -> str:
    return f"shard-{'abcdefghi'[number]}"


def _resource(name: str, size: int) -> dict[str, Any]:
    return {
        "apiVersion": "tenantry.dev/v1alpha1",
        "kind": "VectorShard",
        "metadata": {"name": name},
        "spec": {
            "engine": "pgvector",
            "connection": {"secretRef": {"name": name, "key": "dsn"}},
            "weight": size,
            "capacity": {"storage": f"{100 * size}Gi"},
        },
    }


def _folder(state_dir: Path) -> Path:
    """Return the servers' folder: within the environment's, but for root.

    PostgreSQL does not run as root, and nobody else may enter the folder of an environment. TMPDIR has no say in it:
    `down` must find what `up` has made, whatever either was called with.
    """
    if os.geteuid() != 0:
        return state_dir / "shards"
    mark = hashlib.sha256(str(state_dir).encode()).hexdigest()[:12]
    return Path("/tmp") / f"tenantry-shards-{mark}"


def _prepare(folder: Path) -> None:
    """Have the servers' folder. Raises LocalError: in /tmp anybody could have made one of that name, to read on."""
    folder.mkdir(mode=0o755, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise LocalError(f"{folder} is for the vector shards and belongs to somebody else: remove it")
    if os.geteuid() == 0:
        # Whatever the umask is: the servers' user must get to its folder.
        folder.chmod(0o755)
