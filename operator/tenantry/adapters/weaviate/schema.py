"""The collections that the operator makes on a Weaviate server, and what is asked of the server.

    TenantryOwners   one object for each tenant: what is on record of its place. Only the operator reads it.
    TenantryCosine   vectors of all tenants that compare by cosine, each in a native tenant of its own; likewise
    TenantryL2, TenantryDot

A native tenant has storage and an index of its own. The index is `dynamic`: exact until a tenant has INDEX_ROWS
vectors, HNSW from then on, which the server sees to by itself; it does so with ASYNC_INDEXING only.
"""

from __future__ import annotations

from typing import Any, Final

from tenantry.adapters.weaviate.client import Client
from tenantry.api.tenant import Metric
from tenantry.domain.fitness import Fitness
from tenantry.domain.vectors import INDEX_ROWS
from tenantry.reconcile.ports import Refused

LEAST: Final = (1, 35)
"""What it is tested with; older ones were not tried."""

OWNERS: Final = "TenantryOwners"

VECTORS: Final = {
    Metric.COSINE: "TenantryCosine",
    Metric.L2: "TenantryL2",
    Metric.INNER_PRODUCT: "TenantryDot",
}

_DISTANCES: Final = {Metric.COSINE: "cosine", Metric.L2: "l2-squared", Metric.INNER_PRODUCT: "dot"}

_ROOT: Final = "root"
"""Weaviate's own role that may do everything."""


def _property(
    name: str, type_: str = "text", *, filterable: bool = True, words: bool = False
) -> dict[str, Any]:
    tokens = {"tokenization": "word" if words else "field"} if type_.startswith("text") else {}
    return {
        "name": name,
        "dataType": [type_],
        "indexFilterable": filterable,
        "indexSearchable": words,
        **tokens,
    }


def _vectors(metric: Metric) -> dict[str, Any]:
    """Return a collection of vectors. Tenants cannot add properties: `metadata` takes any JSON, as text."""
    return {
        "class": VECTORS[metric],
        "vectorizer": "none",
        "vectorIndexType": "dynamic",
        "vectorIndexConfig": {"distance": _DISTANCES[metric], "threshold": INDEX_ROWS},
        "multiTenancyConfig": {"enabled": True, "autoTenantCreation": False, "autoTenantActivation": False},
        "properties": [
            _property("key"),
            _property("content", words=True),
            _property("labels", "text[]"),
            _property("metadata", filterable=False),
        ],
    }


_OWNERS: Final = {
    "class": OWNERS,
    "vectorizer": "none",
    "vectorIndexType": "hnsw",
    "vectorIndexConfig": {"skip": True},
    "properties": [_property("tenant"), _property("record", filterable=False)],
}


async def prepare(client: Client) -> Fitness:
    """Look whether a server is fit, and make the collections that are missing."""
    version = str((await client.ask("GET", "meta") or {}).get("version", ""))
    server = f"Weaviate {version}"
    least = ".".join(map(str, LEAST))
    if _numbers(version) < LEAST:
        return Fitness(server, f"the server is {server}: use {least} or newer")
    own = await client.ask("GET", "users/own-info") or {}
    if _ROOT not in {role.get("name") for role in own.get("roles") or []}:
        # Where roles are switched off nobody has one.
        return Fitness(
            server,
            f"the operator's user there, {own.get('username')}, has not the role root: set "
            f"AUTHORIZATION_RBAC_ENABLED and name it in AUTHORIZATION_RBAC_ROOT_USERS on the server",
        )
    if own["username"] not in {user["userId"] for user in await client.ask("GET", "users/db") or []}:
        return Fitness(server, "the server makes no users: set AUTHENTICATION_DB_USERS_ENABLED=true on it")
    present = {each["class"] for each in (await client.ask("GET", "schema") or {}).get("classes") or []}
    try:
        for wanted in (_OWNERS, *map(_vectors, VECTORS)):
            if wanted["class"] not in present:
                await client.ask("POST", "schema", wanted)
    except Refused as error:
        if "async indexing" in str(error):
            return Fitness(server, "the server indexes at once only: set ASYNC_INDEXING=true on it")
        raise
    return Fitness(server)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[: len(LEAST)] if part.isdecimal())
