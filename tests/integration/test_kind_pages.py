"""The examples in docs/kinds are taken by the API server as they stand."""

from __future__ import annotations

import re

import pytest

from tenantry.api.crds import KINDS
from tests.conftest import REPOSITORY, Kubectl


@pytest.mark.parametrize("kind", [kind.__name__ for kind in KINDS])
def test_the_example_is_accepted(kubectl: Kubectl, kind: str) -> None:
    page = (REPOSITORY / "docs/kinds" / f"{kind.lower()}.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    command = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
    answer = kubectl(*command, input=example)
    assert answer.stdout.startswith(f"{kind.lower()}.tenantry.dev/")
    assert answer.stdout.endswith("serverside-applied (server dry run)\n")
    assert answer.stderr == "", "no warning either"
