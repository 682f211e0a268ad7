"""The whole cluster as it is now, by watches: what a test waits for, and what it compares in the end."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from tenantry.adapters.kubernetes.client import Client, Expired
from tenantry.adapters.kubernetes.kinds import CHILD_KINDS, OWN_KINDS, Kind
from tenantry.domain import names
from tenantry.reconcile.ports import Unavailable
from tests.faults.picture import said_by

Object = dict[str, Any]
Ref = tuple[str, str, str]
"""Kind, namespace, name."""

EVERYBODY = "*"

WATCHED = tuple(kind for kind in (*OWN_KINDS, *CHILD_KINDS) if kind.kind != "ClusterRole")

VARYING = frozenset(
    {
        *("resourceVersion", "creationTimestamp", "managedFields", "generation", "deletionTimestamp"),
        *("deletionGracePeriodSeconds", "selfLink"),
    }
)
"""Metadata that differs from run to run."""

UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


class View:
    """Every object of the kinds that the operator reads, as an administrator sees it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._bells: defaultdict[str, asyncio.Condition] = defaultdict(asyncio.Condition)
        self._of: defaultdict[str, dict[Ref, Object]] = defaultdict(dict)
        self.objects: dict[Ref, Object] = {}
        self.deleted: list[Ref] = []
        """Everything that has been deleted since, in that order."""
        self.drifted: dict[str, tuple[list[int], str]] = {}
        """By tenant: the versions of children that somebody changed, and the UID of the one that was deleted."""

    def get(self, kind: str, name: str, namespace: str = "") -> Object | None:
        """Return an object as it is now."""
        return self.objects.get((kind, namespace, name))

    def of(self, tenant: str) -> list[Object]:
        """Return everything of a tenant: itself, its namespace with all in it, its archives, the Plan of its name."""
        return list(self._of[tenant].values())

    async def until(
        self, holds: Callable[[], Any], what: str, timeout: float, tenant: str | None = None
    ) -> Any:
        """Wait until something holds, looking whenever something changes (of one tenant, if named); return it."""
        bell = self._bells[EVERYBODY if tenant is None else tenant]
        try:
            async with asyncio.timeout(timeout), bell:
                while not (found := holds()):
                    await bell.wait()
                return found
        except TimeoutError:
            raise AssertionError(f"not within {timeout:.3g} s: {what}") from None

    async def follow(self, kind: Kind, listed: asyncio.Event) -> None:
        """List and watch one kind until cancelled."""
        while True:
            try:
                answer = await self._client.send("GET", kind.path())
            except Unavailable:
                await asyncio.sleep(0.1)
                continue
            present = {_ref(kind, item): {**item, "kind": kind.kind} for item in answer["items"]}
            for ref in [ref for ref in self.objects if ref[0] == kind.kind and ref not in present]:
                await self._put(ref, None)
            for ref, item in present.items():
                await self._put(ref, item)
            listed.set()
            query = {"watch": "true", "resourceVersion": answer["metadata"]["resourceVersion"]}
            with suppress(Expired, Unavailable):
                await self._watch(kind, query)

    async def _watch(self, kind: Kind, query: Object) -> None:
        async with self._client.stream(kind.path(), query, 600) as events:
            async for event in events:
                if event["type"] == "ERROR":
                    raise Expired(str(event))
                item = event["object"]
                await self._put(_ref(kind, item), None if event["type"] == "DELETED" else item)

    async def _put(self, ref: Ref, item: Object | None) -> None:
        tenant = _tenant(ref, item or self.objects.get(ref) or {})
        for shelf in (self.objects, self._of[tenant]):
            if item is None:
                shelf.pop(ref, None)
            else:
                shelf[ref] = item
        if item is None:
            self.deleted.append(ref)
        for bell in (self._bells[tenant], self._bells[EVERYBODY]):
            async with bell:
                bell.notify_all()


def _ref(kind: Kind, item: Object) -> Ref:
    return kind.kind, item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _tenant(ref: Ref, item: Object) -> str:
    """Return whose an object is."""
    kind, namespace, name = ref
    if kind == "TenantArchive":
        return str(item.get("spec", {}).get("tenant", ""))
    return name if kind in ("Tenant", "Plan") else (namespace or name).removeprefix("tenant-")


@asynccontextmanager
async def viewed(client: Client) -> AsyncIterator[View]:
    """Watch everything; on entry it is listed."""
    view = View(client)
    tasks: list[asyncio.Task[None]] = []
    try:
        for kind in WATCHED:
            listed = asyncio.Event()
            tasks.append(asyncio.create_task(view.follow(kind, listed)))
            await listed.wait()
        yield view
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def picture(items: list[Object], tenant: str) -> str:
    """Return objects of a tenant as text that is the same for every tenant, time and UID; "" where none is left."""
    shown = sorted(
        (_plain(item) for item in items), key=lambda item: (item["kind"], item["metadata"]["name"])
    )
    text = json.dumps(shown, indent=1, sort_keys=True)
    for item in items:
        if item["kind"] == "TenantArchive":
            text = text.replace(names.archive_name(tenant, item["spec"]["tenantUID"]), "ARCHIVE")
    text = re.sub(rf"\b{re.escape(tenant)}\b", "NAME", text)
    numbers: dict[str, int] = {}
    text = UID.sub(lambda found: f"UID-{numbers.setdefault(found.group(), len(numbers))}", text)
    return TIME.sub("TIME", text)


def _plain(item: Object) -> Object:
    metadata = {key: value for key, value in item["metadata"].items() if key not in VARYING | {"uid"}}
    # Where fields of an object are somebody else's, they are not put back in the same way another time.
    metadata["managers"] = sorted({entry["manager"] for entry in item["metadata"].get("managedFields", [])})
    kept = {**item, "metadata": metadata}
    if item["kind"] not in ("Tenant", "Plan", "TenantArchive"):
        # The control plane's own: a quota's counters, a namespace's phase. And how a move went.
        kept.pop("status", None)
    if item["kind"] == "Secret":
        kept["data"] = said_by(item)
    return kept


def now() -> float:
    """Return monotonic seconds, as the proxy's log has them."""
    return time.monotonic()
