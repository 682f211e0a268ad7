"""A platform with a tenant of every sort, and what must be the same of it after a restore."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tenantry.adapters.kubernetes.kinds import OURS
from tenantry.domain import names
from tests.integration.conftest import MEMBERS, Api, Object, gone, in_phase, is_ready, is_stalled, tenant
from tests.integration.mirror import NAMESPACED
from tests.integration.mutations import content

READY = ("plain", "pinned", "custom", "adopter", "suspended", "returned")
"""Tenants that are Ready. Besides there is `stranger`, who is not allowed the data of a former tenant."""
ARCHIVED = ("archived", "to-purge", "stranger")
"""Names of former tenants whose data is kept. There is an archive of `returned` too, which holds nothing more."""


async def settle(api: Api) -> None:
    """Make all of them, and wait until they are as they shall be."""
    marked = {"name": "legacy", "annotations": {names.ADOPTABLE_BY: "adopter"}, "labels": {"team": "legacy"}}
    await api.apply({"kind": "Namespace", "metadata": marked})
    specs: dict[str, Object] = {
        "plain": {},
        "pinned": {},
        "custom": {
            "namespace": {"name": "customs-house", "labels": {"team": "customs"}},
            "plan": "enterprise",
        },
        "adopter": {"namespace": {"name": "legacy", "adoption": "IfMarked"}},
        "suspended": {"suspended": True},
        **{name: {} for name in (*ARCHIVED, "returned")},
    }
    await asyncio.gather(*(_made(api, name, spec) for name, spec in specs.items()))
    for top in (11, 12):
        await api.patch("Tenant", "pinned", {"spec": {"overrides": {"retrieval": {"topK": top}}}})
        await api.until("Tenant", "pinned", is_ready)
    await api.patch("Tenant", "pinned", {"spec": {"configRevision": 2}})
    await asyncio.gather(*(_archived(api, name) for name in (*ARCHIVED, "returned")))
    await _made(api, "returned", {})
    await api.until("TenantArchive", await archive_of(api, "returned"), in_phase("Restored"))
    await api.apply(tenant("stranger", owner={"email": "new@stranger.example"}))
    await all_settled(api)


async def _made(api: Api, name: str, spec: Mapping[str, Any]) -> None:
    await api.apply(tenant(name, **{"plan": "pro", "members": MEMBERS, **spec}))
    found = await api.until("Tenant", name, is_ready, timeout=60)
    await put_data(api, found["status"]["namespace"])


async def put_data(api: Api, namespace: str) -> None:
    """Put something of the tenant's own into its namespace."""
    metadata = {"name": "data", "namespace": namespace, "labels": {"made-by": "tenant"}}
    await api.apply({"kind": "ConfigMap", "metadata": metadata, "data": {"of": namespace}}, "application")


async def _archived(api: Api, name: str) -> None:
    await api.delete("Tenant", name)
    await api.until("Tenant", name, gone)
    await api.until("TenantArchive", await archive_of(api, name), in_phase("Kept"))


async def archive_of(api: Api, name: str) -> str:
    """Return the name of the one archive of a former tenant."""
    (found,) = [item for item in await api.list("TenantArchive") if item["spec"]["tenant"] == name]
    return str(found["metadata"]["name"])


async def all_settled(api: Api) -> None:
    """Wait until every tenant and every archive is as `settle` leaves it."""
    for name in READY:
        await api.until("Tenant", name, is_ready, timeout=60)
    await api.until("Tenant", "stranger", is_stalled("RestoreNotAllowed"), timeout=60)
    for name in ARCHIVED:
        await api.until("TenantArchive", await archive_of(api, name), in_phase("Kept"), timeout=60)
    await api.until("TenantArchive", await archive_of(api, "returned"), in_phase("Restored"), timeout=60)


@dataclass(frozen=True)
class Inside:
    """What is in tenants' namespaces, kept ones included. Compared by `==`."""

    namespaces: Mapping[str, Object]
    """Labels and annotations by name."""
    children: Mapping[str, Object]
    """Every child by namespace, kind and name."""
    data: Mapping[str, Object]
    """Tenants' own data by namespace."""


@dataclass(frozen=True)
class State:
    """What counts of a platform; UIDs and times do not. Compared by `==`."""

    tenants: Mapping[str, Object]
    archives: Mapping[str, Object]
    plans: Mapping[str, Object]
    inside: Inside


async def state(api: Api) -> State:
    """Return how the platform stands now."""
    return State(
        tenants={item["metadata"]["name"]: _tenant(item) for item in await api.list("Tenant")},
        archives={item["metadata"]["name"]: _archive(item) for item in await api.list("TenantArchive")},
        plans={item["metadata"]["name"]: item["spec"] for item in await api.list("Plan")},
        inside=await inside(api),
    )


async def inside(api: Api) -> Inside:
    """Return what is in tenants' namespaces now; it needs none of our kinds."""
    namespaces = {item["metadata"]["name"]: item for item in await api.list("Namespace", selector=OURS)}
    children, data = {}, {}
    for namespace in namespaces:
        for kind in NAMESPACED:
            for item in await api.list(kind, namespace, OURS):
                children[f"{namespace}/{kind}/{item['metadata']['name']}"] = _marked(item)
        found = await api.get("ConfigMap", "data", namespace)
        if found is not None:
            data[namespace] = found["data"]
    marks = {name: _marked(item)["metadata"] for name, item in namespaces.items()}
    return Inside(marks, children, data)


def _tenant(item: Object) -> Object:
    status = item["status"]
    return {
        "spec": item["spec"],
        **{key: status.get(key) for key in ("phase", "plan", "namespace", "configRevision")},
    }


def _archive(item: Object) -> Object:
    return {"spec": item["spec"], "phase": item["status"]["phase"]}


def _marked(item: Object) -> Object:
    """Return the content of an object without the UIDs in it, which are those of one cluster."""
    kept = json.loads(json.dumps(content(item)))
    annotations = kept["metadata"].get("annotations", {})
    annotations.pop(names.TENANT_UID, None)
    for reference in kept["metadata"].get("ownerReferences", []):
        reference.pop("uid")
    return dict(kept)
