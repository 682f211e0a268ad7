"""The shape of a tenant's vectors, and when and how an approximate index is built for them.

Figures of pgvector 0.8: an HNSW index takes up to 2,000 dimensions of `vector` and 4,000 of `halfvec`
(github.com/pgvector/pgvector, README, "HNSW").
"""

from __future__ import annotations

from dataclasses import dataclass

from tenantry.api.tenant import Metric, VectorType

INDEX_ROWS = 10_000
"""Below so many rows an exact search is as fast as an approximate one, and finds everything."""

MOST_INDEXED = {"vector": 2000, "halfvec": 4000}
"""Dimensions that an HNSW index takes, by type."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What all vectors of a tenant have in common; it never changes."""

    dimensions: int
    metric: Metric = Metric.COSINE
    type: VectorType = VectorType.VECTOR

    def __str__(self) -> str:
        return f"{self.dimensions} dimensions ({self.type}, {self.metric})"

    @property
    def index_type(self) -> VectorType | None:
        """Return the type that an HNSW index is built over: halfvec where vector is too long; None: over neither."""
        for kind in (self.type, VectorType.HALFVEC):
            if self.dimensions <= MOST_INDEXED[kind]:
                return kind
        return None


def wants_index(rows: int, indexed: bool, threshold: int = INDEX_ROWS) -> bool:
    """Return whether a tenant with so many rows is to have an index: one that has it keeps it down to half."""
    return rows >= threshold or (indexed and rows >= threshold // 2)
