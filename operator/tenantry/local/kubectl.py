"""kubectl as a subprocess, bound to one kubeconfig."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

from tenantry.local.errors import LocalError

_ESTABLISHED = "--for=jsonpath={.status.conditions[?(@.type=='Established')].status}=True"
_NO_CONDITIONS = "is not array or slice and cannot be filtered"
_ATTEMPTS = 50
"""Each takes the tenth of a second that kubectl needs to start."""


class KubectlError(LocalError):
    """kubectl, or the API server through it, says no."""


class Kubectl:
    """Runs kubectl against the cluster of `kubeconfig`, whatever the user's own context is.

    `marks` is added to its environment, for whoever looks for processes left behind.
    """

    def __init__(self, program: Path, kubeconfig: Path, marks: Mapping[str, str]) -> None:
        # Its cache of the API's resources is kept apart: another environment may have had this port.
        self._base = [
            str(program),
            f"--kubeconfig={kubeconfig}",
            f"--cache-dir={kubeconfig.parent / 'kubectl-cache'}",
        ]
        self._environment = {**os.environ, **marks}

    def run(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> str:
        """Return what a command prints; `timeout` is in seconds. Raises KubectlError with its own words."""
        try:
            answer = subprocess.run(
                [*self._base, *arguments],
                input=stdin,
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise KubectlError(f"kubectl {arguments[0]} did not answer within {timeout:.0f} s") from None
        if answer.returncode != 0:
            raise KubectlError(f"kubectl {arguments[0]} failed: {_one_line(answer.stderr)}")
        return answer.stdout

    def json(self, *arguments: str) -> Any:
        """Return what a command prints with `-o json`, decoded. Raises KubectlError."""
        return json.loads(self.run(*arguments, "-o", "json"))

    def apply(self, *arguments: str, documents: list[dict[str, Any]] | None = None) -> None:
        """Apply on the server's side the files that `arguments` name, or `documents`. Raises KubectlError."""
        stdin = None
        if documents is not None:
            if not documents:
                return
            arguments = (*arguments, "-f", "-")
            stdin = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
        self.run(
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager=tenantry-up",
            *arguments,
            stdin=stdin,
        )

    def wait_established(self, *definitions: str) -> None:
        """Wait until the API server serves the kinds of definitions, such as crd/plans.tenantry.dev, or --all.

        One that is only just made has no conditions, which kubectl takes for an error; then it is asked again.
        Raises KubectlError.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self.run("wait", _ESTABLISHED, "--timeout=30s", *definitions)
            except KubectlError as error:
                if _NO_CONDITIONS not in str(error) or attempt == _ATTEMPTS:
                    raise
            else:
                return

    def watch(self, kind: str, jsonpath: str, check: Callable[[], None]) -> Generator[str, None, None]:
        """Yield what `jsonpath` says of every object now and after each change, until the caller has enough.

        `check` is called every half second and may raise. Raises KubectlError when the watch ends by itself.
        """
        process = subprocess.Popen(
            [*self._base, "get", kind, "--watch", f"-o=jsonpath={jsonpath}{{'\\n'}}"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None and process.stderr is not None  # noqa: PT018, S101 - for the type checker
        lines: Queue[str | None] = Queue()
        reader = Thread(target=_forward, args=(process.stdout, lines), daemon=True)
        reader.start()
        try:
            while (line := _next(lines, check)) is not None:
                yield line.rstrip("\n")
            raise KubectlError(f"watching {kind} ended: {_one_line(process.stderr.read())}")
        finally:
            process.kill()
            process.wait()
            reader.join()
            process.stdout.close()
            process.stderr.close()


def _forward(stream: Iterator[str], lines: Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _next(lines: Queue[str | None], check: Callable[[], None]) -> str | None:
    while True:
        check()
        with suppress(Empty):
            return lines.get(timeout=0.5)


def _one_line(text: str) -> str:
    """Return the first error of kubectl's output, which may name several."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("Warning:")]
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return (lines[0] if lines else "no reason given") + more
