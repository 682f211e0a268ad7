"""The processes of an environment: started as daemons, found again by a mark in their environment.

Every process carries `TENANTRY_ENVIRONMENT=<state folder>` and `TENANTRY_PART=<name>`. The process table is
therefore the only record of what runs: nothing is lost when the starter is killed between the start of a
process and a write to disk, and a process id that was given to somebody else is never mistaken for ours.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tenantry.local.errors import LocalError

ENVIRONMENT_MARK = "TENANTRY_ENVIRONMENT"
PART_MARK = "TENANTRY_PART"
_INPUTS_MARK = "TENANTRY_INPUTS"

_SHOWN_SECONDS = 2.0
_POLL_SECONDS = 0.02
_MAX_LOG_BYTES = 10_000_000

# What the logs of etcd, the Go tools and PostgreSQL say of the two causes that a user can remove.
_DISK_FULL = "no space left on device"
_PORT_TAKEN = "address already in use"


def marks(environment: Path, part: str) -> dict[str, str]:
    """Return the variables that make a process findable as `part` of the environment in this state folder."""
    return {ENVIRONMENT_MARK: os.path.realpath(environment), PART_MARK: part}


def spawn(
    environment: Path,
    part: str,
    command: Sequence[str],
    log: Path,
    *,
    inputs: str = "",
    variables: Mapping[str, str] | None = None,
) -> psutil.Process:
    """Start a daemon in a session of its own, its output appended to `log`.

    `inputs` is a digest of the files that it reads at its start; `variables` is its whole environment
    (default: ours), to which the marks are added. Raises OSError.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    environ = {
        **(os.environ if variables is None else variables),
        **marks(environment, part),
        _INPUTS_MARK: inputs,
    }
    # posix_spawn instead of subprocess: a daemon outlives this process, and a Popen object complains then.
    pid = os.posix_spawn(
        command[0],
        list(command),
        environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    process = psutil.Process(pid)
    try:
        # For a moment it shows neither its command nor its environment, and `find` would not know it.
        await_condition(lambda: _is_shown(process), _SHOWN_SECONDS)
    except BaseException:
        kill([process])  # whoever interrupts us does not know of it
        raise
    return process


def _is_shown(process: psutil.Process) -> bool:
    """Tell whether a process can be told by its environment, or has ended."""
    with suppress(psutil.Error):
        return not is_running(process) or _INPUTS_MARK in process.environ()
    return True


def find(environment: Path) -> dict[str, list[psutil.Process]]:
    """Return the running processes of an environment by part, without this process and its parents."""
    wanted = os.path.realpath(environment)
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found: dict[str, list[psutil.Process]] = {}
    for process in psutil.process_iter():
        if process.pid in own:
            continue
        with suppress(psutil.Error):
            variables = process.environ()
            if variables.get(ENVIRONMENT_MARK) == wanted and is_running(process):
                found.setdefault(variables.get(PART_MARK, ""), []).append(process)
    return found


def _found_later(environment: Path) -> dict[str, list[psutil.Process]]:
    """Look once more: a process that becomes another program shows no environment for a moment."""
    time.sleep(_POLL_SECONDS)
    return find(environment)


def keep(
    environment: Path, part: str, command: Sequence[str], inputs: str, grace: float
) -> psutil.Process | None:
    """Return the process that runs as `part` with exactly this command and these `inputs`, if any.

    Other ones are ended: their port, program or credentials are not those of today.
    """
    kept: psutil.Process | None = None
    for process in find(environment).get(part, []):
        with suppress(psutil.NoSuchProcess):
            same = process.cmdline() == list(command) and process.environ().get(_INPUTS_MARK) == inputs
            if same and kept is None:
                kept = process
            else:
                stop([process], grace)
    return kept


def is_running(process: psutil.Process) -> bool:
    """Tell whether a process is alive; one that ended but was not waited for by its parent is not."""
    with suppress(ChildProcessError):  # not a child of ours, or waited for already
        os.waitpid(process.pid, os.WNOHANG)
    try:
        if not process.is_running():
            return False
        # A zombie with threads is on its way: they hold its ports and files for a moment longer.
        return process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
    except psutil.NoSuchProcess:
        return False


def stop(processes: Iterable[psutil.Process], grace: float) -> None:
    """End processes: SIGTERM, and SIGKILL to what is still there after `grace` seconds."""
    processes = list(processes)
    _signal(processes, signal.SIGTERM)
    if not await_condition(lambda: not any(map(is_running, processes)), grace):
        kill(processes)


def kill(processes: Iterable[psutil.Process]) -> None:
    """End processes by SIGKILL, and return when they are gone. Raises LocalError when they do not go."""
    processes = list(processes)
    _signal(processes, signal.SIGKILL)
    # A killed process is gone as soon as the kernel gets to it, unless it hangs in a system call.
    if not await_condition(lambda: not any(map(is_running, processes)), 10):
        pids = ", ".join(str(process.pid) for process in processes if is_running(process))
        raise LocalError(f"process {pids} does not end, not even by SIGKILL; look at it with ps")


def stop_all(environment: Path, order: Sequence[str], grace: float) -> int:
    """End every process of an environment and return how many there were.

    Parts named in `order` end one after the other; anything else (a build, a kubectl) ends first.
    """
    count = 0
    # A process may start another one while it is being ended, so look until nothing is left.
    while found := find(environment) or _found_later(environment):
        rest = [process for part, group in found.items() if part not in order for process in group]
        for group in (rest, *(found.get(part, []) for part in order)):
            stop(group, grace)
            count += len(group)
    return count


def await_condition(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll `condition` until it holds; False when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def log_tail(log: Path, since: int = 0) -> str:
    """Return the last few kilobytes of a log, at most from the byte offset `since` on."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(since, size - 16_384))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def log_size(log: Path) -> int:
    """Return the size of a log in bytes, 0 when there is none."""
    try:
        return log.stat().st_size
    except OSError:
        return 0


def says_port_taken(log: str) -> bool:
    """Tell whether a log says that its process could not listen on its port."""
    return _PORT_TAKEN in log.lower()


def says_disk_full(log: str) -> bool:
    """Tell whether a log says that its process could not write."""
    return _DISK_FULL in log.lower()


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        # psutil checks the start time first, so a process id that was reused meanwhile is safe.
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
