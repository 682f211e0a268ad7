"""What users do to tenants that have a place on a vector shard; see `flows`, which has those without.

An application's row in the place is looked for where the vectors must still be there in the end.
"""

from __future__ import annotations

import base64
from typing import Any

from psycopg import AsyncConnection

from tenantry.domain import names
from tests.faults.flows import PATIENCE_SECONDS, Flow, Scene, Step
from tests.integration.conftest import Object, condition

VECTORS: dict[str, Any] = {"vectorStore": {"dimensions": 3}}
ROW = "written by its application"


async def _placed(scene: Scene) -> None:
    """Wait until the tenant is Ready and its isolation was probed: that is the last thing which is written."""
    await scene.ready()

    def verified(found: Object | None) -> bool:
        return (condition(found, "IsolationVerified") or {}).get("status") == "True"

    await scene.api.until("Tenant", scene.name, verified, timeout=PATIENCE_SECONDS)


async def _connect(scene: Scene) -> AsyncConnection[Any]:
    found = await scene.api.get("Secret", names.VECTOR_STORE, f"tenant-{scene.name}") or {}
    return await AsyncConnection.connect(base64.b64decode(found["data"]["dsn"]).decode(), autocommit=True)


def _with_a_row(**spec: Any) -> Step:
    """Begin with a tenant that has a place and something in it."""

    async def begin(scene: Scene) -> None:
        await scene.tenant(**VECTORS, **spec)
        await _placed(scene)
        async with await _connect(scene) as connection:
            await connection.execute("INSERT INTO items (id, embedding) VALUES (%s, '[1,2,3]')", (ROW,))

    return begin


async def _nothing(scene: Scene) -> None:
    """Nobody is a tenant yet."""


async def _rotate(scene: Scene) -> None:
    asked = {"metadata": {"annotations": {names.ROTATE: "once"}}}
    await scene.api.patch("Tenant", scene.name, asked, manager="kubectl")


async def _rotated(scene: Scene) -> None:
    """The Secret has other credentials, which are valid and lead to the same rows."""
    second = base64.b64encode(b"2").decode()
    await scene.api.until(
        "Secret",
        names.VECTOR_STORE,
        lambda found: found and found["data"]["generation"] == second,
        f"tenant-{scene.name}",
        timeout=PATIENCE_SECONDS,
    )
    await _placed(scene)
    async with await _connect(scene) as connection:
        cursor = await connection.execute("SELECT id FROM items")
        assert await cursor.fetchall() == [(ROW,)]


FLOWS = (
    Flow("onboarding with a place", _nothing, lambda scene: scene.tenant(**VECTORS), _placed),
    Flow("rotation of credentials", _with_a_row(), _rotate, _rotated),
    Flow(
        "deletion Delete with vectors",
        _with_a_row(deletionPolicy="Delete"),
        lambda scene: scene.delete_tenant(),
        lambda scene: scene.gone(),
    ),
)
