"""The charts, rendered by the real helm."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tenantry.local import chart
from tenantry.local.binaries import find_tool
from tenantry.local.errors import LocalError
from tests.conftest import REPOSITORY

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]

CHART = REPOSITORY / "helm/tenantry"
DATABASE: Mapping[str, Any] = {"ledger": {"secret": {"name": "tenantry-database"}}}
EPHEMERAL: Mapping[str, Any] = {"ledger": {"ephemeral": True}}


@pytest.fixture(scope="session")
def helm() -> Path:
    """The real helm."""
    return find_tool("helm", print)


@pytest.fixture(scope="session")
def render(helm: Path) -> Render:
    """Renders the operator's chart with values beside a database; returns the manifests."""

    @functools.cache
    def rendered(values: str) -> list[Manifest]:
        return chart.render(helm, CHART, json.loads(values))

    def manifests(
        values: Mapping[str, Any] | None = None, ledger: Mapping[str, Any] = DATABASE
    ) -> list[Manifest]:
        return copy.deepcopy(rendered(json.dumps({**ledger, **(values or {})})))

    return manifests


@pytest.fixture(scope="session")
def refusal(render: Render) -> Callable[..., str]:
    """Renders the operator's chart with values that it refuses; returns helm's words."""

    def words(values: Mapping[str, Any] | None = None, ledger: Mapping[str, Any] = DATABASE) -> str:
        with pytest.raises(LocalError) as error:
            render(values, ledger)
        return str(error.value)

    return words


def the(kind: str, manifests: list[Manifest]) -> Manifest:
    """Return the only manifest of a kind."""
    (found,) = (each for each in manifests if each["kind"] == kind)
    return found
