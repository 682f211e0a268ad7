"""The first place of a tenant: the same everywhere, fair by weight, never where there is no room."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st

from tenantry.domain.placement import SLACK, ShardLoad, place, preference

FIVE = [ShardLoad(name) for name in ("shard-a", "shard-b", "shard-c", "shard-d", "shard-e")]

loads = st.builds(
    ShardLoad,
    name=st.sampled_from("abcdefgh"),
    weight=st.integers(1, 1000),
    accepts=st.booleans(),
    tenants=st.integers(0, 5000),
    stored=st.integers(0, 10**12),
    capacity=st.none() | st.integers(0, 10**12),
    reserved_for=st.sampled_from((None, None, None, "acme", "other")),
)
fleets = st.lists(loads, max_size=8, unique_by=lambda shard: shard.name)


def filled(shards: list[ShardLoad], count: int) -> dict[str, int]:
    """Place so many empty tenants one after another; return how many each shard has."""
    taken = Counter({shard.name: 0 for shard in shards})
    for number in range(count):
        found = place(f"tenant-{number}", [replace(shard, tenants=taken[shard.name]) for shard in shards])
        assert found is not None
        taken[found.name] += 1
    return dict(taken)


def test_the_order_of_preference_is_what_it_was_in_every_version() -> None:
    weighted = [replace(shard, weight=1 + number) for number, shard in enumerate(FIVE)]
    orders = {
        tenant: "".join(shard.name[-1] for shard in preference(tenant, weighted))
        for tenant in ("acme", "umbrella", "initech", "globex")
    }
    assert orders == {"acme": "cdbea", "umbrella": "decab", "initech": "daceb", "globex": "dceba"}


@given(fleets.flatmap(lambda fleet: st.tuples(st.just(fleet), st.permutations(fleet))), st.integers(0, 10**9))
def test_what_comes_out_does_not_depend_on_the_order_of_what_goes_in(
    orders: tuple[list[ShardLoad], list[ShardLoad]], needed: int
) -> None:
    shards, shuffled = orders
    assert place("acme", shards, needed=needed) == place("acme", shuffled, needed=needed)


@given(fleets, st.integers(0, 10**9))
def test_only_a_shard_that_accepts_and_has_room_is_chosen_and_one_if_there_is_any(
    shards: list[ShardLoad], needed: int
) -> None:
    possible = [
        shard
        for shard in shards
        if shard.accepts
        and shard.reserved_for is None
        and (shard.capacity is None or shard.stored + needed <= shard.capacity)
    ]
    found = place("acme", shards, needed=needed)
    assert (found in possible) if possible else (found is None)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(1, 200))
@example([1, 2, 2], 100)  # 2/5 of 100 and a tenth more is 44, and a little more as a float
def test_no_shard_gets_more_than_its_share_and_the_slack(weights: list[int], count: int) -> None:
    shards = [ShardLoad(f"shard-{number}", weight) for number, weight in enumerate(weights)]
    taken = filled(shards, count)
    for shard in shards:
        share = count * shard.weight / sum(weights)
        assert taken[shard.name] <= max(1, math.ceil(round(share * (1 + SLACK), 9)))


def test_a_new_shard_changes_no_preference_but_for_itself() -> None:
    moved = 0
    for number in range(2000):
        before = preference(f"tenant-{number}", FIVE)
        after = preference(f"tenant-{number}", [*FIVE, ShardLoad("shard-f")])
        assert [shard for shard in after if shard.name != "shard-f"] == before
        moved += after[0].name == "shard-f"
    assert 0.13 < moved / 2000 < 0.20  # a sixth is 0.167


def test_weights_are_respected_by_the_preferences_alone() -> None:
    shards = [ShardLoad("small", 1), ShardLoad("large", 3)]
    large = sum(preference(f"tenant-{number}", shards)[0].name == "large" for number in range(4000))
    assert 0.72 < large / 4000 < 0.78


def test_a_shard_that_is_full_of_bytes_is_left_to_those_that_are_not() -> None:
    shards = [ShardLoad("full", tenants=10, stored=1000), ShardLoad("empty", tenants=10, stored=0)]
    assert {place(f"tenant-{number}", shards) for number in range(50)} == {shards[1]}
