"""The proxy itself: it passes what it is given, and can break everything that the faults need broken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from tenantry.adapters.kubernetes.client import Client, configure
from tenantry.adapters.kubernetes.kinds import KINDS
from tenantry.reconcile.ports import Unavailable
from tests.faults.proxy import Answer, Cut, Fault, Object, Proxy, Request, refusal

PATH = KINDS["ConfigMap"].path(namespace="default")


def config_map(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}


@pytest.fixture
async def client(proxy: Proxy, tmp_path: Path) -> AsyncIterator[Client]:
    door = await proxy.door("a", tmp_path)
    client = Client(await configure(door.operator_kubeconfig, None))
    yield client
    await client.close()


async def test_it_passes_requests_and_their_rights(proxy: Proxy, client: Client) -> None:
    answer = await client.send("GET", "/apis/tenantry.dev/v1alpha1/tenants")
    assert answer["kind"] == "TenantList"
    with pytest.raises(Exception, match="forbidden"):
        await client.send("GET", "/api/v1/secrets")
    # A kind that is just installed is answered with 429 for a moment, and asked for again.
    assert (str(proxy.log[0]), str(proxy.log[-1])) == ("list tenants", "list secrets")
    assert [item.status for item in proxy.log[-2:]] == [200, 403]


class Breaks(Fault):
    """Does to each write what it is told to."""

    def __init__(self, *, instead: Answer | None = None, cut: str = "") -> None:
        self.instead, self.cut = instead, cut

    async def before(self, request: Request) -> Answer | None:
        if request.is_write and self.cut == "before":
            raise Cut
        return self.instead if request.is_write else None

    async def after(self, request: Request, answer: Answer) -> Answer:
        if request.is_write and self.cut == "after":
            raise Cut
        return answer


async def test_a_request_can_be_answered_lost_or_lost_after_it_was_done(proxy: Proxy, client: Client) -> None:
    async def create(name: str) -> None:
        await client.send("POST", PATH, body=config_map(name), attempts=1)

    async def exists(name: str) -> bool:
        listed = await client.send("GET", KINDS["ConfigMap"].path(), query={"labelSelector": ""})
        return name in {item["metadata"]["name"] for item in listed["items"]}

    proxy.fault = Breaks(instead=refusal(429, "TooManyRequests", "later", retry_after="7"))
    with pytest.raises(Unavailable, match="later") as refused:
        await create("answered")
    assert refused.value.retry_after == 7
    proxy.fault = Breaks(cut="before")
    with pytest.raises(Unavailable, match="did not answer"):
        await create("lost")
    proxy.fault = Breaks(cut="after")
    with pytest.raises(Unavailable, match="did not answer"):
        await create("done")
    assert [await exists(name) for name in ("answered", "lost", "done")] == [False, False, True]
    assert [str(item) for item in proxy.writes()] == ["create configmaps/default/done"]


class Echoes(Fault):
    """Drops the first event of each object, and sends the second twice."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def events(self, request: Request, event: Object) -> Iterable[Object]:
        if event["type"] != "ADDED":
            return (event,)
        name = event["object"]["metadata"]["name"]
        if name not in self.seen:
            self.seen.add(name)
            return ()
        return (event, event)


async def test_events_can_be_dropped_and_doubled_and_a_watch_ended(proxy: Proxy, client: Client) -> None:
    proxy.fault = Echoes()
    for name in ("one", "two"):
        await client.send("POST", PATH, body=config_map(name))
    listed = await client.send("GET", KINDS["ConfigMap"].path())
    query = {"watch": "true", "resourceVersion": listed["metadata"]["resourceVersion"]}
    heard: list[tuple[str, str]] = []
    with pytest.raises(Unavailable):
        await _hear(proxy, client, query, heard)
    assert heard == [("DELETED", "three"), ("ADDED", "three"), ("ADDED", "three"), ("DELETED", "three")]


async def _hear(proxy: Proxy, client: Client, query: Object, heard: list[tuple[str, str]]) -> None:
    """Listen while an object comes and goes twice; have the watch broken after four events."""
    async with client.stream(KINDS["ConfigMap"].path(), query, 20) as events:
        for _ in range(2):
            await client.send("POST", PATH, body=config_map("three"))
            await client.send("DELETE", f"{PATH}/three")
        async for event in events:
            heard.append((event["type"], event["object"]["metadata"]["name"]))
            if len(heard) == 4:
                proxy.end_watches("configmaps")
