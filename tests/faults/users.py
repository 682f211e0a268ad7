"""Users of a real API server: what they want of each tenant, what they do, and what a fresh tenant would have."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from tenantry.domain import names
from tenantry.reconcile.ports import Refused
from tests.faults.acts import archive_of, phase
from tests.faults.view import UID, Object, View
from tests.integration.conftest import Api, condition, is_ready, is_stalled, tenant
from tests.integration.plan_loss import lose_plan

_numbers = itertools.count(1)

PATIENCE = 60.0
"""Seconds in which any act is answered; nothing is measured here."""

TENANTS = ("acme", "bolt", "coil")
OWNER = {"email": "ops@customer.example"}
STRANGER = {"email": "new@stranger.example"}
ANN = {"kind": "User", "name": "ann@customer.example", "role": "owner"}

EDITS: list[Object] = [
    {"members": [ANN, {"kind": "Group", "name": "developers", "role": "editor"}]},
    {"members": [{"kind": "ServiceAccount", "name": "dashboard", "role": "viewer"}]},
    {"plan": "enterprise"},
    {"plan": "free", "overrides": {}},
    {"plan": "pro", "overrides": {"retrieval": {"topK": 8}, "model": {"name": "gpt-4o"}}},
    {"suspended": True},
    {"suspended": False},
    {"namespace": {"labels": {"team": "search"}}},
    {"namespace": {"labels": {"shop.example/tier": "1"}}},
    {"displayName": "A Name", "retentionDays": 1},
]
REFUSED: list[tuple[Object, str]] = [
    ({"namespace": {"name": "elsewhere"}}, "spec.namespace.name cannot be changed"),
    ({"namespace": {"labels": {"tenantry.dev/tenant": "rival"}}}, "labels must not use keys of"),
    ({"members": [{**ANN, "role": "king"}]}, "role"),
    ({"members": [{**ANN, "name": "system:admin"}]}, "name must not start with 'system:'"),
    ({"plan": "No Plan"}, "must be a name of a-z"),
    ({"retentionDays": -1}, "retentionDays"),
    ({"deletionPolicy": "Keep"}, "deletionPolicy"),
    ({"owner": {"email": "nobody"}}, "email must be an address"),
]
STALLED: list[tuple[Object, str]] = [
    ({"plan": "free", "overrides": {"model": {"maxTokens": 9}}}, "OverrideNotAllowed"),
    ({"configRevision": 999}, "RevisionNotFound"),
]
PLAN_EDITS: list[Object] = [
    {"retrieval": {"topK": 9}},
    {"resources": {"quota": {"pods": "7"}}},
    {"network": {"egress": {"internetPorts": [8443]}}},
    {"podSecurity": "baseline", "priority": "high"},
    {"overridable": ["model.name", "retrieval.topK"]},
]
BY_HAND: dict[str, Object] = {
    "ResourceQuota": {"spec": {"hard": {"pods": "999", "secrets": "1"}}},
    "LimitRange": {"spec": {"limits": []}},
    "NetworkPolicy": {"spec": {"ingress": [{}], "policyTypes": ["Ingress"]}},
    "RoleBinding": {"subjects": []},
    "ConfigMap": {"data": {"config.json": "{}", "more": "x"}},
    "ServiceAccount": {"metadata": {"annotations": {names.TENANT_UID: None}}},
}


def picture(view: View, name: str) -> Object:
    """Return a Tenant's conditions, its namespace's marks and all of ours in it, the same for every name and UID.

    Without revisions: how many a tenant has had is its own past.
    """
    found: Object = {}
    for item in view.of(name):
        kind, metadata = item["kind"], item["metadata"]
        called = f"{kind}/{metadata['name']}"
        labels = {**metadata.get("labels", {})}
        if kind == "Tenant":
            found[called] = {key: item.get("status", {}).get(key) for key in ("phase", "plan", "namespace")}
            for one in item.get("status", {}).get("conditions", []):
                found[called][one["type"]] = [one["status"], one["reason"], one["message"]]
        elif kind == "Namespace":
            marks = {
                key: value for key, value in metadata.get("annotations", {}).items() if "tenantry" in key
            }
            marks.pop(names.ADOPTABLE_BY, None)
            labels.pop("own", None)
            found[called] = [labels, marks, "deletionTimestamp" in metadata]
        elif is_ours(item) and kind != "ControllerRevision":
            left_out = ("metadata", "status", "apiVersion")
            content = {key: value for key, value in item.items() if key not in left_out}
            if kind == "ConfigMap":
                content["data"] = {
                    **content["data"],
                    "revision": "",
                    **json.loads(content["data"]["config.json"]),
                }
                del content["data"]["config.json"], content["data"]["revision"]
            found[called] = [labels, metadata.get("annotations"), content, "deletionTimestamp" in metadata]
    text = re.sub(rf"\b{re.escape(name)}\b", "NAME", json.dumps(found, sort_keys=True))
    text = re.sub(r"revision \d+", "revision N", UID.sub("UID", text))
    normal: Object = json.loads(text)
    return normal


def is_ours(item: Object) -> bool:
    """Return whether an object in a namespace carries the operator's label."""
    metadata = item["metadata"]
    return "namespace" in metadata and metadata.get("labels", {}).get(names.MANAGED_BY) == names.MANAGER


class Users:
    """What users want: the spec of each Tenant. Each act ends when what it touches is as it must be."""

    def __init__(self, api: Api, view: View, seed: int) -> None:
        self.api = api
        self.view = view
        self.random = random.Random(seed)
        self.specs: dict[str, Object] = {}

    async def apply(self, name: str, **fields: Any) -> Object:
        """Apply a Tenant as a whole, with some fields of its spec changed."""
        namespace = {**self.specs.get(name, {}).get("namespace", {}), **fields.pop("namespace", {})}
        spec = {"owner": OWNER, "plan": "pro", **self.specs.get(name, {}), **fields}
        spec["namespace"] = namespace
        stored = await self.api.apply(tenant(name, **spec))
        self.specs[name] = spec
        return await self.seen(stored)

    async def seen(self, stored: Object) -> Object:
        """Wait until the view has what has just been stored, or what came after it."""
        metadata = stored["metadata"]
        version = int(metadata["resourceVersion"])

        def known() -> bool:
            present = self.view.get(stored["kind"], metadata["name"], metadata.get("namespace", ""))
            return present is None or int(present["metadata"]["resourceVersion"]) >= version

        await self.view.until(known, f"the watch tells of {metadata['name']}", PATIENCE)
        return stored

    async def told(self, name: str, holds: Callable[[Object | None], Any], what: str) -> None:
        """Wait for what a Tenant says."""
        await self.view.until(
            lambda: holds(self.view.get("Tenant", name)), f"Tenant {name} is {what}", PATIENCE, name
        )

    async def gone(self, kind: str, name: str) -> None:
        await self.view.until(lambda: self.view.get(kind, name) is None, f"{kind} {name} is gone", PATIENCE)

    async def leave(self, name: str) -> None:
        """Delete a Tenant with all that it has."""
        await self.apply(name, deletionPolicy="Delete")
        await self.api.delete("Tenant", name)
        await self.gone("Tenant", name)

    async def vacate(self, name: str) -> None:
        """Leave, and see the namespace gone: an adopted one is given back, so its owner removes it."""
        await self.leave(name)
        if self.specs[name]["namespace"].get("adoption"):
            await self.api.delete("Namespace", f"tenant-{name}")
        await self.gone("Namespace", f"tenant-{name}")

    async def like_fresh(self, name: str) -> None:
        """Wait until a tenant is as another one that has just been made with its spec."""
        twin = f"twin-{next(_numbers)}"
        spec = self.specs[name]
        if spec["namespace"].get("adoption"):
            await self.make_namespace(twin)
        # What becomes of it in the end is no part of the picture.
        await self.api.apply(tenant(twin, **{**spec, "deletionPolicy": "Delete"}))
        await self.told(twin, is_ready, "Ready")

        def alike() -> bool:
            return is_ready(self.view.get("Tenant", name)) and picture(self.view, name) == picture(
                self.view, twin
            )

        try:
            await self.view.until(alike, f"Tenant {name} is as Tenant {twin}", PATIENCE)
        except AssertionError:
            assert picture(self.view, name) == picture(self.view, twin)
            raise
        await self.api.delete("Tenant", twin)

    async def make_namespace(self, name: str) -> None:
        """Make a namespace of a user's own that a tenant may adopt, with something in it."""
        place = f"tenant-{name}"
        marks = {"labels": {"own": "yes"}, "annotations": {names.ADOPTABLE_BY: name}}
        await self.api.apply({"kind": "Namespace", "metadata": {"name": place, **marks}})
        metadata = {"name": "settings", "namespace": place}
        await self.api.apply({"kind": "ConfigMap", "metadata": metadata, "data": {"colour": "blue"}}, "helm")

    # --- acts ---------------------------------------------------------------------------------------------------

    async def edits(self, name: str) -> None:
        """A valid edit."""
        await self.apply(name, **self.random.choice(EDITS))

    async def makes_a_mistake(self, name: str) -> None:
        """One that the API server refuses."""
        fields, words = self.random.choice(REFUSED)
        before = self.specs[name]
        with pytest.raises(Refused, match=re.escape(words)):
            await self.apply(name, **fields)
        assert self.specs[name] is before

    async def makes_a_mistake_that_only_the_operator_sees(self, name: str) -> None:
        """What was good stays, the user is told, and corrects it."""
        before, application = self.specs[name], self.application(name)
        fields, reason = self.random.choice(STALLED)
        await self.apply(name, **fields)
        await self.told(name, is_stalled(reason), f"Stalled, {reason}")
        assert self.application(name) == application
        self.specs[name] = before
        await self.apply(name)

    def application(self, name: str) -> Object:
        """Return what the tenant's application reads of its model and retrieval."""
        stored = self.view.get("ConfigMap", names.CONFIG_MAP, f"tenant-{name}")
        assert stored is not None
        read = json.loads(stored["data"]["config.json"])
        return {part: read[part] for part in ("model", "retrieval")}

    async def meddles_with_a_child(self, name: str) -> None:
        """Deletes or edits one by hand."""
        place = f"tenant-{name}"
        there = sorted(
            (item["kind"], item["metadata"]["name"])
            for item in self.view.of(name)
            if is_ours(item) and item["kind"] in BY_HAND
        )
        kind, child = self.random.choice(there)
        if self.random.random() < 0.4:
            before = self.view.get(kind, child, place)
            assert before is not None
            await self.api.delete(kind, child, place)
            uid = before["metadata"]["uid"]

            def another() -> bool:
                present = self.view.get(kind, child, place)
                return present is None or present["metadata"]["uid"] != uid

            await self.view.until(another, f"{kind} {child} of {name} is gone or another", PATIENCE)
        else:
            # A quota for some priority classes only takes no count of ConfigMaps: then nothing has happened.
            with suppress(Refused):
                await self.seen({"kind": kind, **await self.api.patch(kind, child, BY_HAND[kind], place)})

    async def meddles_with_the_namespace(self, name: str) -> None:
        """Takes a mark of ours off, and opens Pod Security."""
        labels = {names.TENANT: None, f"{names.POD_SECURITY}enforce": "privileged"}
        stored = await self.api.patch("Namespace", f"tenant-{name}", {"metadata": {"labels": labels}})
        await self.seen({"kind": "Namespace", **stored})

    async def deletes_the_namespace(self, name: str) -> None:
        """It is made anew, with all that is to be in it."""
        before = self.view.get("Namespace", f"tenant-{name}")
        assert before is not None
        await self.api.delete("Namespace", f"tenant-{name}")

        def another() -> bool:
            present = self.view.get("Namespace", f"tenant-{name}")
            return present is not None and present["metadata"]["uid"] != before["metadata"]["uid"]

        self.specs[name]["namespace"].pop("adoption", None)
        await self.view.until(another, f"the namespace of {name} is another", PATIENCE)

    async def edits_its_plan(self, name: str) -> None:
        """All that are on it get it."""
        plan = self.specs[name]["plan"]
        stored = await self.api.patch("Plan", plan, {"spec": self.random.choice(PLAN_EDITS)})
        await self.seen({"kind": "Plan", **stored})

    async def loses_its_plan(self, name: str) -> None:
        """It is not deleted while somebody is on it; lost all the same, everything stays until it is back."""
        plan = self.specs[name]["plan"]
        lost, application = await self.api.get("Plan", plan), self.application(name)
        assert lost is not None

        def counted() -> bool:
            return bool(((self.view.get("Plan", plan) or {}).get("status") or {}).get("tenants"))

        await self.view.until(counted, f"the tenants of Plan {plan} are counted", PATIENCE)
        with pytest.raises(Refused, match=plan):
            await self.api.delete("Plan", plan)
        await lose_plan(self.api, plan)

        def missing(item: Object | None) -> bool:
            ready = condition(item, "Ready")
            return ready is not None and (ready["status"], ready["reason"]) == ("False", "PlanNotFound")

        await self.told(name, missing, "without a plan")
        assert self.application(name) == application
        spec = {**lost["spec"], **self.random.choice(PLAN_EDITS)}
        await self.api.apply({"kind": "Plan", "metadata": {"name": plan}, "spec": spec})

    async def leaves_and_comes_back(self, name: str) -> None:
        """With nothing kept; its namespace is another one then."""
        await self.vacate(name)
        spec = self.specs.pop(name)
        await self.apply(name, **{**spec, "namespace": {}, "deletionPolicy": "Retain"})

    async def is_restored(self, name: str) -> None:
        """A stranger of that name gets nothing, until it is allowed; the owner gets it back at once."""
        await self.apply(name, deletionPolicy="Retain", owner=OWNER)
        await self.api.delete("Tenant", name)
        await self.gone("Tenant", name)
        archive = await self.view.until(
            lambda: (it := archive_of(self.view, name)) and phase(it) == "Kept" and it,
            "it is kept",
            PATIENCE,
            name,
        )
        await self.apply(name, owner=STRANGER)
        await self.told(name, is_stalled("RestoreNotAllowed"), "not let in")
        if self.random.random() < 0.5:
            allowed = {"metadata": {"annotations": {names.RESTORE_FROM: archive["metadata"]["name"]}}}
            await self.api.patch("Tenant", name, allowed)
        else:
            await self.apply(name, owner=OWNER)
        await self.told(name, is_ready, "restored")
        await self.api.delete("TenantArchive", archive["metadata"]["name"])
        await self.gone("TenantArchive", archive["metadata"]["name"])

    async def adopts(self, name: str) -> None:
        """Leaves, gets a namespace of somebody else's, gives that back, and has it again."""
        await self.vacate(name)
        await self.make_namespace(name)
        spec = self.specs.pop(name)
        await self.apply(name, **{**spec, "namespace": {"adoption": "IfMarked"}})
        await self.told(name, is_ready, "Ready")
        await self.leave(name)
        left = await self.api.get("Namespace", f"tenant-{name}")
        assert left is not None
        marks = [*left["metadata"]["labels"], *left["metadata"]["annotations"]]
        ours = [key for key in marks if "tenantry" in key or key.startswith(names.POD_SECURITY)]
        assert ours == [names.ADOPTABLE_BY]
        kept = {item["metadata"]["name"] for item in await self.api.list("ConfigMap", f"tenant-{name}")}
        assert kept - {"kube-root-ca.crt"} == {"settings"}
        await self.apply(name)


Act = Callable[[Users, str], Awaitable[None]]
ACTS: list[Act] = [
    Users.edits,
    Users.makes_a_mistake,
    Users.makes_a_mistake_that_only_the_operator_sees,
    Users.meddles_with_a_child,
    Users.edits,
    Users.edits_its_plan,
    Users.meddles_with_a_child,
    Users.meddles_with_the_namespace,
    Users.is_restored,
    Users.loses_its_plan,
    Users.edits,
    Users.leaves_and_comes_back,
    Users.meddles_with_a_child,
    Users.is_restored,
    Users.deletes_the_namespace,
    Users.makes_a_mistake,
    Users.adopts,
]
"""In an order in which each is done to tenants that have a past."""
