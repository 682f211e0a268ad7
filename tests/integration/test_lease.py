"""Leader election between two candidates on a real API server, over connections that a test can cut."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from tenantry.adapters.kubernetes.client import Client, configure
from tenantry.runtime.lease import Leadership, LeaseTerms, boot_time, new_identity
from tests.conftest import Cluster
from tests.integration.conftest import administrator
from tests.integration.wire import Wire

DURATION, DEADLINE = 9, 6.0
"""Seconds of a Lease, and without a renewal until its holder stops: a busy machine stands still for some."""


class Candidate:
    """One replica: its election, and what its `lead` lived through."""

    def __init__(self, client: Client, terms: LeaseTerms, clock: Callable[[], float] = boot_time) -> None:
        self.leadership = Leadership(terms, client, clock=clock)
        self.leading = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.finish = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.leadership.run(self._lead))

    async def stop(self) -> None:
        """End it without a chance to release, as kill -9 does."""
        if self.task is None:
            return
        self.leadership._release = _nothing  # type: ignore[method-assign]
        self.task.cancel()
        await asyncio.wait([self.task])

    async def _lead(self) -> None:
        self.leading.set()
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        finally:
            self.leading.clear()


async def _nothing() -> None: ...


def terms(lease: str) -> LeaseTerms:
    return LeaseTerms(
        namespace="default",
        name=lease,
        identity=new_identity(),
        duration=DURATION,
        renew_deadline=DEADLINE,
        retry_period=0.2,
    )


@pytest.fixture
def lease() -> str:
    return f"test-{secrets.token_hex(4)}"


@pytest_asyncio.fixture
async def client(control_plane: Cluster) -> AsyncIterator[Client]:
    async with administrator(control_plane) as api:
        yield api.client


@pytest_asyncio.fixture
async def wire(control_plane: Cluster) -> AsyncIterator[Wire]:
    url = urlsplit((await configure(control_plane.kubeconfig, None)).host)
    assert url.hostname
    assert url.port
    wire = Wire(url.hostname, url.port)
    yield wire
    await wire.stop()


@pytest_asyncio.fixture
async def over_wire(control_plane: Cluster, wire: Wire) -> AsyncIterator[Client]:
    configuration = await configure(control_plane.kubeconfig, None)
    configuration.host = f"https://127.0.0.1:{await wire.start()}"
    client = Client(configuration)
    yield client
    await client.close()


async def read(client: Client, lease: str) -> dict[str, Any]:
    path = f"/apis/coordination.k8s.io/v1/namespaces/default/leases/{lease}"
    spec: dict[str, Any] = (await client.send("GET", path))["spec"]
    return spec


async def within(seconds: float, condition: Awaitable[Any]) -> float:
    """Await something that must happen in time; return how long it took."""
    began = time.monotonic()
    await asyncio.wait_for(condition, seconds)
    return time.monotonic() - began


async def test_one_leads_the_other_waits_and_takes_over_at_once_after_a_release(
    client: Client, lease: str
) -> None:
    first, second = Candidate(client, terms(lease)), Candidate(client, terms(lease))
    first.start()
    await within(60, first.leading.wait())
    second.start()
    with pytest.raises(TimeoutError):
        await within(DURATION + 1, second.leading.wait())  # longer than the Lease: it is being renewed
    assert first.leadership.held()
    assert not second.leadership.held()
    assert second.leadership.holder == first.leadership.terms.identity

    first.finish.set()
    assert first.task
    await within(60, first.task)
    assert not first.leadership.held()
    taken = await within(60, second.leading.wait())
    assert taken < DEADLINE, "a standby asks every 0.2 s and needs not wait for a released Lease to run out"
    spec = await read(client, lease)
    assert spec["holderIdentity"] == second.leadership.terms.identity
    assert spec["leaseDurationSeconds"] == DURATION
    await second.stop()


async def test_a_graceful_stop_renews_until_the_work_has_ended_and_then_releases(
    client: Client, lease: str
) -> None:
    held_at_the_end = []
    leading = asyncio.Event()
    leadership = Leadership(terms(lease), client)

    async def lead() -> None:
        leading.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(DEADLINE + 0.5)  # a drain that takes longer than the renew deadline
            held_at_the_end.append(leadership.held())

    task = asyncio.create_task(leadership.run(lead))
    await within(60, leading.wait())
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert held_at_the_end == [True]
    spec = await read(client, lease)
    assert not spec.get("holderIdentity")
    assert spec["leaseDurationSeconds"] == 1


async def test_a_lease_is_not_given_away_while_its_work_still_runs(client: Client, lease: str) -> None:
    leading, end = asyncio.Event(), asyncio.Event()
    leadership = Leadership(terms(lease), client)

    async def lead() -> None:
        leading.set()
        try:
            await asyncio.Event().wait()
        finally:
            await end.wait()

    task = asyncio.create_task(leadership.run(lead))
    await within(60, leading.wait())
    task.cancel()  # SIGTERM
    await asyncio.sleep(0)
    task.cancel()  # and an impatient second one
    await asyncio.wait([task])
    assert not leadership.held()
    assert (await read(client, lease))["holderIdentity"] == leadership.terms.identity
    end.set()


async def test_after_a_crash_the_lease_must_run_out_first(client: Client, lease: str) -> None:
    first, second = Candidate(client, terms(lease)), Candidate(client, terms(lease))
    first.start()
    await within(60, first.leading.wait())
    second.start()
    with pytest.raises(TimeoutError):
        await within(0.5, second.leading.wait())
    await first.stop()
    taken = await within(60, second.leading.wait())
    assert taken > DURATION / 2
    await second.stop()


async def test_a_leader_cut_off_stops_before_another_can_start_and_recovers(
    client: Client, over_wire: Client, wire: Wire, lease: str
) -> None:
    cut_off, second = Candidate(over_wire, terms(lease)), Candidate(client, terms(lease))
    cut_off.start()
    await within(60, cut_off.leading.wait())
    second.start()
    wire.hang()
    stopped = asyncio.create_task(within(60, cut_off.cancelled.wait()))
    taken = await within(60, second.leading.wait())
    assert not cut_off.leadership.held()
    assert await stopped < taken, "both led at once"

    wire.whole.set()
    second.finish.set()
    await within(60, cut_off.leading.wait())
    assert cut_off.leadership.held()
    await cut_off.stop()


async def test_a_frozen_process_finds_the_fence_closed_when_it_wakes(client: Client, lease: str) -> None:
    frozen = Candidate(client, terms(lease))
    frozen.start()
    await within(60, frozen.leading.wait())
    assert frozen.leadership.held()
    time.sleep(DEADLINE + 0.1)  # noqa: ASYNC251 - the event loop stands still, as under SIGSTOP
    assert not frozen.leadership.held()
    await within(60, frozen.cancelled.wait())
    await within(60, frozen.leading.wait())  # nobody else was there: it leads again, with new facts
    await frozen.stop()


async def test_the_fence_counts_from_before_the_renewal_was_sent(client: Client, lease: str) -> None:
    now = 100.0
    candidate = Candidate(client, terms(lease), clock=lambda: now)
    candidate.start()
    await within(60, candidate.leading.wait())
    assert candidate.leadership.time_left() == pytest.approx(DEADLINE)
    now = 100.0 + DEADLINE - 0.01
    assert candidate.leadership.held()
    now = 100.0 + DEADLINE + 0.01
    assert not candidate.leadership.held()
    await candidate.stop()


async def test_a_lease_that_another_took_or_somebody_deleted(client: Client, lease: str) -> None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/default/leases/{lease}"
    candidate = Candidate(client, terms(lease))
    candidate.start()
    await within(60, candidate.leading.wait())
    await client.send("DELETE", path)
    while not await _exists(client, path):  # noqa: ASYNC110 - the API server is asked, nothing tells
        await asyncio.sleep(0.05)
    assert candidate.leadership.held(), "it is written anew, and leading goes on"
    assert not candidate.cancelled.is_set()

    while not candidate.cancelled.is_set():
        await _steal(client, path)
        await asyncio.sleep(0.05)
    assert not candidate.leadership.held()
    await candidate.stop()


async def test_what_lead_raises_comes_out_and_the_lease_is_released(client: Client, lease: str) -> None:
    async def lead() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await Leadership(terms(lease), client).run(lead)
    assert not (await read(client, lease)).get("holderIdentity")


async def test_whole_seconds_and_old_leases_are_understood(client: Client, lease: str) -> None:
    """A Lease written by another tool: no fraction of a second, no duration, a holder long gone."""
    spec = {"holderIdentity": "gone", "leaseDurationSeconds": 1, "acquireTime": "2020-01-01T00:00:00.000000Z"}
    body = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": lease, "annotations": {"kept": "yes"}},
        "spec": spec,
    }
    leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    await client.send("POST", leases, body=body)
    candidate = Candidate(client, terms(lease))
    candidate.start()
    await within(60, candidate.leading.wait())
    after = await client.send("GET", f"{leases}/{lease}")
    assert after["metadata"]["annotations"] == {"kept": "yes"}
    assert after["spec"]["leaseTransitions"] == 1
    await candidate.stop()


async def _exists(client: Client, path: str) -> bool:
    try:
        await client.send("GET", path)
    except LookupError:
        return False
    return True


async def _steal(client: Client, path: str) -> None:
    patch = {"spec": {"holderIdentity": "thief", "leaseDurationSeconds": 30}}
    await client.send("PATCH", path, body=patch, content_type="application/merge-patch+json")
