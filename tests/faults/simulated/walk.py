"""A cluster with users and an operator, and what holds after each of their acts: the base of the acts themselves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from itertools import pairwise
from typing import Any

from hypothesis import strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tenantry.domain import names
from tests.faults.simulated import at_rest
from tests.faults.simulated.apiserver import Ref
from tests.faults.simulated.drawn import PACES, PLACES, PLAN_EDITS, SPECS, TENANTS
from tests.faults.simulated.fresh import REST, put
from tests.faults.simulated.onlooker import Home, Onlooker, Person, archive_name
from tests.faults.simulated.world import World
from tests.unit.builders import sample

Object = dict[str, Any]


class Walk(RuleBasedStateMachine):
    """Users and an operator. Each rule is one act of a user, after which the operator goes on as `pace` says."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.world = World()
        self.onlooker = Onlooker(self.world)
        self.touched: set[str] = set()
        self.before: dict[str, dict[Ref, str]] = {}
        self.order = random.Random(0)
        self.sound = True
        self.world.restart(self.onlooker)

    def teardown(self) -> None:
        try:
            self.world.audit.down = False
            if self.sound:  # else what is wrong has been said
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

    def apply(self, name: str, spec: Object, place: str, adoption: str, labels: Object, manager: str) -> None:
        """Apply a Tenant as a whole; where it is there already it keeps its namespace, as the schema demands."""
        present = self.world.api.get("Tenant", name)
        known = ((present or {}).get("spec", {}).get("namespace") or {}).get("name") or ""
        place = known if present else place
        namespace = {"adoption": adoption, "labels": labels, **({"name": place} if place else {})}
        owner = {"owner": {"email": f"ops@{name}.example"}}
        content = {key: value for key, value in {**owner, **spec}.items() if value is not None}
        put(self.world, "Tenant", name, {**content, "namespace": namespace}, manager)

    # --- the operator -----------------------------------------------------------------------------------------

    def acted(self, pace: int, *touched: str) -> None:
        """Take note of what a user did to some namespaces, and let the operator work."""
        self.touched.update(touched)
        self.onlooker.users_acted()
        if pace < 0:
            self.settle()
        else:
            self._run(self._work(pace))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self.sound = False
        try:
            self.loop.run_until_complete(work)
        finally:
            self.onlooker.tell()
        self.sound = True

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
        self._run(self._settle())

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
                assert versions == self.before[place], (
                    f"{place} was written to, and only {self.touched} were touched"
                )

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
        """Whoever is Ready keeps data of its own; what is there already must have come to it rightly."""
        for person in self.onlooker.living():
            home = self.onlooker.home(person.namespace)
            if home is None or home.holder != person.uid or home.terminating:
                continue
            there = self.world.api.get("ConfigMap", "owner-data", home.name)
            if there is not None:
                self._check_data(there["data"]["of"], person, home)
            metadata = {"name": "owner-data", "namespace": home.name}
            data = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"of": person.uid}}
            self.world.api.apply(data, "app")
        self.onlooker.users_acted()

    def _check_data(self, former: str, person: Person, home: Home) -> None:
        """Whose data it is had the namespace once, and each that had it since was let have it by the one before."""
        if former not in home.holders:
            assert home.by_user or home.annotations.get(names.ADOPTABLE_BY) == person.name, (
                "whose data is this?"
            )
            return
        chain = [self.onlooker.people[uid] for uid in home.holders[home.holders.index(former) :]]
        assert chain[-1] is person
        for one, heir in pairwise(chain):
            assert one.gone
            assert one.name == heir.name, f"{heir.name} has data of {one.name}"
            same = {email.lower() for email in one.emails} & {email.lower() for email in heir.emails}
            assert same or archive_name(one) in heir.was_allowed, "a stranger has data"

    @rule(relist=strategies.booleans(), pace=PACES)
    def restarted(self, relist: bool, pace: int) -> None:
        """The operator starts anew, or lists everything again."""
        if relist:
            self.world.relist()
        else:
            self.world.restart(self.onlooker)
            self.onlooker.restarted()
        self.acted(pace)

    @rule(pace=PACES)
    def ledger_away_or_back(self, pace: int) -> None:
        """The database goes away, or is there again."""
        self.world.audit.down = not self.world.audit.down
        # Who is on the way out says whether it waits for the ledger.
        going = [person.namespace for person in self.onlooker.living() if person.deleting]
        over = [item["spec"]["namespace"] for item in self.onlooker.stored("TenantArchive")]
        self.acted(pace, *going, *over)

    @rule(
        amount=strategies.sampled_from([{"minutes": 1}, {"minutes": 3}, {"hours": 25}, {"days": 31}]),
        pace=PACES,
    )
    def time_passes(self, amount: dict[str, float], pace: int) -> None:
        """Some of it is enough for a retention to end."""
        self.world.clock.turn(**amount)
        kept = [item["spec"]["namespace"] for item in self.onlooker.stored("TenantArchive")]
        self.acted(pace, *kept)
