"""How long a new tenant waits where it gets a place on a vector shard too: roles, table, policies, Secret."""

from __future__ import annotations

from contextlib import ExitStack

from tenantry.local import chart
from tenantry.local.postgres import PostgresServer
from tests.benchmarks.scenarios import creation_at_a_steady_rate
from tests.benchmarks.watcher import Bench
from tests.integration.conftest import Api, Object, is_ready

SHARDS = 5
"""As many as in the everyday case; all on this machine, with fsync on."""


async def onboarding(bench: Bench, count: int) -> list[float]:
    """Create five tenants a second on five empty shards; return the seconds until each is Ready."""
    with ExitStack() as stack:
        servers = [stack.enter_context(PostgresServer()) for _ in range(SHARDS)]
        for number, server in enumerate(servers):
            await add_shard(bench.api, f"shard-{number}", server)
        return await creation_at_a_steady_rate(bench, count)


async def add_shard(api: Api, name: str, server: PostgresServer) -> None:
    """Apply a VectorShard with its Secret, and wait until it is Ready."""
    metadata = {"name": name, "namespace": chart.NAMESPACE}
    await api.apply({"kind": "Secret", "metadata": metadata, "stringData": {"dsn": server.dsn()}})
    spec: Object = {"engine": "pgvector", "connection": {"secretRef": {"name": name, "key": "dsn"}}}
    await api.apply({"kind": "VectorShard", "metadata": {"name": name}, "spec": spec})
    await api.until("VectorShard", name, is_ready, timeout=60)
