"""As test_bad_api_server.py, for what has to do with a tenant's vectors: two real servers are the shards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tenantry.local.postgres import PostgresServer
from tests.conftest import Cluster
from tests.faults.plays import Plays, all_played
from tests.faults.scenario import worth_playing
from tests.faults.vector_acts import ACTS, SHARDS, TROUBLES
from tests.integration.conftest import Api
from tests.integration.shards import apply_shards, servers_of

PAIRS = worth_playing(TROUBLES, ACTS)

pytestmark = pytest.mark.timeout(400)  # the first test waits for all plays


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, PostgresServer]]:
    """Two servers."""
    with servers_of(*SHARDS) as started:
        yield started


@pytest.fixture(scope="module")
async def plays(
    cluster: Cluster,
    api: Api,
    servers: dict[str, PostgresServer],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Plays]:
    """Play everything once."""
    await apply_shards(api, servers)
    folder = tmp_path_factory.mktemp("operator")
    settings = {"TENANTRY_REBALANCE": "Off", "TENANTRY_SHARD_SECONDS": "2"}
    async with all_played(cluster, api, folder, ACTS, TROUBLES, PAIRS, **settings) as played:
        yield played


@pytest.mark.parametrize(("trouble", "act"), PAIRS, ids=[f"{act}, {trouble}" for trouble, act in PAIRS])
def test_an_act_is_answered_in_spite_of(plays: Plays, trouble: str, act: str) -> None:
    assert plays.played[trouble, act].problems == []


@pytest.mark.parametrize("act", ACTS)
def test_others_do_not_notice(plays: Plays, act: str) -> None:
    assert plays.bystanders[act].problems == []


def test_the_log_is_for_people(plays: Plays) -> None:
    assert "Traceback" not in plays.log
