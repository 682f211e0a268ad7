"""The manifests of the project: beside the package in a checkout, inside it when installed from a wheel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tenantry
from tenantry.local.errors import LocalError
from tenantry.local.files import digest

_PACKAGE = Path(tenantry.__file__).parent


@dataclass(frozen=True)
class Manifests:
    """Where the manifests are: a folder with `crds/`, `helm/` and `manifests/`."""

    root: Path

    def crds(self) -> list[Path]:
        """Return the files of the CustomResourceDefinitions. Raises LocalError when there are none."""
        files = sorted((self.root / "crds").glob("*.yaml"))
        if not files:
            raise LocalError(f"no CustomResourceDefinitions in {self.root / 'crds'}: run `make crds`")
        return files

    def plans(self) -> Path:
        """Return the file of the sample Plans."""
        return self.root / "manifests" / "samples" / "plans.yaml"

    def chart(self) -> Path:
        """Return the folder of the operator's chart. Raises LocalError when it is not there."""
        folder = self.root / "helm" / "tenantry"
        if not (folder / "Chart.yaml").is_file():
            raise LocalError(f"no chart in {folder}: install tenantry from a checkout")
        return folder

    def digest(self) -> str:
        """Return a hash that changes with the content of what is installed: definitions and chart."""
        return digest(*self.crds(), *sorted(path for path in self.chart().rglob("*") if path.is_file()))


def find_manifests() -> Manifests:
    """Return the manifests that belong to this package. Raises LocalError when they are missing."""
    # A checkout comes first: it is what its developer edits.
    for root in (_PACKAGE.parents[1], _PACKAGE):
        if all((root / each).is_dir() for each in ("crds", "helm", "manifests")):
            return Manifests(root)
    raise LocalError(
        f"no crds/, helm/ and manifests/ in {_PACKAGE.parents[1]} or {_PACKAGE}: install tenantry from a checkout"
    )


def crd_manifests() -> list[Path]:
    """Return the files of the CustomResourceDefinitions. Raises LocalError."""
    return find_manifests().crds()
