"""All that the operator can do, as stories that are told at the same time."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from tenantry.adapters.kubernetes.kinds import KINDS, OURS
from tenantry.domain import names
from tests.integration.conftest import (
    Api,
    Object,
    OperatorProcess,
    condition,
    gone,
    in_phase,
    is_ready,
    is_stalled,
    provisioned,
)
from tests.integration.mirror import NAMESPACED
from tests.integration.rights import RBAC
from tests.integration.shards import Servers, apply_shards

SHARDS = ("shard-a", "shard-b")
MOVE = "moved-e1"
"""The planner's, of the tenant `moved`."""


async def edit(api: Api, name: str, **spec: Any) -> None:
    await api.patch("Tenant", name, {"spec": spec})
    await api.until("Tenant", name, is_ready)


async def edits(api: Api) -> None:
    """Plans, overrides, more revisions than are kept, a rollback, suspension and resume."""
    await provisioned(api, "edits")
    await edit(api, "edits", plan="enterprise")
    await edit(api, "edits", plan="pro")
    for top in range(11, 23):
        await edit(api, "edits", overrides={"retrieval": {"topK": top}})
    await edit(api, "edits", configRevision=10)
    await edit(api, "edits", suspended=True)
    await edit(api, "edits", suspended=False)


async def drift(api: Api) -> None:
    """One child of every kind gets what no apply takes off, and is deleted."""
    namespace = await provisioned(api, "drift")
    for kind in NAMESPACED:
        child = next(iter(await api.list(kind, namespace, OURS)))["metadata"]["name"]
        for _ in range(2):  # the second time, the Event of the first one counts on
            changed = await api.patch(kind, child, {"metadata": {"labels": {"surplus": "x"}}}, namespace)
            version = int(changed["metadata"]["resourceVersion"])
            await api.until(
                kind,
                child,
                lambda found, version=version: (
                    found
                    and int(found["metadata"]["resourceVersion"]) > version
                    and "surplus" not in found["metadata"]["labels"]
                ),
                namespace,
            )
        await api.delete(kind, child, namespace)
        await api.until(kind, child, bool, namespace)
    await api.patch("Namespace", namespace, {"metadata": {"labels": {names.TENANT: "other"}}})
    await api.until(
        "Namespace", namespace, lambda found: found["metadata"]["labels"][names.TENANT] == "drift"
    )


async def ruined(api: Api) -> None:
    """While the operator is down, so that it finds them so: a revision that is going but is held, and in the place of
    ours a binding to another role and a Secret of another type, which no request can change."""
    namespace = "tenant-drift"
    (revision,) = await api.list("ControllerRevision", namespace)
    kept = {key: revision["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
    await api.delete("ControllerRevision", kept["name"], namespace)
    held = {**kept, "finalizers": ["hold.example/backup"]}
    # With blanks in its JSON, so that the API server takes no patch of it.
    body = {"apiVersion": "apps/v1", "kind": "ControllerRevision", **revision, "metadata": held}
    path = KINDS["ControllerRevision"].path(namespace=namespace)
    await api.client.send("POST", path, body=json.dumps(body).encode())
    await api.delete("ControllerRevision", kept["name"], namespace)
    found = await api.get("RoleBinding", "tenantry-viewer", namespace) or {}
    metadata = {key: found["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
    await api.delete("RoleBinding", "tenantry-viewer", namespace)
    other = {"apiGroup": RBAC, "kind": "ClusterRole", "name": "view"}
    await api.create("RoleBinding", {"metadata": metadata, "roleRef": other})
    found = await api.get("Secret", names.VECTOR_STORE, namespace) or {}
    metadata = {key: found["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
    await api.delete("Secret", names.VECTOR_STORE, namespace)
    await api.create("Secret", {"metadata": metadata, "type": "example.com/other"})


async def put_right(api: Api) -> None:
    """What was ruined is as it was, and what is a week old has gone."""

    def bound(found: Object | None) -> bool:
        return found is not None and found["roleRef"]["name"] == "tenantry-tenant-viewer"

    def whole(found: Object | None) -> bool:
        return found is not None and "deletionTimestamp" not in found["metadata"]

    await api.until("RoleBinding", "tenantry-viewer", bound, "tenant-drift")
    await api.until("ControllerRevision", "tenant-config-1", whole, "tenant-drift")
    await api.until(
        "Secret", names.VECTOR_STORE, lambda found: found and found["type"] == "Opaque", "tenant-drift"
    )
    await api.until("TenantMove", MOVE, gone)


async def adoption(api: Api) -> None:
    """A namespace of somebody else is taken over, and given back."""
    metadata = {"name": "legacy", "annotations": {names.ADOPTABLE_BY: "adopts"}}
    await api.apply({"kind": "Namespace", "metadata": metadata})
    place = {"name": "legacy", "adoption": "IfMarked"}
    await provisioned(api, "adopts", namespace=place, deletionPolicy="Delete")
    await api.delete("Tenant", "adopts")
    await api.until("Tenant", "adopts", gone)
    for kind in NAMESPACED:
        assert await api.list(kind, "legacy", OURS) == []


async def archived(api: Api, name: str) -> tuple[str, str]:
    """Delete a tenant that is retained; return its namespace and its archive."""
    namespace = await provisioned(api, name)
    archive = names.archive_name(name, (await api.get("Tenant", name) or {})["metadata"]["uid"])
    await api.delete("Tenant", name)
    await api.until("Tenant", name, gone)
    await api.until("TenantArchive", archive, in_phase("Kept"))
    return namespace, archive


async def restored_and_purged(api: Api) -> None:
    """Deleted, taken back, deleted again, and purged because somebody deletes the archive."""
    _, first = await archived(api, "back")
    namespace, second = await archived(api, "back")
    await api.until("TenantArchive", first, in_phase("Restored"))
    for archive in (first, second):
        await api.delete("TenantArchive", archive)
        await api.until("TenantArchive", archive, gone)
    await api.until("Namespace", namespace, gone)


async def expired(api: Api) -> None:
    """Retention ends; the archive stays as a record, here for no time at all."""
    namespace, archive = await archived(api, "expired")
    past = (datetime.now(UTC) - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    await api.patch("TenantArchive", archive, {"spec": {"purgeAfter": past}})
    await api.until("Namespace", namespace, gone)
    await api.until("TenantArchive", archive, gone)


async def deleted(api: Api) -> None:
    """Deleted with everything, at once; and a Plan that nobody is on."""
    pro = await api.get("Plan", "pro") or {}
    await api.apply({"kind": "Plan", "metadata": {"name": "short"}, "spec": pro["spec"]})
    await provisioned(api, "deleted", plan="short", deletionPolicy="Delete")
    await api.delete("Tenant", "deleted")
    await api.until("Namespace", "tenant-deleted", gone)
    await api.until("Tenant", "deleted", gone)
    # One in use is not deleted; and who is on it is counted a moment later.
    await api.until("Plan", "short", lambda found: found["status"]["tenants"] == 0)
    await api.delete("Plan", "short")


async def moved(api: Api) -> None:
    """Pinned to another shard, and moved there a week ago as far as the next process knows."""

    def rests(found: Object | None) -> bool:
        said = (condition(found, "Ready") or {}).get("message", "")
        return in_phase("Cleaning")(found) and said.endswith("until its place there is removed")

    here, there = SHARDS
    await provisioned(api, "moved", vectorStore={"dimensions": 3, "shard": here})
    await api.patch("Tenant", "moved", {"spec": {"vectorStore": {"shard": there}}})
    await api.until("TenantMove", MOVE, rests, timeout=60)
    past = (datetime.now(UTC) - timedelta(days=8)).strftime("%Y-%m-%dT%H:%M:%SZ")
    await api.patch("TenantMove", MOVE, {"status": {"finishedAt": past}}, subresource="status")
    found = await api.until("Tenant", "moved", is_ready)
    assert found["status"]["placement"] == {"shard": there, "epoch": 2}


async def shards(api: Api) -> None:
    """A shard without a Secret; a move that somebody asks for and aborts. Last: new tenants wait meanwhile."""
    secret = {"secretRef": {"name": "nowhere"}}
    spec = {"engine": "pgvector", "connection": secret}
    await api.apply({"kind": "VectorShard", "metadata": {"name": "nowhere"}, "spec": spec})
    await api.until("VectorShard", "nowhere", is_stalled("SecretNotFound"))
    spec = {"tenant": "drift", "targetShard": "elsewhere"}
    await api.apply({"kind": "TenantMove", "metadata": {"name": "drift"}, "spec": spec})
    await api.until("TenantMove", "drift", is_stalled("ShardNotFound"))
    await api.patch("TenantMove", "drift", {"spec": {"abort": True}})
    await api.until("TenantMove", "drift", in_phase("Aborted"))
    await api.delete("TenantMove", "drift")
    await api.until("TenantMove", "drift", gone)
    await api.delete("VectorShard", "nowhere")
    await api.until("Tenant", "drift", is_ready)


async def everything(api: Api, operator: OperatorProcess, servers: Servers) -> None:
    """Have the operator do all that it can; it is killed, started again, and stopped in the end."""
    await apply_shards(api, servers)
    async with asyncio.TaskGroup() as group:
        for story in (edits, drift, adoption, restored_and_purged, expired, deleted, moved):
            group.create_task(story(api), name=story.__name__)
    operator.kill()
    await ruined(api)
    await operator.start()
    await put_right(api)
    await shards(api)
    assert operator.stop() == 0
