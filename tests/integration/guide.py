"""The commands of docs/operations.md, run as they stand: a page that rots fails a test."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "operations.md"

_BLOCK = re.compile(
    r"^(?P<indent> *)<!-- run: (?P<name>[a-z-]+) -->\n(?P=indent)```sh\n(?P<text>.*?)^(?P=indent)```$",
    re.M | re.S,
)


def blocks(text: str) -> dict[str, str]:
    """Return every block that is marked to be run, by its name. Raises ValueError where two have one name."""
    found: dict[str, str] = {}
    for block in _BLOCK.finditer(text):
        if block["name"] in found:
            raise ValueError(f"two blocks are called {block['name']}")
        found[block["name"]] = re.sub(f"^{block['indent']}", "", block["text"], flags=re.M)
    return found


class Reader:
    """Somebody who follows the guide: in a folder that looks like a checkout, with an environment of their own."""

    def __init__(self, folder: Path, programs: Mapping[str, Path], variables: Mapping[str, str]) -> None:
        self.checkout = folder / "checkout"
        self.checkout.mkdir(parents=True)
        for name in ("crds", "helm", "manifests"):
            (self.checkout / name).symlink_to(REPOSITORY / name)
        path = folder / "bin"
        path.mkdir()
        for name, program in programs.items():
            (path / name).symlink_to(program)
        kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
        self.environment = {
            **kept,
            "HOME": str(folder),
            "PATH": f"{path}:/usr/local/bin:/usr/bin:/bin",
            **variables,
        }
        self._blocks = blocks(PAGE.read_text(encoding="utf-8"))

    def follow(self, *names: str) -> str:
        """Run blocks of the guide, one after the other; return what they print. Fails with what went wrong."""
        return "".join(self.run(self._blocks[name], name) for name in names)

    def run(self, script: str, name: str = "script", *, check: bool = True) -> str:
        """Run a script as a careful shell does; return what it prints, its errors too."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.checkout,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
            check=False,
        )
        assert not check or done.returncode == 0, f"{name}: exit code {done.returncode}\n{done.stdout[:3000]}"
        return done.stdout
