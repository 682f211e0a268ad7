"""The operator's lives, one after another, and tenants that each of its deaths catches at another write.

    begin ──► act ──► each tenant comes to its own write, and no further ──► SIGKILL ──► a fresh process ──► the end

A tenant has its Death: before or after its k-th write. From there on nothing that the process sends about it gets
through, as if the process were dead to it; when all tenants under way have come that far, it is. So one kill
serves several tenants at several writes, and each is left exactly as by a kill of its own at that request.

Writes to the ledger are not counted: a crash between a row of it and the next request to the API server leaves what
one before that request does.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tenantry.adapters.ledger import Ledger, open_ledger
from tenantry.domain.audit import AuditEntry
from tests.conftest import Cluster
from tests.faults.flows import Flow, Scene
from tests.faults.picture import (
    NAME,
    Picture,
    Told,
    differences,
    disorder,
    everything,
    picture,
    tellable,
    told,
    uids,
)
from tests.faults.places import Places
from tests.faults.proxy import WRITES, Answer, Fault, Proxy, Request
from tests.faults.replica import Replica
from tests.integration.conftest import Api

REDONE = 4
"""Writes that one crash may add: that which got lost again, an audit row's, and two that say how it stands."""

TOGETHER = 6
"""Tenants that one kill serves. Each holds up to nine requests at its death, and the operator sends 64 at a time."""

POLL_SECONDS = 0.05
MOST_ROWS = 100_000
END_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Death:
    """When the operator dies to a tenant: before or after its k-th write."""

    k: int
    after: bool = False

    def __str__(self) -> str:
        return f"dies {'after' if self.after else 'before'} write {self.k}"


NEVER = Death(0)


@dataclass(slots=True)
class Trial:
    """One tenant in one flow. `deaths`: one for each process to come; the last one lives."""

    flow: Flow
    scene: Scene
    deaths: tuple[Death, ...] = ()
    kept: frozenset[str] = frozenset()
    """UIDs of what is there before the act."""
    writes: list[str] = field(default_factory=list)
    """Writes since the act that came through, of all processes."""
    hit: list[str] = field(default_factory=list)
    """The writes that it was killed at."""
    dead: asyncio.Event = field(default_factory=asyncio.Event)
    count: int = 0
    """Writes that the present process has sent since the act."""

    def __str__(self) -> str:
        deaths = ", then ".join(
            f"{death} ({write})" for death, write in itertools.zip_longest(self.deaths, self.hit)
        )
        return f"{self.flow}, tenant {self.scene.name}: {deaths or 'undisturbed'}"

    @property
    def death(self) -> Death:
        """The next one."""
        return self.deaths[len(self.hit)] if len(self.hit) < len(self.deaths) else NEVER


@dataclass(frozen=True, slots=True)
class Reference:
    """How a flow goes undisturbed."""

    picture: Picture
    writes: tuple[str, ...]


class Deaths(Fault):
    """Lets nothing through about a tenant from its death on; counts writes about all others."""

    def __init__(self) -> None:
        self.trials: dict[str, Trial] = {}
        self._last: dict[int, Trial] = {}

    async def before(self, request: Request) -> Answer | None:
        trial = self._trial(request)
        if trial is None or request.verb not in WRITES:
            return None
        if trial.dead.is_set():
            await _never()
        if not request.is_write:
            return None
        trial.count += 1
        if trial.count == trial.death.k:
            if not trial.death.after:
                await self._die(trial, request)
            self._last[request.number] = trial
        return None

    async def after(self, request: Request, answer: Answer) -> Answer:
        trial = self._trial(request)
        if trial is None or request.verb not in WRITES:
            return answer
        if request.is_write:
            trial.writes.append(str(request))
        if request.number in self._last:
            await self._die(self._last.pop(request.number), request)
        if trial.dead.is_set():
            await _never()
        return answer

    async def _die(self, trial: Trial, request: Request) -> None:
        trial.hit.append(str(request))
        trial.dead.set()
        await _never()

    def _trial(self, request: Request) -> Trial | None:
        return self.trials.get(_tenant_of(request))


async def _never() -> None:
    """Wait for the end of the process: the proxy cancels what it holds for a client that is gone."""
    await asyncio.Event().wait()


def _tenant_of(request: Request) -> str:
    mark = NAME.search(f"{request.namespace} {request.name}")
    return mark[0] if mark else ""


class Lives:
    """A process of the operator at a time, what it has to answer for, and how it should end."""

    def __init__(self, api: Api, proxy: Proxy, replica: Replica, ledger: Ledger) -> None:
        self.references: dict[str, Reference] = {}
        self.places: Places | None = None
        """On the shard, where there is one."""
        self._api, self._proxy, self._replica, self._ledger = api, proxy, replica, ledger
        self._deaths = proxy.fault = Deaths()
        self._numbers = itertools.count(1)
        self._ended: list[Trial] = []
        """Came to their ends in the present process."""
        self._resting: list[Trial] = []
        """Had come to their ends before the present process began."""

    async def know(self, flows: Iterable[Flow]) -> None:
        """Run flows undisturbed, side by side, to know how they go."""
        trials = [self._trial(flow) for flow in flows if flow.name not in self.references]
        await self._act(trials)
        await asyncio.gather(*(trial.flow.end(trial.scene) for trial in trials))
        await self._replica.stop()  # what is under way, also an Event, is done
        shown = await self._pictures(trials, await self._rows())
        for trial in trials:
            self.references[trial.flow.name] = Reference(shown[trial.scene.name], tuple(trial.writes))
        self._ended = trials
        await self.rest()

    async def crash(self, runs: Sequence[tuple[Flow, tuple[Death, ...]]]) -> list[Trial]:
        """Run tenants through flows with deaths; assert that each ends like one undisturbed. Return them."""
        trials = [self._trial(flow, deaths) for flow, deaths in runs]
        await self._act(trials)
        for _ in range(max(len(trial.deaths) for trial in trials)):
            await asyncio.gather(*(self._dead_or_ended(trial) for trial in trials))
            self._replica.kill()
            problems = [
                problem for objects in (await everything(self._api)).values() for problem in disorder(objects)
            ]
            assert not problems, f"{[str(trial) for trial in trials]} leave behind: {problems}"
            for trial in trials:
                trial.count = 0
                trial.dead.clear()
            await self._next()
        await asyncio.gather(*(trial.flow.end(trial.scene) for trial in trials))
        await self._end_as_undisturbed(trials)
        self._ended += trials
        return trials

    async def rest(self) -> None:
        """Start a fresh process for what has come to its end; assert that it writes nothing about it."""
        self._replica.kill()
        await self._next()
        kinds = ("Tenant", "Plan", "TenantArchive", "VectorShard")
        counts = [len(await self._api.list(kind)) for kind in kinds]
        await self._replica.reconciled(sum(counts) + 1)  # and the ClusterRoles
        self._assert_rest()

    def _trial(self, flow: Flow, deaths: tuple[Death, ...] = ()) -> Trial:
        return Trial(flow, Scene(self._api, f"t{next(self._numbers):04d}"), deaths)

    async def _act(self, trials: Sequence[Trial]) -> None:
        await asyncio.gather(*(trial.flow.begin(trial.scene) for trial in trials))
        there = await everything(self._api)
        for trial in trials:
            trial.kept = uids(there.get(trial.scene.name, ()))
            self._deaths.trials[trial.scene.name] = trial
        await asyncio.gather(*(trial.flow.act(trial.scene) for trial in trials))

    async def _dead_or_ended(self, trial: Trial) -> None:
        """Wait until the process is dead to a tenant, or has nothing more to do for it: it then dies at rest."""
        ways = {asyncio.ensure_future(trial.dead.wait()), asyncio.ensure_future(trial.flow.end(trial.scene))}
        done, others = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for task in done:
            task.result()

    async def _next(self) -> None:
        """Start a process after one that was killed; what rested in that one's life is forgotten."""
        self._assert_rest()
        await self._forget(self._resting)
        self._resting, self._ended = self._ended, []
        self._proxy.log.clear()
        await self._replica.start()

    def _assert_rest(self) -> None:
        resting = {trial.scene.name: trial for trial in self._resting}
        for request in self._proxy.log:
            if request.verb in WRITES and (trial := resting.get(_tenant_of(request))):
                raise AssertionError(f"{trial}: does not rest, a later process sends: {request}")

    async def _end_as_undisturbed(self, trials: Sequence[Trial]) -> None:
        problems: dict[str, list[str]] = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                while problems := await self._problems(trials):  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(POLL_SECONDS)
        for trial in trials:
            wrong = problems.get(trial.scene.name)
            assert not wrong, "\n".join([f"{trial}: it does not end as undisturbed", *wrong, self._log()])
            most = len(self.references[trial.flow.name].writes) + REDONE * len(trial.deaths)
            assert len(trial.writes) <= most, (
                f"{trial}: {len(trial.writes)} writes, not {most}: {trial.writes}"
            )
        await self._assert_told(trials)

    async def _assert_told(self, trials: Sequence[Trial]) -> None:
        """Assert that each process tells of each audit row once at most. An Event may be lost with its process."""
        rows, events = await self._rows(), await told(self._api)
        for trial in trials:
            name, processes = trial.scene.name, len(trial.deaths) + 1
            most = tellable(name, rows)
            for event, times in events.get(name, Told()).items():
                assert times <= most[event] * processes, f"{trial}: {event} is told {times} times"

    async def _problems(self, trials: Sequence[Trial]) -> dict[str, list[str]]:
        """Return how tenants differ from undisturbed ones, by name."""
        shown = await self._pictures(trials, await self._rows())
        found = {}
        for trial in trials:
            expected = self.references[trial.flow.name].picture
            if differ := list(differences(expected, shown[trial.scene.name])):
                found[trial.scene.name] = differ
        return found

    async def _rows(self) -> list[AuditEntry]:
        return (await self._ledger.audit.entries(limit=MOST_ROWS))[::-1]

    async def _pictures(self, trials: Iterable[Trial], rows: Sequence[AuditEntry]) -> dict[str, Picture]:
        there = await everything(self._api)
        names = {trial.scene.name: trial.kept for trial in trials}
        shown = {name: picture(name, there.get(name, ()), rows, kept) for name, kept in names.items()}
        if self.places is not None:
            on_shard = await self.places.of(names)
            for name in names:
                shown[name]["place"] = on_shard.get(name)
        return shown

    async def _forget(self, trials: Sequence[Trial]) -> None:
        """Remove what belongs to tenants, while no operator runs that would take leave of them."""
        mine = {trial.scene.name for trial in trials}
        free = {"metadata": {"finalizers": None}}
        for name, objects in (await everything(self._api)).items():
            if name not in mine:
                continue
            for item in objects:
                kind, called = item["kind"], item["metadata"]["name"]
                if kind in ("Tenant", "TenantArchive"):
                    await self._api.patch(kind, called, free)
                if kind in ("Tenant", "TenantArchive", "Namespace"):
                    await self._api.delete(kind, called)
        if self.places is not None:
            await self.places.forget(mine)

    def _log(self) -> str:
        return "the operator's log ends:\n" + self._replica.log.read_text()[-3000:]


@asynccontextmanager
async def lives(cluster: Cluster, api: Api, folder: Path) -> AsyncIterator[Lives]:
    """The operator behind a proxy, running; `folder` takes its ledger and its log."""
    async with Proxy(cluster) as proxy:
        door = await proxy.door("a", folder)
        replica = Replica(door, api, folder)
        try:
            await replica.start()
            ledger = await open_ledger(replica.ledger_url)
            try:
                yield Lives(api, proxy, replica, ledger)
            finally:
                await ledger.close()
        finally:
            replica.kill()
