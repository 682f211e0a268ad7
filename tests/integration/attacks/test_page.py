"""docs/isolation.md says what the tests show, and names every policy."""

from __future__ import annotations

import re

from tests.conftest import REPOSITORY
from tests.integration.attacks.catalogue import LIMIT_RANGE, POD_SECURITY, QUOTA, RBAC
from tests.integration.attacks.everything import ATTACKS, PAGE, written


def test_the_page_has_the_catalogue() -> None:
    page = PAGE.read_text()
    assert written(page) == page, "run python -m tests.integration.attacks.everything"


def _policies() -> set[str]:
    folder = REPOSITORY / "helm/tenantry/templates"
    return {path.stem.removeprefix("admission-") for path in folder.glob("admission-*.yaml")}


def test_every_policy_is_on_the_page() -> None:
    described = re.findall(r"^\| `tenantry-([a-z]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert set(described) == _policies()
    assert len(described) == len(set(described))


def test_every_policy_and_every_limit_is_attacked() -> None:
    others = {RBAC, QUOTA, LIMIT_RANGE, POD_SECURITY}
    # A Plan or a VectorShard in use is no tenant's to delete: they have tests of their own.
    wanted = {f"tenantry-{name}" for name in _policies() - {"plans", "shards"}}
    assert {attack.by for attack in ATTACKS} == wanted | others
    assert len({attack.what for attack in ATTACKS}) == len(ATTACKS)
