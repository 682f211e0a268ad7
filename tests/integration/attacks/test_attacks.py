"""Every attack of the catalogue is refused, by whom the catalogue says, in its words; and nothing has changed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.attacks.actors import Actor, Request
from tests.integration.attacks.catalogue import Attack, refused_by
from tests.integration.attacks.conftest import TENANTS, Scene
from tests.integration.attacks.everything import ATTACKS

Object = dict[str, Any]

REACHED = frozenset({400, 404, 500, 502, 503})
"""What the API server says when it cannot go on to a node, to a pod without one, or to a service without pods."""
NAMESPACES = (
    *(f"tenant-{name}" for name in TENANTS),
    *("mesh", "no-tenant", "tenantry-system", "default", "kube-system"),
)
RESTLESS = frozenset({"events", "leases", "leasecandidates", "componentstatuses"})
"""What changes by itself; the last tells whether anything answers on two ports of this machine."""


@pytest.fixture(scope="module")
async def before(scene: Scene) -> dict[str, Object]:
    """Everything in the cluster before the first attack."""
    return await _everything(scene.admin)


async def _everything(admin: Actor) -> dict[str, Object]:
    """Return all objects of the cluster, but for their status and what has no meaning.

    Tenants of earlier tests, which may still be on their way out, are left out.
    """
    groups = (await admin.send(Request("GET", "/apis"))).body["groups"]
    roots = ["/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups)]
    found = {}
    for root in roots:
        for each in (await admin.send(Request("GET", root))).body["resources"]:
            if "list" in each["verbs"] and each["name"] not in RESTLESS:
                path = f"{root}/{each['name']}"
                for item in (await admin.send(Request("GET", path))).body["items"]:
                    metadata = item["metadata"]
                    if not _concerned(each["name"], metadata):
                        continue
                    name = f"{path} {metadata.get('namespace', '')}/{metadata['name']}"
                    for key in ("managedFields", "resourceVersion", "generation"):
                        metadata.pop(key, None)
                    item.pop("status", None)
                    found[name] = item
    return found


def _concerned(resource: str, metadata: Object) -> bool:
    if resource in ("namespaces", "tenants", "tenantarchives"):
        return metadata["name"] in NAMESPACES or metadata["name"].startswith((*TENANTS, "attack"))
    return metadata.get("namespace", "") in ("", *NAMESPACES)


async def _invalid(scene: Scene, attack: Attack, request: Request) -> str:
    """Return why nobody's request like this could be granted, empty where the administrator's is."""
    answer = await scene.admin.send(request.rehearsed())
    if answer.ok or (attack.reaches and answer.status in REACHED):
        return ""
    return f"the administrator's {request} is not valid: {answer.status} {answer.message}"


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.what)
async def test_refused(scene: Scene, before: dict[str, Object], attack: Attack) -> None:
    place = scene.nowhere if attack.elsewhere else scene.place
    wrong = [why for request in attack.requests(place) if (why := await _invalid(scene, attack, request))]
    sent = 0
    for role in attack.roles:
        actor, by = scene.actors[role], attack.expected(role)
        for request in attack.requests(scene.place):
            answer = await actor.send(request)
            sent += 1
            refused = refused_by(answer, actor.name)
            if refused != by:
                wrong.append(f"{role}: {request}: {refused}, not {by}: {answer.message}")
            elif by == attack.by and attack.says not in answer.message:
                wrong.append(f"{role}: {request}: says {answer.message}")
    assert not wrong, f"{len(wrong)} of {sent}:\n" + "\n".join(wrong)
    assert sent


async def test_nothing_has_changed(scene: Scene, before: dict[str, Object]) -> None:
    after = await _everything(scene.admin)
    different = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    assert different == []


async def test_all_children_were_attacked(scene: Scene) -> None:
    """The attacks are derived from what is there; this says what that was."""
    kinds = {item["kind"] for _, item in scene.place.children}
    assert kinds == {
        "ConfigMap",
        "ControllerRevision",
        "LimitRange",
        "NetworkPolicy",
        "ResourceQuota",
        "RoleBinding",
        "Secret",
        "ServiceAccount",
    }
    assert len(scene.place.children) == 16
