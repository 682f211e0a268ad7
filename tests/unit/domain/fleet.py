"""A fleet in memory that does what the planner decides: shards, tenants with sizes, moves, and a clock."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from tenantry.api.common import rfc3339
from tenantry.api.move import MovePhase, TenantMove
from tenantry.api.shard import VectorShard
from tenantry.domain.layout import Facts, Holding
from tenantry.domain.observed import TenantClaim
from tenantry.domain.rebalancing import Decision, RebalanceTerms, balance, decide
from tests.unit.builders import T0, claim_of, tenant


def shard(name: str, *, over_since: Any = None, **spec: Any) -> VectorShard:
    """Return a VectorShard; over_since: since when it has been over its share."""
    listed = []
    if over_since is not None:
        condition = {"type": "Balanced", "status": "False", "reason": "OverShare"}
        listed.append({**condition, "lastTransitionTime": rfc3339(over_since)})
    content = {"engine": "pgvector", "connection": {"secretRef": {"name": name}}, **spec}
    metadata = {"name": name, "uid": f"uid-of-{name}", "creationTimestamp": rfc3339(T0), "generation": 1}
    status = {"conditions": listed}
    return VectorShard.model_validate({"metadata": metadata, "spec": content, "status": status})


def claim(name: str, shard: str, **fields: Any) -> TenantClaim:
    """Return what is remembered of a tenant that is placed."""
    return replace(claim_of(tenant(name)), shard=shard, epoch=1, **fields)


def move(
    tenant: str,
    source: str,
    target: str,
    phase: str = "Copying",
    reason: str = "Rebalance",
    *,
    name: str = "",
    **status: Any,
) -> TenantMove:
    """Return a TenantMove; one that waits has no source on record yet."""
    told = {"phase": phase, "epoch": 1, **({} if phase == "Pending" else {"source": source}), **status}
    metadata = {
        "name": name or f"{tenant}-e1",
        "uid": f"uid-of-move-{tenant}",
        "creationTimestamp": rfc3339(T0),
        "generation": 1,
    }
    spec = {"tenant": tenant, "targetShard": target, "reason": reason}
    return TenantMove.model_validate({"metadata": metadata, "spec": spec, "status": told})


@dataclass
class Fleet:
    """Tenants on shards. moved: who went where and when, in order."""

    shards: list[VectorShard]
    claims: dict[str, TenantClaim] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    terms: RebalanceTerms = field(default_factory=RebalanceTerms)
    ended: list[TenantMove] = field(default_factory=list)
    moved: list[tuple[str, str, str, Any]] = field(default_factory=list)
    now: Any = T0

    def put(self, name: str, shard: str, size: int = 100, **fields: Any) -> None:
        """Have a tenant on a shard."""
        self.claims[name] = claim(name, shard, **fields)
        self.sizes[name] = size

    def load(self, shard: str) -> int:
        """Return the bytes on a shard."""
        return sum(self.sizes[item.name] for item in self.claims.values() if item.shard == shard)

    def facts(self, **more: Any) -> Facts:
        """Return what a decision is made from."""
        holdings = {}
        for each in self.shards:
            here = {item.name for item in self.claims.values() if item.shard == each.metadata.name}
            sizes = {name: self.sizes[name] for name in here}
            holdings[each.metadata.name] = Holding(True, sizes, frozenset(here))
        known: dict[str, Any] = {"holdings": holdings, "ended": self.ended, **more}
        return Facts(self.shards, claims=list(self.claims.values()), now=self.now, **known)

    def decide(self, *, asked: bool = False, **more: Any) -> Decision:
        """Return what is to be done now."""
        return decide(self.facts(**more), self.terms, asked=asked)

    def look(self) -> None:
        """Have each shard say whether it is over its share, since when it was first."""
        loads = {each.metadata.name: self.load(each.metadata.name) for each in self.shards}
        standing = balance(self.shards, loads, self.terms.theta)
        told = []
        for each in self.shards:
            name = each.metadata.name
            within = name not in standing or standing[name].within
            since = next((item.last_transition_time for item in each.status.conditions), self.now)
            spec = each.spec.model_dump(by_alias=True, mode="json")
            told.append(shard(name, over_since=None if within else since, **spec))
        self.shards = told

    def follow(self, decision: Decision) -> None:
        """Do what was decided, all at once."""
        for each in decision.beginning:
            step = each.step
            before = self.claims[step.tenant]
            self.claims[step.tenant] = replace(before, shard=step.target, epoch=before.epoch + 1)
            self.moved.append((step.tenant, step.source, step.target, self.now))
            status = {"epoch": before.epoch, "finishedAt": rfc3339(self.now)}
            way = (step.tenant, step.source, step.target, MovePhase.COMPLETED, step.reason)
            self.ended.append(move(*way, name=each.name, **status))

    def settle(self, rounds: int = 2000) -> Decision:
        """Go on minute by minute until nothing is to be done; return the last decision."""
        for _ in range(rounds):
            self.look()
            decision = self.decide()
            balanced = not any(each.status.conditions for each in self.shards)
            if not decision.pending and (balanced or self.now - self._since() > 2 * self.terms.over):
                return decision
            self.follow(decision)
            self.now += timedelta(minutes=1)
        raise AssertionError(f"no end after {rounds} rounds: {len(self.moved)} moves")

    def _since(self) -> Any:
        listed = [item.last_transition_time for each in self.shards for item in each.status.conditions]
        return max([*listed, *(at for *_, at in self.moved)], default=self.now)
