"""The operator is killed before and after any write of what has to do with a tenant's vectors.

As test_crashes.py, on a control plane of its own with a real PostgreSQL server as its shard: there every tenant has a
place, and what is on the server is compared too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tenantry.local.postgres import PostgresServer
from tests.conftest import Cluster
from tests.faults.crashes import TOGETHER, Death, Lives, lives
from tests.faults.flows import Flow
from tests.faults.places import Places, places_on
from tests.faults.vector_flows import FLOWS
from tests.integration.conftest import Api, is_ready
from tests.integration.shards import apply_shards, servers_of

SHARD = "shard-a"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """The server of the one shard."""
    with servers_of(SHARD) as servers:
        yield servers[SHARD]


@pytest.fixture(scope="module")
async def operator(
    cluster: Cluster, api: Api, server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Lives]:
    """The operator, which knows how all flows go undisturbed."""
    await apply_shards(api, {SHARD: server})
    async with lives(cluster, api, tmp_path_factory.mktemp("operator")) as operator:
        await api.until("VectorShard", SHARD, is_ready)
        async with places_on(server) as places:
            operator.places = places
            await operator.know(FLOWS)
            yield operator


@pytest.fixture(scope="module")
async def places(server: PostgresServer, operator: Lives) -> AsyncIterator[Places]:
    """What is on the server."""
    async with places_on(server) as places:
        yield places


@pytest.mark.timeout(600)
@pytest.mark.parametrize("flow", FLOWS, ids=str)
async def test_a_crash_before_and_after_any_write(operator: Lives, places: Places, flow: Flow) -> None:
    reference = operator.references[flow.name]
    assert bool(reference.picture["place"]) is (flow.name != "deletion Delete with vectors")
    deaths = [Death(k, after) for k in range(1, len(reference.writes) + 1) for after in (False, True)]
    for first in range(0, len(deaths), TOGETHER):
        await operator.crash([(flow, (death,)) for death in deaths[first : first + TOGETHER]])
        assert await places.strays() == []
    await operator.rest()
