"""Fights: what somebody changes again and again is put back at a bounded rate, and said to be so."""

from __future__ import annotations

import math
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from tenantry.reconcile.brake import FREE, REFILL_SECONDS, REMEMBERED, Brake
from tests.faults.simulated.world import World, ready_world
from tests.unit.builders import T0

NAMESPACE = "tenant-acme"

moments = st.lists(
    st.tuples(st.sampled_from("ab"), st.floats(0, 3 * REFILL_SECONDS, allow_nan=False)),
    min_size=1,
    max_size=200,
)


@given(moments)
def test_within_any_time_a_mark_is_let_through_so_often_and_no_more(steps: list[tuple[str, float]]) -> None:
    brake, now = Brake(), T0
    granted: dict[str, list[float]] = {"a": [], "b": []}
    for mark, seconds in steps:
        now += timedelta(seconds=seconds)
        if brake.take(mark, now) == 0:
            granted[mark].append((now - T0).total_seconds())
    for times in granted.values():
        for first in range(len(times)):
            for last in range(first, len(times)):
                most = FREE + (times[last] - times[first]) / REFILL_SECONDS
                assert last - first + 1 <= most + 1e-3


@given(moments)
def test_whoever_waits_as_long_as_told_is_let_through_and_nobody_waits_longer_than_a_refill(
    steps: list[tuple[str, float]],
) -> None:
    brake, now = Brake(), T0
    for mark, seconds in steps:
        now += timedelta(seconds=seconds)
        wait = brake.take(mark, now)
        assert 0 <= wait <= REFILL_SECONDS
        assert wait == 0 or brake.is_spent(mark)
        if wait:
            now += timedelta(microseconds=math.ceil(wait * 1e6) + 1)
            assert brake.take(mark, now) == 0


@given(st.lists(st.floats(-86_400, 10, allow_nan=False), min_size=1, max_size=50))
def test_a_clock_that_is_set_back_makes_nobody_wait_longer(steps: list[float]) -> None:
    brake, now = Brake(), T0
    for seconds in steps:
        now += timedelta(seconds=seconds)
        assert brake.take("a", now) <= REFILL_SECONDS


def test_the_rate_is_full_again_after_a_while() -> None:
    brake = Brake()
    assert [brake.take("a", T0) for _ in range(FREE + 1)] == [0.0] * FREE + [REFILL_SECONDS]
    later = T0 + timedelta(seconds=FREE * REFILL_SECONDS)
    assert [brake.take("a", later) for _ in range(FREE + 1)] == [0.0] * FREE + [REFILL_SECONDS]


def test_memory_is_bounded_and_a_fight_that_goes_on_is_not_forgotten() -> None:
    brake = Brake()
    for _ in range(FREE):
        brake.take("a fight", T0)
    for number in range(2 * REMEMBERED):
        brake.take(number, T0)
        if number % (REMEMBERED // 2) == 0:
            assert brake.take("a fight", T0) > 0
    assert len(brake._buckets) == REMEMBERED
    for number in range(REMEMBERED):
        brake.take(-number, T0)
    assert not brake.is_spent("a fight")


def tamper(world: World, pods: str = "999") -> None:
    world.edit("ResourceQuota", "tenantry", NAMESPACE, manager="rival", spec={"hard": {"pods": pods}})


def pods(world: World) -> str:
    return str(world.found("ResourceQuota", "tenantry", NAMESPACE)["spec"]["hard"]["pods"])


async def at_once(world: World) -> None:
    """Do all that is due at this very moment."""
    while await world.step():
        pass


async def test_the_same_change_is_put_back_at_once_so_often_and_then_at_its_rate() -> None:
    world = await ready_world()
    for _ in range(FREE - 1):
        tamper(world)
        await at_once(world)
        assert pods(world) == "20"
        assert world.condition("Ready") == ("True", "Ready")
    tamper(world)
    await at_once(world)
    assert pods(world) == "20"
    assert world.condition("Ready") == ("False", "ChildDiffers")
    tamper(world)
    await at_once(world)
    assert pods(world) == "999"
    world.clock.turn(seconds=REFILL_SECONDS - 1)
    await at_once(world)
    assert pods(world) == "999"
    world.clock.turn(seconds=1)
    await at_once(world)
    assert pods(world) == "20"


async def test_a_fight_is_bounded_and_shows_in_the_conditions_until_it_ends() -> None:
    world = await ready_world()
    for _ in range(FREE):
        tamper(world)
        await at_once(world)
    writes = len(world.process.writes)
    for _ in range(100):
        world.clock.turn(seconds=1)
        tamper(world)
        await at_once(world)
        assert world.condition("Ready") == ("False", "ChildDiffers")
        assert world.condition("Reconciling") == ("True", "ChildDiffers")
        assert world.condition("PolicyReady") == ("False", "ChildDiffers")
        assert world.condition("ConfigReady") == ("True", "Ready"), "the other parts are as before"
    assert 100 / REFILL_SECONDS - 1 <= len(world.process.repairs) - FREE <= 100 / REFILL_SECONDS + 1
    assert world.audit.actions().count("Repaired") == len(world.process.repairs)
    assert len(world.process.writes) - writes <= 3 * (100 / REFILL_SECONDS + 1)

    await world.settle()
    assert pods(world) == "20"
    assert world.condition("Ready") == ("True", "Ready")
    assert world.condition("Reconciling") == ("", "")


async def test_who_deletes_a_child_again_and_again_is_braked_too() -> None:
    world = await ready_world()
    for number in range(FREE + 1):
        world.api.delete("ResourceQuota", "tenantry", NAMESPACE)
        await at_once(world)
        assert (("ResourceQuota", "tenantry") in world.children()) is (number < FREE)
    assert world.condition("Ready") == ("False", "ChildDiffers")
    await world.settle()
    assert world.condition("Ready") == ("True", "Ready")
    assert ("ResourceQuota", "tenantry") in world.children()


async def test_changes_that_differ_are_not_braked() -> None:
    world = await ready_world()
    for number in range(3 * FREE):
        tamper(world, str(1000 + number))
        await at_once(world)
        assert pods(world) == "20"
        assert world.condition("Ready") == ("True", "Ready")


async def test_an_edited_plan_is_no_fight() -> None:
    world = await ready_world()
    for number in range(3 * FREE):
        world.tenant(plan="free" if number % 2 else "pro")
        await at_once(world)
        assert world.condition("Ready") == ("True", "Ready")
    assert world.process.repairs == []
