"""A StatefulSet whose selector fits our ControllerRevisions neither adopts nor deletes them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.integration.attacks.actors import Actor
from tests.integration.attacks.conftest import NAMESPACE, Scene
from tests.integration.attacks.requests import container, delete, get, patch, pod_spec, post, workload

Object = dict[str, Any]

FITTING = {"tenantry.dev/tenant": "acme"}
"""A label that members may give their pods, and that our revisions have."""
ANOTHER = {"$patch": "replace", "metadata": {"labels": FITTING}, "spec": pod_spec(container("another"))}
BAIT = {"revision": 1, "data": {"spec": {"template": ANOTHER}}}


async def revisions(actor: Actor) -> dict[str, Object]:
    """Return the ControllerRevisions in the tenant's namespace by name."""
    answer = await actor.send(get("controllerrevisions", NAMESPACE))
    return {item["metadata"]["name"]: item for item in answer.body["items"]}


def _owner(revision: Object) -> bool:
    return any(owner.get("controller") for owner in revision["metadata"].get("ownerReferences", []))


async def until(actor: Actor, holds: Any, what: str) -> None:
    """Wait until something holds of the revisions."""
    found: dict[str, Object] = {}
    for _ in range(400):
        found = await revisions(actor)
        if holds(found):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{what}: {sorted(found)}")


@pytest.mark.parametrize("resource", ["statefulsets", "daemonsets"])
async def test_our_revisions_are_not_adopted(scene: Scene, resource: str) -> None:
    admin, editor = scene.admin, scene.actors["editor"]
    ours = {
        name: item for name, item in (await revisions(admin)).items() if name.startswith("tenant-config-")
    }
    assert ours
    # One that nobody controls: it is adopted, or this test would show nothing.
    made = await admin.send(post("controllerrevisions", NAMESPACE, "bait", BAIT, labels=FITTING))
    assert made.ok, made.message
    request = workload(resource, NAMESPACE, pod_spec(), name="tenant-config", labels=FITTING)
    spec = {**request.body["spec"], "selector": {"matchLabels": FITTING}, "revisionHistoryLimit": 0}
    request.body["spec"] = spec
    made = await editor.send(request)
    assert made.ok, made.message

    await until(admin, lambda found: "bait" not in found or _owner(found["bait"]), "the bait is not taken")
    for number in range(3):
        change = {"spec": {"template": {"metadata": {"annotations": {"round": str(number)}}}}}
        assert (await editor.send(patch(resource, NAMESPACE, "tenant-config", change))).ok

        def shown(found: dict[str, Object], number: int = number) -> bool:
            return any(
                item["data"]["spec"]["template"]["metadata"].get("annotations", {}).get("round")
                == str(number)
                for name, item in found.items()
                if name not in ours
            )

        await until(admin, shown, f"no revision of round {number}")
    now = await revisions(admin)
    assert {name: now.get(name) for name in ours} == ours
    assert (await editor.send(delete(resource, NAMESPACE, "tenant-config"))).ok
    await until(admin, lambda found: found.keys() == ours.keys(), "its own revisions are collected")
