"""Others on the API server that are in the operator's way, each for the length of a block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from tenantry.domain import names
from tests.faults.view import View
from tests.integration.conftest import Api

Rival = Callable[[Api, View, str], AbstractAsyncContextManager[None]]
"""Called with the name of a tenant."""

PODS = "99"
"""What the rival wants in a quota of ours."""


@asynccontextmanager
async def holder(api: Api, view: View, name: str) -> AsyncIterator[None]:
    """Something keeps the tenant's namespace from going; one that is not there is made, and is being deleted."""
    namespace = f"tenant-{name}"
    there = view.get("Namespace", namespace) is not None
    if not there:
        await api.create("Namespace", {"metadata": {"name": namespace}})
    held = {"name": "held", "namespace": namespace, "finalizers": ["hold.example/backup"]}
    await api.create("ConfigMap", {"metadata": held})
    if not there:
        await api.delete("Namespace", namespace)
    try:
        yield
    finally:
        await api.patch("ConfigMap", "held", {"metadata": {"finalizers": None}}, namespace)


@asynccontextmanager
async def fighter(api: Api, view: View, name: str) -> AsyncIterator[None]:
    """Another field manager applies its own value to the tenant's quota as often as it is put back."""
    fighting = asyncio.create_task(_fight(api, view, name))
    try:
        yield
    finally:
        assert not fighting.done() or fighting.exception() is None
        fighting.cancel()
        await asyncio.wait({fighting})


async def _fight(api: Api, view: View, name: str) -> None:
    where = {"name": names.QUOTA, "namespace": f"tenant-{name}"}
    wanted: dict[str, Any] = {"kind": "ResourceQuota", "metadata": where, "spec": {"hard": {"pods": PODS}}}
    told = 0

    def lost() -> bool:
        found = view.get("ResourceQuota", names.QUOTA, where["namespace"])
        newer = found is not None and int(found["metadata"]["resourceVersion"]) > told
        return newer and (found or {})["spec"]["hard"]["pods"] != PODS

    while True:
        await view.until(lost, "the quota is put back", 600, name)
        told = int((await api.apply(wanted, manager="fighter"))["metadata"]["resourceVersion"])
