"""The operator is killed before and after any write of any flow: the end is the same as if nothing had been.

A real process, SIGKILL, the real API server, the real ledger; tests/faults/simulated does the same in memory, with
more kinds of faults.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from random import Random

import pytest

from tests.conftest import Cluster
from tests.faults.crashes import TOGETHER, Death, Lives, lives
from tests.faults.flows import FLOWS, Flow
from tests.integration.conftest import Api

RANDOM_SECONDS = 20.0


@pytest.fixture(scope="module")
async def operator(
    cluster: Cluster, api: Api, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Lives]:
    """The operator, which knows how all flows go undisturbed."""
    async with lives(cluster, api, tmp_path_factory.mktemp("operator")) as operator:
        await operator.know(FLOWS)
        yield operator


@pytest.mark.timeout(300)
@pytest.mark.parametrize("flow", FLOWS, ids=str)
async def test_a_crash_before_and_after_any_write(operator: Lives, flow: Flow) -> None:
    count = len(operator.references[flow.name].writes)
    deaths = [Death(k, after) for k in range(1, count + 1) for after in (False, True)]
    for first in range(0, len(deaths), TOGETHER):
        await operator.crash([(flow, (death,)) for death in deaths[first : first + TOGETHER]])
    await operator.rest()


@pytest.mark.random
@pytest.mark.timeout(300)
async def test_a_crash_and_another_one_on_the_way_back(operator: Lives, seed: int) -> None:
    draw = Random(seed)
    until = time.monotonic() + RANDOM_SECONDS
    while time.monotonic() < until:
        runs = []
        for flow in draw.choices(FLOWS, k=TOGETHER):
            count = len(operator.references[flow.name].writes)
            first = Death(draw.randint(1, count), draw.random() < 0.5)
            second = Death(draw.randint(1, count - first.k + 2), draw.random() < 0.5)
            runs.append((flow, (first, second)))
        await operator.crash(runs)
    await operator.rest()
