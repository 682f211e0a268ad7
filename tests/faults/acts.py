"""What users do to tenants on a real cluster, as a table: a controller that is added later adds its own flows here.

Every tenant that begins alike and is acted upon alike must look alike in the end, whatever went wrong meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tenantry.domain import names
from tests.faults.view import Object, View
from tests.integration.conftest import Api, condition, is_ready, tenant

SPEC: dict[str, Any] = {
    "owner": {"email": "ops@customer.example"},
    "plan": "pro",
    "members": [{"kind": "User", "name": "ann@customer.example", "role": "owner"}],
}
PATIENCE = 60.0
"""Seconds in which any act is answered where nothing is amiss, on a machine that has much else to do."""

Step = Callable[[Api, View, str], Awaitable[None]]


@dataclass(frozen=True)
class Act:
    """`prepare` brings a tenant to where the act begins, `begin` is the act, `done` tells when it is answered.

    writes: the kinds (plural) that the operator must write to answer. told_on: the kind whose conditions tell.
    ends: the namespace goes, and all that is in it. writers: how many keys or steps write the same object.
    """

    prepare: Step
    begin: Step
    done: Callable[[View, str], bool]
    writes: frozenset[str]
    told_on: str = "Tenant"
    ends: bool = False
    writers: int = 1


def archive_of(view: View, name: str) -> Object | None:
    """Return the archive of a tenant."""
    return next((item for item in view.of(name) if item["kind"] == "TenantArchive"), None)


def phase(item: Object | None) -> str:
    """Return the phase of an object, empty where it has none."""
    return str(((item or {}).get("status") or {}).get("phase", ""))


def told(item: Object | None, reason: str) -> str:
    """Return the message of Ready where an object says that it is tried again for that reason, else an empty one."""
    ready, again = condition(item, "Ready"), condition(item, "Reconciling")
    if ready is None or again is None:
        return ""
    same = (ready["status"], ready["reason"], again["status"], again["reason"])
    return str(ready["message"]) if same == ("False", reason, "True", reason) else ""


def _ready(view: View, name: str) -> bool:
    return is_ready(view.get("Tenant", name))


def _revision(view: View, name: str) -> int | None:
    return ((view.get("Tenant", name) or {}).get("status") or {}).get("configRevision")


async def _nothing(api: Api, view: View, name: str) -> None:
    """Begin with nothing."""


async def _create(api: Api, view: View, name: str) -> None:
    await api.apply(tenant(name, **SPEC))


async def _be_ready(api: Api, view: View, name: str, **spec: Any) -> None:
    await api.apply(tenant(name, **SPEC | spec))
    await view.until(lambda: _ready(view, name), f"Tenant {name} is Ready", PATIENCE, name)


async def _have_a_plan(api: Api, view: View, name: str) -> None:
    pro = view.get("Plan", "pro") or {}
    await api.apply({"kind": "Plan", "metadata": {"name": name}, "spec": pro["spec"]})
    await _be_ready(api, view, name, plan=name)


async def _edit_the_plan(api: Api, view: View, name: str) -> None:
    spec = {
        "resources": {"quota": {"pods": "7"}},
        "network": {"egress": {"internetPorts": [8443]}},
        "retrieval": {"topK": 9},
    }
    await api.patch("Plan", name, {"spec": spec})


async def _suspend(api: Api, view: View, name: str) -> None:
    await api.patch("Tenant", name, {"spec": {"suspended": True}})


async def _drift(api: Api, view: View, name: str) -> None:
    namespace = f"tenant-{name}"
    mallory = [{"kind": "User", "name": "mallory", "apiGroup": "rbac.authorization.k8s.io"}]
    policy = view.get("NetworkPolicy", "tenantry-egress", namespace) or {}
    *drifted, _ = await asyncio.gather(
        api.patch("ResourceQuota", names.QUOTA, {"spec": {"hard": {"pods": "99"}}}, namespace),
        api.patch("RoleBinding", "tenantry-viewer", {"subjects": mallory}, namespace),
        api.patch("ConfigMap", names.CONFIG_MAP, {"data": {"config.json": "{}"}}, namespace),
        api.delete("NetworkPolicy", "tenantry-egress", namespace),
    )
    versions = [int(item["metadata"]["resourceVersion"]) for item in drifted if item is not None]
    view.drifted[name] = (versions, policy["metadata"]["uid"])


def _undrifted(view: View, name: str) -> bool:
    """Return whether all is as it was, and was not so before."""
    namespace = f"tenant-{name}"
    quota = view.get("ResourceQuota", names.QUOTA, namespace)
    binding = view.get("RoleBinding", "tenantry-viewer", namespace)
    read = view.get("ConfigMap", names.CONFIG_MAP, namespace)
    policy = view.get("NetworkPolicy", "tenantry-egress", namespace)
    if quota is None or binding is None or read is None or policy is None or name not in view.drifted:
        return False
    versions, uid = view.drifted[name]
    now = [int(item["metadata"]["resourceVersion"]) for item in (quota, binding, read)]
    return (
        quota["spec"]["hard"]["pods"] == "20"
        and not binding.get("subjects")
        and read["data"]["config.json"] != "{}"
        and policy["metadata"]["uid"] != uid
        and all(later > version for later, version in zip(now, versions, strict=True))
    )


async def _delete(api: Api, view: View, name: str) -> None:
    await api.delete("Tenant", name)


async def _be_archived(api: Api, view: View, name: str) -> None:
    await _be_ready(api, view, name)
    await _delete(api, view, name)
    await view.until(lambda: _archived(view, name), f"Tenant {name} is archived", PATIENCE, name)


def _archived(view: View, name: str) -> bool:
    return view.get("Tenant", name) is None and phase(archive_of(view, name)) == "Kept"


async def _purge(api: Api, view: View, name: str) -> None:
    archive = archive_of(view, name)
    assert archive is not None
    await api.delete("TenantArchive", archive["metadata"]["name"])


async def _be_removable(api: Api, view: View, name: str) -> None:
    await _be_ready(api, view, name, deletionPolicy="Delete")


def _gone(view: View, name: str) -> bool:
    return not view.of(name)


EVERYTHING = frozenset(
    {
        *("tenants", "namespaces", "resourcequotas", "limitranges", "networkpolicies", "serviceaccounts"),
        *("rolebindings", "controllerrevisions", "configmaps"),
    }
)

ACTS: dict[str, Act] = {
    "onboarding": Act(_nothing, _create, _ready, EVERYTHING),
    "plan edit": Act(
        _have_a_plan,
        _edit_the_plan,
        lambda view, name: _ready(view, name) and _revision(view, name) == 2,
        frozenset({"resourcequotas", "networkpolicies", "controllerrevisions", "configmaps"}),
    ),
    "suspension": Act(
        _be_ready,
        _suspend,
        lambda view, name: _ready(view, name) and phase(view.get("Tenant", name)) == "Suspended",
        frozenset({"resourcequotas", "networkpolicies", "rolebindings"}),
    ),
    "drift": Act(
        _be_ready,
        _drift,
        _undrifted,
        frozenset({"resourcequotas", "networkpolicies", "rolebindings", "configmaps"}),
    ),
    "deletion Retain": Act(
        _be_ready,
        _delete,
        _archived,
        frozenset({"tenants", "tenantarchives", "resourcequotas", "networkpolicies", "rolebindings"}),
    ),
    "restore": Act(
        _be_archived,
        _create,
        lambda view, name: _ready(view, name) and phase(archive_of(view, name)) == "Restored",
        frozenset({"tenants", "namespaces", "resourcequotas", "networkpolicies", "rolebindings"}),
    ),
    "purge": Act(
        _be_archived, _purge, _gone, frozenset({"tenantarchives", "namespaces"}), "TenantArchive", True
    ),
    "deletion Delete": Act(_be_removable, _delete, _gone, frozenset({"tenants", "namespaces"}), ends=True),
}
