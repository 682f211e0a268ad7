"""The probes: pure checks over a snapshot, and the HTTP server in front of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry, Gauge

from tenantry.runtime.health import HealthServer, Snapshot, liveness, readiness

WORKING = Snapshot(leading=True, synced=True, since_listed=30)
STANDBY = Snapshot(leading=False, synced=False, oldest_wait=5000, since_finished=5000, since_listed=None)


@pytest.mark.parametrize(
    "now",
    [
        WORKING,
        replace(WORKING, oldest_wait=500, since_finished=1),  # a long queue that moves
        replace(WORKING, oldest_wait=0, since_finished=90000),  # nothing to do all day
        replace(WORKING, since_listed=1499),  # one list failed, the next is slow
        STANDBY,
    ],
)
def test_alive(now: Snapshot) -> None:
    assert liveness(now) is None


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (replace(WORKING, ended=("watch Tenant", "worker-3")), "watch Tenant, worker-3 ended"),
        (replace(STANDBY, ended=("watch Tenant",)), "watch Tenant ended"),
        (replace(WORKING, oldest_wait=130, since_finished=125), "queue: the oldest key has waited 130 s"),
        (replace(WORKING, longest_run=121), "reconcile: one has been running for 121 s"),
        (replace(WORKING, since_listed=1501), "list: the last full list succeeded 1501 s ago"),
    ],
)
def test_dead_with_a_reason_of_one_line(now: Snapshot, words: str) -> None:
    reason = liveness(now)
    assert reason is not None
    assert words in reason
    assert "\n" not in reason


def test_ready_when_synced_or_on_standby() -> None:
    assert readiness(WORKING) is None
    assert readiness(STANDBY) is None
    assert "caches" in (readiness(replace(WORKING, synced=False)) or "")
    waiting = replace(WORKING, synced=False, waits_for="rolebindings (forbidden)")
    assert "waits for rolebindings (forbidden)" in (readiness(waiting) or "")


class Operator:
    """What the server asks for its snapshot."""

    now: Snapshot = WORKING
    broken = False

    def __call__(self) -> Snapshot:
        if self.broken:
            raise KeyError("boom")
        return self.now


@pytest_asyncio.fixture
async def operator() -> Operator:
    return Operator()


@pytest_asyncio.fixture
async def session(operator: Operator) -> AsyncIterator[aiohttp.ClientSession]:
    registry = CollectorRegistry()
    Gauge("example", "An example.", registry=registry).set(7)
    server = HealthServer("127.0.0.1", 0, operator, registry)
    await server.start()
    async with aiohttp.ClientSession(base_url=f"http://127.0.0.1:{server.port}") as session:
        yield session
    await server.stop()


async def get(session: aiohttp.ClientSession, path: str) -> tuple[int, str]:
    async with session.get(path) as response:
        return response.status, await response.text()


async def test_probes_answer_ok_standby_or_the_failing_check(
    operator: Operator, session: aiohttp.ClientSession
) -> None:
    assert await get(session, "/healthz") == (200, "ok\n")
    assert await get(session, "/readyz") == (200, "ok\n")
    operator.now = STANDBY
    assert await get(session, "/healthz") == (200, "standby\n")
    assert await get(session, "/readyz") == (200, "standby\n")
    operator.now = replace(WORKING, synced=False, ended=("worker-0",))
    assert await get(session, "/healthz") == (503, "tasks: worker-0 ended\n")
    assert await get(session, "/readyz") == (
        503,
        "caches: the first list of all objects is not complete yet\n",
    )


async def test_a_snapshot_that_fails_fails_the_probe(
    operator: Operator, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    operator.broken = True
    assert await get(session, "/healthz") == (503, "probe: KeyError: 'boom'\n")
    assert [record.getMessage() for record in caplog.records] == [
        "The state of the operator could not be read"
    ]


async def test_metrics_in_the_text_format(session: aiohttp.ClientSession) -> None:
    async with session.get("/metrics") as response:
        assert response.content_type == "text/plain"
        assert "example 7.0" in await response.text()


async def test_a_port_that_is_taken_is_named(session: aiohttp.ClientSession) -> None:
    port = str(session._base_url).rsplit(":", 1)[1].rstrip("/")
    second = HealthServer("127.0.0.1", int(port), lambda: WORKING, CollectorRegistry())
    with pytest.raises(
        OSError, match=rf"cannot serve probes on 127\.0\.0\.1:{port} .*choose another address"
    ):
        await second.start()
    await second.stop()
