"""What the fault tests share: a control plane for each module, since they kill operators and break connections.

Whatever is random takes its seed from `seed`, which pytest prints in its header and `--seed` repeats.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.conftest import Cluster, embedded
from tests.faults.proxy import Proxy
from tests.integration.conftest import Api, administrator


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run."""
    return int(request.config.option.seed)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane with CRDs, chart and the plans of the samples; no operator runs."""
    with embedded(tmp_path_factory.mktemp("control-plane"), plans=True) as cluster:
        yield cluster


@pytest.fixture(scope="module")
async def api(cluster: Cluster) -> AsyncIterator[Api]:
    """A client as the cluster's administrator, past the proxy."""
    async with administrator(cluster) as api:
        yield api


@pytest.fixture
async def proxy(cluster: Cluster) -> AsyncIterator[Proxy]:
    """A proxy before the API server; operators reach it by `proxy.door(...)`."""
    async with Proxy(cluster) as proxy:
        yield proxy
