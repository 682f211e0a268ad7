"""Which Secrets the operator's account may see and write: those of one name, as the API server decides."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, cast

import pytest

from tenantry.adapters.kubernetes.client import Client, configure
from tenantry.adapters.kubernetes.kinds import KINDS
from tenantry.adapters.kubernetes.objects import ApiObjects
from tenantry.adapters.kubernetes.reflector import pages
from tenantry.adapters.kubernetes.seen import Seen
from tenantry.desired.children import SHARD_KINDS, Group
from tenantry.desired.fingerprint import fingerprint
from tenantry.desired.owner import Owner
from tenantry.desired.secret import vector_store
from tenantry.domain import names
from tenantry.local import chart
from tenantry.reconcile.enact import apply_group
from tenantry.reconcile.ports import Context, Policy, Refused
from tenantry.runtime.operator import SystemClock
from tests.conftest import Cluster
from tests.integration.conftest import Api, Object

NAMESPACE = "tenant-secretive"
OWNER = Owner("secretive", "1f0c9a2e-7c57-4f6b-9d0b-2b8f4c1c9a10", NAMESPACE)
SECRET = KINDS["Secret"]


@pytest.fixture(scope="module")
async def account(control_plane: Cluster) -> AsyncIterator[Client]:
    """A client with the rights of the chart."""
    client = Client(await configure(control_plane.operator_kubeconfig, None))
    yield client
    await client.close()


@pytest.fixture(scope="module")
async def namespace(api: Api) -> AsyncIterator[str]:
    """A tenant's namespace with Secrets of the tenant's own, such as one that only looks like ours."""
    await api.apply({"kind": "Namespace", "metadata": {"name": NAMESPACE}})
    labels = {names.MANAGED_BY: names.MANAGER}
    for name, marks in (("own", {}), ("alike", labels)):
        metadata = {"name": name, "namespace": NAMESPACE, "labels": marks}
        await api.apply({"kind": "Secret", "metadata": metadata, "stringData": {"key": "x"}})
    yield NAMESPACE
    await api.delete("Namespace", NAMESPACE)


def objects(client: Client) -> ApiObjects:
    return ApiObjects(client, lambda: True, lambda _: None, lambda *_: None)


async def test_the_one_name_is_written_in_every_way(account: Client, namespace: str, api: Api) -> None:
    writes = objects(account)
    wanted = vector_store(OWNER, {"url": "postgresql://one"})
    stored = await writes.apply(wanted)
    assert stored["metadata"]["managedFields"][0]["operation"] == "Apply"
    assert (await writes.apply(vector_store(OWNER, {"url": "postgresql://two"})))["data"] != stored["data"]
    await api.patch("Secret", names.VECTOR_STORE, {"data": {"surplus": "eA=="}}, namespace)
    found = await writes.get("Secret", names.VECTOR_STORE, namespace)
    assert found is not None
    assert "surplus" in found["data"]
    kept = {name: found["metadata"][name] for name in ("uid", "resourceVersion")}
    replaced = await writes.replace({**wanted, "metadata": {**wanted["metadata"], **kept}})
    assert replaced["data"] == wanted["data"]
    await writes.delete("Secret", names.VECTOR_STORE, namespace, uid=replaced["metadata"]["uid"])
    assert await api.get("Secret", names.VECTOR_STORE, namespace) is None


class Nobody:
    """Watches no metrics."""

    def repaired(self, kind: str) -> None: ...


async def brought_about(client: Client, manifest: Object, api: Api) -> Object:
    """Have the operator bring the Secret to what it should be, from how it is now; return how it is then."""
    seen = Seen("free", lambda *_: None)
    gone = partial(seen.gone, by_us=True)
    writes = ApiObjects(client, lambda: True, seen.wrote, gone, seen.writing)
    found = await api.get("Secret", names.VECTOR_STORE, NAMESPACE)
    if found is not None:
        seen.saw({**found, "kind": "Secret"})
    nothing: Any = None
    cx = Context(writes, seen, nothing, SystemClock(), Policy(), cast("Any", Nobody()))
    group = Group(((manifest,),), SHARD_KINDS)
    assert await apply_group(group, seen.children(NAMESPACE), cx, []) is None
    return await api.get("Secret", names.VECTOR_STORE, NAMESPACE) or {}


CHANGED: dict[str, Object] = {
    "new data": {"data": {"url": "eA=="}},
    "more data": {"data": {"surplus": "eA=="}},
    "no label": {"metadata": {"labels": None}},
    "immutable": {"immutable": True},
    "immutable, with other data": {"immutable": True, "data": {"url": "eA=="}},
}


@pytest.mark.parametrize("how", CHANGED)
async def test_what_somebody_has_changed_is_put_right_with_these_rights(
    account: Client, namespace: str, api: Api, how: str
) -> None:
    wanted = vector_store(OWNER, {"url": "postgresql://one"})
    before = await brought_about(account, wanted, api)
    changed = await api.patch("Secret", names.VECTOR_STORE, CHANGED[how], namespace)
    assert changed["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]
    found = await brought_about(account, wanted, api)
    assert fingerprint({**found, "kind": "Secret"}) == fingerprint(wanted)
    was_fixed = "immutable" in how
    assert (found["metadata"]["uid"] == before["metadata"]["uid"]) is not was_fixed


async def test_one_of_another_type_that_somebody_made_in_its_place_is_made_anew(
    account: Client, namespace: str, api: Api
) -> None:
    await api.delete("Secret", names.VECTOR_STORE, namespace)
    metadata = {"name": names.VECTOR_STORE, "namespace": namespace}
    pair = {"username": "x", "password": "x"}
    other = {"kind": "Secret", "metadata": metadata, "type": "kubernetes.io/basic-auth", "stringData": pair}
    await api.apply(other)
    wanted = vector_store(OWNER, {"url": "postgresql://one"})
    found = await brought_about(account, wanted, api)
    assert fingerprint({**found, "kind": "Secret"}) == fingerprint(wanted)


async def test_a_list_of_all_namespaces_shows_that_name_only(account: Client, namespace: str) -> None:
    await objects(account).apply(vector_store(OWNER, {}))
    found = [item["metadata"]["name"] async for page, _ in pages(account, SECRET) for item in page]
    assert set(found) == {names.VECTOR_STORE}
    query = {"watch": "true", **SECRET.selectors}
    async with account.stream(SECRET.path(), query, 10) as events:
        event = await anext(aiter(events))
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", names.VECTOR_STORE)


ELSEWHERE: dict[str, Callable[[Client], Awaitable[object]]] = {
    "list all": lambda client: client.send("GET", SECRET.path()),
    "list by label": lambda client: client.send(
        "GET", SECRET.path(), query={"labelSelector": SECRET.selector}
    ),
    "list another name": lambda client: client.send(
        "GET", SECRET.path(), query={"fieldSelector": "metadata.name=own"}
    ),
    "list all but one": lambda client: client.send(
        "GET", SECRET.path(), query={"fieldSelector": f"metadata.name!={names.VECTOR_STORE}"}
    ),
    "list a namespace": lambda client: client.send("GET", SECRET.path(namespace=NAMESPACE)),
    "list its own namespace": lambda client: client.send("GET", SECRET.path(namespace=chart.NAMESPACE)),
    "get another": lambda client: objects(client).get("Secret", "own", NAMESPACE),
    "get one of another namespace": lambda client: objects(client).get("Secret", "x", "kube-system"),
    "apply another": lambda client: objects(client).apply(named("own")),
    "apply a new one": lambda client: objects(client).apply(named("new")),
    "create": lambda client: objects(client).create(named("new")),
    "create that name": lambda client: objects(client).create(named(names.VECTOR_STORE)),
    "replace another": lambda client: objects(client).replace(named("alike")),
    "delete another": lambda client: objects(client).delete("Secret", "own", NAMESPACE, uid="x"),
    "write in its own namespace": lambda client: objects(client).apply(named("new", chart.NAMESPACE)),
}


def named(name: str, namespace: str = NAMESPACE) -> Object:
    made = vector_store(OWNER, {"url": "postgresql://"})
    return {**made, "metadata": {**made["metadata"], "name": name, "namespace": namespace}}


@pytest.mark.parametrize("attempt", ELSEWHERE)
async def test_no_other_secret_is_seen_or_written(account: Client, namespace: str, attempt: str) -> None:
    with pytest.raises(Refused, match=r'cannot .* resource "secrets"'):
        await ELSEWHERE[attempt](account)


async def test_of_its_own_namespace_it_reads_what_it_is_told_the_name_of(account: Client, api: Api) -> None:
    metadata = {"name": "shard-z", "namespace": chart.NAMESPACE}
    await api.apply({"kind": "Secret", "metadata": metadata, "stringData": {"dsn": "postgresql://"}})
    found = await objects(account).get("Secret", "shard-z", chart.NAMESPACE)
    assert found is not None
    assert found["data"]
    assert await objects(account).get("Secret", "not-there", chart.NAMESPACE) is None
    await api.delete("Secret", "shard-z", chart.NAMESPACE)
