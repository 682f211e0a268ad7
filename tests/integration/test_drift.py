"""Whatever somebody does to a child by hand is put back, exactly, and only once."""

from __future__ import annotations

import asyncio
import json
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from tenantry.adapters.kubernetes.kinds import KINDS
from tenantry.reconcile.ports import Conflict, Refused
from tests.integration.conftest import MEMBERS, Api, Object, OperatorProcess, gone, is_ready, tenant
from tests.integration.mirror import Mirror, mirror
from tests.integration.mutations import Mutation, Schema, content, mutations, place

CONFIGURATION = ("ConfigMap", "ControllerRevision")
DOCUMENTS = {
    "v1": "api/v1",
    "networking.k8s.io/v1": "apis/networking.k8s.io/v1",
    "rbac.authorization.k8s.io/v1": "apis/rbac.authorization.k8s.io/v1",
    "apps/v1": "apis/apps/v1",
}


@dataclass(slots=True)
class Repairs:
    """What became of the changes: seconds until put back, and those that the API server did not take."""

    seconds: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    without_effect: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)

    def slowest(self) -> tuple[float, str]:
        """Return the longest repair and what it was about."""
        return max((seconds, what) for what, seconds in self.seconds.items())


class Vandal:
    """Changes children by hand and waits until they are put back."""

    def __init__(self, api: Api, children: Mirror) -> None:
        self._api = api
        self._children = children
        self.repairs = Repairs()

    async def ruin(self, kind: str, stored: Object, mutation: Mutation) -> None:
        """Replace a child; where the API server says that it cannot be changed, make it anew in its place."""
        body = {"apiVersion": KINDS[kind].api_version, "kind": kind, **mutation.manifest}
        try:
            changed = await self.replace(kind, stored, body, mutation.what)
        except Refused as error:
            if kind == "ControllerRevision" and body.get("data") != stored["data"]:
                # A revision made anew with other content is a forgery: see the test of its own.
                self.repairs.refused[mutation.what] = str(error)
                return
            created = await self.in_its_place(kind, body)
            if isinstance(created, Refused):
                self.repairs.refused[mutation.what] = str(created)
                await self.await_repair(
                    kind, stored, "", f"{mutation.what}: refused ({error})", time.monotonic()
                )
                return
            changed = created
        if content(changed) == content(stored):
            self.repairs.without_effect.append(mutation.what)
            return
        version = changed["metadata"]["resourceVersion"]
        await self.await_repair(kind, stored, version, mutation.what, time.monotonic())

    async def replace(self, kind: str, stored: Object, body: Object, what: str) -> Object:
        """Replace a child, also where it is gone for a moment."""
        for _ in range(100):
            try:
                return await self._api.replace(kind, body)
            except LookupError:
                # Garbage collection follows an owner that never was, and what is made anew is deleted first; the
                # mirror may know of neither yet.
                await self.await_repair(kind, stored, "", f"{what}: gone before it", time.monotonic())
        raise AssertionError(f"{kind}/{stored['metadata']['name']} is not there, though it was put back")

    async def in_its_place(self, kind: str, body: Object) -> Object | Refused:
        """Delete a child and create another by its name at once, or return why there cannot be such a one."""
        name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
        try:
            # The API server tells what it would refuse, so that nothing is deleted for a change that cannot be.
            probe = {**body, "metadata": {**body["metadata"], "name": f"{name}-probe"}}
            query = {"dryRun": "All"}
            path = KINDS[kind].path(namespace=namespace)
            await self._api.client.send("POST", path, query=query, body=probe)
        except Refused as error:
            return error
        for _ in range(20):
            await self._api.delete(kind, name, namespace)
            try:
                return await self._api.create(kind, body)
            except Conflict:
                continue  # the operator was faster
        raise AssertionError(f"the operator is always faster than a test that makes {kind}/{name} anew")

    async def await_repair(self, kind: str, stored: Object, version: str, what: str, begin: float) -> None:
        """Wait until a child is exactly as it was, later than `version`."""
        key, wanted = (kind, stored["metadata"]["name"]), content(stored)

        def back(objects: dict[Any, Object]) -> bool:
            found = objects.get(key)
            newer = found is not None and (
                not version or int(found["metadata"]["resourceVersion"]) > int(version)
            )
            return newer and content(found) == wanted

        try:
            await self._children.until(back, what)
        except AssertionError:
            self.repairs.late.append(f"{what}: it is {content(self._children.objects.get(key))}")
            return
        self.repairs.seconds[what] = time.monotonic() - begin


async def writes(operator: OperatorProcess) -> float:
    """Return how often the operator has written to the API server."""
    found = re.findall(
        r'^tenantry_api_requests_total\{.*verb="(?:PATCH|POST|PUT|DELETE)".*\} (\S+)$',
        await operator.metrics(),
        re.MULTILINE,
    )
    return sum(float(value) for value in found)


async def quiet(operator: OperatorProcess, seconds: float = 1.5, timeout: float = 20.0) -> None:
    """Wait until the operator writes nothing for a while: two that fight over an object never come to rest."""
    async with asyncio.timeout(timeout):
        before = await writes(operator)
        while True:
            await asyncio.sleep(seconds)
            now = await writes(operator)
            if now == before:
                return
            before = now


pytestmark = pytest.mark.usefixtures("operator")


@pytest.fixture
async def victim(api: Api, operator: OperatorProcess, name: str) -> str:
    """A tenant with members, Ready; returns its namespace."""
    await api.apply(tenant(name, plan="pro", members=MEMBERS))
    await api.until("Tenant", name, is_ready)
    return f"tenant-{name}"


async def schemas(api: Api) -> dict[str, Schema]:
    """Return the API server's own schemas by API version."""
    return {
        version: Schema(await api.client.send("GET", f"/openapi/v3/{path}"))
        for version, path in DOCUMENTS.items()
    }


def ours(children: Mirror) -> list[tuple[str, Object]]:
    """Return the children that carry our label."""
    return [
        (kind, item)
        for (kind, _), item in sorted(children.objects.items())
        if item["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") == "tenantry"
    ]


async def test_every_possible_change_of_every_child_is_put_back(
    api: Api, operator: OperatorProcess, victim: str, record_property: Any
) -> None:
    described = await schemas(api)
    async with mirror(api.client, victim) as children:
        vandal = Vandal(api, children)

        async def ruin_all(kind: str, stored: Object) -> None:
            for mutation in mutations(kind, described[KINDS[kind].api_version], stored):
                await vandal.ruin(kind, stored, mutation)

        victims = ours(children)
        assert len(victims) == 15, [f"{kind}/{item['metadata']['name']}" for kind, item in victims]
        await asyncio.gather(
            *(ruin_all(kind, stored) for kind, stored in victims if kind not in CONFIGURATION)
        )
        # One after the other: a revision is put back from what `tenant-config` says, and the other way round.
        for kind, stored in victims:
            if kind in CONFIGURATION:
                await ruin_all(kind, stored)
    repairs = vandal.repairs
    slowest, what = repairs.slowest()
    record_property("repairs", len(repairs.seconds))
    record_property("slowest_repair_seconds", round(slowest, 3))
    print(f"{len(repairs.seconds)} changes put back, the slowest in {slowest:.3f} s ({what})")
    assert not repairs.late
    # Every field was changed in some way that the API server takes; what it never takes is a revision's data.
    done = {place(what) for what in repairs.seconds}
    untouched = {place(what) for what in (*repairs.refused, *repairs.without_effect)} - done
    assert {where for where in untouched if not where.startswith("ControllerRevision")} == {
        "NetworkPolicy.spec.podSelector",  # absent and empty are the same; with something in it: above
        "RoleBinding.roleRef.apiGroup",  # defaulted
    }
    assert len(done) > 150
    await quiet(operator)


async def test_deleted_children_come_back(api: Api, victim: str) -> None:
    async with mirror(api.client, victim) as children:
        vandal = Vandal(api, children)
        for kind, stored in ours(children):
            name, held = stored["metadata"]["name"], f"{kind}/{stored['metadata']['name']}"
            version = stored["metadata"]["resourceVersion"]
            await api.delete(kind, name, victim)
            await vandal.await_repair(kind, stored, version, f"{held} deleted", time.monotonic())
            # A finalizer of somebody else would keep the deleted one in the way of the new one for ever.
            version = await _delete_held(api, kind, stored)
            await vandal.await_repair(kind, stored, version, f"{held} deleted and held", time.monotonic())
    assert not vandal.repairs.late


async def _delete_held(api: Api, kind: str, stored: Object) -> str:
    """Delete a child that somebody's finalizer holds; return its version then."""
    name, namespace = stored["metadata"]["name"], stored["metadata"]["namespace"]
    path = KINDS[kind].path(name, namespace)
    for _ in range(50):
        left: Object = {}
        with suppress(LookupError):  # a revision that was held is made anew: gone for a moment
            await api.patch(kind, name, {"metadata": {"finalizers": ["drift.example/hold"]}}, namespace)
            left = await api.client.send("DELETE", path)
        if left.get("metadata", {}).get("deletionTimestamp"):
            return str(left["metadata"]["resourceVersion"])
        # The operator was faster with the finalizer than we with the deletion.
        await api.until(kind, name, bool, namespace)
    raise AssertionError(f"{kind} cannot be held")


async def test_all_children_deleted_at_once_come_back(api: Api, victim: str) -> None:
    async with mirror(api.client, victim) as children:
        before = ours(children)
        configuration = children.objects["ConfigMap", "tenant-config"]["data"]
        uids = {item["metadata"]["uid"] for _, item in before}
        await asyncio.gather(*(api.delete(kind, item["metadata"]["name"], victim) for kind, item in before))
        wanted = {
            (kind, item["metadata"]["name"]): content(item)
            for kind, item in before
            if kind not in CONFIGURATION
        }

        def back(objects: dict[Any, Object]) -> bool:
            config = objects.get(("ConfigMap", "tenant-config"))
            return (
                config is not None
                and not uids & {item["metadata"]["uid"] for item in objects.values()}
                and all(content(objects.get(key)) == item for key, item in wanted.items())
            )

        await children.until(back, "all children are back")
        now = children.objects["ConfigMap", "tenant-config"]["data"]
        assert _meaning(now) == _meaning(configuration)


def _meaning(data: dict[str, str]) -> Object:
    """Return what an application reads in `tenant-config`, without the number of the revision."""
    document: Object = json.loads(data["config.json"])
    assert str(document.pop("revision")) == data["revision"]
    return document


async def test_a_binding_made_anew_by_somebody_else_is_replaced(api: Api, victim: str) -> None:
    """Without our label the operator does not see it, and a roleRef cannot be changed."""
    async with mirror(api.client, victim) as children:
        vandal = Vandal(api, children)
        stored = children.objects["RoleBinding", "tenantry-viewer"]
        ref = {**stored["roleRef"], "name": "cluster-admin"}
        body = {
            "apiVersion": KINDS["RoleBinding"].api_version,
            "kind": "RoleBinding",
            "metadata": {"name": "tenantry-viewer", "namespace": victim},
            "roleRef": ref,
            "subjects": [{"kind": "User", "name": "mallory", "apiGroup": ref["apiGroup"]}],
        }
        made = await vandal.in_its_place("RoleBinding", body)
        assert isinstance(made, dict)
        version = made["metadata"]["resourceVersion"]
        await vandal.await_repair(
            "RoleBinding", stored, version, "cluster-admin by viewers", time.monotonic()
        )
    assert not vandal.repairs.late


async def test_a_held_configuration_that_cannot_be_changed_is_made_anew(api: Api, victim: str) -> None:
    async with mirror(api.client, victim) as children:
        vandal = Vandal(api, children)
        stored = children.objects["ConfigMap", "tenant-config"]
        change = {
            "metadata": {"finalizers": ["drift.example/hold"]},
            "immutable": True,
            "data": {"config.json": "{}"},
        }
        changed = await api.patch("ConfigMap", "tenant-config", change, victim)
        version = changed["metadata"]["resourceVersion"]
        await vandal.await_repair("ConfigMap", stored, version, "immutable and held", time.monotonic())
    assert not vandal.repairs.late


async def test_surplus_children_are_removed_and_what_is_not_ours_stays(api: Api, victim: str) -> None:
    ours_by_label = {"app.kubernetes.io/managed-by": "tenantry"}
    allow_all = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}
    # A tenant's StatefulSet may be called tenant-config: its revisions look almost like ours.
    theirs = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {"name": "tenant-config-6d4b75cb6d", "namespace": victim},
        "revision": 9,
        "data": {"spec": {}},
    }
    kept = await api.create("ControllerRevision", theirs)
    note = await api.create(
        "ConfigMap", {"metadata": {"name": "note", "namespace": victim}, "data": {"a": "b"}}
    )
    for kind, content_ in (
        ("NetworkPolicy", {"spec": allow_all}),
        ("ResourceQuota", {"spec": {"hard": {"pods": "0"}}}),
        ("ConfigMap", {"data": {}}),
    ):
        metadata = {"name": "surplus", "namespace": victim, "labels": ours_by_label}
        await api.create(kind, {"metadata": metadata, **content_})
    for kind in ("NetworkPolicy", "ResourceQuota", "ConfigMap"):
        await api.until(kind, "surplus", gone, victim)
    assert (await api.get("ControllerRevision", theirs["metadata"]["name"], victim)) == kept
    assert (await api.get("ConfigMap", "note", victim)) == note


async def test_a_forged_revision_does_not_change_what_the_application_reads(api: Api, victim: str) -> None:
    async with mirror(api.client, victim) as children:
        before = children.objects["ConfigMap", "tenant-config"]["data"]
        stored = children.objects["ControllerRevision", "tenant-config-1"]
        forged = {**(content(stored) or {}), "data": {**stored["data"], "model": {"name": "mallory-1"}}}
        body = {"apiVersion": "apps/v1", "kind": "ControllerRevision", **forged}
        made = await Vandal(api, children).in_its_place("ControllerRevision", body)
        assert isinstance(made, dict)
        read: list[Object] = []

        def settled(objects: dict[Any, Object]) -> bool:
            config = objects.get(("ConfigMap", "tenant-config"))
            if config is not None:
                read.append(_meaning(config["data"]))
            first = objects.get(("ControllerRevision", "tenant-config-1"))
            genuine = first is not None and first["data"] == stored["data"]
            newer = first is not None and _version(first) > _version(made)
            return (genuine and newer) or (config is not None and config["data"]["revision"] == "2")

        # Revision 1 is put back by whoever saw the true one go. Where a watch told only of the forgery, nobody can
        # tell any more what it was: the same configuration gets a number of its own.
        await children.until(settled, "a true revision")
    assert all(item == _meaning(before) for item in read)


def _version(item: Object) -> int:
    return int(item["metadata"]["resourceVersion"])


# --- the namespace itself --------------------------------------------------------------------------------------

POD_SECURITY = "pod-security.kubernetes.io/"


def _labels(namespace: Object) -> dict[str, str]:
    return dict(namespace["metadata"]["labels"])


NAMESPACE_CHANGES: dict[str, Object] = {
    "pod security lowered": {"labels": {f"{POD_SECURITY}enforce": "privileged"}},
    "pod security removed": {
        "labels": {f"{POD_SECURITY}{mode}": None for mode in ("enforce", "audit", "warn")}
    },
    "pod security pinned": {"labels": {f"{POD_SECURITY}enforce-version": "v1.20"}},
    "pod security of another kind": {"labels": {f"{POD_SECURITY}exempt": "yes"}},
    "given to another tenant": {"labels": {"tenantry.dev/tenant": "mallory"}},
    "managed by another": {"labels": {"app.kubernetes.io/managed-by": "Helm"}},
    "a mark that means nothing": {"annotations": {"tenantry.dev/drift": "x"}},
    "without its mark": {"annotations": {"tenantry.dev/tenant-uid": None}},
    "without its origin": {"annotations": {"tenantry.dev/namespace-origin": None}},
    "all of ours stripped": {"labels": None, "annotations": None},
}


async def test_a_changed_namespace_is_put_back(
    api: Api, operator: OperatorProcess, name: str, record_property: Any
) -> None:
    labels = {"team": "research"}
    await api.apply(tenant(name, plan="pro", namespace={"labels": labels}))
    await api.until("Tenant", name, is_ready)
    wanted = content(await api.get("Namespace", f"tenant-{name}"))
    slowest = 0.0
    default = await api.get("Namespace", "default") or {}
    owner = {"apiVersion": "v1", "kind": "Namespace", "name": "default", "uid": default["metadata"]["uid"]}
    for what, metadata in {**NAMESPACE_CHANGES, "with an owner": {"ownerReferences": [owner]}}.items():
        changed = await api.patch("Namespace", f"tenant-{name}", {"metadata": metadata})
        assert content(changed) != wanted, what
        begin = time.monotonic()
        try:
            await api.until("Namespace", f"tenant-{name}", lambda found: content(found) == wanted)
        except AssertionError as error:
            raise AssertionError(what) from error
        slowest = max(slowest, time.monotonic() - begin)
    record_property("slowest_namespace_repair_seconds", round(slowest, 3))
    print(f"a namespace was put back in at most {slowest:.3f} s")
    assert is_ready(await api.get("Tenant", name))
    await quiet(operator)


async def test_labels_and_annotations_of_others_stay(api: Api, victim: str) -> None:
    theirs = {"labels": {"istio-injection": "enabled"}, "annotations": {"scheduler.example/zone": "a"}}
    await api.patch("Namespace", victim, {"metadata": theirs})
    await api.patch("Namespace", victim, {"metadata": {"labels": {f"{POD_SECURITY}enforce": "privileged"}}})
    found = await api.until(
        "Namespace", victim, lambda found: found and _labels(found)[f"{POD_SECURITY}enforce"] == "restricted"
    )
    assert theirs["labels"].items() <= found["metadata"]["labels"].items()
    assert theirs["annotations"].items() <= found["metadata"]["annotations"].items()


async def test_a_deleted_namespace_comes_back_with_everything(api: Api, name: str, victim: str) -> None:
    def described(found: list[tuple[str, Object]]) -> dict[Any, Any]:
        return {
            (kind, item["metadata"]["name"]): item.get("spec") or item.get("subjects")
            for kind, item in found
            if kind != "ControllerRevision"
        }

    async with mirror(api.client, victim) as children:
        before = described(ours(children))
        uid = ((await api.get("Namespace", victim)) or {})["metadata"]["uid"]
        configuration = children.objects["ConfigMap", "tenant-config"]["data"]
        await api.delete("Namespace", victim)
        await api.until("Namespace", victim, lambda found: found and found["metadata"]["uid"] != uid)
        await children.until(lambda _: described(ours(children)) == before, "all children are back")
        await api.until("Tenant", name, is_ready)
        assert _meaning(children.objects["ConfigMap", "tenant-config"]["data"]) == _meaning(configuration)
