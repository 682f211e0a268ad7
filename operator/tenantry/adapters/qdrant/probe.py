"""The leak canary: with a tenant's own token, try to see what is others'.

To be refused needs no points of neighbours: that it may look at all is a leak, whatever it finds. Neighbours are
asked for directly, and by a query in the tenant's own collection that takes its vector from theirs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

from qdrant_client import AsyncQdrantClient, models

from tenantry.adapters.neighbours import closest
from tenantry.adapters.qdrant.client import Client, Denied, Missing
from tenantry.adapters.qdrant.schema import LOGINS, OWNERS, collection
from tenantry.domain.places import Record
from tenantry.reconcile.ports import Unavailable

_NO_POINT: Final = "00000000-0000-0000-0000-000000000000"


async def probe(client: Client, record: Record, neighbours: Sequence[Record]) -> Sequence[str]:
    """Return a sentence for each way that let the tenant see others. client: with the tenant's token.

    Raises Unavailable where the tenant itself is not let in.
    """
    try:
        await client.ask(lambda server: server.scroll(collection(record.id), limit=1))
    except Denied as error:
        raise Unavailable(f"the tenant's token is not taken: {error}") from error
    return [said async for said in _leaks(client, record, neighbours)]


async def _leaks(client: Client, record: Record, neighbours: Sequence[Record]) -> AsyncIterator[str]:
    own, said = collection(record.id), f"tenant {record.place.tenant} "
    try:
        seen = (await client.ask(lambda server: server.get_collections())).collections
    except Denied:
        seen = []
    others = sorted(each.name for each in seen if each.name != own)
    if others:
        yield said + f"sees that there are others, such as {others[0]}"
    if await _is_let(client.metrics):
        yield said + "reads the server's metrics, which name all tenants' collections"
    if await _reads(client, own, OWNERS):
        yield said + "reads the record of all tenants"
    if await _reads(client, own, LOGINS):
        yield said + "reads who may log in"
    for other in closest(record.id, neighbours):
        if await _reads(client, own, collection(other.id)):
            yield said + f"reads rows of {other.place.tenant}"


async def _reads(client: Client, own: str, other: str) -> bool:
    """Tell whether a tenant may look into a collection, directly or by a look-up from its own."""

    def look(server: AsyncQdrantClient) -> Awaitable[Any]:
        return server.scroll(other, limit=1)

    def look_up(server: AsyncQdrantClient) -> Awaitable[Any]:
        return server.query_points(
            own, _NO_POINT, limit=1, lookup_from=models.LookupLocation(collection=other)
        )

    return await _is_let(lambda: client.ask(look)) or await _is_let(lambda: client.ask(look_up))


async def _is_let(look: Callable[[], Awaitable[Any]]) -> bool:
    """Tell whether a tenant may look, whatever it finds there."""
    try:
        await look()
    except Denied:
        return False
    except Missing:
        return True
    return True
