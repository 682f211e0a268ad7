"""An API server that misbehaves about some objects: each act of a user is answered all the same, and as told.

Every pair of a trouble (`faults.TROUBLES`) and an act (`acts.ACTS`) that is worth its time is a play with a tenant of
its own. All are played beside each other in one run, against one real API server; a test reads what came of a play.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.conftest import Cluster
from tests.faults.acts import ACTS
from tests.faults.faults import TROUBLES
from tests.faults.proxy import Proxy
from tests.faults.scenario import Play, Stage, worth_playing
from tests.faults.view import viewed
from tests.integration.conftest import Api, OperatorProcess, running

HOLD_SECONDS = 16.0
"""How long troubles last: longer than a write may hang, and than a conflict goes untold."""

PATIENCE_SECONDS = 90.0
"""Within this after the trouble: its back-off has come to some ten seconds, and namespaces take long to go."""

SETTINGS = {
    # One that waits a moment for a busy server holds its worker: here everybody meets one at once.
    "TENANTRY_WORKERS": "128",
    "TENANTRY_LEASE_SECONDS": "60",
}

PAIRS = worth_playing(TROUBLES)

pytestmark = pytest.mark.timeout(400)  # the first test waits for all plays


@dataclass
class Plays:
    """All plays after their end. log: what the operator said."""

    played: dict[tuple[str, str], Play]
    bystanders: dict[str, Play]
    log: str


@pytest.fixture(scope="module")
async def plays(cluster: Cluster, api: Api, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Plays]:
    """Play everything once."""
    folder = tmp_path_factory.mktemp("operator")
    async with Proxy(cluster) as proxy, viewed(api.client) as view:
        operator = OperatorProcess(await proxy.door("a", folder), folder, **SETTINGS)
        with running(operator):
            await operator.start()
            stage = Stage(api, view, proxy, folder / "ledger.db")
            await stage.rehearse(ACTS)
            played = {pair: stage.cast(pair[1], TROUBLES[pair[0]]) for pair in PAIRS}
            bystanders = {act: stage.cast(act) for act in ACTS}
            await stage.prepare([*played.values(), *bystanders.values()])
            await stage.perform([*played.values()], [*bystanders.values()], HOLD_SECONDS, PATIENCE_SECONDS)
            assert operator.process is not None
            assert operator.process.poll() is None
            yield Plays(played, bystanders, operator.log.read_text())


@pytest.mark.parametrize(("trouble", "act"), PAIRS, ids=[f"{act}, {trouble}" for trouble, act in PAIRS])
def test_an_act_is_answered_in_spite_of(plays: Plays, trouble: str, act: str) -> None:
    assert plays.played[trouble, act].problems == []


@pytest.mark.parametrize("act", ACTS)
def test_others_do_not_notice(plays: Plays, act: str) -> None:
    assert plays.bystanders[act].problems == []


def test_the_log_is_for_people(plays: Plays) -> None:
    assert "Traceback" not in plays.log
    assert "InternalError: " not in plays.log.replace("InternalError: etcd", "")
