"""`python -m tenantry.local.generate [--check] [ROOT]`: writes every file that is generated, or finds their drift.

    models ──► crds/, helm/tenantry-crds/templates/ ──┐   and the tables in docs/kinds/
    desired/access.py ──► tenant-roles.yaml ──────────┴─(helm)──► manifests/
    values.schema.json, values.yaml ──► the table in the chart's README.md

Exit codes: 0 written or up to date, 1 drift or no way to write or render, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tenantry.desired.access import cluster_roles
from tenantry.local import crds, kind_pages, kustomize, values_table
from tenantry.local.binaries import find_tool
from tenantry.local.errors import LocalError, plain_os_errors

_CHART = "helm/tenantry"
_OWNED = ("crds/*.yaml", "helm/tenantry-crds/templates/*.yaml", f"{kustomize.FOLDER}/**/*.yaml")
"""Where every file is generated: one that is not any more is drift."""

_ROLES_HEADER = (
    "# Generated from operator/tenantry/desired/access.py by `make crds`; edit that, not this file.\n"
)

Files = dict[str, str]
"""Text by path below the root of the checkout."""


def from_code(root: Path) -> Files:
    """What comes from Python and from the chart's values, without rendering. Raises LocalError, OSError."""
    # Kept: they are bound in tenants' namespaces, which go on without the operator.
    roles = "---\n".join(crds.dump(crds.kept(role)) for role in cluster_roles())
    return {
        **{f"crds/{name}": text for name, text in crds.render().items()},
        **{f"helm/tenantry-crds/templates/{name}": text for name, text in crds.chart_templates().items()},
        f"{_CHART}/templates/tenant-roles.yaml": _ROLES_HEADER + crds.as_template(roles),
        f"{_CHART}/README.md": values_table.updated(root / _CHART),
        **kind_pages.updated(root),
    }


def drift(root: Path, wanted: Mapping[str, str], owned: Iterable[str] = _OWNED) -> list[str]:
    """The unified diff from the files below `root` to the generated ones; empty where they agree."""
    names = wanted.keys() | _present(root, owned)
    lines: list[str] = []
    for name in sorted(names):
        path = root / name
        lines += difflib.unified_diff(
            path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else [],
            wanted.get(name, "").splitlines(keepends=True),
            fromfile=str(path),
            tofile=f"generated/{name}",
        )
    return lines


def write(root: Path, wanted: Mapping[str, str], owned: Iterable[str] = _OWNED) -> None:
    """Make the files below `root` exactly the generated ones."""
    for stale in _present(root, owned) - wanted.keys():
        (root / stale).unlink()
    for name, text in wanted.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _present(root: Path, owned: Iterable[str]) -> set[str]:
    return {path.relative_to(root).as_posix() for pattern in owned for path in root.glob(pattern)}


def _report(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _run(root: Path, check: bool) -> list[str]:
    code = from_code(root)
    helm = find_tool("helm", _report)
    if not check:
        # First what the chart is made of, then what is rendered from it.
        write(root, code, _OWNED[:2])
        write(root, {**code, **kustomize.base(helm, root)})
        return []
    return drift(root, {**code, **kustomize.base(helm, root)})


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tenantry.local.generate",
        description="Generates the CustomResourceDefinitions, the charts' generated parts and the kustomize base.",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 where the files drift"
    )
    parser.add_argument("root", nargs="?", type=Path, default=Path(), help="the checkout; default: here")
    options = parser.parse_args(arguments)
    try:
        with plain_os_errors(f"cannot generate files in {options.root.resolve()}"):
            difference = _run(options.root, options.check)
    except LocalError as error:
        _report(str(error))
        return 1
    if difference:
        sys.stdout.writelines(difference)
        _report(
            f"{options.root.resolve()} has generated files that are out of date; run `make crds` and commit them"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
