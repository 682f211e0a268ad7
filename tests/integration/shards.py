"""Vector shards of tests: real servers of PostgreSQL, and the objects by which the operator finds them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from tenantry.domain import names
from tenantry.local import chart
from tenantry.local.postgres import PostgresServer
from tests.integration.conftest import Api, Object

Servers = Mapping[str, PostgresServer]
"""By the names of their VectorShards."""


@contextmanager
def servers_of(*names: str, durable: bool = False) -> Iterator[dict[str, PostgresServer]]:
    """Servers with pgvector, whose data nobody needs afterwards. durable: they wait for the disk all the same."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(PostgresServer(durable=durable)) for name in names}


def shard(name: str, **spec: Any) -> Object:
    """Return a VectorShard whose Secret has its name."""
    connection = {"secretRef": {"name": name, "key": "dsn"}}
    content = {"engine": "pgvector", "connection": connection, **spec}
    return {"kind": "VectorShard", "metadata": {"name": name}, "spec": content}


def address(name: str, server: PostgresServer) -> Object:
    """Return the Secret by which the operator finds a server."""
    metadata = {"name": name, "namespace": chart.NAMESPACE}
    return {"kind": "Secret", "metadata": metadata, "stringData": {"dsn": server.dsn()}}


async def apply_shards(api: Api, servers: Servers) -> None:
    """Add servers as shards."""
    for name, server in servers.items():
        await api.apply(address(name, server))
        await api.apply(shard(name))


async def secret_of(api: Api, name: str) -> dict[str, str]:
    """Return what an application of a tenant is given."""
    found = await api.get("Secret", names.VECTOR_STORE, f"tenant-{name}")
    assert found is not None
    return contents_of(found)


def contents_of(secret: Object) -> dict[str, str]:
    """Return what a Secret says."""
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
