"""What users do with objects of our kinds: Tenants, Plans, archives."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import strategies
from hypothesis.stateful import rule

from tenantry.api.common import rfc3339
from tenantry.domain import names
from tests.faults.simulated.drawn import (
    CHANGES,
    LABELS,
    MANAGERS,
    PACES,
    PLAN_EDITS,
    SPECS,
    STRANGER,
    TENANTS,
)
from tests.faults.simulated.fresh import put
from tests.faults.simulated.walk import Walk
from tests.unit.builders import sample

Object = dict[str, Any]


class ActsOnTenants(Walk):
    """Each rule is one act of a user, after which the operator goes on as `pace` says."""

    def some(self, name: str) -> str:
        """Return a Tenant that is there: that one, or the first; that one where there is none."""
        present = sorted({person.name for person in self.onlooker.living()})
        return name if name in present or not present else present[0]

    def place_of(self, name: str) -> str:
        """Return the namespace of a Tenant that is there, or by default."""
        return next((it.namespace for it in self.onlooker.living() if it.name == name), f"tenant-{name}")

    @rule(
        name=strategies.sampled_from(TENANTS),
        spec=SPECS,
        place=strategies.sampled_from(["", "", "legacy", "tenant-acme"]),
        adoption=strategies.sampled_from(["Never", "IfMarked"]),
        labels=strategies.sampled_from(LABELS),
        manager=MANAGERS,
        pace=PACES,
    )
    def tenant_is_applied(
        self, name: str, spec: Object, place: str, adoption: str, labels: Object, manager: str, pace: int
    ) -> None:
        """A new one, or all of an old one's spec."""
        self.apply(name, spec, place, adoption, labels, manager)
        self.acted(pace, self.place_of(name), place or f"tenant-{name}")

    @rule(
        name=strategies.sampled_from(TENANTS),
        change=CHANGES,
        manager=MANAGERS,
        pace=PACES,
    )
    def field_is_edited(self, name: str, change: tuple[str, Any], manager: str, pace: int) -> None:
        """One field of the spec is set, or taken off."""
        name = self.some(name)
        if self.world.api.get("Tenant", name) is None:
            return
        self.world.edit("Tenant", name, manager=manager, spec=dict([change]))
        self.acted(pace, self.place_of(name))

    @rule(
        name=strategies.sampled_from(TENANTS),
        email=strategies.sampled_from(["", "OPS", STRANGER]),
        pace=PACES,
    )
    def owner_is_edited(self, name: str, email: str, pace: int) -> None:
        """Another address, or the same in capitals."""
        name = self.some(name)
        if self.world.api.get("Tenant", name) is None:
            return
        address = email if "@" in email else f"{email or 'ops'}@{name}.example"
        self.world.edit("Tenant", name, spec={"owner": {"email": address}})
        self.acted(pace, self.place_of(name))

    @rule(name=strategies.sampled_from(TENANTS), pace=PACES)
    def tenant_is_deleted(self, name: str, pace: int) -> None:
        """As its deletion policy says."""
        name = self.some(name)
        place = self.place_of(name)
        self.world.api.delete("Tenant", name)
        self.acted(pace, place)

    @rule(
        name=strategies.sampled_from(TENANTS),
        spec=SPECS,
        stranger=strategies.booleans(),
        between=strategies.sampled_from([0, 1, 3, -1]),
        pace=PACES,
    )
    def tenant_is_made_again(self, name: str, spec: Object, stranger: bool, between: int, pace: int) -> None:
        """Deleted and applied again, by the same owner or another, before or after the operator has seen it."""
        name = self.some(name)
        place = self.place_of(name)
        self.world.api.delete("Tenant", name)
        self.acted(between, place)
        owner = {"owner": {"email": STRANGER}} if stranger else {}
        self.apply(name, {**spec, **owner}, place, "Never", {}, "kubectl")
        self.acted(pace, place)

    @rule(name=strategies.sampled_from(TENANTS), right=strategies.booleans(), pace=PACES)
    def restore_is_allowed(self, name: str, right: bool, pace: int) -> None:
        """A Tenant is annotated with the archive that it may have, or with one that there is not."""
        tenant = self.world.api.get("Tenant", name)
        archives = [it for it in self.onlooker.stored("TenantArchive") if it["spec"]["tenant"] == name]
        if tenant is None or not (archives or not right):
            return
        allowed = archives[-1]["metadata"]["name"] if right else f"{name}-00000000"
        self.world.edit("Tenant", name, metadata={"annotations": {names.RESTORE_FROM: allowed}})
        self.acted(pace, self.place_of(name))

    # --- Plans, archives ----------------------------------------------------------------------------------------

    @rule(
        edit=strategies.sampled_from([(name, edit) for name, edits in PLAN_EDITS.items() for edit in edits]),
        delete=strategies.sampled_from([False, False, True]),
        pace=PACES,
    )
    def plan_is_edited_or_deleted(self, edit: tuple[str, Object], delete: bool, pace: int) -> None:
        """Edited, made again, or deleted; the default plan too."""
        name, changes = edit
        using = [person.namespace for person in self.onlooker.living() if person.plan == name]
        if delete:
            self.world.api.delete("Plan", name)
        else:
            put(self.world, "Plan", name, {**sample("plans.yaml", name)["spec"], **changes})
        self.acted(pace, *using)

    @rule(
        name=strategies.sampled_from(TENANTS),
        days=strategies.sampled_from([None, -1, 60]),
        pace=PACES,
    )
    def archive_is_deleted_or_edited(self, name: str, days: int | None, pace: int) -> None:
        """Deleted, or its time is put off or brought forward."""
        archives = self.onlooker.stored("TenantArchive")
        archives = [it for it in archives if it["spec"]["tenant"] == name] or archives
        if not archives:
            return
        subject = archives[-1]["metadata"]["name"]
        place = archives[-1]["spec"]["namespace"]
        if days is None:
            self.world.api.delete("TenantArchive", subject)
        else:
            later = rfc3339(self.world.clock.now() + timedelta(days=days))
            self.world.edit("TenantArchive", subject, spec={"purgeAfter": later})
        self.acted(pace, place)
