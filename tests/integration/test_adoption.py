"""Namespaces of somebody else: not touched, adopted by consent, released; and two tenants that want one."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tenantry.adapters.kubernetes.kinds import OURS
from tenantry.domain import names
from tests.integration.conftest import Api, Object, condition, gone, in_phase, is_ready, is_stalled, tenant
from tests.integration.mirror import NAMESPACED
from tests.integration.mutations import content

pytestmark = pytest.mark.usefixtures("operator")

THEIRS: Object = {
    "labels": {"team": "search", "istio-injection": "enabled"},
    "annotations": {"contact": "search@acme.example"},
}


async def foreign(api: Api, namespace: str, marked_for: str = "") -> Object:
    """Make a namespace of somebody else, with an object in it; return it."""
    marks = {names.ADOPTABLE_BY: marked_for} if marked_for else {}
    metadata = {"name": namespace, **THEIRS, "annotations": {**THEIRS["annotations"], **marks}}
    made = await api.apply({"kind": "Namespace", "metadata": metadata})
    await api.create(
        "ConfigMap", {"metadata": {"name": "theirs", "namespace": namespace}, "data": {"a": "1"}}
    )
    return made


async def ours(api: Api, namespace: str) -> list[str]:
    """Return the names of our children in a namespace."""
    return [
        f"{kind}/{item['metadata']['name']}"
        for kind in NAMESPACED
        for item in await api.list(kind, namespace, OURS)
    ]


async def untouched(api: Api, before: Object) -> None:
    """Assert that nobody has written to a namespace, or made anything in it."""
    name = before["metadata"]["name"]
    now = await api.get("Namespace", name) or {}
    assert now["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert await ours(api, name) == []


async def test_a_namespace_of_somebody_else_is_not_touched(api: Api, name: str) -> None:
    before = await foreign(api, f"tenant-{name}")
    await api.apply(tenant(name, plan="pro"))
    found = await api.until("Tenant", name, is_stalled("NamespaceNotOurs"))
    assert found["status"]["phase"] == "Pending"
    message = condition(found, "Stalled")["message"]
    for word in (f"tenant-{name}", "spec.namespace.adoption", f"{names.ADOPTABLE_BY}={name}"):
        assert word in message
    await untouched(api, before)
    # The mark alone is not enough: the tenant must want to adopt, too.
    await api.patch("Namespace", f"tenant-{name}", {"metadata": {"annotations": {names.ADOPTABLE_BY: name}}})
    await api.patch("Tenant", name, {"spec": {"displayName": "again"}})
    await api.until("Tenant", name, is_stalled("NamespaceNotOurs"))
    assert await ours(api, f"tenant-{name}") == []
    # As soon as it is out of the way, the tenant has its own.
    await api.delete("Namespace", f"tenant-{name}")
    await api.until("Tenant", name, is_ready)
    assert await api.get("ConfigMap", "theirs", f"tenant-{name}") is None


async def test_adoption_waits_for_the_right_mark(api: Api, name: str) -> None:
    namespace = f"legacy-{name}"
    before = await foreign(api, namespace, marked_for="somebody-else")
    spec = {"namespace": {"name": namespace, "adoption": "IfMarked", "labels": {"tier": "gold"}}}
    await api.apply(tenant(name, plan="pro", **spec))
    found = await api.until("Tenant", name, is_stalled("NamespaceNotMarked"))
    assert "marked for somebody-else" in condition(found, "Stalled")["message"]
    await untouched(api, before)
    before = await api.patch(
        "Namespace", namespace, {"metadata": {"annotations": {names.ADOPTABLE_BY: None}}}
    )
    await api.until(
        "Tenant",
        name,
        lambda found: "is not marked" in (condition(found, "Stalled") or {}).get("message", ""),
    )
    await untouched(api, before)

    # The mark, set later, moves it on by itself.
    await api.patch("Namespace", namespace, {"metadata": {"annotations": {names.ADOPTABLE_BY: name}}})
    await api.until("Tenant", name, is_ready)
    now = await api.get("Namespace", namespace) or {}
    assert THEIRS["labels"].items() <= now["metadata"]["labels"].items()
    assert THEIRS["annotations"].items() <= now["metadata"]["annotations"].items()
    assert now["metadata"]["labels"]["tier"] == "gold"
    assert (await api.get("ConfigMap", "theirs", namespace) or {})["data"] == {"a": "1"}
    assert "NetworkPolicy/tenantry-default-deny" in await ours(api, namespace)


async def adopted(api: Api, name: str, **spec: Any) -> tuple[str, Object]:
    """Have a namespace adopted; return its name and how it was before."""
    namespace = f"legacy-{name}"
    before = await foreign(api, namespace, marked_for=name)
    chosen = {"name": namespace, "adoption": "IfMarked", "labels": {"tier": "gold"}}
    await api.apply(tenant(name, plan="pro", namespace=chosen, **spec))
    await api.until("Tenant", name, is_ready)
    return namespace, before


async def released(api: Api, before: Object) -> None:
    """Assert that a namespace is its owner's again, as it was."""
    namespace = before["metadata"]["name"]
    now = await api.get("Namespace", namespace)
    assert now is not None
    assert now["metadata"]["uid"] == before["metadata"]["uid"]
    assert content(now) == content(before)
    assert await ours(api, namespace) == []
    assert (await api.get("ConfigMap", "theirs", namespace) or {})["data"] == {"a": "1"}


async def test_an_adopted_namespace_is_released_on_delete(api: Api, name: str) -> None:
    _, before = await adopted(api, name, deletionPolicy="Delete")
    await api.delete("Tenant", name)
    await api.until("Tenant", name, gone)
    await released(api, before)


def from_(origin: str) -> Any:
    return lambda found: found["metadata"].get("annotations", {}).get(names.ORIGIN) == origin


async def test_an_adopted_namespace_that_its_owner_replaced_is_still_released(api: Api, name: str) -> None:
    namespace, before = await adopted(api, name, deletionPolicy="Delete")
    await api.patch("Tenant", name, {"spec": {"namespace": {"adoption": "Never"}}})
    await api.until("Tenant", name, is_ready)
    await api.replace("Namespace", {"kind": "Namespace", "metadata": {"name": namespace, **THEIRS}})
    await api.until("Namespace", namespace, from_("adopted"))
    await api.until("Tenant", name, is_ready)
    await api.delete("Tenant", name)
    await api.until("Tenant", name, gone)
    del before["metadata"]["annotations"][names.ADOPTABLE_BY]
    await released(api, before)


async def test_a_namespace_that_we_made_is_known_as_ours_without_its_marks(api: Api, name: str) -> None:
    namespace = f"tenant-{name}"
    await api.apply(tenant(name, plan="pro", deletionPolicy="Delete"))
    await api.until("Tenant", name, is_ready)
    await api.replace("Namespace", {"kind": "Namespace", "metadata": {"name": namespace}})
    await api.until("Namespace", namespace, from_("created"))
    await api.delete("Tenant", name)
    await api.until("Namespace", namespace, gone)


@pytest.mark.parametrize("how", ["the archive is deleted", "retention ends"])
async def test_an_adopted_namespace_is_released_after_retention(api: Api, name: str, how: str) -> None:
    namespace, before = await adopted(api, name)
    found = await api.get("Tenant", name) or {}
    archive = names.archive_name(name, found["metadata"]["uid"])
    await api.delete("Tenant", name)
    await api.until("Tenant", name, gone)
    await api.until("TenantArchive", archive, in_phase("Kept"))
    # With its mark of origin lost it is still not ours to delete.
    stripped = {"metadata": {"annotations": {names.ORIGIN: None}}}
    await api.patch("Namespace", namespace, stripped)
    await api.until(
        "Namespace", namespace, lambda found: found["metadata"]["annotations"].get(names.ORIGIN) == "adopted"
    )
    if how == "retention ends":
        past = (datetime.now(UTC) - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        await api.patch("TenantArchive", archive, {"spec": {"purgeAfter": past}})
        await api.until("TenantArchive", archive, in_phase("Purged"))
    else:
        await api.delete("TenantArchive", archive)
        await api.until("TenantArchive", archive, gone)
    await released(api, before)


async def test_a_terminating_namespace_is_waited_for(api: Api, name: str) -> None:
    namespace = f"tenant-{name}"
    await foreign(api, namespace)
    holder = {"name": "holder", "namespace": namespace, "finalizers": ["hold.example/backup"]}
    await api.create("ConfigMap", {"metadata": holder})
    await api.delete("Namespace", namespace)
    await api.apply(tenant(name, plan="pro"))

    def told(found: Object | None) -> bool:
        message = (condition(found, "NamespaceReady") or {}).get("message", "")
        return namespace in message and "hold.example/backup" in message

    found = await api.until("Tenant", name, told)
    assert condition(found, "Reconciling")["reason"] == "NamespaceTerminating"
    assert condition(found, "Stalled") is None
    assert found["status"]["phase"] == "Provisioning"
    uid = (await api.get("Namespace", namespace) or {})["metadata"]["uid"]
    await api.patch("ConfigMap", "holder", {"metadata": {"finalizers": None}}, namespace)
    await api.until("Tenant", name, is_ready)
    assert (await api.get("Namespace", namespace) or {})["metadata"]["uid"] != uid


async def test_of_two_that_want_one_namespace_the_older_wins(api: Api, name: str) -> None:
    namespace = f"shared-{name}"
    older, younger = f"{name}-z", f"{name}-a"
    wanted = {"namespace": {"name": namespace}, "deletionPolicy": "Delete", "plan": "pro"}
    await api.apply(tenant(older, **wanted))
    await api.until("Tenant", older, is_ready)
    await api.apply(tenant(younger, **wanted))
    found = await api.until("Tenant", younger, is_stalled("NamespaceClaimed"))
    assert f"Tenant {older}" in condition(found, "Stalled")["message"]
    assert "namespace" not in found["status"]
    now = await api.get("Namespace", namespace) or {}
    assert now["metadata"]["labels"][names.TENANT] == older

    await api.delete("Tenant", older)
    await api.until("Tenant", younger, is_ready)
    now = await api.get("Namespace", namespace) or {}
    assert now["metadata"]["labels"][names.TENANT] == younger
    assert is_ready(await api.get("Tenant", younger))
    await api.delete("Tenant", younger)


async def test_two_created_at_once_do_not_share(api: Api, name: str) -> None:
    namespace = f"raced-{name}"
    wanted = {"namespace": {"name": namespace}, "deletionPolicy": "Delete", "plan": "pro"}
    rivals = [f"{name}-{letter}" for letter in "bca"]
    await asyncio.gather(*(api.apply(tenant(each, **wanted)) for each in rivals))
    settled = await asyncio.gather(
        *(
            api.until("Tenant", each, lambda found: is_ready(found) or is_stalled("NamespaceClaimed")(found))
            for each in rivals
        )
    )
    winners = [item["metadata"]["name"] for item in settled if is_ready(item)]
    now = await api.get("Namespace", namespace) or {}
    assert winners == [now["metadata"]["labels"][names.TENANT]]
    await asyncio.gather(*(api.delete("Tenant", each) for each in rivals))
