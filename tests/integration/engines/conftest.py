"""A server of each engine, and engines on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tenantry.adapters.engines import RealEngines
from tenantry.domain.places import Place
from tenantry.domain.vectors import Shape
from tenantry.reconcile.ports import Engine
from tests.integration.engines import postgres, qdrant, weaviate
from tests.integration.engines.rig import Rig

RIGS: dict[str, Callable[[], Iterator[Rig]]] = {
    "pgvector": postgres.rigs,
    "qdrant": qdrant.rigs,
    "weaviate": weaviate.rigs,
}

SINCE = datetime(2026, 11, 25, 12, 30, 15, 250_000, tzinfo=UTC)


@pytest.fixture(scope="session", params=sorted(RIGS))
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """One server for all tests; each has tenants of its own."""
    yield from RIGS[request.param]()


@pytest.fixture
async def engine(rig: Rig) -> AsyncIterator[Engine]:
    """An engine that is prepared."""
    opened = RealEngines().open("one", rig.kind, rig.address())
    assert (await opened.prepare()).unfit is None
    yield opened
    await opened.close()


@pytest.fixture
async def second(rig: Rig) -> AsyncIterator[Engine]:
    """Another engine on the same server, as the next process has it."""
    opened = RealEngines().open("one", rig.kind, rig.address())
    assert (await opened.prepare()).unfit is None
    yield opened
    await opened.close()


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """The description of a place that is this test's alone."""
    tenant = request.node.name.partition("[")[0].removeprefix("test_").replace("_", "-")[:60].rstrip("-")
    return described(tenant)


def described(tenant: str, **more: Any) -> Place:
    """Return the first description of a tenant's place."""
    return Place(tenant, f"uid-of-{tenant}", f"digest-of-{tenant}", 1, Shape(3), SINCE, **more)
