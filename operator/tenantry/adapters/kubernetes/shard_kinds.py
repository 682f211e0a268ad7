"""VectorShards and TenantMoves as last seen, in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tenantry.adapters.kubernetes import changes
from tenantry.api.move import TenantMove
from tenantry.api.shard import VectorShard


class ShardKinds:
    """The part of `Seen` that is about shards and moves between them."""

    def __init__(self) -> None:
        self._shards: dict[str, VectorShard] = {}
        self._shards_by_name: tuple[VectorShard, ...] = ()
        self._moves: dict[str, TenantMove] = {}
        self._active: dict[str, TenantMove] = {}
        self._active_by_tenant: defaultdict[str, set[str]] = defaultdict(set)

    def shard(self, name: str) -> VectorShard | None:
        """Return a VectorShard."""
        return self._shards.get(name)

    def shards(self) -> Sequence[VectorShard]:
        """Return every VectorShard, by name."""
        return self._shards_by_name

    def moves_of(self, tenant: str) -> Sequence[TenantMove]:
        """Return the TenantMoves of a tenant that are active, by name."""
        return [self._active[name] for name in sorted(self._active_by_tenant.get(tenant, ()))]

    def moves(self) -> Sequence[TenantMove]:
        """Return every TenantMove that is active, by name."""
        return [self._active[name] for name in sorted(self._active)]

    def ended_moves(self) -> Sequence[TenantMove]:
        """Return every TenantMove that is over and still there as a record, by name."""
        return [self._moves[name] for name in sorted(self._moves.keys() - self._active.keys())]

    def all_moves(self) -> Sequence[str]:
        """Return the names of all TenantMoves, also of those that have ended."""
        return sorted(self._moves)

    def _take_shard_kind(self, kind: str, name: str, manifest: Mapping[str, Any]) -> bool:
        """Keep a VectorShard or TenantMove; return whether anything changed that wakes. Raises ValidationError."""
        if kind == "VectorShard":
            shard = VectorShard.model_validate(manifest)
            known = self._shards.get(name)
            self._shards[name] = shard
            self._sort_shards()
            return known is None or not changes.same(known, shard)
        move = TenantMove.model_validate(manifest)
        before = self._moves.get(name)
        self._unindex_move(name)
        self._moves[name] = move
        if move.active:
            self._active[name] = move
            self._active_by_tenant[move.spec.tenant].add(name)
        # That one has ended is news for its tenant, whoever wrote it.
        return before is None or not changes.same(before, move) or before.active != move.active

    def _drop_shard_kind(self, kind: str, name: str) -> None:
        if kind == "VectorShard":
            self._shards.pop(name, None)
            self._sort_shards()
        else:
            self._unindex_move(name)
            self._moves.pop(name, None)

    def _tenant_of_move(self, name: str) -> str:
        move = self._moves.get(name)
        return move.spec.tenant if move is not None else ""

    def _unindex_move(self, name: str) -> None:
        move = self._active.pop(name, None)
        if move is None:
            return
        tenant = move.spec.tenant
        self._active_by_tenant[tenant].discard(name)
        if not self._active_by_tenant[tenant]:
            del self._active_by_tenant[tenant]

    def _sort_shards(self) -> None:
        self._shards_by_name = tuple(self._shards[name] for name in sorted(self._shards))
