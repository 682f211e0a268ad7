"""Stale and lost news on the way from a real API server: the end is the same as undisturbed, and then all is quiet.

The acts of users (`acts.ACTS`) are played side by side, each tenant with a trouble of its own (`news.TROUBLES`), with
an operator that lists everything every few seconds: what it is never told it finds by that. A watch that is silent
altogether is the same, until the operator ends it (70 s of silence for Kopf's, 75 s for the others).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from tests.conftest import Cluster
from tests.faults.news import TROUBLES
from tests.faults.proxy import Proxy, Request
from tests.faults.scenario import Play, Stage, worth_playing
from tests.faults.view import now, viewed
from tests.integration.conftest import Api, OperatorProcess, running

RELIST_SECONDS = 5.0
HOLD_SECONDS = 4.0
PATIENCE_SECONDS = 60.0

SETTINGS = {"TENANTRY_WORKERS": "64", "TENANTRY_LEASE_SECONDS": "60"}

PAIRS = worth_playing(TROUBLES)

pytestmark = pytest.mark.timeout(300)  # the first test waits for all plays


@dataclass
class Plays:
    """All plays after their end. late: writes after one more full list, when nothing was left to do."""

    played: dict[tuple[str, str], Play]
    late: list[Request]


@pytest.fixture(scope="module")
async def plays(cluster: Cluster, api: Api, tmp_path_factory: pytest.TempPathFactory) -> Plays:
    """Play everything once, and have it listed once more."""
    folder = tmp_path_factory.mktemp("operator")
    settings = SETTINGS | {"TENANTRY_RELIST_SECONDS": str(RELIST_SECONDS)}
    async with Proxy(cluster) as proxy, viewed(api.client) as view:
        operator = OperatorProcess(await proxy.door("a", folder), folder, **settings)
        with running(operator):
            await operator.start()
            stage = Stage(api, view, proxy, folder / "ledger.db")
            await stage.rehearse()
            played = {pair: stage.cast(pair[1], TROUBLES[pair[0]]) for pair in PAIRS}
            await stage.prepare([*played.values()])
            await stage.perform([*played.values()], [], HOLD_SECONDS, PATIENCE_SECONDS)
            # What no watch has told is found by a full list, and counted at the Plans a second later.
            await _listed(proxy, 1)
            await stage.quiet()
            before = len(proxy.log)
            await _listed(proxy, 1)
            late = [request for request in proxy.log[before:] if request.is_write]
            assert await asyncio.to_thread(operator.stop) == 0
    return Plays(played, late)


async def _listed(proxy: Proxy, times: int) -> None:
    """Wait until everything has been listed anew so many times, and what follows is done."""
    first = len(proxy.log)
    end = now() + 20 * RELIST_SECONDS
    while sum(str(request) == "list clusterroles" for request in proxy.log[first:]) < times:
        assert now() < end, "it does not list"
        await asyncio.sleep(RELIST_SECONDS / 10)
    await asyncio.sleep(1.5)


@pytest.mark.parametrize(("trouble", "act"), PAIRS, ids=[f"{act}, {trouble}" for trouble, act in PAIRS])
def test_an_act_ends_alike_where(plays: Plays, trouble: str, act: str) -> None:
    assert plays.played[trouble, act].problems == []


def test_then_nothing_is_written(plays: Plays) -> None:
    assert [str(request) for request in plays.late] == []
