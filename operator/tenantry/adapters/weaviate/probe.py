"""The leak canary: with a tenant's own key, try to see what is others'.

To be refused needs no objects of neighbours: that it may look at all is a leak, whatever it finds. What a tenant sees
of others is asked for first, which covers all of them; then rows of those next to it by id, so that all are tried by
somebody.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from tenantry.adapters.neighbours import closest
from tenantry.adapters.weaviate import logins, owners
from tenantry.adapters.weaviate.client import Client, Denied
from tenantry.adapters.weaviate.owners import Kept
from tenantry.adapters.weaviate.schema import OWNERS, VECTORS
from tenantry.domain.places import Record
from tenantry.reconcile.ports import Unavailable

_NO_OBJECT: Final = "00000000-0000-0000-0000-000000000000"


async def probe(client: Client, kept: Kept, neighbours: Sequence[Record]) -> Sequence[str]:
    """Return a sentence for each way that let the tenant see others. client: with the tenant's key.

    Raises Unavailable where the tenant itself is not let in.
    """
    try:
        await client.ask("GET", "users/own-info")
    except Denied as error:
        raise Unavailable(f"the tenant's key is not taken: {error}") from error
    return [said async for said in _leaks(client, kept, neighbours)]


async def _leaks(client: Client, kept: Kept, neighbours: Sequence[Record]) -> AsyncIterator[str]:
    own = {logins.user(kept.id, slot) for slot in logins.SLOTS}
    said = f"tenant {kept.place.tenant} "
    seen = await _allowed(client, f"schema/{kept.collection}/tenants") or []
    others = sorted(each["name"] for each in seen if each["name"] != kept.place.tenant)
    if others:
        yield said + f"sees that there are others, such as {others[0]}"
    if any(each.get("userId") not in own for each in await _allowed(client, "users/db") or []):
        yield said + "sees the users of others"
    if any(each.get("name") != logins.role(kept.id) for each in await _allowed(client, "authz/roles") or []):
        yield said + "sees the roles of others"
    if await _is_let(client, f"objects/{OWNERS}/{owners.object_id(kept.place.tenant)}"):
        yield said + "reads the record of all tenants"
    for other in closest(kept.id, neighbours):
        name, collection = other.place.tenant, VECTORS[other.place.shape.metric]
        if await _is_let(client, f"objects/{collection}/{_NO_OBJECT}", tenant=name) or await _is_let(
            client, "objects", **{"class": collection, "tenant": name}
        ):
            yield said + f"reads rows of {name}"


async def _allowed(client: Client, path: str) -> list[dict[str, str]] | None:
    """Return what a list shows; None where it is denied."""
    try:
        found: list[dict[str, str]] | None = await client.ask("GET", path)
    except Denied:
        return None
    return found


async def _is_let(client: Client, path: str, **query: str) -> bool:
    """Tell whether a tenant may look, whatever it finds there."""
    try:
        await client.ask("GET", path, **query)
    except Denied:
        return False
    return True
