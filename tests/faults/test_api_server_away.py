"""The whole API server misbehaves, for whatever is asked: the operator lives on, is no burden, and catches up.

Besides `test_bad_api_server`, where only some requests are in trouble: here lists, watches and the Lease are too.
"""

from __future__ import annotations

import asyncio
import bisect
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass

import pytest

from tenantry.adapters.kubernetes.client import ATTEMPTS
from tests.conftest import Cluster
from tests.faults.acts import SPEC
from tests.faults.faults import AWAY, BUSY, PAGE, UNKNOWN, Changed, Instead, Late, Lost, Selected, truncated
from tests.faults.proxy import Answer, Fault, Object, Proxy, Request
from tests.faults.scenario import tries
from tests.integration.conftest import Api, OperatorProcess, in_phase, is_ready, running, tenant

PATIENCE_SECONDS = 60.0
"""Within this after the trouble everything is as it should be, on a machine that has much else to do."""

MOST_PER_SECOND = 120
"""Requests of one second: what fails is sent again soon at first, and each of twelve kinds has a watch."""

START_SECONDS = 1.2
"""How long each trouble lasts while the operator starts."""

SETTINGS = {"TENANTRY_LEASE_SECONDS": "15"}  # as it is by default: ten seconds of silence lose it


def emptied(answer: Answer) -> Answer:
    """Return a JSON object that says nothing."""
    return Answer(answer.status, b"{}", answer.headers)


class Senseless(Changed):
    """Answers are JSON, and make no sense; so are the events of watches."""

    def __init__(self) -> None:
        super().__init__(emptied)

    def events(self, request: Request, event: Object) -> Iterable[Object]:
        return ({},)


@dataclass(frozen=True)
class Amiss:
    """What is wrong, and for how many seconds.

    may_end: Kopf ends by an answer with 200 that is no API server's, and the operator with it, with one sentence;
    it is started anew then, as the kubelet does.
    """

    fault: Callable[[], Fault]
    seconds: float = 2.5
    may_end: bool = False


AMISS: dict[str, Amiss] = {
    "503": Amiss(lambda: Instead(AWAY), 11.5),
    "429 with Retry-After": Amiss(lambda: Instead(BUSY)),
    "cut off": Amiss(Lost),
    "401": Amiss(lambda: Instead(UNKNOWN)),
    "slow": Amiss(lambda: Late(1.0)),
    "a web page": Amiss(lambda: Instead(PAGE), may_end=True),
    "half of each answer": Amiss(lambda: Changed(truncated), may_end=True),
    "answers that make no sense": Amiss(Senseless, may_end=True),
}


@pytest.fixture(scope="module")
async def proxy(cluster: Cluster) -> AsyncIterator[Proxy]:
    """One for all tests here: they share an operator."""
    async with Proxy(cluster) as proxy:
        yield proxy


@pytest.fixture(scope="module")
async def operator(proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OperatorProcess]:
    """The operator, which starts while everything but its Lease goes wrong, in one way after another."""
    folder = tmp_path_factory.mktemp("operator")
    operator = OperatorProcess(await proxy.door("a", folder), folder, **SETTINGS)
    with running(operator):
        starting = asyncio.create_task(operator.start())
        for what in (what for name, what in AMISS.items() if name != "slow"):
            proxy.fault = Selected(what.fault(), lambda request: request.kind != "leases")
            await asyncio.wait({starting}, timeout=START_SECONDS)
        assert not starting.done() or starting.exception(), "it cannot have started"
        proxy.fault = Fault()
        await starting
        yield operator


def busiest_second(times: list[float]) -> int:
    """Return the most of these moments, in ascending order, that lie within one second."""
    return max((bisect.bisect(times, at + 1) - index for index, at in enumerate(times)), default=0)


def burden(requests: list[Request], seconds: float) -> list[str]:
    """Return where it has asked for too much in that time."""
    counted = Counter(str(request) for request in requests)
    due = tries(seconds) * ATTEMPTS
    problems = [f"{count} times {what}, {due} are due" for what, count in counted.items() if count > due]
    if (most := busiest_second([request.at for request in requests])) > MOST_PER_SECOND:
        problems.append(f"{most} requests in one second")
    return problems


async def test_it_starts_when_the_trouble_is_over(operator: OperatorProcess, proxy: Proxy) -> None:
    assert burden(proxy.log, START_SECONDS * (len(AMISS) - 1)) == []
    assert "Traceback" not in operator.log.read_text()


@pytest.mark.parametrize("name", AMISS)
async def test_it_catches_up(operator: OperatorProcess, proxy: Proxy, api: Api, name: str) -> None:
    what = AMISS[name]
    before, meanwhile = (f"{part}-{list(AMISS).index(name)}" for part in ("before", "meanwhile"))
    await api.apply(tenant(before, **SPEC))
    await api.until("Tenant", before, is_ready, timeout=PATIENCE_SECONDS)
    first = len(proxy.log)
    proxy.fault = what.fault()
    proxy.end_watches()
    await api.patch("Tenant", before, {"spec": {"suspended": True}})
    await api.delete("LimitRange", "tenantry", f"tenant-{before}")
    await api.apply(tenant(meanwhile, **SPEC))
    await asyncio.sleep(what.seconds)
    requests = proxy.log[first:]
    proxy.fault = Fault()
    async with asyncio.TaskGroup() as group:
        kubelet = group.create_task(_looked_after(operator, may_end=what.may_end))
        await api.until("Tenant", meanwhile, is_ready, timeout=PATIENCE_SECONDS)
        await api.until("Tenant", before, in_phase("Suspended"), timeout=PATIENCE_SECONDS)
        await api.until("LimitRange", "tenantry", bool, f"tenant-{before}", timeout=PATIENCE_SECONDS)
        kubelet.cancel()
    await _lives(operator, may_end=what.may_end)
    assert burden(requests, what.seconds) == []
    assert "Traceback" not in operator.log.read_text()


async def _looked_after(operator: OperatorProcess, *, may_end: bool) -> None:
    """Do what the kubelet does, until cancelled: an end that began with the trouble may come after it."""
    while True:
        await _lives(operator, may_end=may_end)
        await asyncio.sleep(0.1)


async def _lives(operator: OperatorProcess, *, may_end: bool) -> None:
    """See to it that the operator runs; start it anew where it may have ended."""
    assert operator.process is not None
    if operator.process.poll() is None:
        return
    last = operator.log.read_text().splitlines()[-1]
    assert may_end, last
    assert last.startswith("error: the operator stops: WatchStopped: watching the API server ended: "), last
    await operator.start()
