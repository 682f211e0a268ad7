"""Shards, moves and tenants' places as last seen, and whom a change of them concerns."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tenantry.adapters.kubernetes.seen import PLACEMENT, Seen
from tenantry.api.common import rfc3339
from tenantry.api.move import MovePhase
from tenantry.domain import names
from tests.unit.builders import T0

SHARD = {"engine": "pgvector", "connection": {"secretRef": {"name": "x"}}}


class World:
    """What is seen, and what was told of it since the last `drain`."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []
        self.seen = Seen("free", lambda *change: self.told.append(change))
        self.version = 0

    def drain(self) -> list[tuple[str, str, str]]:
        told, self.told = self.told, []
        return told

    def see(
        self, kind: str, name: str, spec: dict[str, Any], status: dict[str, Any] | None = None, **more: Any
    ) -> dict[str, Any]:
        """See an object that somebody else has written; `more` goes into its metadata."""
        self.version += 1
        identity = {"name": name, "uid": f"{kind}-{name}", "resourceVersion": str(self.version)}
        times = {"creationTimestamp": rfc3339(T0), "generation": 1}
        metadata = {**identity, **times, **more}
        manifest = {"kind": kind, "metadata": metadata, "spec": spec, "status": status or {}}
        self.seen.saw(manifest)
        return manifest

    def shard(self, name: str, **more: Any) -> None:
        self.see("VectorShard", name, SHARD, **more)

    def move(self, name: str, tenant: str = "acme", phase: str | None = None, **more: Any) -> None:
        status = {"phase": phase} if phase else {}
        self.see("TenantMove", name, {"tenant": tenant, "targetShard": "b"}, status, **more)

    def tenant(self, name: str, shard: str = "", epoch: int = 1, **more: Any) -> dict[str, Any]:
        status = {"placement": {"shard": shard, "epoch": epoch}} if shard else {}
        return self.see("Tenant", name, {"owner": {"email": "a@b.example"}}, status, **more)

    def placed_on(self, shard: str) -> set[tuple[str, int]]:
        return {(claim.name, claim.epoch) for claim in self.seen.placed_on(shard)}


# --- shards ------------------------------------------------------------------------------------------------------


def test_shards_are_told_by_name() -> None:
    world = World()
    for name in ("b", "c", "a"):
        world.shard(name)
    assert [shard.metadata.name for shard in world.seen.shards()] == ["a", "b", "c"]
    assert world.seen.shard("b") is world.seen.shards()[1]
    world.seen.gone("VectorShard", "", "b", "VectorShard-b")
    assert [shard.metadata.name for shard in world.seen.shards()] == ["a", "c"]
    assert world.seen.shard("b") is None


def test_a_shard_wakes_by_its_spec_and_not_by_its_status() -> None:
    world = World()
    world.shard("a")
    assert world.drain() == [("VectorShard", "", "a")]
    world.see("VectorShard", "a", SHARD, {"tenants": 3})
    assert world.drain() == []
    assert world.seen.shards()[0].status.tenants == 3
    world.see("VectorShard", "a", {**SHARD, "cordoned": True}, generation=2)
    assert world.drain() == [("VectorShard", "", "a")]
    world.shard("a", generation=2, deletionTimestamp=rfc3339(T0))
    assert world.drain() == [("VectorShard", "", "a")]


def test_one_that_makes_no_sense_wakes_itself_and_the_last_that_did_stays() -> None:
    world = World()
    world.shard("a")
    world.drain()
    world.see("VectorShard", "a", {**SHARD, "weight": "much"}, generation=2)
    assert world.drain() == [("VectorShard", "", "a")]
    assert world.seen.shards()[0].spec.weight == 1


# --- moves -------------------------------------------------------------------------------------------------------


def test_moves_that_have_ended_are_no_tenants_any_more() -> None:
    world = World()
    world.move("two", "acme")
    world.move("one", "acme", "Copying")
    world.move("other", "globex", "Committed")
    world.move("old", "acme", "Completed")
    world.move("failed", "acme", "Aborted")

    def listed(moves: Any) -> list[str]:
        return [move.metadata.name for move in moves]

    assert listed(world.seen.moves_of("acme")) == ["one", "two"]
    assert listed(world.seen.moves()) == ["one", "other", "two"]
    assert world.seen.all_moves() == ["failed", "old", "one", "other", "two"]
    assert listed(world.seen.moves_of("nobody")) == []
    world.move("one", "acme", "Completed")
    world.seen.gone("TenantMove", "", "other", "TenantMove-other")
    assert listed(world.seen.moves()) == ["two"]
    assert listed(world.seen.moves_of("globex")) == []
    assert world.seen.all_moves() == ["failed", "old", "one", "two"]


def test_a_move_tells_its_tenant_when_it_comes_is_aborted_ends_and_goes() -> None:
    world = World()
    world.move("m")
    told = [("TenantMove", "acme", "m")]
    assert world.drain() == told
    world.move("m", phase="Copying")
    assert world.drain() == []  # a phase that it goes on from is its own business
    world.move("m", phase="Copying", generation=2)
    assert world.drain() == told
    world.move("m", phase="Aborted", generation=2)
    assert world.drain() == told
    world.seen.gone("TenantMove", "", "m", "TenantMove-m")
    assert world.drain() == told


# --- places ------------------------------------------------------------------------------------------------------


def test_a_tenant_is_found_by_its_shard() -> None:
    world = World()
    world.tenant("acme", "a", 4)
    world.tenant("globex", "a")
    world.tenant("new")
    assert world.placed_on("a") == {("acme", 4), ("globex", 1)}
    assert [claim.name for claim in world.seen.unplaced()] == ["new"]
    assert world.seen.placed_on("") == []
    world.tenant("acme", "b", 5)
    world.tenant("new", "b")
    assert (world.placed_on("a"), world.placed_on("b")) == ({("globex", 1)}, {("acme", 5), ("new", 1)})
    assert world.seen.unplaced() == []
    world.seen.gone("Tenant", "", "acme", "Tenant-acme")
    assert world.placed_on("b") == {("new", 1)}


def test_the_shards_that_a_tenant_leaves_and_comes_to_are_told_whoever_wrote_it() -> None:
    world = World()
    world.tenant("acme")
    world.drain()
    placed = {**world.tenant("other", "a"), "status": {"placement": {"shard": "a", "epoch": 1}}}
    assert (PLACEMENT, "a", "other") in world.drain()
    # Our own write wakes nobody but the shard.
    own = {**placed, "metadata": {**placed["metadata"], "name": "acme", "uid": "Tenant-acme"}}
    world.version += 1
    own["metadata"]["resourceVersion"] = str(world.version)
    with world.seen.writing("Tenant", "", "acme"):
        world.seen.wrote(own)
    assert world.drain() == [(PLACEMENT, "a", "acme")]
    world.tenant("acme", "a")
    assert world.drain() == []
    world.seen.gone("Tenant", "", "acme", "Tenant-acme")
    assert (PLACEMENT, "a", "acme") in world.drain()


def test_a_place_that_somebody_else_changes_wakes_its_tenant() -> None:
    world = World()
    world.tenant("acme", "a", 4)
    world.drain()
    for shard, epoch in (("a", 3), ("b", 3), ("", 0)):
        world.tenant("acme", shard, epoch)
        assert ("Tenant", "tenant-acme", "acme") in world.drain()


def test_what_a_watch_tells_of_our_own_placement_wakes_no_tenant() -> None:
    world = World()
    world.tenant("acme")
    world.drain()
    with world.seen.writing("Tenant", "", "acme"):
        stored = world.tenant("acme", "a")  # the watch is faster than the answer
        world.seen.wrote(stored)
    assert world.drain() == [(PLACEMENT, "a", "acme")]


def test_asking_for_new_credentials_wakes_the_tenant() -> None:
    world = World()
    world.tenant("acme", "a")
    world.drain()
    for value in ("one", "two"):
        world.tenant("acme", "a", annotations={names.ROTATE: value})
        assert world.drain() == [("Tenant", "tenant-acme", "acme")]
        world.tenant("acme", "a", annotations={names.ROTATE: value, "other": "x"})
        assert world.drain() == []


def test_a_placement_that_makes_no_sense_is_none() -> None:
    world = World()
    for placement in ("a", {"shard": 1}, {"epoch": "x"}, None, [], {"shard": "a", "epoch": True}):
        world.see("Tenant", "acme", {"owner": {"email": "a@b.example"}}, {"placement": placement})
        claim = world.seen.tenant("acme")
        assert claim is not None
        assert claim.epoch == 0
        assert claim.shard in ("", "a")


# --- whatever happens --------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(("acme", "globex", "initech")),
        st.one_of(st.none(), st.sampled_from(("", "a", "b"))),
        st.sampled_from((None, *MovePhase)),
    ),
    max_size=30,
)


@given(STEPS)
def test_the_indexes_say_what_a_look_at_everything_would(
    steps: list[tuple[str, str | None, MovePhase | None]],
) -> None:
    """A tenant comes to a shard, or goes; and with it the one move that it has."""
    world = World()
    there: dict[str, str] = {}
    phases: dict[str, MovePhase | None] = {}
    lives: Counter[str] = Counter()  # a name comes again, a UID never
    for name, shard, phase in steps:
        uid = f"{name}-{lives[name]}"
        if shard is None:
            for kind in ("Tenant", "TenantMove"):
                world.seen.gone(kind, "", name, f"{kind}-{uid}")
            there.pop(name, None), phases.pop(name, None)
            lives[name] += 1
            continue
        world.tenant(name, shard, uid=f"Tenant-{uid}")
        world.move(name, name, phase, uid=f"TenantMove-{uid}")
        there[name], phases[name] = shard, phase
    for shard in ("a", "b"):
        assert {claim.name for claim in world.seen.placed_on(shard)} == {
            name for name, where in there.items() if where == shard
        }
    assert {claim.name for claim in world.seen.unplaced()} == {
        name for name, where in there.items() if not where
    }
    ended = (MovePhase.COMPLETED, MovePhase.ABORTED)
    active = sorted(name for name, phase in phases.items() if phase not in ended)
    assert [move.metadata.name for move in world.seen.moves()] == active
    for name in ("acme", "globex", "initech"):
        assert [move.metadata.name for move in world.seen.moves_of(name)] == [name] * (name in active)
