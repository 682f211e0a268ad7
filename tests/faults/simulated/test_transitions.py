"""Anything that users do, in any order, at any moment: in the end each tenant is as if it had just been applied.

Hypothesis draws what several people do to a few tenants that may get into each other's way: they apply, edit, delete
and re-create Tenants and Plans, give and take namespaces, meddle with children by hand, delete archives, let time pass.
Between two acts the operator does nothing, a few steps, or all that is to be done; it may be restarted, and the ledger
may be away. `onlooker` checks every write, `at_rest` everything once nothing is left to do.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tenantry.api.common import rfc3339
from tenantry.domain import names
from tests.faults.simulated import at_rest
from tests.faults.simulated.apiserver import Ref
from tests.faults.simulated.fresh import REST, put
from tests.faults.simulated.onlooker import Home, Onlooker, archive_name, is_ours
from tests.faults.simulated.world import World
from tests.unit.builders import sample

EXAMPLES = 80
STEPS = 50
"""The budget of one run, about 45 s; `make soak` does it again and again with new seeds."""

Object = dict[str, Any]

TENANTS = ("acme", "bolt", "coil")
PLACES = ("legacy", "tenant-acme", "tenant-bolt", "tenant-coil")
STRANGER = "new@stranger.example"
MANAGERS = strategies.sampled_from(["kubectl", "argocd-controller", "kubectl-edit"])
CHILD = strategies.integers(0, 30)
"""Which of the children that are there, counted round and round."""

MEMBERS: list[Object] = [
    {"kind": "User", "name": "ann@acme.example", "role": "owner"},
    {"kind": "Group", "name": "developers", "role": "editor"},
    {"kind": "ServiceAccount", "name": "dashboard", "role": "viewer"},
]
OVERRIDES: list[Object] = [{}, {"model": {"name": "gpt-4o"}}, {"retrieval": {"topK": 8}}, {"model": {"maxTokens": 9}}]
"""The last two are not allowed on every plan, the first two of them on none but some."""

LABELS: list[Object] = [{}, {"team": "a"}, {"team": "b", "shop.example/tier": "1"}]
FIELDS: dict[str, strategies.SearchStrategy[Any]] = {
    "plan": strategies.sampled_from([None, "free", "pro", "enterprise", "nowhere"]),
    "members": strategies.lists(strategies.sampled_from(MEMBERS), max_size=3, unique_by=str),
    "overrides": strategies.sampled_from(OVERRIDES),
    "suspended": strategies.booleans(),
    "deletionPolicy": strategies.sampled_from(["Retain", "Delete"]),
    "retentionDays": strategies.sampled_from([30, 1, 0]),
    "configRevision": strategies.sampled_from([None, 1, 2, 3, 9]),
    "displayName": strategies.sampled_from([None, "A Name"]),
}
SPECS = strategies.fixed_dictionaries({}, optional=FIELDS)
PLAN_EDITS: dict[str, list[Object]] = {
    "free": [{}, {"overridable": ["model.name"]}],
    "pro": [
        {},
        {"podSecurity": "baseline", "priority": "high"},
        {"network": {}},
        {"overridable": [], "model": {"provider": "openai", "name": "gpt-5"}},
        {"resources": {"quota": {"pods": "7"}}},
    ],
    "enterprise": [{}, {"retrieval": {"topK": 4}}],
}
PACES = strategies.one_of(
    strategies.just(-1),
    strategies.sampled_from([0, 1, 3, 8]),
)
"""How many steps the operator does after an act; -1: all there are."""


class Transitions(RuleBasedStateMachine):
    """Users and an operator. Each rule is one act of a user, after which the operator goes on as `pace` says."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.world = World()
        self.onlooker = Onlooker(self.world)
        self.touched: set[str] = set()
        self.before: dict[str, dict[Ref, str]] = {}
        self.order = random.Random(0)
        self.world.restart(self.onlooker)

    def teardown(self) -> None:
        try:
            self.world.audit.down = False
            self.settle()
        finally:
            self.loop.close()

    @initialize(order=strategies.integers(0, 99), specs=strategies.lists(SPECS, min_size=1, max_size=3))
    def begin(self, order: int, specs: list[Object]) -> None:
        """There are plans, and some tenants."""
        self.order = random.Random(order)
        for name in PLAN_EDITS:
            put(self.world, "Plan", name, sample("plans.yaml", name)["spec"])
        for name, spec in zip(TENANTS, specs, strict=False):
            self.apply(name, spec, "", "Never", {}, "kubectl")
        self.acted(-1, *PLACES)

    # --- the operator -----------------------------------------------------------------------------------------

    def acted(self, pace: int, *touched: str) -> None:
        """Take note of what a user did to some namespaces, and let the operator work."""
        self.touched.update(touched)
        self.onlooker.users_acted()
        if pace < 0:
            self.settle()
        else:
            self.loop.run_until_complete(self._work(pace))

    async def _work(self, steps: int) -> None:
        """Reconcile what is due, in any order; now and then on old news."""
        for _ in range(steps):
            if self.order.random() < 0.8:
                self.world.deliver()
                self.onlooker.news_came()
            now = self.world.clock.now()
            due = sorted(key for key, at in self.world.process.due.items() if at <= now)
            if not due:
                self.world.api.collect()
                continue
            key = self.order.choice(due)
            del self.world.process.due[key]
            await self.world.reconcile(key)

    def settle(self) -> None:
        """Let the operator do all there is to do, and look at what has come of it."""
        self.loop.run_until_complete(self._settle())

    async def _settle(self) -> None:
        world = self.world
        self.onlooker.news_came()
        await world.settle(REST)
        if world.audit.down:
            return
        self.onlooker.came_to_rest()
        await at_rest.check(self.onlooker)
        self._check_others()
        done = len(world.process.writes)
        world.relist()
        await world.settle()
        assert world.process.writes[done:] == [], "it writes without a cause"
        self.onlooker.unlimited.clear()
        self._leave_data()
        self.touched.clear()
        self.before = self._versions()

    def _check_others(self) -> None:
        """Nothing of a tenant was written to whom nobody has done anything."""
        for place, versions in self._versions().items():
            if place not in self.touched and place in self.before:
                assert versions == self.before[place], f"{place} was written to, and only {self.touched} were touched"

    def _versions(self) -> dict[str, dict[Ref, str]]:
        found: dict[str, dict[Ref, str]] = {place: {} for place in PLACES}
        for ref, item in self.world.api.objects.items():
            place = ref.namespace or ref.name
            if ref.kind == "Tenant":
                place = next(it.namespace for it in self.onlooker.living() if it.name == ref.name)
            elif ref.kind == "TenantArchive":
                place = item.manifest["spec"]["namespace"]
            if place in found:
                found[place][ref] = item.manifest["metadata"]["resourceVersion"]
        return found

    def _leave_data(self) -> None:
        """Whoever is Ready keeps data of its own; what is there already must be its own or have come to it rightly."""
        for person in self.onlooker.living():
            home = self.onlooker.home(person.namespace)
            if home is None or home.holder != person.uid or home.terminating:
                continue
            there = self.world.api.get("ConfigMap", "owner-data", home.name)
            if there is not None and there["data"]["of"] != person.uid:
                former = self.onlooker.people[there["data"]["of"]]
                assert former.gone
                assert former.name == person.name or home.by_user, f"{person.name} has data of {former.name}"
                allowed = person.was_allowed
                same = {email.lower() for email in person.emails} & {email.lower() for email in former.emails}
                assert same or archive_name(former) in allowed or home.by_user, "a stranger has data"
            metadata = {"name": "owner-data", "namespace": home.name}
            data = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"of": person.uid}}
            self.world.api.apply(data, "app")
        self.onlooker.users_acted()

    @rule(relist=strategies.booleans(), pace=PACES)
    def restarted(self, relist: bool, pace: int) -> None:
        """The operator starts anew, or lists everything again."""
        if relist:
            self.world.relist()
        else:
            self.world.restart(self.onlooker)
            self.onlooker.news_came()
        self.acted(pace)

    @rule(pace=PACES)
    def ledger_away_or_back(self, pace: int) -> None:
        """The database goes away, or is there again."""
        self.world.audit.down = not self.world.audit.down
        self.acted(pace)

    @rule(amount=strategies.sampled_from([{"minutes": 1}, {"minutes": 3}, {"hours": 25}, {"days": 31}]), pace=PACES)
    def time_passes(self, amount: dict[str, float], pace: int) -> None:
        """Some of it is enough for a retention to end."""
        self.world.clock.turn(**amount)
        kept = [item["spec"]["namespace"] for item in self.onlooker.stored("TenantArchive")]
        self.acted(pace, *kept)

    # --- Tenants ----------------------------------------------------------------------------------------------

    def some(self, name: str) -> str:
        """Return a Tenant that is there: that one, or the first; that one where there is none."""
        present = sorted({person.name for person in self.onlooker.living()})
        return name if name in present or not present else present[0]

    def place_of(self, name: str) -> str:
        """Return the namespace of a Tenant that is there, or by default."""
        return next((it.namespace for it in self.onlooker.living() if it.name == name), f"tenant-{name}")

    def apply(self, name: str, spec: Object, place: str, adoption: str, labels: Object, manager: str) -> None:
        """Apply a Tenant as a whole; where it is there already it keeps its namespace, as the schema demands."""
        present = self.world.api.get("Tenant", name)
        known = ((present or {}).get("spec", {}).get("namespace") or {}).get("name") or ""
        place = known if present else place
        namespace = {"adoption": adoption, "labels": labels, **({"name": place} if place else {})}
        owner = {"owner": {"email": f"ops@{name}.example"}}
        content = {key: value for key, value in {**owner, **spec}.items() if value is not None}
        put(self.world, "Tenant", name, {**content, "namespace": namespace}, manager)

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
        change=strategies.sampled_from(sorted(FIELDS)).flatmap(
            lambda field: FIELDS[field].map(lambda value: (field, value))
        ),
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

    # --- namespaces -----------------------------------------------------------------------------------------------

    @rule(place=strategies.sampled_from(PLACES), mark=strategies.sampled_from([None, *TENANTS]), pace=PACES)
    def namespace_is_made(self, place: str, mark: str | None, pace: int) -> None:
        """A user's own, marked for a tenant or not; one that is there is marked for another."""
        marks = {names.ADOPTABLE_BY: mark}
        if self.world.api.get("Namespace", place) is None:
            metadata = {"name": place, "labels": {"own": "yes"}, "annotations": marks if mark else {}}
            self.world.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}, "kubectl-create")
            self.put_config_map(place, "settings")
        else:
            self.world.edit("Namespace", place, metadata={"annotations": marks})
        self.acted(pace, place)

    def put_config_map(self, place: str, name: str, **metadata: Any) -> None:
        """Make a ConfigMap of a user's."""
        document = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"colour": "blue"}}
        self.world.api.apply({**document, "metadata": {"name": name, "namespace": place, **metadata}}, "helm")

    @rule(
        place=strategies.sampled_from(PLACES),
        what=strategies.sampled_from(["delete", "strip", "label", "others", "tenant label", "digest", "free"]),
        pace=PACES,
    )
    def namespace_is_meddled_with(self, place: str, what: str, pace: int) -> None:
        """By somebody who may do anything."""
        home, world = self.some_home(place), self.world
        if home is None or not (home.holder or what in ("delete", "others", "free")):
            return
        place = home.name
        if what == "delete":
            world.api.delete("Namespace", place)
        elif what == "strip":
            marks = {key: None for key in (names.MANAGED_BY, names.TENANT)}
            annotations = {key: None for key in (names.TENANT_UID, names.ORIGIN, names.OWNER)}
            world.edit("Namespace", place, metadata={"labels": marks, "annotations": annotations})
        elif what == "free":
            for ref in [ref for ref in world.api.objects if ref.namespace == place]:
                world.edit(ref.kind, ref.name, place, metadata={"finalizers": None})
        else:
            changes: dict[str, Object] = {
                "label": {"labels": {"pod-security.kubernetes.io/enforce": "privileged", "tenantry.dev/x": "y"}},
                "others": {"labels": {"team": "mesh", "istio": "on"}, "annotations": {"note": "mine"}},
                "tenant label": {"labels": {names.TENANT: "rival"}},
                "digest": {"annotations": {names.OWNER: "0" * 32}},
            }
            world.edit("Namespace", place, metadata=changes[what])
        self.acted(pace, place)

    def some_home(self, place: str) -> Home | None:
        """Return a namespace that is there: that one, or the first."""
        there = sorted(item["metadata"]["name"] for item in self.onlooker.stored("Namespace"))
        return self.onlooker.home(place if place in there or not there else there[0])

    # --- children -------------------------------------------------------------------------------------------------

    def child(self, place: str, which: int) -> Ref | None:
        """Return one of the operator's children in a namespace."""
        home = self.onlooker.home(place)
        objects = self.world.api.objects.items()
        ours = sorted(
            ref for ref, item in objects if home and ref.namespace == place and is_ours(ref, item.manifest, True)
        )
        return ours[which % len(ours)] if ours and home and home.holder else None

    @rule(
        place=strategies.sampled_from(PLACES),
        which=CHILD,
        how=strategies.sampled_from(["delete", "content", "unlabel", "relabel", "unmark", "hold", "note"]),
        manager=MANAGERS,
        pace=PACES,
    )
    def child_is_meddled_with(self, place: str, which: int, how: str, manager: str, pace: int) -> None:
        """By somebody who may do anything."""
        home = self.some_home(place)
        ref = self.child(home.name, which) if home else None
        if home is None or ref is None:
            return
        place = home.name
        if ref.name in ("tenantry", "tenantry-default-deny"):
            self.onlooker.unlimited.add(place)
        if how == "delete":
            if ref.kind == "ControllerRevision":
                home.unsure.add(int(ref.name.rpartition("-")[2]))
            self.world.api.delete(ref.kind, ref.name, place)
        else:
            changes = _content(ref) if how == "content" else {"metadata": METADATA[how]}
            self.world.edit(ref.kind, ref.name, place, manager=manager, **changes)
        self.acted(pace, place)

    @rule(
        place=strategies.sampled_from(PLACES),
        labelled=strategies.booleans(),
        kind=strategies.sampled_from(["ConfigMap", "RoleBinding", "NetworkPolicy", "ResourceQuota"]),
        pace=PACES,
    )
    def something_is_put_there(self, place: str, labelled: bool, kind: str, pace: int) -> None:
        """Of a user's own, or with our label on it as if it were ours."""
        home = self.some_home(place)
        if home is None or home.terminating or not home.holder:
            return
        place = home.name
        name = f"extra-{'ours' if labelled else 'own'}"
        marks = {"labels": {names.MANAGED_BY: names.MANAGER}} if labelled else {}
        metadata = {"name": name, "namespace": place, **marks}
        document: Object = {"apiVersion": "v1", "kind": kind, "metadata": metadata}
        self.world.api.apply({**document, **_extra(kind)}, "helm")
        self.acted(pace, place)

    @rule(place=strategies.sampled_from(PLACES), away=strategies.booleans(), pace=PACES)
    def name_is_taken(self, place: str, away: bool, pace: int) -> None:
        """In a namespace that no tenant has yet there is something with the name of one of ours, or no more."""
        home = self.onlooker.home(place)
        if home is None or home.holder or home.terminating:
            return
        if away:
            self.world.api.delete("ConfigMap", "tenant-config", place)
        else:
            self.put_config_map(place, "tenant-config")
        self.acted(pace, place)


METADATA: dict[str, Object] = {
    "unlabel": {"labels": {names.MANAGED_BY: None}},
    "relabel": {"labels": {names.TENANT: "rival"}},
    "unmark": {"annotations": {names.TENANT_UID: None}},
    "hold": {"finalizers": ["shop.example/hold"]},
    "note": {"annotations": {"note": "mine"}},
}


def _content(ref: Ref) -> Object:
    contents: dict[str, Object] = {
        "ResourceQuota": {"spec": {"hard": {"pods": "999", "secrets": "1"}}},
        "LimitRange": {"spec": {"limits": []}},
        "NetworkPolicy": {"spec": {"ingress": [{}]}},
        "RoleBinding": {"subjects": [{"kind": "User", "name": "mallory"}]},
        "ConfigMap": {"data": {"config.json": "{}", "more": "x"}},
        "ServiceAccount": {"automountServiceAccountToken": False},
        "ControllerRevision": {"revision": 77},
    }
    return contents[ref.kind]


def _extra(kind: str) -> Object:
    if kind == "RoleBinding":
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
        return {"roleRef": role, "subjects": []}
    return {"data": {"x": "y"}} if kind == "ConfigMap" else {"spec": {"x": {}}}


def run(**options: Any) -> None:
    """Run the machine."""
    own = settings(
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        **options,
    )
    import os
    if os.environ.get("NOSHRINK"):
        own = settings(own, phases=[Phase.generate])
    run_state_machine_as_test(Transitions, settings=own)


@pytest.mark.random
@pytest.mark.timeout(600)
def test_whatever_users_do_each_tenant_ends_as_a_fresh_one() -> None:
    run(max_examples=EXAMPLES, derandomize=False, database=None)


def test_the_same_as_ever() -> None:
    run(max_examples=10, derandomize=True, database=None)
