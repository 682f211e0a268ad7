"""Stale and lost news at any moment of any flow: the end is the same, at the latest once everything is listed anew.

What an API server never does is tried as well, as a second line of defence: it answers a GET and a list that name
no resourceVersion with the newest state (a quorum read), so neither goes backwards. What it does do:

- a list is made, its answer is under way, and what has happened since is told by a watch before or after it;
- a fresh process lists while a write of its predecessor is still under way: its cache is one step behind until
  its watch tells;
- a watch loses events when it breaks off (410), and the list that follows knows only what is there then.
"""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest

from tests.faults.simulated.apiserver import SYSTEM_METADATA, Ref
from tests.faults.simulated.faults import Crash
from tests.faults.simulated.flows import FLOWS, Flow
from tests.faults.simulated.news import News, OldRead, OneEvent, Rumours, Twice
from tests.faults.simulated.test_crashes import REDONE, Run, Stage, disorder
from tests.faults.simulated.world import Process, World

RANDOM_RUNS = 250
"""In CI; `make soak` has as many for each seed."""

NAMESPACES = ("tenant-acme", "legacy")


async def calm(flow: Flow) -> tuple[Stage, Run]:
    """Return where a flow begins, and how it goes when nothing goes wrong."""
    stage = Stage(flow, await flow.begin())
    return stage, await stage.run()


def compare(run: Run, undisturbed: Run, where: str, *, at_once: bool = True, more: int = REDONE) -> None:
    """Assert that a run has come to the same end, with so many writes more; at_once: before any new list."""
    assert run.at.unsafe == [], where
    wanted = {key: value for key, value in undisturbed.end.items() if key != "events"}
    if at_once and run.unlisted:
        assert run.unlisted == wanted, f"{where}: only a new list has put it right"
    told = run.end.pop("events")
    assert told <= undisturbed.end["events"], f"{where}: Events that tell something else"
    assert run.end == wanted, where
    assert len(run.writes) <= len(undisturbed.writes) + more, f"{where}: {run.writes}"


@pytest.mark.parametrize("flow", FLOWS, ids=str)
async def test_an_event_may_be_lost_or_late(flow: Flow) -> None:
    stage, undisturbed = await calm(flow)
    news = OneEvent()
    await stage.run(news=news)
    for k in range(1, news.count + 1):
        for held_back in ("", "the next", "of its object", "the rest"):
            one = OneEvent(k, held_back)
            run = await stage.run(news=one)
            where = f"event {k} of {news.count}, {one.event}, {held_back or 'lost'}"
            compare(run, undisturbed, where, at_once=bool(held_back))


@pytest.mark.parametrize("flow", FLOWS, ids=str)
@pytest.mark.parametrize("when", ["at once", "again", "backwards"])
async def test_every_event_may_come_twice(flow: Flow, when: str) -> None:
    stage, undisturbed = await calm(flow)
    run = await stage.run(news=Twice(when))
    compare(run, undisturbed, when)
    assert run.writes == undisturbed.writes


@pytest.mark.parametrize("flow", FLOWS, ids=str)
async def test_a_list_may_be_answered_after_what_has_happened_since(flow: Flow) -> None:
    stage, undisturbed = await calm(flow)
    done, step = False, 0
    while not done:
        step += 1

        async def settle(world: World, step: int = step) -> None:
            nonlocal done
            for _ in range(step):
                done = not await world.step()
            world.process.lists.keep()
            await world.step()
            await world.list_anew()
            await world.settle()

        compare(await stage.run(news=News(), settle=settle), undisturbed, f"a list at step {step}")


@pytest.mark.parametrize("flow", FLOWS, ids=str)
async def test_an_old_object_may_be_read(flow: Flow) -> None:
    stage, undisturbed = await calm(flow)
    reads = OldRead()
    await stage.run(news=reads)
    for j in range(1, reads.count + 1):
        compare(await stage.run(news=OldRead(j)), undisturbed, f"read {j} of {reads.count}", at_once=False)


@pytest.mark.parametrize("flow", FLOWS, ids=str)
async def test_a_fresh_process_may_not_know_the_last_write_of_its_predecessor(flow: Flow) -> None:
    # One, or those that were sent side by side: before anything that follows, the predecessor asks for its Lease.
    stage, undisturbed = await calm(flow)
    for k in range(1, len(undisturbed.writes) + 2):
        for behind in (1, 4):

            def again(world: World, behind: int = behind) -> Process:
                unknown = world.happened[-behind:]
                side_by_side = len({event.ref.kind for event in unknown}) == 1
                return world.restart(behind=behind if side_by_side else 1)

            run = await stage.run(k=k, before_it=Crash, again=again)
            compare(run, undisturbed, f"dies at write {k}, {behind} behind", more=REDONE + behind)


@pytest.mark.parametrize("flow", FLOWS, ids=str)
async def test_an_object_may_be_made_anew_between_any_two_writes(flow: Flow) -> None:
    """By somebody who forces its finalizers off, or a backup tool. History may differ then; what stands may not."""
    stage, undisturbed = await calm(flow)
    wanted = standing(undisturbed.end)
    for k, write in enumerate(undisturbed.writes, 1):
        itself = Ref(write.kind, write.namespace, write.name)
        for ref in dict.fromkeys((itself, *others(stage.world))):
            where = f"{ref} made anew before write {k}, {write}"

            def act(ref: Ref = ref) -> None:
                make_anew(stage.world, ref)

            run = await stage.run(k=k, before_it=act)
            world = stage.world
            assert [*disorder(world)] == [], where
            assert len(run.writes) <= 3 * len(undisturbed.writes) + 20, f"{where}: {run.writes}"
            if ref.namespace or ref.kind == "Plan":
                assert run.at.unsafe == [], where
                now = standing(run.end)
                if flow.name.startswith("release"):
                    # Nobody looks after a namespace that was given back: what comes into it then is its owner's.
                    now = {key: item for key, item in now.items() if key in wanted}
                assert now == wanted, where
            fresh = world.restart()
            await world.settle()
            assert fresh.writes == [], f"{where}: the first process took something for true that is not"


def others(world: World) -> list[Ref]:
    """Return what else may be made anew: what decides whose everything is, and what is read of children."""
    there = [Ref("ControllerRevision", namespace, "tenant-config-1") for namespace in NAMESPACES]
    there += [Ref("NetworkPolicy", namespace, "tenantry-default-deny") for namespace in NAMESPACES]
    there += [Ref("Namespace", "", namespace) for namespace in NAMESPACES]
    return [Ref("Tenant", "", "acme"), Ref("Plan", "", "pro"), *there]


def make_anew(world: World, ref: Ref) -> None:
    """Remove an object at once, finalizers or not, and create it again as it was, but for its status."""
    api, where = world.api, {"name": ref.name} | ({"namespace": ref.namespace} if ref.namespace else {})
    home = api.get("Namespace", ref.namespace) if ref.namespace else None
    found = api.get(ref.kind, ref.name, ref.namespace)
    if found is None or (home is not None and "deletionTimestamp" in home["metadata"]):
        return
    if "finalizers" in found["metadata"]:
        api.merge({"kind": ref.kind, "metadata": {**where, "finalizers": None}}, "kubectl-edit")
    api.delete(ref.kind, ref.name, ref.namespace)
    while ref in api.objects:
        assert api.collect()
    dropped = SYSTEM_METADATA | {"finalizers"}
    metadata = {key: value for key, value in found["metadata"].items() if key not in dropped}
    again = {key: value for key, value in found.items() if key != "status"}
    api.create({**again, "metadata": {**metadata, **where}}, "backup")


def standing(end: dict[str, Any]) -> Any:
    """Return what stands, without who wrote it, which one of its name it is, and what has been told of it.

    Without generations, which begin anew: that the status is of the present one is told by a fresh process at rest.
    """
    kept = {
        key: {**item, "metadata": {**item["metadata"], "uid": ""}, "owners": ""}
        for key, item in end.items()
        if key != "events" and not key.startswith(("row ", "place ", "export "))
    }
    # Of a place, the epoch and the id are of the Tenant that had it first.
    kept |= {key: (str(item[0].state), item[0].open, sorted(item[2])) for key, item in places(end)}
    kept |= {key: (item[1], item[2].decode()) for key, item in end.items() if key.startswith("export ")}
    text = re.sub(r'(?<=eneration": )\d+', "0", json.dumps(kept))
    return json.loads(re.sub(r"(?<=acme-)[0-9a-f]{8}|[0-9a-f]{32}", "<uid>", text))


def places(end: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return what is kept on servers."""
    return [(key, item) for key, item in end.items() if key.startswith("place ")]


@pytest.mark.random
async def test_rumours(seed: int) -> None:
    chance = random.Random(seed)
    stages = {flow.name: await calm(flow) for flow in FLOWS}
    for number in range(RANDOM_RUNS):
        name = chance.choice(sorted(stages))
        stage, undisturbed = stages[name]
        old_reads = chance.choice([0.0, 0.0, 0.1])
        run = await stage.run(news=Rumours(random.Random(f"{seed}/{number}"), old_reads))
        where = f"{name}, run {number} of seed {seed}"
        assert standing(run.end) == standing(undisturbed.end), where
        assert run.at.unsafe == [], where
        # The news that the namespace is gone may be lost: each try until everything is listed anew then fails.
        assert len(run.writes) <= 4 * len(undisturbed.writes) + 40, f"{where}: {run.writes}"
