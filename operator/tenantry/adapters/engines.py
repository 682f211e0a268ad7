"""Engines by kind."""

from __future__ import annotations

from tenantry.adapters.pgvector.engine import PgvectorEngine
from tenantry.adapters.pgvector.moving import PgvectorMover
from tenantry.adapters.weaviate.engine import WeaviateEngine
from tenantry.api.shard import EngineKind
from tenantry.reconcile.mover import Mover
from tenantry.reconcile.ports import Engine, Refused


class RealEngines:
    """The port `Engines`."""

    def open(self, shard: str, kind: EngineKind, address: str) -> Engine:
        """Return an engine of that kind at an address. Raises Refused."""
        match kind:
            case EngineKind.PGVECTOR:
                return PgvectorEngine(shard, address)
            case EngineKind.WEAVIATE:
                return WeaviateEngine(shard, address)
            case EngineKind.QDRANT:
                return _qdrant(shard, address)

    def mover(self, source: Engine, target: Engine, tenant: str) -> Mover:
        """Return what moves a tenant. Raises Refused where these engines cannot do that."""
        if isinstance(source, PgvectorEngine) and isinstance(target, PgvectorEngine):
            return PgvectorMover(source, target, tenant)
        raise Refused(
            f"tenants move between shards of engine {EngineKind.PGVECTOR} only, not {tenant} between these"
        )


def _qdrant(shard: str, address: str) -> Engine:
    """Return an engine whose library is an extra, loaded only where one is used."""
    try:
        from tenantry.adapters.qdrant.engine import QdrantEngine
    except ModuleNotFoundError as error:
        raise Refused(
            f"engine {EngineKind.QDRANT} needs {error.name}, which is not installed: install tenantry[qdrant]"
        ) from error
    return QdrantEngine(shard, address)
