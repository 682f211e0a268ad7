"""The collections that the operator makes on a Qdrant server.

    tenantry_owners   one point for each tenant: what is on record of its place
    tenantry_logins   one point for each of the credentials that are let in (see `logins`)
    t_<id>            a tenant's vectors

Each tenant has a collection of its own, because a token of Qdrant ends there: what a token may see within a
collection could be restricted up to 1.15, and cannot any more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from qdrant_client import models

from tenantry.adapters.qdrant.client import Client, Missing
from tenantry.api.tenant import Metric, VectorType
from tenantry.domain.vectors import INDEX_ROWS, Shape
from tenantry.reconcile.ports import Unavailable

OWNERS: Final = "tenantry_owners"

LOGINS: Final = "tenantry_logins"

INDEXED: Final = ("login", "place")
"""What logins are looked for by."""

DISTANCES: Final = {
    Metric.COSINE: models.Distance.COSINE,
    Metric.L2: models.Distance.EUCLID,
    Metric.INNER_PRODUCT: models.Distance.DOT,
}

ELEMENT_BYTES: Final = {VectorType.VECTOR: 4, VectorType.HALFVEC: 2}

_POINTS: Final = re.compile(r'^\w*collection_points\{(?:[^}]*,)?id="([^"]+)"[^}]*\} (\S+)', re.MULTILINE)
"""The metric, whose name may have a prefix (`service.metrics_prefix`)."""


def collection(id_: str) -> str:
    """Return the name of a tenant's collection."""
    return f"t_{id_}"


def completed(result: models.UpdateResult) -> None:
    """Raise Unavailable where a write was taken and is not in effect yet."""
    if result.status is not models.UpdateStatus.COMPLETED:
        raise Unavailable(f"the server has not carried out a write in time: {result.status}")


async def make_own(client: Client) -> None:
    """Have the operator's own collections, and logins indexed, since each request of a tenant looks one up."""
    said = await client.ask(lambda server: server.get_collections())
    present = {each.name for each in said.collections}
    for name in (OWNERS, LOGINS):
        if name not in present:
            await _make_own(client, name)
    info = await client.ask(lambda server: server.get_collection(LOGINS))
    for field in INDEXED:
        if field not in info.payload_schema:
            await _index(client, field)


async def _make_own(client: Client, name: str) -> None:
    """Its vectors say nothing."""
    vectors = models.VectorParams(size=1, distance=models.Distance.DOT)
    await client.ask(lambda server: server.create_collection(name, vectors))


async def _index(client: Client, field: str) -> None:
    kind = models.PayloadSchemaType.KEYWORD
    completed(await client.ask(lambda server: server.create_payload_index(LOGINS, field, kind, wait=True)))


async def shape_of(client: Client, id_: str) -> Shape | None:
    """Return the shape of a tenant's collection; None: there is no collection."""
    try:
        info = await client.ask(lambda server: server.get_collection(collection(id_)))
    except Missing:
        return None
    vectors = info.config.params.vectors
    # A tenant may add vectors of other names; the one without a name stays.
    found = vectors.get("") if isinstance(vectors, dict) else vectors
    if not isinstance(found, models.VectorParams):
        return Shape(0)
    metrics = {distance: metric for metric, distance in DISTANCES.items()}
    half = found.datatype is models.Datatype.FLOAT16
    metric = metrics.get(found.distance)
    return (
        Shape(found.size, metric, VectorType.HALFVEC if half else VectorType.VECTOR) if metric else Shape(0)
    )


async def make(client: Client, id_: str, shape: Shape) -> None:
    """Make a tenant's collection. The server builds the index by itself, when a segment has as many vectors."""
    half = models.Datatype.FLOAT16 if shape.type is VectorType.HALFVEC else None
    vectors = models.VectorParams(size=shape.dimensions, distance=DISTANCES[shape.metric], datatype=half)
    kilobytes = INDEX_ROWS * shape.dimensions * ELEMENT_BYTES[shape.type] // 1024
    await client.ask(
        lambda server: server.create_collection(
            collection(id_),
            vectors,
            hnsw_config=models.HnswConfigDiff(full_scan_threshold=kilobytes),
            optimizers_config=models.OptimizersConfigDiff(indexing_threshold=kilobytes),
        )
    )


async def drop(client: Client, id_: str) -> None:
    """Remove a tenant's collection and all that is in it."""
    try:
        await client.ask(lambda server: server.delete_collection(collection(id_)))
    except Missing:
        return


async def count(client: Client, id_: str) -> int:
    """Return how many points a tenant's collection has."""
    try:
        return (await client.ask(lambda server: server.count(collection(id_), exact=True))).count
    except Missing:
        return 0


async def counts(client: Client) -> Mapping[str, int]:
    """Return about how many points each collection has, by one request."""
    return {name: int(float(number)) for name, number in _POINTS.findall(await client.metrics())}
