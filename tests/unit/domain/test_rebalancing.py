"""When tenants move: the triggers, the limits, dedicated shards, and that every fleet comes to rest."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry.api.move import MoveReason
from tenantry.domain.layout import Holding
from tenantry.domain.rebalancing import FLOOR, Decision, balance
from tests.unit.builders import T0
from tests.unit.domain.fleet import Fleet, move, shard

LONG_AGO = T0 - timedelta(minutes=5)


def begun(decision: Decision) -> list[tuple[str, str, str, str]]:
    steps = [item.step for item in decision.beginning]
    return [(step.tenant, step.source, step.target, str(step.reason)) for step in steps]


def waits(decision: Decision) -> dict[str, str]:
    return {item.step.tenant: item.reason for item in decision.waiting}


def even(*names: str, tenants: int = 4, **spec: Any) -> Fleet:
    """Shards with so many tenants of 100 bytes each."""
    fleet = Fleet([shard(name, **spec) for name in names])
    for name in names:
        for number in range(tenants):
            fleet.put(f"t{name}{number}", name)
    return fleet


def crowded(since: Any = LONG_AGO) -> Fleet:
    """Shard a has eight tenants, b has two."""
    fleet = Fleet([shard("a", over_since=since), shard("b")])
    for number in range(8):
        fleet.put(f"t{number}", "a")
    for number in range(8, 10):
        fleet.put(f"t{number}", "b")
    return fleet


# --- balance --------------------------------------------------------------------------------------------------------


def test_a_share_is_by_weight_and_within_theta() -> None:
    shards = [shard("a", weight=3), shard("b"), shard("c", drain=True), shard("d", dedicated=True)]
    found = balance(shards, {"a": 300, "b": 100, "c": 50, "d": 9000}, 0.05)
    assert {name: (each.share, each.within) for name, each in found.items()} == {
        "a": ("1.00", True),
        "b": ("1.00", True),
    }
    found = balance(shards, {"a": 200, "b": 200}, 0.05)
    assert {name: (each.share, each.within) for name, each in found.items()} == {
        "a": ("0.67", True),
        "b": ("2.00", False),
    }


def test_shards_are_compared_with_those_of_their_own_engine() -> None:
    found = balance([shard("a"), shard("w", engine="weaviate")], {"a": 1000, "w": 1})
    assert [each.share for each in found.values()] == ["1.00", "1.00"]


def test_empty_shards_are_balanced() -> None:
    assert all(each.within for each in balance([shard("a"), shard("b")], {}).values())


# --- triggers -------------------------------------------------------------------------------------------------------


def test_nothing_is_planned_without_a_trigger() -> None:
    decision = even("a", "b").decide()
    assert (decision.triggers, decision.plan.steps, decision.pending) == ((), (), False)


def test_a_shard_that_is_over_its_share_gives_when_it_was_for_some_minutes() -> None:
    fleet = crowded()
    assert begun(fleet.decide()) == [("t0", "a", "b", "Rebalance")]
    assert "a has been over its share for at least 5 minutes" in fleet.decide().triggers
    assert not crowded(LONG_AGO + timedelta(seconds=1)).decide().pending


def test_somebody_who_asks_waits_for_no_minutes_but_for_the_limits() -> None:
    decision = crowded(None).decide(asked=True)
    assert len(decision.beginning) == 1
    assert set(waits(decision).values()) == {"for TenantMove t0-e1 on a"}


def test_a_shard_that_is_over_for_less_time_than_another_waits() -> None:
    fleet = crowded()
    fleet.shards = [*fleet.shards, shard("c", over_since=T0), shard("d")]
    for number in range(20, 28):
        fleet.put(f"t{number}", "c")
    decision = fleet.decide()
    assert {source for _, source, _, _ in begun(decision)} == {"a"}
    assert "until c has been over its share for 5 minutes" in waits(decision).values()


def test_a_shard_whose_condition_is_balanced_gives_nothing_unless_somebody_asks() -> None:
    fleet = Fleet([shard("a", over_since=LONG_AGO), shard("b"), shard("c")])
    fleet.put("huge", "a", 10_000)
    for number in range(10):
        fleet.put(f"t{number}", "b")
    assert not fleet.decide().pending
    assert fleet.decide().plan.too_large == ("huge",)
    assert {source for _, source, _, _ in begun(fleet.decide(asked=True))} == {"b"}


def test_a_drained_shard_gives_all_one_at_a_time() -> None:
    fleet = even("a", "b", "c")
    fleet.shards[0] = shard("a", drain=True)
    decision = fleet.decide()
    assert decision.triggers == ("a drains: 4 tenants leave it",)
    assert [(source, reason) for _, source, _, reason in begun(decision)] == [("a", "Drain")]
    assert len(decision.waiting) == 3
    fleet.settle()
    assert fleet.load("a") == 0
    assert (fleet.load("b"), fleet.load("c")) == (600, 600)


def test_a_pin_moves_its_tenant_and_leads_nowhere_else() -> None:
    fleet = even("a", "b")
    fleet.put("ta0", "a", 1, pin="b")
    assert begun(fleet.decide()) == [("ta0", "a", "b", "Pin")]
    fleet.settle()
    assert fleet.claims["ta0"].shard == "b"
    fleet.put("tb5", "b", 300)
    fleet.settle()
    assert len(fleet.moved) > 1
    assert fleet.claims["ta0"].shard == "b"


@pytest.mark.parametrize(
    ("pin", "words"),
    [
        ("x", "names VectorShard x, which does not exist"),
        ("w", "names VectorShard w of engine weaviate, and the vectors are on a of engine pgvector"),
    ],
)
def test_a_pin_that_leads_nowhere_is_told(pin: str, words: str) -> None:
    fleet = even("a", "b")
    fleet.shards.append(shard("w", engine="weaviate"))
    fleet.put("ta0", "a", pin=pin)
    decision = fleet.decide(asked=True)
    assert not decision.pending
    assert words in decision.notes["ta0"]


def test_a_pin_to_a_full_shard_is_told() -> None:
    fleet = even("a", "b")
    fleet.shards[1] = shard("b", capacity={"storage": "450"})
    fleet.put("ta0", "a", pin="b")
    decision = fleet.decide()
    assert not decision.pending
    assert "VectorShard b, where it belongs, drains, is full" in decision.notes["ta0"]


def test_what_a_move_left_behind_takes_room() -> None:
    fleet = even("a", "b")
    fleet.shards[1] = shard("b", capacity={"storage": "550"})
    fleet.put("ta0", "a", pin="b")
    assert begun(fleet.decide()) == [("ta0", "a", "b", "Pin")]
    holdings = dict(fleet.facts().holdings)
    here = holdings["b"]
    holdings["b"] = Holding(True, here.sizes, here.settled, left=100)
    assert not fleet.decide(holdings=holdings).pending


def test_tenants_move_between_shards_of_one_engine_only() -> None:
    fleet = even("a", "b")
    fleet.shards.append(shard("w", engine="weaviate"))
    assert not fleet.decide(asked=True).pending
    fleet.shards[:2] = [shard("a", drain=True), shard("b", drain=True)]
    decision = fleet.decide()
    assert not decision.pending
    assert "no other VectorShard has room" in decision.notes["ta0"]


@pytest.mark.parametrize("why", ["drain", "pin"])
def test_who_is_on_an_engine_that_moves_nobody_stays_and_that_is_told(why: str) -> None:
    fleet = Fleet([shard("v", engine="weaviate", drain=why == "drain"), shard("w", engine="weaviate")])
    fleet.put("t0", "v", 100, pin="w" if why == "pin" else "")
    decision = fleet.decide(asked=True)
    assert not decision.pending
    assert decision.notes["t0"] == (
        "its vectors are on v of engine weaviate, and only tenants of engine pgvector are moved: it stays there "
        "until its Tenant is deleted"
    )


def test_a_shard_of_an_engine_that_moves_nobody_is_no_trigger() -> None:
    fleet = Fleet([shard("v", engine="weaviate"), shard("w", engine="weaviate")])
    for number in range(4):
        fleet.put(f"t{number}", "v", 1000)
    decision = fleet.decide(asked=True)
    assert (decision.plan.steps, decision.notes, decision.pending) == ((), {}, False)


# --- who cannot move ------------------------------------------------------------------------------------------------


def test_who_is_being_deleted_or_has_no_settled_place_stays() -> None:
    fleet = even("a", "b")
    fleet.shards[0] = shard("a", drain=True)
    fleet.put("ta0", "a", deleting=True)
    holdings = dict(fleet.facts().holdings)
    here = holdings["a"]
    holdings["a"] = Holding(True, here.sizes, here.settled - {"ta1"})
    decision = fleet.decide(holdings=holdings)
    assert {step.tenant for step in decision.plan.steps} == {"ta2", "ta3"}


def test_what_is_kept_of_a_deleted_tenant_stays_and_takes_its_room_and_is_told() -> None:
    fleet = even("a", "b")
    fleet.shards[0] = shard("a", drain=True)
    holdings = dict(fleet.facts().holdings)
    holdings["a"] = Holding(True, {"former": 500}, frozenset())
    fleet.claims = {name: item for name, item in fleet.claims.items() if item.shard == "b"}
    decision = fleet.decide(holdings=holdings)
    assert not decision.pending
    assert "until it is purged" in decision.notes["former"]


def test_a_shard_that_cannot_be_reached_takes_no_part() -> None:
    fleet = even("a", "b", "c")
    fleet.shards[0] = shard("a", drain=True)
    holdings = dict(fleet.facts().holdings)
    holdings["a"] = Holding(False, holdings["a"].sizes, holdings["a"].settled)
    assert not fleet.decide(holdings=holdings).pending
    holdings = dict(fleet.facts().holdings)
    holdings["c"] = Holding()
    assert {target for _, _, target, _ in begun(fleet.decide(holdings=holdings))} == {"b"}


def test_a_tenant_too_large_for_any_shard_is_told_and_stays() -> None:
    fleet = even("a", "b", "c")
    fleet.put("huge", "a", 5000)
    fleet.settle()
    assert fleet.claims["huge"].shard == "a"
    assert fleet.decide(asked=True).plan.too_large == ("huge",)


# --- limits ---------------------------------------------------------------------------------------------------------


def test_a_shard_has_one_move_at_a_time() -> None:
    fleet = crowded()
    for phase in ("Pending", "Copying", "Committed"):
        decision = fleet.decide(moves=[move("t9", "b", "a", phase, "Requested")])
        assert not decision.beginning
        assert "for TenantMove t9-e1 on a" in waits(decision).values()


def test_a_move_that_only_waits_to_clean_up_is_in_nobodys_way() -> None:
    fleet = crowded()
    done = move("t9", "a", "b", "Cleaning", finishedAt="2026-01-01T10:00:00Z")
    assert len(fleet.decide(moves=[done]).beginning) == 1


def test_a_tenant_that_moves_counts_where_it_goes() -> None:
    fleet = Fleet([shard("a", over_since=LONG_AGO), shard("b")])
    for number in range(4):
        fleet.put(f"t{number}", "a")
    fleet.put("t4", "b")
    fleet.put("t5", "b")
    assert fleet.decide().pending
    assert not fleet.decide(moves=[move("t0", "a", "b")]).pending


def test_rebalancing_rests_after_a_move_and_a_drain_does_not() -> None:
    fleet = crowded()
    done = move("t0", "a", "b", "Completed", finishedAt="2026-01-01T11:30:00Z", epoch=0)
    decision = fleet.decide(ended=[done])
    assert [who for who, *_ in begun(decision)] == ["t1"]
    assert waits(decision)["t0"] == "until 12:30:00 UTC: t0 has just moved"
    just = move("t5", "a", "x", "Completed", finishedAt="2026-01-01T11:59:30Z", epoch=0)
    decision = fleet.decide(ended=[just])
    assert not decision.beginning
    assert "until 12:00:30 UTC: a move on a has just ended" in waits(decision).values()
    fleet.shards[0] = shard("a", drain=True)
    assert len(fleet.decide(ended=[just]).beginning) == 1


def test_a_move_that_was_given_up_is_not_begun_again_at_once_and_then_has_another_name() -> None:
    fleet = even("a", "b")
    fleet.put("ta0", "a", 1, pin="b")
    aborted = move("ta0", "a", "b", "Aborted", "Pin", finishedAt="2026-01-01T11:55:00Z")
    decision = fleet.decide(ended=[aborted])
    assert (begun(decision), waits(decision)) == (
        [],
        {"ta0": "until 12:05:00 UTC: a move of ta0 was given up"},
    )
    fleet.now += timedelta(minutes=6)
    (beginning,) = fleet.decide(ended=[aborted]).beginning
    assert beginning.name == "ta0-e1-2"


def test_a_name_comes_from_the_epoch() -> None:
    fleet = even("a", "b")
    fleet.put("ta0", "a", pin="b")
    (one,), (two,) = fleet.decide().beginning, fleet.decide().beginning
    assert one == two
    assert one.name == "ta0-e1"


def test_a_tenant_whose_move_is_complete_is_left_alone_until_that_is_seen() -> None:
    fleet = even("a", "b")
    fleet.put("ta0", "a", pin="b")
    done = move("ta0", "a", "b", "Completed", "Pin", finishedAt="2026-01-01T10:00:00Z", epoch=1)
    assert not fleet.decide(ended=[done]).pending


def stalled(reason: str) -> Any:
    condition = {"type": "Stalled", "status": "True", "reason": "NoShardWithRoom"}
    return move(
        "t0",
        "a",
        "b",
        "Pending",
        reason,
        conditions=[{**condition, "lastTransitionTime": "2026-01-01T11:00:00Z"}],
    )


def test_a_move_of_the_planner_that_cannot_begin_makes_way_and_one_of_somebody_else_stays() -> None:
    fleet = crowded()
    assert [item.metadata.name for item in fleet.decide(moves=[stalled("Drain")]).withdrawn] == ["t0-e1"]
    decision = fleet.decide(moves=[stalled("Requested")])
    assert decision.withdrawn == ()
    assert len(decision.beginning) == 1  # and it keeps nobody waiting


# --- dedicated shards -----------------------------------------------------------------------------------------------


def test_a_tenant_whose_plan_asks_for_it_gets_an_empty_shard_of_its_own() -> None:
    fleet = even("a", "b")
    fleet.shards += [shard("own-1", dedicated=True), shard("own-2", dedicated=True)]
    fleet.put("former", "own-1", dedicated=True)
    fleet.put("ta0", "a", dedicated=True)
    fleet.settle()
    assert fleet.claims["ta0"].shard == "own-2"
    assert fleet.claims["former"].shard == "own-1"


def test_where_none_is_free_it_is_told() -> None:
    fleet = even("a", "b")
    fleet.put("ta0", "a", dedicated=True)
    fleet.shards.append(shard("own", dedicated=True))
    decision = fleet.decide(coming={"another": "own"})
    assert not decision.pending
    assert "asks for a shard of its own, and none is free" in decision.notes["ta0"]


def test_who_has_no_right_to_it_leaves_a_dedicated_shard_and_two_do_not_share_one() -> None:
    fleet = even("a", "b")
    fleet.shards.append(shard("own", dedicated=True))
    fleet.put("junior", "own", dedicated=True, created=T0 + timedelta(days=1))
    fleet.put("senior", "own", dedicated=True, created=T0)
    fleet.put("guest", "own")
    assert fleet.decide().triggers == ("own is a dedicated shard: 2 tenants leave it",)
    last = fleet.settle()
    here = {item.name for item in fleet.claims.values() if item.shard == "own"}
    assert here == {"senior"}
    assert "none is free" in last.notes["junior"]


def test_a_dedicated_shard_that_drains_gives_its_tenant_to_another() -> None:
    fleet = even("a", "b")
    fleet.shards += [shard("own-1", dedicated=True, drain=True), shard("own-2", dedicated=True)]
    fleet.put("alone", "own-1", dedicated=True)
    fleet.settle()
    assert fleet.claims["alone"].shard == "own-2"


def test_a_pin_decides_against_the_plan() -> None:
    fleet = even("a", "b")
    fleet.shards.append(shard("own", dedicated=True))
    fleet.put("ta0", "a", dedicated=True, pin="a")
    fleet.put("ta1", "a", pin="own")
    decision = fleet.decide(asked=True)
    assert not decision.pending
    assert "where it belongs" in decision.notes["ta1"]


# --- every fleet comes to rest ------------------------------------------------------------------------------------

shards_ = st.lists(
    st.builds(
        shard,
        name=st.sampled_from("abcde"),
        weight=st.integers(1, 4),
        cordoned=st.sampled_from((False, False, False, True)),
        drain=st.sampled_from((False, False, False, True)),
        dedicated=st.sampled_from((False, False, False, True)),
        engine=st.sampled_from(("pgvector", "pgvector", "pgvector", "weaviate")),
        capacity=st.sampled_from(({}, {}, {"storage": "3000"})),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda each: each.metadata.name,
)


@st.composite
def fleets(draw: Any) -> Fleet:
    """Any shards, with any tenants on them."""
    fleet = Fleet(draw(shards_))
    names = [each.metadata.name for each in fleet.shards]
    for number in range(draw(st.integers(0, 25))):
        fleet.put(
            f"t{number}",
            draw(st.sampled_from(names)),
            draw(st.integers(0, 1000)),
            pin=draw(st.sampled_from(("", "", "", "", "", *names))),
            dedicated=draw(st.sampled_from((False, False, False, False, True))),
        )
    return fleet


@given(fleets())
@settings(deadline=None)
def test_every_fleet_comes_to_rest(fleet: Fleet) -> None:
    fleet.settle()
    # Once to where it is pinned or has room, and once more where others have made room meanwhile.
    for name in fleet.claims:
        assert sum(1 for who, *_ in fleet.moved if who == name) <= 3, fleet.moved
    resting = len(fleet.moved)
    fleet.now += timedelta(days=1)
    fleet.settle()
    assert len(fleet.moved) == resting


@given(fleets())
@settings(deadline=None)
def test_no_shard_has_two_moves_at_once(fleet: Fleet) -> None:
    decision = fleet.decide(asked=True)
    involved = [name for item in decision.beginning for name in (item.step.source, item.step.target)]
    assert len(involved) == len(set(involved))
    assert len({item.name for item in decision.beginning}) == len(decision.beginning)
    assert {item.step for item in decision.waiting} | {item.step for item in decision.beginning} == set(
        decision.plan.steps
    )


@given(fleets(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_a_decision_does_not_depend_on_the_order(fleet: Fleet, chance: random.Random) -> None:
    decision = fleet.decide(asked=True)
    chance.shuffle(fleet.shards)
    shuffled = list(fleet.claims.items())
    chance.shuffle(shuffled)
    fleet.claims = dict(shuffled)
    again = fleet.decide(asked=True)
    assert (again.plan, again.beginning, again.notes) == (decision.plan, decision.beginning, decision.notes)


def test_growing_tenants_are_moved_on_and_never_to_and_fro() -> None:
    for seed in range(5):
        chance = random.Random(seed)
        fleet = Fleet([shard(name) for name in "abcd"])
        for number in range(60):
            fleet.put(f"t{number}", chance.choice("abcd"), round(1000 * chance.lognormvariate(0, 1.5)))
        for _ in range(40):
            for name in fleet.sizes:
                fleet.sizes[name] = round(fleet.sizes[name] * chance.uniform(1.0, 1.05))
            fleet.settle()
            fleet.now += timedelta(minutes=30)
        last: dict[str, Any] = {}
        for who, _, _, at in fleet.moved:
            assert at - last.get(who, T0 - timedelta(days=1)) >= fleet.terms.tenant_pause
            last[who] = at
        # Growth of a few percent a round moves some tenants in each, and not the fleet.
        assert len(fleet.moved) < 2 * len(fleet.claims), seed
        assert max(sum(1 for who, *_ in fleet.moved if who == name) for name in fleet.claims) <= 6


def test_500_tenants_settle_after_a_shard_was_added_and_one_was_drained() -> None:
    chance = random.Random(7)
    fleet = Fleet([shard(name) for name in "abcde"])
    for number in range(500):
        fleet.put(f"t{number}", chance.choice("abcde"), round(10**6 * chance.lognormvariate(0, 1.5)))
    fleet.settle()
    fleet.shards.append(shard("f"))
    fleet.settle()
    standing = balance(fleet.shards, {name: fleet.load(name) for name in "abcdef"})
    assert all(each.within for each in standing.values())
    fleet.shards[0] = shard("a", drain=True)
    fleet.settle()
    assert fleet.load("a") == 0
    drained = [who for who, source, _, _ in fleet.moved if source == "a"]
    assert len(drained) == len(set(drained))
    assert MoveReason.DRAIN in {item.spec.reason for item in fleet.ended}


def test_a_surplus_that_is_worth_no_move_is_within_bounds() -> None:
    shards = [shard("a"), shard("b")]
    sizes = {"a": 2 * FLOOR, "b": 0}
    assert not balance(shards, sizes, 0.05, floor=FLOOR // 2)["a"].within
    assert balance(shards, sizes, 0.05, floor=FLOOR)["a"].within
    assert balance(shards, sizes, 0.05, floor=FLOOR)["a"].share == "2.00"
