"""A tenant that has done nothing, and how it fares beside others: its edits get through, and nobody complains."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.conftest import Cluster
from tests.faults.hostile import Document, members, tenant, text
from tests.integration.conftest import Api, OperatorProcess, is_ready, running

CALM = 60.0
"""Seconds in which everything must have come to its end; nothing is measured here."""

INNOCENT = "innocent"
PLANS = frozenset({"free", "pro", "enterprise"})
"""Those of the samples."""

RECONNECTS = re.compile(r" ERROR +kopf\._cogs\.clients\.watching: Request attempt #")
"""What Kopf says when the API server serves a changed definition."""

edits = itertools.count(1)


@asynccontextmanager
async def beside(cluster: Cluster, api: Api, folder: Path) -> AsyncIterator[OperatorProcess]:
    """The operator, and the tenant that has done nothing; in the end nothing of others is left."""
    process = OperatorProcess(cluster, folder)
    with running(process):
        await process.start()
        await api.apply(tenant(INNOCENT, plan="pro", members=members("ivy")))
        await api.until("Tenant", INNOCENT, is_ready, timeout=CALM)
        yield process
        await asyncio.gather(*(leave(api, name) for name in await others(api)))
        namespaces = {item["metadata"]["name"] for item in await api.list("Namespace", selector=OURS)}
        for name in namespaces - {f"tenant-{INNOCENT}"}:
            await api.until("Namespace", name, lambda found: found is None, timeout=CALM)
        assert await api.list("TenantArchive") == []
        assert {item["metadata"]["name"] for item in await api.list("Plan")} == PLANS


OURS = "app.kubernetes.io/managed-by=tenantry"


async def others(api: Api) -> set[str]:
    """Return the names of all other tenants."""
    return {item["metadata"]["name"] for item in await api.list("Tenant")} - {INNOCENT}


async def an_edit_gets_through(api: Api) -> None:
    """Edit it, and see it Ready after that."""
    await api.patch("Tenant", INNOCENT, {"spec": {"displayName": f"Edit {next(edits)}"}})
    await api.until("Tenant", INNOCENT, is_ready, timeout=CALM)


def complaints_in(log: Path, start: int) -> list[str]:
    """Return what the operator has logged since as an error, but for what Kopf says of a changed definition."""
    lines = log.read_bytes()[start:].decode().splitlines()
    bad = [line for line in lines if re.search(r" ERROR | CRITICAL |^Traceback|^  File ", line)]
    return [line for line in bad if not RECONNECTS.search(line)]


async def leave(api: Api, name: str) -> None:
    """Delete a tenant with all that it has; its finalizer must not hold it. Its namespace may take longer."""
    found = await api.get("Tenant", name)
    if found is not None and "deletionTimestamp" not in found["metadata"]:
        await api.patch("Tenant", name, {"spec": {"deletionPolicy": "Delete"}})
        await api.delete("Tenant", name)
    await api.until("Tenant", name, lambda found: found is None, timeout=CALM)


async def remove_plans(api: Api, *names: str) -> None:
    """Delete Plans whose tenants have left, as soon as their status says so: a policy refuses it before."""
    for name in names:
        await api.until(
            "Plan", name, lambda found: found and not found["status"].get("tenants"), timeout=CALM
        )
        await api.delete("Plan", name)


async def remove_archives(api: Api, names: Iterable[str]) -> None:
    """Delete archives; on return they are gone."""
    for name in names:
        await api.delete("TenantArchive", name)
    for name in names:
        await api.until("TenantArchive", name, lambda found: found is None, timeout=CALM)


def applied(cluster: Cluster, document: Document, verb: str = "apply") -> tuple[int, str]:
    """Give a document to kubectl; return its exit code and what a user reads of its errors."""
    flags = ["--server-side"] if verb == "apply" else []
    done = cluster.kubectl(verb, *flags, "-f", "-", input=text(document), check=False)
    return done.returncode, done.stderr
