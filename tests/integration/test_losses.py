"""What only the watches can tell, because it is gone: older revisions, and Plans."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from typing import Any

from tests.integration.conftest import Api, OperatorProcess, is_ready, tenant


async def test_an_older_revision_that_is_deleted_by_hand_comes_back_and_can_be_rolled_back_to(
    api: Api, operator: OperatorProcess, name: str
) -> None:
    namespace = f"tenant-{name}"
    await api.apply(tenant(name, plan="pro", overrides={"retrieval": {"topK": 6}}))
    await api.until("Tenant", name, is_ready)
    await api.patch("Tenant", name, {"spec": {"overrides": {"retrieval": {"topK": 7}}}})
    await api.until("ControllerRevision", "tenant-config-2", bool, namespace)
    first = await api.get("ControllerRevision", "tenant-config-1", namespace)
    assert first is not None

    await api.delete("ControllerRevision", "tenant-config-1", namespace)
    back = await api.until(
        "ControllerRevision",
        "tenant-config-1",
        lambda item: item is not None and item["metadata"]["uid"] != first["metadata"]["uid"],
        namespace,
    )
    assert back["data"] == first["data"]

    await api.patch("Tenant", name, {"spec": {"configRevision": 1}})

    def rolled_back(item: dict[str, Any] | None) -> bool:
        document = json.loads(item["data"]["config.json"]) if item else {}
        return document.get("revision") == 1 and document["retrieval"]["topK"] == 6

    await api.until("ConfigMap", "tenant-config", rolled_back, namespace)


async def _event(api: Api, uid: str, reason: str) -> dict[str, Any]:
    """Await an Event about an object."""
    query = {"watch": "true", "fieldSelector": f"involvedObject.uid={uid},reason={reason}"}
    async with (
        asyncio.timeout(60),
        api.client.stream("/api/v1/namespaces/default/events", query, 60) as events,
    ):
        async for event in events:
            found: dict[str, Any] = event["object"]
            return found
    raise AssertionError(f"no Event {reason}")


async def test_the_deletion_of_a_plan_is_an_event_and_an_audit_row(
    api: Api, operator: OperatorProcess, plans: None
) -> None:
    pro = await api.get("Plan", "pro")
    assert pro is not None
    await api.apply({"kind": "Plan", "metadata": {"name": "short-lived"}, "spec": pro["spec"]})
    plan = await api.until("Plan", "short-lived", is_ready)
    await api.delete("Plan", "short-lived")

    event = await _event(api, plan["metadata"]["uid"], "Deleted")
    assert event["involvedObject"]["name"] == "short-lived"
    with closing(sqlite3.connect(f"file:{operator.state_dir / 'ledger.db'}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "SELECT action, before FROM audit WHERE uid = ? ORDER BY id", (plan["metadata"]["uid"],)
        ).fetchall()
    assert [action for action, _ in rows] == ["Created", "Deleted"]
    assert json.loads(rows[1][1])["displayName"] == pro["spec"]["displayName"]
