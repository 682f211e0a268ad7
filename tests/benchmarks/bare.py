"""The bare client: writes the objects that a tenant has, with no operator; the operator's rates are held against it.

It writes the same children by server-side apply, as many side by side as the operator does, and nothing else: not
the finalizers, statuses, Events and audit rows that only an operator writes, and it reads and watches nothing.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterable
from typing import Any

from tenantry.api.plan import Plan
from tenantry.api.tenant import Tenant
from tenantry.desired import children, network
from tenantry.desired.children import Group
from tenantry.desired.namespace import namespace as build_namespace
from tenantry.desired.owner import Access, Owner
from tenantry.domain.configuration import Configuration, Revision, canonical, resolve
from tenantry.domain.names import QUOTA
from tests.integration.conftest import Api, tenant

Object = dict[str, Any]

WORKERS = 16
"""Tenants at a time: as many as the operator has workers."""

UID = "00000000-0000-0000-0000-000000000000"


class BareClient:
    """Writes tenants' objects into namespaces of its own."""

    def __init__(self, api: Api, plan: Plan) -> None:
        self._api = api
        self._plan = plan
        self._gate = asyncio.Semaphore(WORKERS)
        self._spaces: dict[str, str] = {}
        """UIDs of the namespaces by tenant."""

    async def make(self, names: Iterable[str]) -> None:
        """Write everything of so many tenants."""
        await asyncio.gather(*(self._gated(self._make(name)) for name in names))

    async def edit_configuration(self, names: Iterable[str], number: int) -> None:
        """Write what an edit of a Plan's model changes: a revision and the configuration of each tenant."""
        await asyncio.gather(*(self._gated(self._config(name, number)) for name in names))

    async def edit_quota(self, names: Iterable[str], pods: int) -> None:
        """Write what an edit of a Plan's quota changes: one ResourceQuota of each tenant."""
        await asyncio.gather(*(self._gated(self._quota(name, pods)) for name in names))

    async def _gated(self, step: Any) -> None:
        async with self._gate:
            await step

    async def _make(self, name: str) -> None:
        space = build_namespace(
            _owner(name), pod_security="restricted", labels={}, origin="created", email=f"ops@{name}.example"
        )
        space["metadata"]["labels"] = {"bare": "true"}
        stored = await self._api.apply(space, manager="bare")
        self._spaces[name] = stored["metadata"]["uid"]
        await self._write(self._policy(name, self._plan))
        await self._config(name, 1)

    async def _config(self, name: str, number: int) -> None:
        spec = Tenant.model_validate(tenant(name)).spec
        resolved = resolve(spec.overrides, self._plan.spec).config
        model = {**resolved["model"], "maxTokens": 1000 + number}
        config = Revision(number, canonical({**resolved, "model": model}))
        decided = Configuration(config, (config,))
        await self._write(
            children.config_group(_owner(name), spec, "pro", "normal", decided, self._spaces[name])
        )

    async def _quota(self, name: str, pods: int) -> None:
        for wave in self._policy(name, self._plan).waves:
            for manifest in wave:
                if (manifest["kind"], manifest["metadata"]["name"]) == ("ResourceQuota", QUOTA):
                    changed = copy.deepcopy(manifest)
                    changed["spec"]["hard"]["pods"] = str(pods)
                    await self._api.apply(_bare(changed), manager="bare")
                    return
        raise AssertionError("the plan has no quota")

    def _policy(self, name: str, plan: Plan) -> Group:
        spec = Tenant.model_validate(tenant(name)).spec
        return children.policy_group(_owner(name), spec, plan.spec, Access.OPEN, network.Surroundings())

    async def _write(self, group: Group) -> None:
        for wave in group.waves:
            await asyncio.gather(*(self._api.apply(_bare(manifest), manager="bare") for manifest in wave))


def _owner(name: str) -> Owner:
    return Owner(name, UID, f"bare-{name}")


def _bare(manifest: Object) -> Object:
    """Return a child without our marks: the operator must not take it for one of its own."""
    copied = copy.deepcopy(manifest)
    copied["metadata"].pop("labels", None)
    copied["metadata"].pop("annotations", None)
    return copied
