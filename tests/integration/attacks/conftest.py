"""A tenant that is attacked from within, its neighbour, and those who attack."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tenantry.adapters.kubernetes.kinds import CHILD_KINDS, KINDS, OURS
from tenantry.domain import names
from tests.conftest import Cluster
from tests.integration.attacks.actors import Actor, Request, administrator, person, service_account
from tests.integration.attacks.catalogue import Place
from tests.integration.attacks.on_neighbours import NODE
from tests.integration.attacks.requests import container, pod_spec, post, workload
from tests.integration.conftest import Api, OperatorProcess, is_ready, tenant

Object = dict[str, Any]

TENANT, NAMESPACE = "acme", "tenant-acme"
NEIGHBOUR = "tenant-globex"
TENANTS = ("acme", "globex", "initech", "hooli")
NO_TENANT = "no-tenant"
PEOPLE = {"owner": "alice@acme.example", "editor": "bob@acme.example", "viewer": "vera@acme.example"}
MEMBERS = [
    *({"kind": "User", "name": user, "role": role} for role, user in PEOPLE.items()),
    {"kind": "ServiceAccount", "name": "pipeline", "role": "editor"},
    {"kind": "ServiceAccount", "name": "boss", "role": "owner"},
]
CONTROLLER_RULES = [
    {
        "apiGroups": ["", "apps", "batch", "networking.k8s.io", "policy", "rbac.authorization.k8s.io"],
        "resources": ["*"],
        "verbs": ["*"],
    }
]
"""Of a controller that a platform team has installed beside us, and given far too much."""


@dataclass(frozen=True)
class Scene:
    """Everything that a test of attacks needs."""

    place: Place
    nowhere: Place
    """The same in a namespace without a tenant, where the administrator shows that a request is valid."""
    actors: dict[str, Actor]
    admin: Actor


@pytest.fixture(scope="session")
async def scene(
    control_plane: Cluster, api: Api, operator: OperatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    """The tenants acme and globex with something in them, and people with real credentials."""
    folder = tmp_path_factory.mktemp("attackers")
    await api.apply(tenant(TENANT, plan="pro", members=MEMBERS))
    other = {"kind": "User", "name": "gina@globex.example", "role": "owner"}
    await api.apply(tenant("globex", plan="pro", members=[other]))
    await api.apply(tenant("initech", plan="pro", members=MEMBERS))
    await api.apply(tenant("hooli", plan="pro", members=MEMBERS, suspended=True))
    for each in TENANTS:
        await api.until("Tenant", each, is_ready)
    archive = await _archived(api, "initech")
    admin = administrator(api)
    attacker = await api.get("Tenant", TENANT) or {}
    await _furnish(admin, attacker["metadata"]["uid"])
    await _made(api)
    actors = await _actors(api, folder)
    await _in_force(actors["editor"])
    listable = await _listable(api)
    place = Place(
        NAMESPACE,
        TENANT,
        NEIGHBOUR,
        "tenant-hooli",
        "tenant-initech",
        archive,
        await _children(api),
        listable,
    )
    nowhere = Place(NO_TENANT, TENANT, NEIGHBOUR, "", "", archive, (), listable)
    yield Scene(place, nowhere, actors, admin)
    await asyncio.gather(*(actor.close() for actor in (*actors.values(), admin)))
    await api.client.send("DELETE", f"/api/v1/nodes/{NODE}")
    await api.delete("TenantArchive", archive)
    for each in ("acme", "globex", "hooli"):
        await api.patch("Tenant", each, {"spec": {"deletionPolicy": "Delete"}})
        await api.delete("Tenant", each)


async def _archived(api: Api, name: str) -> str:
    """Delete a tenant whose namespace is kept; return the archive's name."""
    found = await api.get("Tenant", name)
    assert found is not None
    archive = names.archive_name(name, found["metadata"]["uid"])
    await api.delete("Tenant", name)
    await api.until(
        "TenantArchive", archive, lambda item: (item or {}).get("status", {}).get("phase") == "Kept"
    )
    await api.until("Tenant", name, lambda item: item is None)
    return archive


def _vector_store(uid: str) -> Request:
    """Return how the Secret of a place on a shard is made; there is no server here that would give one."""
    marks = {"labels": {names.MANAGED_BY: names.MANAGER, names.TENANT: TENANT}}
    content = {"stringData": {"url": "postgresql://"}}
    return post(
        "secrets", NAMESPACE, names.VECTOR_STORE, content, **marks, annotations={names.TENANT_UID: uid}
    )


_LATER = "object has been modified|error looking up service account"
"""Why a request is sent again: a quota counts two at once, or a namespace has no account yet."""


async def _furnish(admin: Actor, uid: str) -> None:
    """Make what attacks are about. uid: of the Tenant that attacks."""
    done = [
        post("nodes", "", NODE, {"status": {"allocatable": {"cpu": "64", "memory": "64Gi", "pods": "100"}}}),
        post("namespaces", "", NO_TENANT),
        post("namespaces", "", "mesh"),
        post("serviceaccounts", "mesh", "controller"),
        post("clusterroles", "", "attack-controller", {"rules": CONTROLLER_RULES}),
        _bound("attack-controller", "attack-controller", "mesh", "controller"),
        post("serviceaccounts", NAMESPACE, "deployer"),
        _bound("attack-deployer", "cluster-admin", NAMESPACE, "deployer"),
        post("secrets", "tenantry-system", "database", {"stringData": {"url": "postgresql://"}}),
        post("secrets", "kube-system", "attack-target", {"stringData": {"key": "x"}}),
        *(post("serviceaccounts", NAMESPACE, name) for name in ("pipeline", "boss")),
        _vector_store(uid),
    ]
    everywhere = (NAMESPACE, NEIGHBOUR, NO_TENANT)
    for namespace in (*everywhere, "tenant-hooli", "tenant-initech"):
        done += [post("configmaps", namespace, "own", {"data": {"a": "1"}})]
    for namespace in everywhere:
        done += [
            post("secrets", namespace, "own", {"stringData": {"key": "x"}}),
            post(
                "services", namespace, "web", {"spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}
            ),
            workload("deployments", namespace, pod_spec(), name="web"),
            post("pods", namespace, "solo", {"spec": _running()}, labels={"app": "solo"}),
            post("pods", namespace, "loose", {"spec": pod_spec()}),
        ]
    for request in done:
        answer = await admin.send(request)
        async with asyncio.timeout(60):
            while not answer.ok and re.search(_LATER, answer.message):
                await asyncio.sleep(0.05)
                answer = await admin.send(request)
        assert answer.ok or "already exists" in answer.message, f"{request}: {answer.message}"


def _running() -> Object:
    """Return a pod on a node, as if the scheduler had put it there."""
    return pod_spec(container(), nodeName=NODE, terminationGracePeriodSeconds=1)


def _bound(name: str, role: str, namespace: str, account: str) -> Request:
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    return post("clusterrolebindings", "", name, {"roleRef": ref, "subjects": [subject]})


async def _made(api: Api) -> None:
    """Wait until the cluster's controllers have made what belongs to that."""
    async with asyncio.timeout(60):
        for namespace in (NAMESPACE, NEIGHBOUR, NO_TENANT):
            while not await api.list("Pod", namespace, "app=web"):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await api.until("ServiceAccount", "default", bool, "mesh")
        await api.until("ConfigMap", "kube-root-ca.crt", bool, "mesh")


async def _actors(api: Api, folder: Path) -> dict[str, Actor]:
    people = {role: await person(api, folder, user) for role, user in PEOPLE.items()}
    return {
        **people,
        "application": await service_account(api, NAMESPACE, "app"),
        "pipeline": await service_account(api, NAMESPACE, "pipeline"),
        "controller": await service_account(api, "mesh", "controller"),
    }


async def _in_force(editor: Actor) -> None:
    """Wait until the policies refuse: the API server takes them up a second after they are stored."""
    held = {"finalizers": ["attack.example/probe"]}
    probe = post("configmaps", NAMESPACE, "probe", {"data": {}}, **held).rehearsed()
    async with asyncio.timeout(60):
        while (await editor.send(probe)).ok:  # noqa: ASYNC110 - the API server tells nobody when it is ready
            await asyncio.sleep(0.1)


async def _children(api: Api) -> tuple[tuple[str, Object], ...]:
    found = []
    for kind in CHILD_KINDS:
        if kind.namespaced:
            for item in await api.list(kind.kind, NAMESPACE, OURS):
                body = {"apiVersion": kind.api_version, "kind": kind.kind, **item}
                body["metadata"].pop("managedFields", None)
                body["metadata"].pop("resourceVersion", None)
                found.append((KINDS[kind.kind].plural, body))
    return tuple(found)


async def _listable(api: Api) -> tuple[tuple[str, str], ...]:
    """Ask the API server what there is in a namespace that can be listed and deleted."""
    groups = (await api.client.send("GET", "/apis"))["groups"]
    versions = ["v1", *(group["preferredVersion"]["groupVersion"] for group in groups)]
    found: list[tuple[str, str]] = []
    for version in versions:
        path = f"/apis/{version}" if "/" in version else f"/api/{version}"
        found += [
            (version, each["name"])
            for each in (await api.client.send("GET", path))["resources"]
            if each["namespaced"] and {"list", "watch", "deletecollection"} <= set(each["verbs"])
        ]
    return tuple(found)
