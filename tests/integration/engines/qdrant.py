"""Qdrant, for the contract: on a stand-in, since no Qdrant server can be had here (see `qdrant_server`)."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from tenantry.adapters.qdrant import rows
from tenantry.adapters.qdrant.client import Client
from tenantry.api.shard import EngineKind
from tenantry.domain.places import Record
from tenantry.local.ports import LOOPBACK, free_ports
from tests.integration.engines.qdrant_server import QdrantServer
from tests.integration.engines.rig import Application, Denied, lost_requests, one_step_later


class QdrantApplication:
    """An application on Qdrant's own library."""

    def __init__(self, client: AsyncQdrantClient, collection: str) -> None:
        self._client = client
        self._collection = collection

    async def insert(self, ids: Sequence[str], dimensions: int = 3) -> None:
        """Store vectors."""
        points = [
            models.PointStruct(
                id=rows.point_id(name),
                vector=[1.0] * dimensions,
                payload={"key": name, "content": f"text of {name}"},
            )
            for name in ids
        ]
        with denied():
            await self._client.upsert(self._collection, points, wait=True)

    async def ids(self) -> list[str]:
        """Return all keys."""
        found: list[str] = []
        after: Any = None
        while True:
            with denied():
                page, after = await self._client.scroll(self._collection, limit=100, offset=after)
            found += [str((point.payload or {})["key"]) for point in page]
            if after is None:
                return sorted(found)


@contextmanager
def denied() -> Iterator[None]:
    """Tell what the library says of a server that does not let one in."""
    try:
        yield
    except UnexpectedResponse as error:
        if error.status_code in (401, 403):
            raise Denied(str(error)) from error
        raise


@asynccontextmanager
async def connected(access: Mapping[str, str]) -> AsyncIterator[AsyncQdrantClient]:
    """Connect as an application does, by what is in its Secret."""
    with warnings.catch_warnings():
        # That the line is not encrypted.
        warnings.simplefilter("ignore")
        client = AsyncQdrantClient(
            url=access["url"],
            grpc_port=int(access["grpcPort"]),
            api_key=access["password"],
            check_compatibility=False,
        )
    try:
        yield client
    finally:
        await client.close()


class QdrantRig:
    """One stand-in."""

    kind = EngineKind.QDRANT

    def __init__(self) -> None:
        self.server = QdrantServer()
        self.secret = self.server.key

    def address(self) -> str:
        """Return the address with the operator's key."""
        return f"http://operator:{self.secret}@{LOOPBACK}:{self.server.port}"

    def wrong_addresses(self) -> Sequence[str]:
        """Return other keys, of two lengths."""
        return [self.address().replace(self.secret, "wrong" * times) for times in (1, 8)]

    def unreachable_address(self) -> str:
        """Return the address with another port."""
        return f"http://operator:{self.secret}@{LOOPBACK}:{free_ports(1)[0]}"

    @asynccontextmanager
    async def application(self, access: Mapping[str, str]) -> AsyncIterator[Application]:
        """Connect by what is in the Secret."""
        async with connected(access) as client:
            yield QdrantApplication(client, access["collection"])

    async def traces(self, record: Record) -> object:
        """Return how many writes the server has had, of whomever."""
        return self.server.writes

    async def spoil_index(self, record: Record) -> None:
        """Do nothing: the server sees to its indexes."""

    def crashes(self) -> AsyncIterator[AbstractAsyncContextManager[None]]:
        """Lose each request in turn, first before the server has it, then its answer; afterwards none."""
        return one_step_later(lost_requests(Client))

    def kill(self) -> None:
        """End it at once; what it has is kept."""
        self.server.kill()

    def start(self) -> None:
        """Start it, or start it again."""
        self.server.start()

    def stop(self) -> None:
        """End it for good."""
        self.server.stop()


def rigs() -> Iterator[QdrantRig]:
    """Give one stand-in, running."""
    rig = QdrantRig()
    rig.start()
    try:
        yield rig
    finally:
        rig.stop()
