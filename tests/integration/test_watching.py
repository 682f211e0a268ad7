"""Kopf as the watch of our kinds: what it hands on, that it writes nothing, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from kubernetes.aio.client.configuration import Configuration

from tenantry.adapters.kubernetes.client import APPLY, Client, configure
from tenantry.runtime.watching import KINDS, WatchStopped, watch_kinds
from tests.conftest import Cluster
from tests.integration.conftest import PATIENCE_SECONDS, administrator
from tests.integration.kind_objects import move, shard
from tests.integration.wire import Wire

CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
API = "/apis/tenantry.dev/v1alpha1"
KOPF_FINALIZER = "kopf.zalando.org/KopfFinalizerMarker"


class Eyes:
    """Records what a watch hands on, and in which thread."""

    def __init__(self) -> None:
        self.events: list[tuple[str | None, dict[str, Any]]] = []
        self.threads: set[threading.Thread] = set()
        self.broken_by: str | None = None

    def __call__(self, what: str | None, manifest: dict[str, Any]) -> None:
        self.threads.add(threading.current_thread())
        if manifest["metadata"]["name"] == self.broken_by:
            raise ValueError("a bad object")
        self.events.append((what, manifest))

    def of(self, name: str) -> list[str | None]:
        return [what for what, manifest in self.events if manifest["metadata"]["name"] == name]

    async def until(self, condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - `seen` is synchronous and has nobody to tell
                await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def client(control_plane: Cluster) -> AsyncIterator[Client]:
    async with administrator(control_plane) as api:
        yield api.client


@pytest_asyncio.fixture
async def configuration(control_plane: Cluster) -> Configuration:
    return await configure(control_plane.kubeconfig, None)


@pytest_asyncio.fixture
async def plural(client: Client) -> AsyncIterator[str]:
    """A kind of our group that nobody else watches or writes."""
    plural = f"watched{secrets.token_hex(4)}"
    await _apply_crd(client, _crd(plural))
    await _list_when_served(client, plural)
    yield plural
    for thing in (await client.send("GET", f"{API}/{plural}"))["items"]:
        await _merge(
            client, f"{API}/{plural}/{thing['metadata']['name']}", {"metadata": {"finalizers": None}}
        )
    await client.send("DELETE", f"{CRD_PATH}/{plural}.tenantry.dev")


async def _apply_crd(client: Client, crd: dict[str, Any]) -> None:
    path = f"{CRD_PATH}/{crd['metadata']['name']}"
    query = {"fieldManager": "kubectl", "force": "true"}
    await client.send("PATCH", path, query=query, body=crd, content_type=APPLY)


async def _merge(client: Client, path: str, patch: dict[str, Any]) -> None:
    await client.send("PATCH", path, body=patch, content_type="application/merge-patch+json")


def thing(plural: str, name: str, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "tenantry.dev/v1alpha1",
        "kind": plural.title(),
        "metadata": {"name": name, **metadata},
        "spec": {"text": "a"},
    }


OURS: dict[str, Callable[[str], dict[str, Any]]] = {
    "tenants": lambda name: {
        "apiVersion": "tenantry.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": name},
        "spec": {"owner": {"email": "ops@acme.example"}, "deletionPolicy": "Delete"},
    },
    "plans": lambda name: {
        "apiVersion": "tenantry.dev/v1alpha1",
        "kind": "Plan",
        "metadata": {"name": name},
        "spec": {"displayName": "Any", "rank": 1, "currency": "usd", "resources": {"quota": {"pods": "1"}}},
    },
    "vectorshards": lambda name: {**shard(name), "spec": {**shard()["spec"], "cordoned": True}},
    "tenantmoves": lambda name: {**move(name), "spec": {**move()["spec"], "abort": True}},
    "tenantarchives": lambda name: {
        "apiVersion": "tenantry.dev/v1alpha1",
        "kind": "TenantArchive",
        "metadata": {"name": name},
        "spec": {
            "tenant": "gone",
            "tenantUID": "1f0c9a2e",
            "owner": {"email": "ops@acme.example"},
            "purgeAfter": "2100-01-01T00:00:00Z",
        },
    },
}
CHANGE = {"spec": {"text": "b"}}


@asynccontextmanager
async def watching(
    configuration: Configuration, eyes: Eyes, kinds: tuple[str, ...] = KINDS
) -> AsyncIterator[asyncio.Task[None]]:
    """Watch for the length of a block, and end gracefully."""
    stop, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(watch_kinds(configuration, eyes, stop=stop, ready=ready, kinds=kinds))
    readiness = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait({task, readiness}, timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        yield task
    finally:
        readiness.cancel()
        stop.set()
        await asyncio.wait({task}, timeout=PATIENCE_SECONDS)
    assert not _kopf_threads(patience=20)


def _kopf_threads(patience: float = 0) -> list[threading.Thread]:
    """Return the threads of Kopf that still run after so many seconds."""
    threads = [thread for thread in threading.enumerate() if thread.name == "kopf"]
    for thread in threads:
        thread.join(patience)
    return [thread for thread in threads if thread.is_alive()]


async def test_every_kind_of_event_arrives_in_our_own_thread(
    client: Client, configuration: Configuration, plural: str
) -> None:
    await client.send("POST", f"{API}/{plural}", body=thing(plural, "early"))
    eyes = Eyes()
    async with watching(configuration, eyes, (plural,)) as task:
        await eyes.until(lambda: eyes.of("early") == [None])
        await client.send("POST", f"{API}/{plural}", body=thing(plural, "later"))
        await _merge(client, f"{API}/{plural}/later", CHANGE)
        await client.send("DELETE", f"{API}/{plural}/later")
        await eyes.until(lambda: eyes.of("later") == ["ADDED", "MODIFIED", "DELETED"])
    await task
    assert eyes.threads == {threading.current_thread()}
    modified = next(manifest for what, manifest in eyes.events if what == "MODIFIED")
    assert modified["kind"] == plural.title()
    assert modified["spec"] == {"text": "b"}
    assert modified["metadata"]["uid"]
    json.dumps(modified)  # plain data, as it came


async def test_our_kinds_are_watched(client: Client, configuration: Configuration) -> None:
    name = f"watched-{secrets.token_hex(4)}"
    eyes = Eyes()
    async with watching(configuration, eyes) as task:
        for kind in KINDS:
            await client.send("POST", f"{API}/{kind}", body=OURS[kind](name))
        await eyes.until(
            lambda: len({m["kind"] for _, m in eyes.events if m["metadata"]["name"] == name}) == len(KINDS)
        )
        for kind in KINDS:
            await client.send("DELETE", f"{API}/{kind}/{name}")
    await task


async def test_it_works_for_a_user_without_a_name_as_in_a_pod(
    client: Client, configuration: Configuration, plural: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nameless() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.setattr("getpass.getuser", nameless)
    eyes = Eyes()
    async with watching(configuration, eyes, (plural,)):
        await client.send("POST", f"{API}/{plural}", body=thing(plural, "seen"))
        await eyes.until(lambda: bool(eyes.of("seen")))


async def test_an_exception_of_the_callback_costs_one_event(
    client: Client, configuration: Configuration, plural: str, caplog: pytest.LogCaptureFixture
) -> None:
    eyes = Eyes()
    eyes.broken_by = "bad"
    async with watching(configuration, eyes, (plural,)) as task:
        await client.send("POST", f"{API}/{plural}", body=thing(plural, "bad"))
        await eyes.until(lambda: "a bad object" in caplog.text)
        eyes.broken_by = None
        await _merge(client, f"{API}/{plural}/bad", CHANGE)
        await eyes.until(lambda: eyes.of("bad") == ["MODIFIED"])
    await task
    dropped = [record.getMessage() for record in caplog.records if "dropped" in record.getMessage()]
    assert dropped == [f"The event of {plural.title()} bad is dropped: ValueError: a bad object"]


async def test_nothing_is_ever_written(client: Client, configuration: Configuration, plural: str) -> None:
    """Not even to an object that carries Kopf's own finalizer, which Kopf by default takes off."""
    path = f"{API}/{plural}/one"
    eyes = Eyes()
    async with watching(configuration, eyes, (plural,)) as task:
        body = thing(plural, "one", finalizers=[KOPF_FINALIZER])
        created = await client.send("POST", f"{API}/{plural}", body=body)
        await eyes.until(lambda: eyes.of("one") in (["ADDED"], [None]))  # or it is in the first list already
        await _merge(client, path, CHANGE)
        # Of two changes in a row Kopf may tell the last one only.
        await eyes.until(lambda: eyes.of("one")[1:] == ["MODIFIED"])
        deleted = await client.send("DELETE", path)
        await eyes.until(lambda: eyes.of("one")[1:] == ["MODIFIED", "MODIFIED"])
    await task
    after = await client.send("GET", path)
    assert after["metadata"]["resourceVersion"] == deleted["metadata"]["resourceVersion"]
    assert after["metadata"]["finalizers"] == [KOPF_FINALIZER]
    assert "annotations" not in after["metadata"]
    events = await client.send("GET", "/api/v1/events")
    assert created["metadata"]["uid"] not in {item["involvedObject"].get("uid") for item in events["items"]}


async def test_our_signals_and_tasks_stay_ours(configuration: Configuration, plural: str) -> None:
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, signalled.set)
    try:
        async with watching(configuration, Eyes(), (plural,)) as task:
            ours = asyncio.create_task(asyncio.Event().wait())
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(signalled.wait(), PATIENCE_SECONDS)
            assert not task.done()
        await task
        assert not ours.done(), "Kopf cancels what began after it in its loop"
        ours.cancel()
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def test_cancellation_ends_the_thread_too(configuration: Configuration, plural: str) -> None:
    ready = asyncio.Event()
    never = asyncio.Event()
    task = asyncio.create_task(watch_kinds(configuration, Eyes(), stop=never, ready=ready, kinds=(plural,)))
    await asyncio.wait_for(ready.wait(), PATIENCE_SECONDS)
    assert _kopf_threads()
    task.cancel()
    await asyncio.wait({task}, timeout=PATIENCE_SECONDS)
    assert task.cancelled()
    assert not _kopf_threads(patience=20)


async def test_a_broken_connection_is_made_again(
    client: Client, configuration: Configuration, plural: str
) -> None:
    url = urlsplit(configuration.host)
    assert url.hostname
    assert url.port
    wire, eyes = Wire(url.hostname, url.port), Eyes()
    configuration.host = f"https://127.0.0.1:{await wire.start()}"
    try:
        async with watching(configuration, eyes, (plural,)) as task:
            await client.send("POST", f"{API}/{plural}", body=thing(plural, "one"))
            await eyes.until(lambda: eyes.of("one") != [])
            wire.cut()
            await _merge(client, f"{API}/{plural}/one", CHANGE)
            await eyes.until(lambda: eyes.of("one")[-1] == "MODIFIED")
        await task
    finally:
        await wire.stop()


async def test_it_waits_for_the_kinds_and_ends_with_an_error_when_they_go(
    client: Client, configuration: Configuration, caplog: pytest.LogCaptureFixture
) -> None:
    plural = f"watched{secrets.token_hex(4)}"
    waits = f"the API server does not know {plural}.tenantry.dev yet; apply the folder crds/"
    eyes = Eyes()
    task = asyncio.create_task(watch_kinds(configuration, eyes, stop=asyncio.Event(), kinds=(plural,)))
    await eyes.until(lambda: waits in caplog.text)
    await _apply_crd(client, _crd(plural))
    try:
        await _list_when_served(client, plural)
        await client.send("POST", f"{API}/{plural}", body=thing(plural, "one"))
        await eyes.until(lambda: eyes.of("one") != [])
    finally:
        await client.send("DELETE", f"{CRD_PATH}/{plural}.tenantry.dev")
    with pytest.raises(WatchStopped, match="watching the API server ended: "):
        await asyncio.wait_for(task, 90)
    assert not [record for record in caplog.records if record.exc_info], "a traceback for people"


async def _list_when_served(client: Client, plural: str) -> None:
    """Wait until the API server serves a kind."""
    async with asyncio.timeout(60):
        while True:
            try:
                await client.send("GET", f"{API}/{plural}")
            except LookupError:
                await asyncio.sleep(0.05)
            else:
                return


def _crd(plural: str) -> dict[str, Any]:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.tenantry.dev"},
        "spec": {
            "group": "tenantry.dev",
            "scope": "Cluster",
            "names": {"plural": plural, "kind": plural.title()},
            "versions": [{"name": "v1alpha1", "served": True, "storage": True, "schema": schema}],
        },
    }
