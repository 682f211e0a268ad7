"""A change wakes everything that it concerns, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.builders import T0, sample

from tenantry.adapters.kubernetes.kinds import CHILD_KINDS
from tenantry.adapters.kubernetes.seen import Seen
from tenantry.api.common import rfc3339
from tenantry.reconcile import roles
from tenantry.reconcile.result import Key
from tenantry.runtime.router import COUNT_PAUSE_SECONDS, wake


class Queue:
    """Keeps the keys, and how long they wait."""

    def __init__(self) -> None:
        self.keys: dict[Key, float] = {}

    def add(self, key: Key, after: float = 0.0, *, low: bool = False) -> None:
        """Take a key in."""
        self.keys[key] = min(after, self.keys.get(key, after))

    def drain(self) -> dict[str, float]:
        """Return what was added since the last time."""
        keys, self.keys = self.keys, {}
        return {str(key): after for key, after in keys.items()}


class World:
    """Two tenants that want one namespace, a third, an archive and two plans."""

    def __init__(self) -> None:
        self.queue = Queue()
        self.seen = Seen("free", lambda *change: wake(self.seen, self.queue, *change))
        self.version = 0
        self.tenant("acme", plan="pro", namespace={"name": "shared"})
        self.tenant("rival", namespace={"name": "shared"})
        self.tenant("small")
        for plan in ("free", "pro"):
            self.see("Plan", plan, sample("plans.yaml", plan)["spec"])
        former = {
            "tenant": "small",
            "tenantUID": "old",
            "owner": {"email": "a@b.example"},
            "namespace": "shared",
        }
        self.see("TenantArchive", "small-old", {**former, "purgeAfter": rfc3339(T0)})
        self.queue.drain()

    def see(self, kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> None:
        self.version += 1
        identity = {"name": name, "uid": f"{kind}-{name}", "resourceVersion": str(self.version)}
        times = {"creationTimestamp": rfc3339(T0), "generation": self.version}
        self.seen.saw({"kind": kind, "metadata": {**identity, **times, **metadata}, "spec": spec})

    def tenant(self, name: str, **spec: Any) -> None:
        self.see("Tenant", name, {"owner": {"email": "a@b.example"}, **spec})


SHARED = {"Tenant/acme", "Tenant/rival", "TenantArchive/small-old"}


@pytest.mark.parametrize("kind", [kind.kind for kind in CHILD_KINDS if kind.namespaced])
def test_a_child_wakes_all_that_want_or_keep_its_namespace(kind: str) -> None:
    world = World()
    name = "tenant-config-1" if kind == "ControllerRevision" else "x"
    ours = [{"kind": "Namespace", "name": "shared", "controller": True}] if name != "x" else []
    world.see(kind, name, {}, namespace="shared", ownerReferences=ours)
    assert world.queue.drain().keys() == SHARED
    world.seen.gone(kind, "shared", name, f"{kind}-{name}", 99)
    assert world.queue.drain().keys() == SHARED


def test_a_namespace_wakes_the_same_when_it_comes_and_when_it_goes() -> None:
    world = World()
    world.see("Namespace", "shared", {})
    assert world.queue.drain().keys() == SHARED
    world.seen.gone("Namespace", "", "shared", "Namespace-shared", 99)
    assert world.queue.drain().keys() == SHARED


def test_a_namespace_of_nobody_wakes_nobody() -> None:
    world = World()
    world.see("Namespace", "kube-system", {})
    world.see("ConfigMap", "x", {}, namespace="kube-system")
    assert not world.queue.drain()


def test_an_edited_plan_wakes_its_tenants_at_once_and_no_others() -> None:
    world = World()
    world.see("Plan", "pro", sample("plans.yaml", "pro")["spec"])
    assert world.queue.drain() == {"Plan/pro": 0.0, "Tenant/acme": 0.0}
    world.seen.gone("Plan", "", "free", "Plan-free")
    assert world.queue.drain() == {"Plan/free": 0.0, "Tenant/rival": 0.0, "Tenant/small": 0.0}


def test_a_plan_that_comes_later_wakes_who_waited_for_it() -> None:
    world = World()
    world.tenant("late", plan="gold")
    world.queue.drain()
    world.see("Plan", "gold", sample("plans.yaml", "pro")["spec"])
    assert "Tenant/late" in world.queue.drain()


def test_a_tenant_that_goes_wakes_the_next_in_line_and_the_plans_count_later() -> None:
    world = World()
    world.seen.gone("Tenant", "", "acme", "Tenant-acme")
    woken = world.queue.drain()
    assert woken["Tenant/rival"] == 0.0
    assert woken["TenantArchive/small-old"] == 0.0
    assert {key: after for key, after in woken.items() if key.startswith("Plan/")} == {
        "Plan/free": COUNT_PAUSE_SECONDS,
        "Plan/pro": COUNT_PAUSE_SECONDS,
    }


def test_an_archive_wakes_the_tenant_of_its_name() -> None:
    world = World()
    world.seen.gone("TenantArchive", "", "small-old", "TenantArchive-small-old")
    assert world.queue.drain().keys() == {"TenantArchive/small-old", "Tenant/small"}


def test_a_cluster_role_wakes_the_one_key_of_all_four() -> None:
    world = World()
    world.see("ClusterRole", "tenantry-tenant-owner", {})
    assert world.queue.drain().keys() == {str(roles.KEY)}


# --- shards ------------------------------------------------------------------------------------------------------

SHARD = {"engine": "pgvector", "connection": {"secretRef": {"name": "x"}}}


class Placed(World):
    """The same, with a shard that acme is on; rival and small have no place."""

    def __init__(self) -> None:
        super().__init__()
        self.see("VectorShard", "a", SHARD)
        self.place("acme", "a")
        self.queue.drain()

    def place(self, name: str, shard: str, **spec: Any) -> None:
        """See a Tenant whose status somebody else has written, or whose spec has changed."""
        self.version += 1
        spec = spec or {"plan": "pro", "namespace": {"name": "shared"}}
        metadata = {"name": name, "uid": f"Tenant-{name}", "resourceVersion": str(self.version)}
        metadata |= {"creationTimestamp": rfc3339(T0), "generation": 1}
        status = {"placement": {"shard": shard, "epoch": 1}}
        spec = {"owner": {"email": "a@b.example"}, **spec}
        self.seen.saw({"kind": "Tenant", "metadata": metadata, "spec": spec, "status": status})


def test_a_shard_wakes_who_is_on_it_who_has_no_place_and_the_planner() -> None:
    world = Placed()
    world.see("VectorShard", "a", {**SHARD, "drain": True})
    woken = dict.fromkeys(("VectorShard/a", "Rebalance/", "Tenant/acme", "Tenant/rival", "Tenant/small"), 0.0)
    assert world.queue.drain() == woken
    world.seen.gone("VectorShard", "", "a", "VectorShard-a")
    assert world.queue.drain() == woken


def test_another_shard_leaves_alone_who_has_a_place() -> None:
    world = Placed()
    world.see("VectorShard", "b", SHARD)
    assert world.queue.drain().keys() == {"VectorShard/b", "Rebalance/", "Tenant/rival", "Tenant/small"}


def test_a_tenant_that_comes_to_a_shard_has_it_count_later() -> None:
    world = Placed()
    world.place("rival", "a", namespace={"name": "shared"})
    assert world.queue.drain()["VectorShard/a"] == COUNT_PAUSE_SECONDS
    world.place("rival", "b", namespace={"name": "shared"})
    woken = world.queue.drain()
    assert (woken["VectorShard/a"], woken["VectorShard/b"]) == (COUNT_PAUSE_SECONDS, COUNT_PAUSE_SECONDS)
    world.seen.gone("Tenant", "", "acme", "Tenant-acme")
    woken = world.queue.drain()
    assert woken["VectorShard/a"] == COUNT_PAUSE_SECONDS
    assert "VectorShard/b" not in woken


def test_a_move_wakes_itself_and_its_tenant() -> None:
    world = Placed()
    world.see("TenantMove", "m", {"tenant": "acme", "targetShard": "b"})
    assert world.queue.drain() == {"TenantMove/m": 0.0, "Tenant/acme": 0.0}
    world.seen.gone("TenantMove", "", "m", "TenantMove-m")
    assert world.queue.drain() == {"TenantMove/m": 0.0, "Tenant/acme": 0.0}
