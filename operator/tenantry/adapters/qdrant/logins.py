"""Who may log in: a tenant's tokens, and the points that they are valid by.

A token is a JWT that is signed with the server's API key. It reaches the tenant's own collection and nothing else,
and is valid only while collection `tenantry_logins` holds a point for it, which no tenant can touch. So the present
credentials, those before and none at all are points that are there or not, and take effect with the next request: a
client of Qdrant has no session that would have to be ended.

What that costs: the server looks the point up at each request of a tenant. Nothing is kept of a token, it is made
anew from the API key each time that it is needed; so a new API key makes all tenants' tokens invalid at once, until
the operator has written the new ones to their Secrets. (A server that has the former key as `service.alt_api_key`
takes both.) And whoever has a token can try API keys on it until one fits, offline: a short one is refused
(`fitness`).
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID, uuid5

import jwt
from qdrant_client import models

from tenantry.adapters.qdrant.client import Client
from tenantry.adapters.qdrant.schema import LOGINS, collection, completed
from tenantry.domain.places import Place

_NAMESPACE: Final = UUID("5b0c9d53-6f3d-5c0b-8a0c-1f3de1b7a9d4")

POINTS: Final = "prw"
"""What a token lets its tenant do with the collection: read and write points. With `rw` it could make snapshots,
which fill the disk of all, and change the collection's vectors (github.com/qdrant/qdrant, `rbac`, 1.19)."""

_MOST: Final = 100
"""Logins that are looked for at a place: it has two at most."""


def login(id_: str, generation: int) -> str:
    """Return what credentials are called."""
    return f"{id_}/{generation}"


def token(key: str, id_: str, generation: int) -> str:
    """Return what an application shows to be let in with these credentials: always the same."""
    return signed(key, [{"collection": collection(id_), "access": POINTS}], login(id_, generation))


def signed(key: str, access: list[dict[str, str]], valid_by: str | None = None) -> str:
    """Return a token for some collections. valid_by: the login that has to be there."""
    claims: dict[str, Any] = {"access": access}
    if valid_by is not None:
        claims["value_exists"] = {
            "collection": LOGINS,
            "matches": [{"key": "login", "value": valid_by}],
        }
    return jwt.encode(claims, key, algorithm="HS256")


def wanted(place: Place, id_: str) -> set[str]:
    """Return the logins that are to be let in."""
    if not place.open:
        return set()
    generations = (place.generation, place.generation - 1) if place.previous else (place.generation,)
    return {login(id_, generation) for generation in generations}


async def present(client: Client, id_: str) -> set[str]:
    """Return the logins that are let in."""
    found, _ = await client.ask(
        lambda server: server.scroll(LOGINS, scroll_filter=models.Filter(must=[_of(id_)]), limit=_MOST)
    )
    return {str((point.payload or {}).get("login")) for point in found}


async def close(client: Client, id_: str, keep: set[str]) -> None:
    """Let nobody in any more but those."""
    others = models.Filter(must=[_of(id_)], must_not=[_among(keep)] if keep else None)
    selector = models.FilterSelector(filter=others)
    completed(await client.ask(lambda server: server.delete(LOGINS, selector, wait=True)))


async def open_(client: Client, id_: str, logins: set[str]) -> None:
    """Let those in."""
    points = [
        models.PointStruct(
            id=str(uuid5(_NAMESPACE, each)), vector=[1.0], payload={"login": each, "place": id_}
        )
        for each in sorted(logins)
    ]
    completed(await client.ask(lambda server: server.upsert(LOGINS, points, wait=True)))


def _of(id_: str) -> models.FieldCondition:
    return models.FieldCondition(key="place", match=models.MatchValue(value=id_))


def _among(logins: set[str]) -> models.FieldCondition:
    return models.FieldCondition(key="login", match=models.MatchAny(any=sorted(logins)))
