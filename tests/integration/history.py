"""Every version of an object that ever was, and the whole cluster as it was at that very moment.

A watch brings each version, and a list at exactly its resourceVersion brings what stood beside it: both are
the API server's own history, so nothing is missed between two looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tenantry.adapters.kubernetes.kinds import CHILD_KINDS, KINDS, OURS
from tenantry.api.plan import Plan
from tenantry.api.tenant import Tenant
from tenantry.desired import children
from tenantry.desired.configuration import config_map
from tenantry.desired.fingerprint import fingerprint
from tenantry.desired.namespace import matches
from tenantry.desired.namespace import namespace as build_namespace
from tenantry.desired.network import Surroundings
from tenantry.desired.observe import observe
from tenantry.desired.owner import Access, Owner
from tenantry.domain.configuration import Revision, canonical, resolve
from tests.integration.conftest import Api, Object

KEPT_KINDS = children.POLICY_KINDS | {"ConfigMap"}


@asynccontextmanager
async def history(api: Api, kind: str, name: str) -> AsyncIterator[list[Object]]:
    """Collect every version of an object in a list; it is whole when the context ends."""
    path, versions = KINDS[kind].path(), []
    query = {"fieldSelector": f"metadata.name={name}"}
    listed = await api.client.send("GET", path, query=query)
    assert not listed["items"], f"{kind} {name} is there already"
    query |= {"watch": "true", "resourceVersion": listed["metadata"]["resourceVersion"]}

    async def collect() -> None:
        async with api.client.stream(path, query, 60) as events:
            async for event in events:
                assert event["type"] != "ERROR", event
                versions.append(event["object"])

    task = asyncio.create_task(collect())
    try:
        yield versions
        last = await api.get(kind, name)
        assert last is not None
        async with asyncio.timeout(60):
            while (
                not versions
                or versions[-1]["metadata"]["resourceVersion"] != last["metadata"]["resourceVersion"]
            ):
                assert not task.done(), task.exception()
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def at(api: Api, version: str, kind: str, namespace: str = "") -> list[Object]:
    """List a kind as it was at exactly that resourceVersion."""
    query = {"resourceVersion": version, "resourceVersionMatch": "Exact"}
    if KINDS[kind].namespaced:
        query["labelSelector"] = OURS
    listed = await api.client.send("GET", KINDS[kind].path(namespace=namespace), query=query)
    return [{**item, "kind": kind, "apiVersion": KINDS[kind].api_version} for item in listed["items"]]


async def differences(api: Api, version: Object) -> list[str]:
    """Return which children were not as this version of a Tenant and its Plan want them, at that moment."""
    tenant = Tenant.model_validate(version)
    moment, place = version["metadata"]["resourceVersion"], tenant.namespace_name
    plans = {item["metadata"]["name"]: item for item in await at(api, moment, "Plan")}
    plan_name = tenant.spec.plan or "free"
    plan = Plan.model_validate(plans[plan_name])
    owner = Owner(tenant.metadata.name, tenant.metadata.uid, place)
    level = Access.SUSPENDED if tenant.spec.suspended else Access.OPEN
    wanted = children.policy_group(owner, tenant.spec, plan.spec, level, Surroundings()).manifests
    number = tenant.status.config_revision
    assert number is not None
    if tenant.spec.config_revision is None:
        config = canonical(resolve(tenant.spec.overrides, plan.spec).config)
        wanted.append(config_map(owner, tenant.spec, plan_name, plan.spec.priority, Revision(number, config)))

    present = {}
    for kind in CHILD_KINDS:
        if kind.kind in KEPT_KINDS:
            for item in await at(api, moment, kind.kind, place):
                present[kind.kind, item["metadata"]["name"]] = fingerprint(item)
    expected = {(item["kind"], item["metadata"]["name"]): fingerprint(item) for item in wanted}
    different = sorted(
        f"{kind}/{name}"
        for kind, name in expected.keys() | present.keys()
        if expected.get((kind, name)) != present.get((kind, name))
    )
    namespace = build_namespace(
        owner,
        pod_security=plan.spec.pod_security,
        labels=tenant.spec.namespace.labels,
        origin="created",
        email=tenant.spec.owner.email,
    )
    standing = [item for item in await at(api, moment, "Namespace") if item["metadata"]["name"] == place]
    if not standing or not matches(namespace, observe(standing[0])):
        different.append(f"Namespace/{place}")
    return different
