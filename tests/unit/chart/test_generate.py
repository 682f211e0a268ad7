"""Every generated file is current, and drift of any of them is shown and fails."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from tenantry.api.crds import crd_documents
from tenantry.desired.access import cluster_roles
from tenantry.local import chart, crds, values_table
from tenantry.local.errors import LocalError
from tenantry.local.generate import main
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.tool("helm")

GENERATED = ("crds", "helm", "manifests", "docs/kinds")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what is generated and of what it is generated from."""
    for folder in GENERATED:
        shutil.copytree(REPOSITORY / folder, tmp_path / folder)
    return tmp_path


def content(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_the_committed_files_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", str(REPOSITORY)]) == 0, capsys.readouterr().out


def test_writing_again_changes_nothing_and_removes_what_is_not_generated_any_more(checkout: Path) -> None:
    before = content(checkout)
    for stale in ("crds/old.yaml", "helm/tenantry-crds/templates/old.yaml", "manifests/base/old.yaml"):
        (checkout / stale).write_text("kind: Old\n")
    for lost in ("crds/plans.yaml", "manifests/base/crds/plans.yaml", "manifests/base/deployment.yaml"):
        (checkout / lost).unlink()
    assert main([str(checkout)]) == 0
    assert content(checkout) == before


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("crds/plans.yaml", "maxItems: 2\n", "maxItems: 3\n"),
        ("helm/tenantry-crds/templates/tenants.yaml", "resource-policy: keep", "resource-policy: drop"),
        ("helm/tenantry/templates/tenant-roles.yaml", "- pods\n", "- nodes\n"),
        ("helm/tenantry/README.md", "`settings.workers`", "`settings.threads`"),
        ("docs/kinds/tenant.md", "`spec.owner.email`", "`spec.owner.mail`"),
        ("manifests/base/deployment.yaml", "replicas: 2", "replicas: 3"),
        ("manifests/kustomization.yaml", "- base/deployment.yaml\n", ""),
        # Not generated itself, but the base is rendered from it.
        ("helm/tenantry/templates/deployment.yaml", "revisionHistoryLimit: 3", "revisionHistoryLimit: 4"),
    ],
)
def test_drift_is_shown_and_fails(
    checkout: Path, capsys: pytest.CaptureFixture[str], path: str, old: str, new: str
) -> None:
    text = (checkout / path).read_text()
    assert old in text
    (checkout / path).write_text(text.replace(old, new))
    before = content(checkout)
    assert main(["--check", str(checkout)]) == 1
    shown = capsys.readouterr()
    assert (new or old).strip() in shown.out
    assert (
        shown.err == f"{checkout} has generated files that are out of date; run `make crds` and commit them\n"
    )
    assert content(checkout) == before, "a check writes nothing"


def test_a_file_too_many_and_one_too_few_are_drift(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "crds/tenants.yaml").unlink()
    (checkout / "manifests/base/old.yaml").write_text("old: kind\n")
    assert main(["--check", str(checkout)]) == 1
    shown = capsys.readouterr().out
    assert "+  name: tenants.tenantry.dev" in shown
    assert "-old: kind" in shown


def test_a_folder_that_is_no_checkout_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert str(tmp_path) in message
    assert message.count("\n") == 1


def test_a_readme_without_a_place_for_the_values_is_one_line(checkout: Path) -> None:
    (checkout / "helm/tenantry/README.md").write_text("# The chart\n")
    with pytest.raises(LocalError, match="has no place for the values"):
        values_table.updated(checkout / "helm/tenantry")


def test_the_chart_of_the_kinds_renders_to_the_kinds_and_keeps_them(helm: Path) -> None:
    rendered = chart.render(helm, REPOSITORY / "helm/tenantry-crds", {})
    assert all(
        each["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"} for each in rendered
    )
    by_name = {each["metadata"]["name"]: each for each in rendered}
    assert by_name == {each["metadata"]["name"]: each for each in crd_documents().values()}


def test_the_chart_of_the_kinds_has_no_values(helm: Path) -> None:
    with pytest.raises(LocalError, match="additional properties 'keep' not allowed"):
        chart.render(helm, REPOSITORY / "helm/tenantry-crds", {"keep": False})


def test_nothing_in_a_description_is_taken_for_a_template(helm: Path, tmp_path: Path) -> None:
    said = 'A prompt such as {{ .Values.secret }}, {{- "x" -}}, {{{ or }} and {{"{{"}}.'
    shutil.copy(REPOSITORY / "helm/tenantry-crds/Chart.yaml", tmp_path)
    (tmp_path / "templates").mkdir()
    document = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"description": said}}
    (tmp_path / "templates/kind.yaml").write_text(crds.as_template(crds.dump(document)))
    assert chart.render(helm, tmp_path, {}) == [document]


def test_the_chart_ships_the_roles_that_the_operator_expects() -> None:
    text = (REPOSITORY / "helm/tenantry/templates/tenant-roles.yaml").read_text()
    assert list(yaml.safe_load_all(text)) == [crds.kept(role) for role in cluster_roles()]
