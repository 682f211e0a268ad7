"""`python -m tenantry.local.crds [--check] [DIR]`: writes the CustomResourceDefinitions or finds their drift.

Exit codes: 0 written or up to date, 1 drift or a directory that cannot be written, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from tenantry.api.crds import crd_documents

HEADER = "# Generated from operator/tenantry/api by `make crds`; edit the models, not this file.\n"


class _Dumper(yaml.SafeDumper):
    """Writes a value again where it occurs twice: anchors hide what a definition says."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def render() -> dict[str, str]:
    """The text of every file by its name; the same models give the same bytes."""
    return {
        name: HEADER + yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
        for name, document in crd_documents().items()
    }


def drift(directory: Path) -> list[str]:
    """The unified diff from the files of `directory` to the generated ones; empty where they agree."""
    wanted = render()
    present = {path.name: path.read_text(encoding="utf-8") for path in sorted(directory.glob("*.yaml"))}
    lines: list[str] = []
    for name in sorted(wanted.keys() | present.keys()):
        lines += difflib.unified_diff(
            present.get(name, "").splitlines(keepends=True),
            wanted.get(name, "").splitlines(keepends=True),
            fromfile=str(directory / name),
            tofile=f"generated/{name}",
        )
    return lines


def write(directory: Path) -> None:
    """Make the YAML files of `directory` exactly the generated ones."""
    wanted = render()
    directory.mkdir(parents=True, exist_ok=True)
    for stale in {path.name for path in directory.glob("*.yaml")} - wanted.keys():
        (directory / stale).unlink()
    for name, text in wanted.items():
        (directory / name).write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tenantry.local.crds", description="Generates the CustomResourceDefinitions."
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 where the files drift"
    )
    parser.add_argument("directory", nargs="?", type=Path, default=Path("crds"), help="default: crds")
    options = parser.parse_args(arguments)
    try:
        if not options.check:
            write(options.directory)
            return 0
        difference = drift(options.directory)
    except OSError as error:
        sys.stderr.write(f"cannot use {options.directory} for the CRDs: {error.strerror}: {error.filename}\n")
        return 1
    if difference:
        sys.stdout.writelines(difference)
        sys.stderr.write(
            f"{options.directory} differs from the models; run `make crds` and commit the result\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
