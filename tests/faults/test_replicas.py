"""Two and three replicas: whatever becomes of the one that leads, never two write, and no work is lost.

Whether two wrote is read from the proxy's log (`writers.trespasses`), after each of these tests.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from random import Random

import pytest

from tenantry.adapters.kubernetes.client import CONNECTIONS
from tenantry.adapters.kubernetes.kinds import CHILD_KINDS
from tenantry.domain import names
from tenantry.local.postgres import PostgresServer
from tests.conftest import Cluster
from tests.faults.fleet import LEASE_SECONDS, PATIENCE, Fleet, Member
from tests.faults.lease_faults import Clocks, Hold, NoLease, Silence, Together
from tests.faults.proxy import Fault, Proxy, Request, refusal
from tests.faults.view import Object, View, now, picture, viewed
from tests.faults.workload import Burst, Flow
from tests.faults.writers import trespasses, writes_of
from tests.integration.conftest import Api, is_ready, tenant

EACH = 5
"""Tenants per act in a burst: 40 in all."""

FREEZES = 2
"""Budget of the random test."""

GRACE_SECONDS = 27
"""The chart's terminationGracePeriodSeconds for a Lease of six seconds."""

Loss = Callable[[Fleet, Member], Awaitable[Member | None]]
"""Has a leader lose the Lease; returns who leads next, None where that is open."""


def report(what: str, seconds: float) -> None:
    """Print a figure for those who read the log of a run."""
    print(f"\n    {what}: {seconds:.2f} s", end="")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The ledger that the replicas share."""
    with PostgresServer(durable=False) as server:
        yield server.dsn()


@pytest.fixture(scope="module")
async def replicas(
    cluster: Cluster, api: Api, database: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Fleet]:
    """Three replicas that tests start, kill, freeze and stop."""
    async with Proxy(cluster) as proxy, viewed(api.client) as view:
        members = []
        for name in "abc":
            folder = tmp_path_factory.mktemp(name)
            door = await proxy.door(name, folder)
            settings = {
                "TENANTRY_DATABASE_URL": database,
                "TENANTRY_LEASE_SECONDS": str(LEASE_SECONDS),
                "TENANTRY_WORKERS": "6",
            }
            members.append(Member(name, door, api, folder, **settings))
        try:
            yield Fleet(api, view, proxy, members, database)
        finally:
            for member in members:
                member.kill()


@pytest.fixture(scope="module")
async def burst(replicas: Fleet) -> Burst:
    """What undisturbed tenants look like after each act."""
    await replicas.muster(1)
    burst = Burst(replicas)
    await burst.rehearse()
    return burst


@pytest.fixture(scope="module")
async def flow(replicas: Fleet) -> Flow:
    """Five tenants to be edited all the time."""
    await replicas.muster(1)
    flow = Flow(replicas, [f"flow-{number}" for number in range(5)])
    await flow.prepare()
    return flow


@pytest.fixture
async def fleet(replicas: Fleet) -> AsyncIterator[Fleet]:
    """The replicas; in the end never two of them have written."""
    yield replicas
    replicas.proxy.fault = Fault()
    for member in replicas.members:
        member.wake()
    assert trespasses(replicas.proxy.log) == []


async def caught(fleet: Fleet, hold: Hold) -> Member:
    """Wait until a write is held; return whose it is."""
    await fleet.until(lambda: bool(hold.held), "a write is held")
    return fleet.behind(hold.door)


# --- killed ----------------------------------------------------------------------------------------------------


async def test_a_standby_and_the_leader_killed_in_a_burst(fleet: Fleet, burst: Burst) -> None:
    """The standby at the beginning, the leader in front of a write."""
    await fleet.muster(3)
    cast = await burst.prepare(EACH)
    fleet.proxy.fault = hold = Hold(first=60)
    acting = asyncio.create_task(burst.act(cast))
    fleet.others(await fleet.leader())[0].kill()
    leader = await caught(fleet, hold)
    leader.kill()
    killed = now()
    await fleet.leader(leader)
    report("the leader of two was killed", fleet.terms[-1].began - killed)
    await acting
    await burst.answered(cast)
    await burst.judge(cast)


async def test_the_leader_and_its_successor_killed_in_a_burst(fleet: Fleet, burst: Burst) -> None:
    """The leader when a write is done and before it knows, its successor as soon as the Lease names it."""
    await fleet.muster(3)
    cast = await burst.prepare(EACH)
    fleet.proxy.fault = hold = Hold(first=60, after=True)
    acting = asyncio.create_task(burst.act(cast))
    (await caught(fleet, hold)).kill()
    successor = await fleet.leader()
    successor.kill()
    killed = now()
    await fleet.leader()
    report("the successor was killed", fleet.terms[-1].began - killed)
    await acting
    await burst.answered(cast)
    await burst.judge(cast)


# --- frozen ----------------------------------------------------------------------------------------------------


async def replaced(fleet: Fleet, leader: Member) -> Member:
    """Freeze the leader and wait until another leads; return that one."""
    await leader.freeze()
    began = now()
    successor = await fleet.leader(leader)
    report("the leader was frozen", fleet.terms[-1].began - began)
    return successor


async def woken(fleet: Fleet, sleeper: Member, hold: Hold | None = None) -> None:
    """Wake one that has been replaced; it writes nothing and stands by."""
    since = len(fleet.proxy.log)
    sleeper.wake()
    if hold is not None:
        hold.open()
    await fleet.stands_by(sleeper, since)
    assert [item for item in writes_of(fleet.proxy.log[since:]) if item.door == sleeper.name] == []
    assert "On standby" in sleeper.said(), sleeper.said()[-2000:]


async def test_a_leader_frozen_at_rest_leads_again_later(fleet: Fleet, flow: Flow) -> None:
    leader = await fleet.muster(2)
    await fleet.quiet()
    successor = await replaced(fleet, leader)
    await woken(fleet, leader)
    await successor.end()
    assert await fleet.leader() is leader
    async with flow.flowing():
        await flow.more()


@pytest.mark.parametrize("after", [False, True], ids=["before it is done", "when it is done"])
async def test_a_leader_frozen_with_a_write_under_way(fleet: Fleet, burst: Burst, after: bool) -> None:
    await fleet.muster(2)
    cast = await burst.prepare(1)
    fleet.proxy.fault = hold = Hold(first=20, after=after, lost=True)
    await burst.act(cast)
    leader = await caught(fleet, hold)
    await replaced(fleet, leader)
    await woken(fleet, leader, hold)
    await burst.answered(cast)
    await burst.judge(cast)


async def test_a_leader_frozen_with_writes_in_a_queue_for_connections(fleet: Fleet, burst: Burst) -> None:
    """Events that are not answered take all connections; what waits for one is not sent when it wakes."""
    await fleet.muster(2)
    cast = await burst.prepare(2 * EACH)
    fleet.proxy.fault = hold = Hold(lambda item: item.kind == "events", most=1000, lost=True)
    acting = asyncio.create_task(burst.act(cast))

    def crowded() -> bool:
        under_way = [item for item in fleet.proxy.log if item.door == hold.door and item.done is None]
        short = [item for item in under_way if item.verb != "watch" and item.kind != "leases"]
        return len(short) >= CONNECTIONS - len(CHILD_KINDS)

    await fleet.until(crowded, "all connections of the leader are taken")
    leader = fleet.behind(hold.door)
    await replaced(fleet, leader)
    await woken(fleet, leader, hold)
    await acting
    await burst.answered(cast)
    await burst.judge(cast)


def plan_of(view: View) -> str:
    """Return the effective plan of the tenant `kept`."""
    return str(((view.get("Tenant", "kept") or {}).get("status") or {}).get("plan"))


def quota_of(view: View) -> Object:
    """Return its quota."""
    return view.get("ResourceQuota", names.QUOTA, "tenant-kept") or {}


async def test_a_write_that_the_network_kept_for_longer_than_the_lease_is_undone(fleet: Fleet) -> None:
    """No client can prevent that one: it left in time. The new leader sees what it did."""
    await fleet.muster(2)
    api, view = fleet.api, fleet.view
    await api.apply(tenant("kept", plan="pro"))
    await view.until(lambda: is_ready(view.get("Tenant", "kept")), "it is Ready", PATIENCE)
    await fleet.quiet()

    def late(item: Request) -> bool:
        return item.namespace == "tenant-kept" and item.kind == "resourcequotas"

    fleet.proxy.fault = hold = Hold(late)
    await api.patch("Tenant", "kept", {"spec": {"plan": "enterprise"}})
    leader = await caught(fleet, hold)
    await api.patch("Tenant", "kept", {"spec": {"plan": "free"}})
    await replaced(fleet, leader)
    await view.until(
        lambda: is_ready(view.get("Tenant", "kept")) and plan_of(view) == "free", "Ready", PATIENCE
    )
    await fleet.quiet()
    before = picture(view.of("kept"), "kept")
    version = quota_of(view)["metadata"]["resourceVersion"]
    hold.open()
    await fleet.until(lambda: hold.held[0].status == 200, "the late write is done")
    await view.until(lambda: quota_of(view)["metadata"]["resourceVersion"] != version, "it is seen", PATIENCE)
    await view.until(lambda: picture(view.of("kept"), "kept") == before, "it is undone", PATIENCE)
    fleet.proxy.log.remove(hold.held[0])  # it left while the Lease was held, and arrived when it was not
    await woken(fleet, leader)


async def test_the_audit_log_gets_no_old_news_from_one_that_wakes(fleet: Fleet) -> None:
    """A leader is frozen while it answers the second of three edits; its successor answers the third."""
    await fleet.muster(2)
    api, view = fleet.api, fleet.view
    await api.apply(tenant("news", plan="pro"))
    await view.until(lambda: is_ready(view.get("Tenant", "news")), "it is Ready", PATIENCE)
    fleet.proxy.fault = hold = Hold(lambda item: item.kind == "configmaps", after=True)
    await api.patch("Tenant", "news", {"spec": {"overrides": {"retrieval": {"topK": 7}}}})
    leader = await caught(fleet, hold)
    await leader.freeze()
    await api.patch("Tenant", "news", {"spec": {"overrides": {"retrieval": {"topK": 8}}}})
    await fleet.leader(leader)
    await view.until(lambda: is_ready(view.get("Tenant", "news")), "it is Ready again", PATIENCE)
    rows = (await fleet.audited())["news"]
    await woken(fleet, leader, hold)
    await fleet.quiet()
    assert (await fleet.audited())["news"] == rows


@pytest.mark.random
async def test_leaders_frozen_at_any_moment(fleet: Fleet, burst: Burst, flow: Flow, seed: int) -> None:
    """Of the moments between the fence and the socket no program can make nothing: one write may be under way there.

    It then leaves as soon as the process wakes, before it can do anything else.
    """
    random = Random(seed)
    await fleet.muster(3)
    cast = await burst.prepare(2)
    acting = asyncio.create_task(burst.act(cast))
    woken_at: list[float] = []
    async with flow.flowing():
        for _ in range(FREEZES):
            leader = await fleet.leader()
            await asyncio.sleep(random.uniform(0, 0.5))
            await replaced(fleet, leader)
            await asyncio.sleep(random.uniform(0, 0.5))
            since = len(fleet.proxy.log)
            woken_at.append(now())
            leader.wake()
            await fleet.stands_by(leader, since)
    await acting
    await burst.answered(cast)
    await burst.judge(cast)
    found = trespasses(fleet.proxy.log)
    late = [breach.request for breach in found if breach.request is not None]
    assert len(late) == len(found), found
    print(f"\n    {FREEZES} freezes: {len(late)} writes were between the fence and the socket", end="")
    wakings = [bisect_right(woken_at, request.at) for request in late]
    assert len(set(wakings)) == len(wakings), [str(request) for request in late]
    for request in late:
        fleet.proxy.log.remove(request)


# --- the Lease is lost -----------------------------------------------------------------------------------------


async def deleted(fleet: Fleet, leader: Member) -> Member:
    """Its holder writes it anew."""
    await fleet.remove_lease()
    return leader


async def cleared(fleet: Fleet, leader: Member) -> Member:
    """Its holder takes it back."""
    await fleet.edit_lease(holderIdentity="")
    return leader


async def stolen(fleet: Fleet, leader: Member) -> Member | None:
    """Nobody leads until it has run out."""
    await fleet.edit_lease(holderIdentity="a-stranger", leaseDurationSeconds=LEASE_SECONDS)
    return None


def refused(status: int, reason: str) -> Loss:
    """Return a loss: the API server takes no renewal of the leader's."""

    async def loss(fleet: Fleet, leader: Member) -> Member:
        fleet.proxy.fault = NoLease(leader, refusal(status, reason, "not now"))
        return fleet.others(leader)[0]

    return loss


async def unanswered(fleet: Fleet, leader: Member) -> Member:
    """The leader's renewals get no answer."""
    fleet.proxy.fault = NoLease(leader, None)
    return fleet.others(leader)[0]


LOSSES: dict[str, Loss] = {
    "deleted by hand": deleted,
    "cleared by hand": cleared,
    "taken by a stranger": stolen,
    "renewals are forbidden": refused(403, "Forbidden"),
    "renewals fail": refused(500, "InternalError"),
    "renewals get no answer": unanswered,
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
async def test_the_lease_is_lost_while_edits_go_on(fleet: Fleet, flow: Flow, loss: Loss) -> None:
    leader = await fleet.muster(2)
    before = losses(fleet)
    async with flow.flowing():
        await flow.more(5)
        began = now()
        wanted = await loss(fleet, leader)
        present = await fleet.leader(*({leader} if wanted is not leader and wanted is not None else ()))
        if wanted is not leader:
            report("the Lease was lost", now() - began)
        await flow.more()
    assert wanted in (None, present)
    assert wanted is not leader or len(fleet.terms) <= 1 + losses(fleet) - before


async def test_a_clock_that_is_wrong_makes_nobody_take_the_lease_early_or_late(
    fleet: Fleet, flow: Flow
) -> None:
    """The first leader lives an hour ahead, the second an hour behind."""
    leader = await fleet.muster(2)
    (standby,) = fleet.others(leader)
    hour, before = timedelta(hours=1), losses(fleet)
    fleet.proxy.fault = Clocks({leader.name: hour, standby.name: -hour})
    async with flow.flowing():
        await flow.more(5)
        leader.kill()
        began = now()
        assert await fleet.leader() is standby
        report("the leader was killed, and its clock was wrong", now() - began)
        await leader.start()
        while now() < fleet.terms[1].began + LEASE_SECONDS + 1.5:
            await flow.more(1)
    assert len(fleet.terms) <= 2 + losses(fleet) - before


async def test_two_that_start_in_the_same_moment(fleet: Fleet, flow: Flow) -> None:
    await fleet.dismiss()
    fleet.proxy.fault = Together(2)
    first, second, _ = fleet.members
    before = losses(fleet)
    await asyncio.gather(first.start(), second.start())
    leader = await fleet.leader()
    await fleet.stands_by(next(iter(fleet.others(leader))), 0)
    async with flow.flowing():
        await flow.more()
    assert len(fleet.terms) <= 1 + losses(fleet) - before


# --- stopped ---------------------------------------------------------------------------------------------------


def _is_new_quota(request: Request) -> bool:
    """Tell whether a write has others after it in the same step, whatever else goes on: the status at least."""
    return request.kind == "resourcequotas" and request.verb == "create"


async def test_stopped_in_mid_step_it_finishes_and_its_successor_starts_at_once(
    fleet: Fleet, burst: Burst
) -> None:
    await fleet.muster(2)
    before = losses(fleet)
    cast = await burst.prepare(EACH)
    fleet.proxy.fault = hold = Hold(_is_new_quota, first=2, after=True)
    acting = asyncio.create_task(burst.act(cast))
    leader = await caught(fleet, hold)
    stopping = asyncio.create_task(leader.end())
    await asyncio.sleep(0.3)  # nothing tells that it has heard
    opened = now()
    hold.open()
    seconds = await stopping
    await fleet.leader()
    first, second = next(pair for pair in pairwise(fleet.terms) if pair[0].door == leader.name)
    assert first.released or losses(fleet) > before
    last = [item for item in writes_of(fleet.proxy.log) if item.door == leader.name and item.at > opened]
    assert last, "what was under way was not finished"
    report("SIGTERM to exit", seconds)
    report("the leader was stopped", second.began - (first.ended or 0.0))
    await acting
    await burst.answered(cast)
    await burst.judge(cast)


async def test_stopped_while_a_write_hangs_it_gives_up_and_its_successor_does_it(
    fleet: Fleet, burst: Burst
) -> None:
    await fleet.muster(2)
    before = losses(fleet)
    cast = await burst.prepare(1)
    fleet.proxy.fault = hold = Hold(first=20, lost=True)
    await burst.act(cast)
    leader = await caught(fleet, hold)
    seconds = await leader.end()
    report("SIGTERM to exit with a write that hangs", seconds)
    assert seconds < GRACE_SECONDS
    await fleet.leader()
    term = next(term for term in fleet.terms if term.door == leader.name)
    assert term.released or losses(fleet) > before
    await burst.answered(cast)
    await burst.judge(cast)


async def test_stopped_while_the_api_server_is_silent(fleet: Fleet, flow: Flow) -> None:
    """It cannot release the Lease, and says so; another leads when it has run out."""
    leader = await fleet.muster(2)
    async with flow.flowing():
        await flow.more(5)
        fleet.proxy.fault = Silence(leader)
        began = now()
        seconds = await leader.end()
        await fleet.leader()
        report("SIGTERM to exit with a silent API server", seconds)
        report("the API server was silent to the leader", fleet.terms[1].began - began)
        assert seconds < GRACE_SECONDS
        assert "was not released" in leader.said()
        await flow.more()


async def test_replicas_restarted_one_after_the_other_under_a_steady_flow(fleet: Fleet, flow: Flow) -> None:
    await fleet.muster(3)
    before = losses(fleet)
    async with flow.flowing():
        for member in fleet.members:
            await member.end()
            await member.start()
            await flow.more(5)
    report("an edit in a rolling restart, at most", max(flow.waits))
    # A machine that is busy enough has a replica lose its short Lease; whoever still had it gave it back.
    assert len([term for term in fleet.terms[:-1] if not term.released]) <= losses(fleet) - before


def losses(fleet: Fleet) -> int:
    """Return how often a replica has lost the Lease, or could not give it back, since the first test."""
    said = "".join(member.said() for member in fleet.members)
    return said.count("Lost the Lease") + said.count("was not released")
