"""An API server that misbehaves about some objects: each act of a user is answered all the same, and as told.

Every pair of a trouble (`faults.TROUBLES`) and an act (`acts.ACTS`) that is worth its time is a play with a tenant of
its own. All are played beside each other in one run, against one real API server; a test reads what came of a play.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.conftest import Cluster
from tests.faults.acts import ACTS
from tests.faults.faults import TROUBLES
from tests.faults.plays import Plays, all_played
from tests.faults.scenario import worth_playing
from tests.integration.conftest import Api

PAIRS = worth_playing(TROUBLES)

pytestmark = pytest.mark.timeout(400)  # the first test waits for all plays


@pytest.fixture(scope="module")
async def plays(cluster: Cluster, api: Api, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Plays]:
    """Play everything once."""
    async with all_played(cluster, api, tmp_path_factory.mktemp("operator"), ACTS, TROUBLES, PAIRS) as played:
        yield played


@pytest.mark.parametrize(("trouble", "act"), PAIRS, ids=[f"{act}, {trouble}" for trouble, act in PAIRS])
def test_an_act_is_answered_in_spite_of(plays: Plays, trouble: str, act: str) -> None:
    assert plays.played[trouble, act].problems == []


@pytest.mark.parametrize("act", ACTS)
def test_others_do_not_notice(plays: Plays, act: str) -> None:
    assert plays.bystanders[act].problems == []


def test_the_log_is_for_people(plays: Plays) -> None:
    assert "Traceback" not in plays.log
    assert "InternalError: " not in plays.log.replace("InternalError: etcd", "")
