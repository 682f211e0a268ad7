"""What users do to tenants on a real API server, as a table by name.

A flow has a beginning that comes to rest, one act, and an end that can be awaited. A test that takes a flow lets
things go wrong while the act is answered, and compares the end with that of an undisturbed run. Add a flow here,
and the sweeps of crashes take it in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tenantry.api.common import API_VERSION, rfc3339
from tenantry.domain import names
from tests.integration.conftest import Api, Object, is_ready
from tests.unit.builders import EMAIL, sample

MEMBERS = [
    {"kind": "User", "name": "ann@acme.example", "role": "owner"},
    {"kind": "Group", "name": "acme-editors", "role": "editor"},
]
PATIENCE_SECONDS = 90.0
"""The namespace controller leaves a namespace be for five seconds before it removes it."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One tenant: everything that belongs to it has its name in its own name or in its namespace's."""

    api: Api
    name: str

    @property
    def plan(self) -> str:
        """A Plan of its own, where a flow makes one."""
        return f"plan-{self.name}"

    @property
    def given(self) -> str:
        """A namespace that somebody gives it, where a flow makes one."""
        return f"given-{self.name}"

    async def tenant(self, **spec: Any) -> None:
        """Apply its Tenant, whose spec is all that is given."""
        content = {"owner": {"email": EMAIL}, "plan": "pro", "members": MEMBERS, **spec}
        metadata = {"name": self.name}
        await self.api.apply(
            {"apiVersion": API_VERSION, "kind": "Tenant", "metadata": metadata, "spec": content}
        )

    async def delete_tenant(self) -> None:
        """Delete its Tenant."""
        await self.api.delete("Tenant", self.name)

    async def archive(self) -> str:
        """Return the name of its one archive."""
        listed = await self.api.list("TenantArchive")
        (name,) = [item["metadata"]["name"] for item in listed if item["spec"]["tenant"] == self.name]
        return str(name)

    async def ready(self, *, phase: str = "Ready", revision: int | None = None) -> None:
        """Wait until the Tenant is Ready at its present generation, in that phase, at that revision if any."""

        def holds(found: Object | None) -> bool:
            status = (found or {}).get("status", {})
            there = revision is None or status.get("configRevision") == revision
            return is_ready(found) and status["phase"] == phase and there

        await self.api.until("Tenant", self.name, holds, timeout=PATIENCE_SECONDS)

    async def gone(self) -> None:
        """Wait until there is no Tenant."""
        await self.api.until("Tenant", self.name, lambda found: found is None, timeout=PATIENCE_SECONDS)

    async def archived(self, phase: str = "Kept") -> None:
        """Wait until its one archive is in that phase, and has nothing to wait for."""

        def holds(found: Object | None) -> bool:
            return is_ready(found) and (found or {})["status"]["phase"] == phase

        await self.api.until("TenantArchive", await self.archive(), holds, timeout=PATIENCE_SECONDS)


Step = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Flow:
    """`begin` brings a tenant to rest somewhere; `act` is what somebody then does; `end` waits for the answer.

    All that is made carries `Scene.name` in its name or its namespace's, so that a picture of it is whole
    (tests.faults.picture) and runs of other names compare equal. `end` must not be true before `act`, and only be
    true when the last write but for Events is done. One field manager makes all edits of an object: managedFields
    have times in whole seconds, so that of two in one second nobody can tell which came last.
    """

    name: str
    begin: Step
    act: Step
    end: Step

    def __str__(self) -> str:
        return self.name


# --- where flows begin --------------------------------------------------------------------------------------------


async def _nothing(scene: Scene) -> None:
    """Nobody is a tenant yet."""


async def _ready(scene: Scene) -> None:
    await scene.tenant()
    await scene.ready()


async def _suspended(scene: Scene) -> None:
    await scene.tenant(suspended=True)
    await scene.ready(phase="Suspended")


OVERRIDES = {"model": {"name": "gpt-4o"}}


async def _second_revision(scene: Scene) -> None:
    await _ready(scene)
    await scene.tenant(overrides=OVERRIDES)
    await scene.ready(revision=2)


async def _own_plan(scene: Scene) -> None:
    """The tenant is alone on a plan."""
    plan = sample("plans.yaml", "pro")
    await scene.api.apply({**plan, "metadata": {"name": scene.plan}})
    await scene.tenant(plan=scene.plan)
    await scene.ready()
    await scene.api.until("Plan", scene.plan, lambda found: found and found["status"].get("tenants") == 1)


async def _archived(scene: Scene) -> None:
    """The tenant was deleted, its namespace is kept, with something of its own in it."""
    await _ready(scene)
    await _own_content(scene, f"tenant-{scene.name}")
    await scene.delete_tenant()
    await scene.gone()
    await scene.archived()


async def _to_be_removed(scene: Scene) -> None:
    await scene.tenant(deletionPolicy="Delete")
    await scene.ready()


async def _marked_namespace(scene: Scene) -> None:
    """A namespace waits for the tenant that may adopt it."""
    metadata = {
        "name": scene.given,
        "labels": {"team": "search"},
        "annotations": {names.ADOPTABLE_BY: scene.name},
    }
    await scene.api.create("Namespace", {"metadata": metadata})
    await _own_content(scene, scene.given)


async def _adopted(scene: Scene) -> None:
    await _marked_namespace(scene)
    await _adopt(scene, deletionPolicy="Delete")
    await scene.ready()


async def _own_content(scene: Scene, namespace: str) -> None:
    await scene.api.create(
        "ConfigMap", {"metadata": {"name": "settings", "namespace": namespace}, "data": {"colour": "blue"}}
    )


# --- what is done to them -----------------------------------------------------------------------------------------


async def _adopt(scene: Scene, **spec: Any) -> None:
    await scene.tenant(namespace={"name": scene.given, "adoption": "IfMarked"}, **spec)


async def _edit_plan(scene: Scene) -> None:
    change = {"model": {"maxTokens": 2048}, "network": {"egress": {"internetPorts": [8443]}}}
    await scene.api.patch("Plan", scene.plan, {"spec": change}, manager="kubectl")


async def _roll_back(scene: Scene) -> None:
    await scene.tenant(overrides=OVERRIDES, configRevision=1)


async def _end_retention(scene: Scene) -> None:
    """Retention of days would end; it is moved into the past, as an administrator may."""
    past = rfc3339(datetime.now(UTC) - timedelta(seconds=1))
    await scene.api.patch("TenantArchive", await scene.archive(), {"spec": {"purgeAfter": past}})


async def _purge_now(scene: Scene) -> None:
    await scene.api.delete("TenantArchive", await scene.archive())


# --- where they end -----------------------------------------------------------------------------------------------


async def _plan_edited(scene: Scene) -> None:
    await scene.ready(revision=2)

    def holds(found: Object | None) -> bool:
        return is_ready(found) and (found or {})["status"]["observedGeneration"] == 2

    await scene.api.until("Plan", scene.plan, holds)


async def _retained(scene: Scene) -> None:
    await scene.gone()
    await scene.archived()


async def _restored(scene: Scene) -> None:
    await scene.ready()
    await scene.archived("Restored")


async def _nothing_archived(scene: Scene) -> None:
    async def archive_is_gone(name: str) -> None:
        await scene.api.until("TenantArchive", name, lambda found: found is None, timeout=PATIENCE_SECONDS)

    for item in await scene.api.list("TenantArchive"):
        if item["spec"]["tenant"] == scene.name:
            await archive_is_gone(item["metadata"]["name"])


FLOWS = (
    Flow("onboarding", _nothing, lambda scene: scene.tenant(), lambda scene: scene.ready()),
    Flow(
        "plan change", _ready, lambda scene: scene.tenant(plan="free"), lambda scene: scene.ready(revision=2)
    ),
    Flow("plan edit", _own_plan, _edit_plan, _plan_edited),
    Flow(
        "suspension",
        _ready,
        lambda scene: scene.tenant(suspended=True),
        lambda scene: scene.ready(phase="Suspended"),
    ),
    Flow("resume", _suspended, lambda scene: scene.tenant(), lambda scene: scene.ready()),
    Flow("rollback", _second_revision, _roll_back, lambda scene: scene.ready(revision=1)),
    Flow("deletion Retain", _ready, lambda scene: scene.delete_tenant(), _retained),
    Flow("restore", _archived, lambda scene: scene.tenant(), _restored),
    Flow("purge at its time", _archived, _end_retention, lambda scene: scene.archived("Purged")),
    Flow("purge now", _archived, _purge_now, _nothing_archived),
    Flow("deletion Delete", _to_be_removed, lambda scene: scene.delete_tenant(), lambda scene: scene.gone()),
    Flow("adoption", _marked_namespace, _adopt, lambda scene: scene.ready()),
    Flow("release", _adopted, lambda scene: scene.delete_tenant(), lambda scene: scene.gone()),
)
