"""When a Lease is free: by its own clock, whatever somebody makes of it by hand, and whatever fails on the way."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from tenantry.reconcile.ports import Conflict
from tenantry.runtime.lease import Leadership, LeaseTerms

DURATION = 15
PATH = "/apis/coordination.k8s.io/v1/namespaces/default/leases/tenantry-operator"


class Server:
    """An API server with one Lease, and a clock that its clients share."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.now = 1000.0
        self.failing = 0
        """So many requests fail from now on."""
        self._version = 0

    async def send(self, method: str, path: str, *, body: Any = None) -> dict[str, Any]:
        await asyncio.sleep(0)
        if self.failing:
            self.failing -= 1
            raise RuntimeError("HTTP 500")
        if method == "POST":
            if self.lease is not None:
                raise Conflict("it is there")
            return self.store(body)
        assert path == PATH
        if self.lease is None:
            raise LookupError("not found")
        if method == "PUT":
            if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
                raise Conflict("it changed")
            return self.store(body)
        return copy.deepcopy(self.lease)

    def store(self, lease: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        metadata = {**lease["metadata"], "resourceVersion": str(self._version)}
        self.lease = copy.deepcopy({**lease, "metadata": metadata})
        return copy.deepcopy(self.lease)

    def edit(self, **spec: Any) -> None:
        """Change the Lease by hand."""
        assert self.lease is not None
        self.store({**self.lease, "spec": {**self.lease["spec"], **spec}})

    def replica(self, name: str) -> Leadership:
        terms = LeaseTerms(identity=name, duration=DURATION)
        return Leadership(terms, self, clock=lambda: self.now)


async def asks(replica: Leadership) -> bool:
    """Let a replica try once to take or renew the Lease."""
    return await replica._attempt(60.0)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def pair(server: Server) -> tuple[Leadership, Leadership]:
    """A leader, and a standby that has seen it lead."""
    leader, standby = server.replica("a"), server.replica("b")
    assert await asks(leader)
    assert not await asks(standby)
    return leader, standby


Pair = tuple[Leadership, Leadership]

BY_HAND: dict[str, dict[str, Any]] = {
    "nobody holds it": {"holderIdentity": ""},
    "the holder is missing": {"holderIdentity": None},
    "the standby holds it": {"holderIdentity": "b"},
    "renewed in the past": {"renewTime": "2001-01-01T00:00:00.000000Z"},
    "renewed in the future": {"renewTime": "2099-01-01T00:00:00.000000Z"},
}


@pytest.mark.parametrize("edit", BY_HAND.values(), ids=BY_HAND)
async def test_an_edit_by_hand_does_not_make_a_lease_free(
    server: Server, pair: Pair, edit: dict[str, Any]
) -> None:
    leader, standby = pair
    server.edit(**edit)
    assert not await asks(standby)
    assert leader.held()
    if edit.get("holderIdentity") != "b":
        assert not await asks(leader)  # what it knew is old
        assert await asks(leader)
        assert leader.held()
    server.now += DURATION - 0.1
    assert not await asks(standby)
    server.now += DURATION
    assert not leader.held()
    assert await asks(standby)


async def test_a_deleted_lease_is_its_holders_until_it_ran_out(server: Server, pair: Pair) -> None:
    leader, standby = pair
    server.lease = None
    assert not await asks(standby)
    assert not await asks(leader)  # it finds out
    assert await asks(leader)
    assert not await asks(standby)
    server.lease = None
    server.now += DURATION
    assert not leader.held()
    assert await asks(standby)


async def test_deleting_a_lease_ends_a_wait_that_somebody_made_too_long(server: Server, pair: Pair) -> None:
    _, standby = pair
    server.edit(leaseDurationSeconds=86400)
    assert not await asks(standby)
    server.lease = None
    assert not await asks(standby)
    server.now += DURATION
    assert await asks(standby)


async def test_a_released_lease_and_one_that_never_was_are_free_at_once(server: Server, pair: Pair) -> None:
    leader, standby = pair
    await leader._release()
    assert await asks(standby)
    server.lease = None
    assert await asks(server.replica("c"))


async def test_a_lease_that_its_holder_lost_sight_of_is_still_its_own(server: Server, pair: Pair) -> None:
    leader, _ = pair
    server.now += DURATION - 1
    assert not leader.held()
    assert await asks(leader)
    assert leader.held()


async def test_an_answer_that_was_lost_costs_no_wait(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    replica, store = server.replica("a"), server.store

    def lose(lease: dict[str, Any]) -> dict[str, Any]:
        store(lease)
        raise RuntimeError("the answer was lost")

    monkeypatch.setattr(server, "store", lose)
    assert not await asks(replica)
    monkeypatch.undo()
    assert await asks(replica)


async def test_requests_that_fail_do_not_make_a_standby_wait_anew(server: Server, pair: Pair) -> None:
    _, standby = pair
    for _ in range(DURATION):
        server.now += 1
        server.failing = 1
        assert not await asks(standby)
        taken = await asks(standby)
    assert taken


async def test_two_that_ask_at_once_do_not_both_lead(server: Server) -> None:
    replicas = [server.replica(name) for name in "abc"]
    for _ in range(2):
        await asyncio.gather(*(asks(replica) for replica in replicas))
        assert sum(replica.held() for replica in replicas) == 1
