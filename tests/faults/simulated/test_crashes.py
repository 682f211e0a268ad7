"""The operator dies, or a write fails, at any write of any flow: the end is the same as if nothing had been.

A process that dies before its k-th write and one that dies after the write before that leave the same behind, and
what it knew is gone either way: so k runs through all writes, and one more is a process that dies at rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

import pytest

from tenantry.domain import names
from tenantry.reconcile.ports import Conflict, Unavailable
from tenantry.reconcile.result import Key
from tests.faults.simulated.apiserver import Ref
from tests.faults.simulated.faults import Crash, Fault, Write
from tests.faults.simulated.flows import FLOWS, Flow
from tests.faults.simulated.news import News
from tests.faults.simulated.vector_flows import ROWS as ROWS_BEFORE
from tests.faults.simulated.vector_flows import Application
from tests.faults.simulated.world import Process, World
from tests.unit.builders import T0

REDONE = 5
"""Writes that may come on top because of one fault: again itself and an audit row, or a copy with its place, and
three that say how it stands."""


@dataclass
class At(Fault):
    """Something goes wrong at the k-th write, or never; after each one the cluster is in order."""

    world: World
    k: int = 0
    before_it: Callable[[], BaseException | None] = lambda: None
    """Does something, and returns what to raise, if anything."""
    after_it: Callable[[], BaseException] | None = None
    count: int = 0
    unsafe: list[str] = field(default_factory=list)
    application: Application = field(init=False)

    def __post_init__(self) -> None:
        self.application = Application(self.world)

    def before(self, write: Write) -> None:
        self.count += 1
        if self.count == self.k and (error := self.before_it()) is not None:
            raise error

    def after(self, write: Write) -> None:
        self.application.write(f"row after write {self.count}")
        self.unsafe.extend(f"after {write}: {problem}" for problem in disorder(self.world))
        if self.count == self.k and self.after_it is not None:
            raise self.after_it()


def disorder(world: World) -> list[str]:
    """Return what must not be, at no moment."""
    api = world.api
    writable = world.servers.writable()
    problems = [f"{who} can write on {places}" for who, places in writable.items() if len(places) > 1]
    now = {ref: stored.manifest for ref, stored in api.objects.items()}
    held = {item["metadata"]["uid"] for ref, item in now.items() if ref.kind == "Tenant"}
    held |= {item["spec"]["tenantUID"] for ref, item in now.items() if ref.kind == "TenantArchive"}
    bound = {ref.namespace for ref, item in now.items() if ref.kind == "RoleBinding" and item.get("subjects")}
    for ref, item in now.items():
        uid = item["metadata"].get("annotations", {}).get(names.TENANT_UID)
        if ref.kind != "Namespace" or not uid or "deletionTimestamp" in item["metadata"]:
            continue
        if uid not in held:
            problems.append(f"namespace {ref.name} is nobody's")
        limits = {
            Ref("ResourceQuota", ref.name, names.QUOTA),
            Ref("NetworkPolicy", ref.name, names.DEFAULT_DENY),
        }
        if ref.name in bound and not limits <= now.keys():
            problems.append(f"somebody is let into namespace {ref.name} before its limits stand")
    return problems


def picture(world: World) -> dict[str, Any]:
    """Return all that is there in the end, but for times and versions. The uids tell what was made anew."""
    seen: dict[str, Any] = {}
    for manifest in world.api.list():
        metadata = {key: value for key, value in manifest["metadata"].items() if key not in VARYING}
        owners: dict[tuple[str, str | None], Any] = {}
        for entry in manifest["metadata"]["managedFields"]:  # whether by a create or by the apply after it
            writer = (entry["manager"], entry.get("subresource"))
            owners[writer] = together(owners.get(writer, {}), entry["fieldsV1"])
        manifest = {**manifest, "metadata": metadata, "owners": owners}
        for condition in (manifest.get("status") or {}).get("conditions", []):
            del condition["lastTransitionTime"]
        if manifest["kind"] in ("VectorShard", "TenantMove"):
            # What the application wrote meanwhile is measured there.
            status = {key: value for key, value in manifest["status"].items() if key not in MEASURED}
            status["conditions"] = [item for item in status["conditions"] if item["type"] not in MEASURED]
            manifest["status"] = status
            owners.pop(("tenantry", "status"), None)
        _without_times(manifest.get("status") or {})
        seen[f"{manifest['kind']} {metadata.get('namespace', '')}/{metadata['name']}"] = manifest
    for server in world.servers.servers.values():
        for tenant, record in server.records.items():
            # Which rows the application wrote meanwhile depends on how long everything took.
            kept = {key: row for key, row in server.rows.get(tenant, {}).items() if key in ROWS_BEFORE}
            seen[f"place {server.address}/{tenant}"] = (replace(record.place, since=T0), record.id, kept)
    for name, (made, text) in world.servers.store.exports.items():
        seen[f"export {name}"] = (made.source, made.rows, text)
    rows = Counter(row.identity for row in world.audit.rows)
    assert max(rows.values(), default=1) == 1
    for row in world.audit.rows:
        seen[f"row {row.identity}"] = (row.action, row.actor, row.name, row.before, row.after, row.message)
    return seen


def _without_times(status: dict[str, Any]) -> None:
    for export in status.get("exports", []):
        del export["finishedAt"]
    if "conditions" in status:
        status["conditions"].sort(key=lambda item: item["type"])


def together(some: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Return two sets of fields as one."""
    both = {key: together(some[key], others[key]) for key in some.keys() & others.keys()}
    return {**some, **others, **both}


MEASURED = (
    *("storage", "share", "Balanced"),
    *("rows", "lagBytes", "writePauseMs", "blocks", "startedAt", "finishedAt"),
)
VARYING = ("resourceVersion", "creationTimestamp", "managedFields")


class Run(NamedTuple):
    """How a flow went: what is there in the end, and was before everything was listed anew (where it was)."""

    end: dict[str, Any]
    at: At
    writes: list[Write]
    unlisted: dict[str, Any]


class Stage:
    """Where a flow begins, to begin there again and again."""

    def __init__(self, flow: Flow, world: World) -> None:
        self.flow = flow
        self.world = world
        self._api = world.api.snapshot()
        self._rows = list(world.audit.rows)
        self._servers = world.servers.snapshot()
        self._time = world.clock.time
        self._due: dict[Key, datetime] | None = None  # of a process that has looked at everything

    async def run(
        self,
        *,
        news: News | None = None,
        settle: Callable[[World], Awaitable[None]] = World.settle,
        again: Callable[[World], Process] = World.restart,
        **fault: Any,
    ) -> Run:
        """Run the flow from its beginning, with all writes of all processes.

        settle: lets the first process work until it is at rest. again: starts another after a Crash. With `news`,
        everything is listed anew in the end.
        """
        world = self.world
        world.api.restore(self._api)
        world.audit.rows[:] = self._rows
        world.clock.time = self._time
        world.servers.restore(self._servers)
        at = At(world, **fault)
        first = world.restart()
        if self._due is None:
            await world.settle()
            assert not first.writes
            self._due, self._time = dict(first.due), world.clock.time
        else:
            await world.look_at_shards()
        first.due, first.fault, first.news = dict(self._due), at, news or News()
        world.clock.turn(minutes=1)
        world.happened.clear()
        self.flow.act(world)
        processes = [first]
        for stopped in (False, True):
            try:
                if stopped:
                    at.application.stopped = True
                    world.relist()  # what it wrote last is measured
                    await world.settle()
                else:
                    await settle(world)
            except Crash:
                processes.append(again(world))
                await world.settle()
        if lost := at.application.lost():
            at.unsafe.append(f"rows are lost: {sorted(lost)}")
        unlisted = {}
        if news is not None:
            unlisted = picture(world)
            world.process.news = News()
            await world.list_anew()
            await world.settle()
        done = len(world.process.writes)
        world.relist()
        await world.settle()
        assert world.process.writes[done:] == [], "it does not come to rest"
        told = {event for process in processes for event in process.events if _tells_of_a_row(event)}
        writes = [write for process in processes for write in process.writes]
        return Run({**picture(world), "events": told}, at, writes, unlisted)


ROWS = frozenset(
    {
        *(
            "Created",
            "PlanChanged",
            "SpecChanged",
            "Suspended",
            "Resumed",
            "ConfigChanged",
            "ConfigRolledBack",
        ),
        *("Adopted", "Restored", "Archived", "Deleted", "Purged", "Repaired"),
        *("Exported", "Placed", "CredentialsRotated", "Moving", "Moved", "MoveAborted"),
        "LeftoverRemoved",
    }
)
"""Reasons of Events that tell of an audit row."""


def _tells_of_a_row(event: tuple[str, str, str, str]) -> bool:
    _, _, reason, message = event
    return reason in ROWS and not message.startswith("suspended on purpose")  # that is the condition Ready


FAULTS: dict[str, dict[str, Callable[[], BaseException]]] = {
    "dies": {"before_it": Crash},
    "not reached": {"before_it": lambda: Unavailable("connection refused")},
    "answer lost": {"after_it": lambda: Unavailable("connection reset")},
    "conflict": {"before_it": lambda: Conflict("the object has been modified")},
}


@pytest.mark.parametrize("flow", FLOWS, ids=str)
async def test_every_flow_ends_the_same_after_a_fault_at_any_write(flow: Flow) -> None:
    stage = Stage(flow, await flow.begin())
    undisturbed, calm, writes, _ = await stage.run()
    assert calm.unsafe == []
    assert len(writes) > 2
    for k in range(1, calm.count + 1):
        for name, fault in FAULTS.items():
            if name == "conflict" and (k % 2 or writes[k - 1].verb == "record"):
                continue  # for time's sake; a conflict ends like a write that did not reach the server
            where = f"{name} at write {k} of {calm.count}, {writes[k - 1]}"
            end, at, all_writes, _ = await stage.run(k=k, **fault)
            assert at.count >= k
            assert at.unsafe == [], where
            told, might = end.pop("events"), undisturbed["events"]
            assert told <= might, f"{where}: Events that tell something else"
            assert end == {key: undisturbed[key] for key in undisturbed if key != "events"}, where
            assert len(all_writes) <= len(writes) + REDONE, f"{where}: {all_writes}"
