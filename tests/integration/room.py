"""A file system of its own for the Dockerfile's steps and for what they make: a container without its runtime.

A mount namespace and chroot stand for the container, this machine's files for the base image, with Python in their
/usr/local. Python is of the Dockerfile's version where the machine has it, else the one that runs the tests.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.dockerfile import Stage, copied

NOBODY = 65532
ACCOUNT = "run/secrets/kubernetes.io/serviceaccount"

# The base image's linker knows /usr/local/lib.
# $1 is the root, $2 Python's prefix, $3 pip's cache or the files of a ServiceAccount.
_BASE = """
set -e
cd "$1"
for each in usr etc dev proc; do mount --rbind /$each $each; done
mount --bind "$2" usr/local
export LD_LIBRARY_PATH=/usr/local/lib
"""
_FOR_THE_BUILD = """
mount --bind "$3" var/cache/pip
"""
_FOR_A_POD = f"""
mount --bind "$3" {ACCOUNT}
mount --rbind "$1" "$1"
cd "$1"
mount -o remount,bind,ro .
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o uid={NOBODY},gid={NOBODY} tmpfs var/lib/tenantry
"""


class Room:
    """A root directory as an image has it, made by `build` and then read-only for whoever `command` starts."""

    def __init__(self, root: Path, python: Path) -> None:
        self.root = root
        self._python = python
        root.chmod(0o755)
        for name in (
            "usr",
            "etc",
            "dev",
            "proc",
            "tmp",
            "root",
            "var/cache/pip",
            "opt",
            "var/lib/tenantry",
            ACCOUNT,
        ):
            (root / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (root / name).symlink_to(f"usr/{name}")
        (root / "var/run").symlink_to("../run")

    def build(self, stage: Stage) -> None:
        """Take the steps of a stage."""
        folder, variables = "/", dict[str, str]()
        for step in stage.steps:
            variables |= step.variables
            if step.name == "WORKDIR":
                folder = step.text
            inside = self.root / folder.lstrip("/")
            inside.mkdir(parents=True, exist_ok=True)
            if step.name == "COPY":
                for path in copied(step):
                    (inside / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(REPOSITORY / path, inside / path)
            if step.name == "RUN":
                self._run(f"cd {folder}; {step.command}", variables)

    def _run(self, command: str, variables: Mapping[str, str]) -> None:
        # How this machine reaches packages, which a container's runtime would be told too.
        ours = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        paths = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/root"}
        script = f"{_BASE}{_FOR_THE_BUILD}exec /usr/sbin/chroot . sh -c {shlex.quote(command)}"
        done = subprocess.run(
            self._in_a_namespace(script, pip_cache()),
            env={**ours, **variables, **paths},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"

    def command(self, account: Path, *arguments: str) -> list[str]:
        """Return what runs a program as the image's user, where nothing can be written but what a pod mounts."""
        user = f"--userspec={NOBODY}:{NOBODY} --groups={NOBODY}"
        script = f"{_BASE}{_FOR_A_POD}exec /usr/sbin/chroot {user} . {shlex.join(arguments)}"
        return self._in_a_namespace(script, account)

    def _in_a_namespace(self, script: str, third: Path) -> list[str]:
        # A PATH of its own, for the programs here; the one of the image is for those inside.
        namespace = ["unshare", "--mount", "--", "/bin/sh", "-c", script, "sh"]
        return [*namespace, str(self.root), str(self._python), str(third)]


def why_not() -> str:
    """Return why no such file system can be made here; empty where it can."""
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        return f"no mount namespace ({tried.stderr.strip()}): it needs root"
    return ""


def python_for(base: str) -> Path:
    """Return where a Python of the base image's version is installed, else the one that runs the tests."""
    version = base.removeprefix("python:").partition("-")[0]
    for command in (f"python{version}", sys.executable):
        if shutil.which(command) is None:
            continue
        asked = subprocess.run(
            [command, "-c", "import sys; print(sys.base_prefix)"],
            env={**os.environ, "PYENV_VERSION": version},  # or pyenv does not find what it has
            capture_output=True,
            text=True,
            check=False,
        )
        prefix = Path(asked.stdout.strip())
        if asked.returncode == 0 and prefix != Path("/usr"):
            return prefix
    pytest.skip("the only Python is the system's own, which cannot be put into /usr/local")


def pip_cache() -> Path:
    """Return pip's cache, which spares the download."""
    asked = [sys.executable, "-m", "pip", "cache", "dir"]
    folder = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    folder.mkdir(parents=True, exist_ok=True)
    return folder
