"""What users do while replicas come and go: a burst of acts, or edits all the time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from tests.faults.acts import ACTS
from tests.faults.fleet import PATIENCE, Fleet
from tests.faults.view import now, picture
from tests.integration.conftest import is_ready, tenant


class Burst:
    """Many tenants, each with an act; in the end each looks like one with the same act that nothing disturbed."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._expected: dict[str, tuple[str, Counter[str]]] = {}
        self._count = 0

    async def rehearse(self) -> None:
        """Play each act once while nothing is amiss, and remember how it ends."""
        controls = await self.prepare(1)
        await self.act(controls)
        await self.answered(controls)
        rows = await self._fleet.audited()
        self._expected = {act: (self._picture(name), _lasting(rows[name])) for name, act in controls.items()}

    async def prepare(self, each: int) -> dict[str, str]:
        """Bring so many tenants per act to where it begins; return the act of each."""
        self._count += 1
        cast = {f"t{self._count}-{n}": act for n, act in enumerate(list(ACTS) * each)}
        fleet = self._fleet
        await asyncio.gather(*(ACTS[act].prepare(fleet.api, fleet.view, name) for name, act in cast.items()))
        await fleet.quiet()
        return cast

    async def act(self, cast: Mapping[str, str]) -> None:
        """Begin all acts."""
        fleet = self._fleet
        await asyncio.gather(*(ACTS[act].begin(fleet.api, fleet.view, name) for name, act in cast.items()))

    async def answered(self, cast: Mapping[str, str]) -> None:
        """Wait until each act is answered, and nobody writes any more."""
        view = self._fleet.view

        def left() -> list[str]:
            return [f"{act} of {name}" for name, act in cast.items() if not ACTS[act].done(view, name)]

        try:
            await view.until(lambda: not left(), "all acts are answered", PATIENCE)
        except AssertionError:
            raise AssertionError(f"not answered in {PATIENCE:g} s: {left()}") from None
        await self._fleet.quiet()

    async def judge(self, cast: Mapping[str, str]) -> None:
        """Compare each tenant, and its audit rows, with the undisturbed one of the same act."""
        rows, wrong = await self._fleet.audited(), []
        for name, act in cast.items():
            wanted, actions = self._expected[act]
            found = self._picture(name)
            if found != wanted:
                missing = Counter(wanted.splitlines()) - Counter(found.splitlines())
                surplus = Counter(found.splitlines()) - Counter(wanted.splitlines())
                wrong.append(f"{act} of {name}: missing {list(missing)[:9]}, instead {list(surplus)[:9]}")
            if _lasting(rows[name]) != actions:
                wrong.append(f"{act} of {name}: audit rows {rows[name]}, not {actions}")
        assert not wrong, "\n".join(wrong)

    def _picture(self, name: str) -> str:
        return picture(self._fleet.view.of(name), name)


def _lasting(rows: Counter[str]) -> Counter[str]:
    """Return the rows but for repairs: how many it takes depends on who looks when."""
    return Counter({action: count for action, count in rows.items() if action != "Repaired"})


class Flow:
    """Tenants that are edited one time after another, each edit awaited; some are under way at any moment."""

    def __init__(self, fleet: Fleet, names: list[str]) -> None:
        self._fleet = fleet
        self._names = names
        self._edits = Counter[str]()
        self._stop = asyncio.Event()
        self.waits: list[float] = []
        """Seconds from each edit to its tenant being Ready with it."""

    async def prepare(self) -> None:
        """Have the tenants Ready."""
        api, view = self._fleet.api, self._fleet.view
        for name in self._names:
            await api.apply(tenant(name, plan="pro"))
        await view.until(
            lambda: all(is_ready(view.get("Tenant", name)) for name in self._names), "Ready", PATIENCE
        )

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[Flow]:
        """Edit all the time; on leaving, all edits have been answered, and none of them is lost."""
        self._stop.clear()
        self.waits = []
        edits = [asyncio.create_task(self._edit(name)) for name in self._names]
        try:
            yield self
            self._stop.set()
            await asyncio.gather(*edits)
        finally:
            for task in edits:
                task.cancel()
            await asyncio.gather(*edits, return_exceptions=True)
        await self._fleet.quiet()
        rows = await self._fleet.audited()
        for name in self._names:
            edited = self._edits[name]
            assert rows[name] == Counter(Created=1, ConfigChanged=1 + edited, SpecChanged=edited), name

    async def more(self, count: int = 10) -> None:
        """Wait until so many edits more are answered."""
        goal = len(self.waits) + count
        await self._fleet.until(lambda: len(self.waits) >= goal, f"{count} edits more are answered")

    async def _edit(self, name: str) -> None:
        api, view = self._fleet.api, self._fleet.view
        while not self._stop.is_set():
            began, self._edits[name] = now(), self._edits[name] + 1
            change = {"spec": {"overrides": {"retrieval": {"topK": 1 + self._edits[name] % 40}}}}
            generation = (await api.patch("Tenant", name, change))["metadata"]["generation"]

            def answered(generation: int = generation) -> bool:
                found = view.get("Tenant", name)
                return found is not None and found["metadata"]["generation"] >= generation and is_ready(found)

            await view.until(answered, f"edit {self._edits[name]} of {name} is answered", PATIENCE)
            self.waits.append(now() - began)
