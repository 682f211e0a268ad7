"""What a fresh tenant of the same spec would have, and how far a tenant with a past may differ from it.

A tenant with a past must look as if it had been applied once, alone, to an empty cluster with the same plans. What
may differ is said here, and nowhere else:

- the numbers of configuration revisions, and revisions before the present one;
- a pin (`spec.configRevision`): it means a revision of this tenant's own past;
- the last good configuration, which stays while a new one is refused (the last one that is on record as such: while
  the ledger is away none is);
- quotas, network, Pod Security and configuration of a plan that was deleted: they stay as they were, the
  configuration as somebody left it who edited it while the namespace was kept for its archive;
- what lost its label before the operator started: the new process does not know that it is there;
- whether it has its namespace at all, where others want it too or had it before.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from tenantry.api.common import API_VERSION
from tenantry.domain import names
from tests.faults.simulated.apiserver import Ref
from tests.faults.simulated.world import World

Object = dict[str, Any]
Conditions = dict[str, tuple[str, str]]

REST = timedelta(minutes=3)
"""How long the operator is given: longer than the grace for a Plan that may still come."""

HISTORY = frozenset({"ConfigMap", "ControllerRevision"})
PLANS_OWN = frozenset({"ResourceQuota/tenantry", "LimitRange/tenantry"})
CONFIG_PARTS = ("model", "retrieval", "limits")


@dataclass(frozen=True, slots=True)
class Picture:
    """A tenant as it is there. UIDs and numbers of revisions are blanked, times and versions left out."""

    conditions: Conditions
    messages: dict[str, str]
    phase: str
    labels: dict[str, str]
    """Of the namespace: all that its spec and the operator's own marks may set."""
    annotations: dict[str, str]
    children: dict[str, Object]
    """By "Kind/name", but for configuration."""
    config: Object | None
    """What the application reads, without the number of its revision."""


_known: dict[str, Picture] = {}


async def fresh(name: str, spec: Object, plan: tuple[str, Object | None], *, adopted: bool) -> Picture:
    """Return what a Tenant has that is applied once to an empty cluster with that plan (by name, with its spec)."""
    spec = {key: value for key, value in spec.items() if key != "configRevision"}
    if adopted:
        # It may have been edited since: of what is adopted nothing but that is said.
        spec = {**spec, "namespace": {**spec.get("namespace", {}), "adoption": "IfMarked"}}
    key = json.dumps([name, spec, plan, adopted], sort_keys=True)
    if key not in _known:
        world = World()
        if plan[1] is not None:
            put(world, "Plan", plan[0], plan[1])
        where = spec.get("namespace", {}).get("name") or f"tenant-{name}"
        if adopted:
            marks = {"name": where, "annotations": {names.ADOPTABLE_BY: name}}
            world.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": marks}, "kubectl-create")
        put(world, "Tenant", name, spec)
        await world.settle(REST)
        children = {ref for ref in world.api.objects if ref.namespace == where}
        _known[key] = picture(world, name, where, children)
    return _known[key]


def put(world: World, kind: str, name: str, spec: Object, manager: str = "kubectl") -> None:
    """Apply an object of ours as a user does."""
    document = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
    world.api.apply(document, manager)


def picture(world: World, name: str, where: str, children: set[Ref]) -> Picture:
    """Return a Tenant, its namespace, and those objects in it."""
    tenant = world.api.objects[Ref("Tenant", "", name)].manifest
    namespace = world.api.objects[Ref("Namespace", "", where)].manifest["metadata"]
    status, spec = tenant["status"], tenant["spec"]
    blanks = {tenant["metadata"]["uid"]: "<tenant>", namespace["uid"]: "<namespace>"}
    own = (spec.get("namespace") or {}).get("labels") or {}
    objects = {ref: world.api.objects[ref].manifest for ref in children}
    current = objects.get(Ref("ConfigMap", where, names.CONFIG_MAP))
    return Picture(
        conditions={item["type"]: (item["status"], item["reason"]) for item in status["conditions"]},
        messages={item["type"]: _blank(item["message"], {}) for item in status["conditions"]},
        phase=status["phase"],
        labels={key: value for key, value in namespace["labels"].items() if key in own or is_mark(key)},
        annotations={
            key: _blank(value, blanks)
            for key, value in namespace["annotations"].items()
            if is_mark(key) and key != names.ADOPTABLE_BY
        },
        children={
            f"{ref.kind}/{ref.name}": _content(item, blanks)
            for ref, item in objects.items()
            if ref.kind not in HISTORY
        },
        config=document(current)[1] if current and '"revision"' in current["data"]["config.json"] else None,
    )


def is_mark(key: str) -> bool:
    """Return whether a label or annotation of a namespace is the operator's."""
    return key.startswith(("tenantry.dev/", names.POD_SECURITY)) or key == names.MANAGED_BY


def document(config_map: Object) -> tuple[int, Object]:
    """Return the number of the revision that an application reads, and all else that it reads."""
    data = config_map["data"]
    content = json.loads(data["config.json"])
    number = content.pop("revision")
    assert data == {"config.json": data["config.json"], "revision": str(number)}
    return number, content


def _content(manifest: Object, blanks: dict[str, str]) -> Object:
    kept = ("labels", "annotations", "finalizers", "ownerReferences", "deletionTimestamp")
    metadata = {key: value for key, value in manifest["metadata"].items() if key in kept and value}
    content: Object = json.loads(_blank(json.dumps({**manifest, "metadata": metadata}), blanks))
    return content


def _blank(text: str, blanks: dict[str, str]) -> str:
    for value, blank in blanks.items():
        text = text.replace(value, blank)
    return re.sub(r"revision \d+", "revision <n>", text)
