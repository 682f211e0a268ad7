"""What `tenantry rebalance` prints and creates, on a simulated cluster."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta
from typing import Any

import pytest

from tenantry import rebalancing
from tenantry.domain.rebalancing import RebalanceTerms, decide
from tenantry.rebalancing import Outcome, Output, RebalanceFailed, begin, read_shards, show
from tenantry.reconcile import rebalance
from tenantry.reconcile.ports import Refused
from tests.faults.simulated.faults import Fault, Write
from tests.faults.simulated.world import OPERATORS, World
from tests.unit.reconcile.test_rebalance import filled, planned

OFF = RebalanceTerms(enabled=False)


async def crowded(**tenants: int) -> World:
    """Tenants on shard-a, an empty shard-b, and an operator that plans nothing by itself."""
    return await filled(OFF, **(tenants or {"acme": 100, "hooli": 100, "initech": 100, "umbrella": 100}))


async def outcome(world: World) -> Outcome:
    seen = world.process.seen
    holdings, unread = await read_shards(seen.shards(), world.cx.objects, world.servers, OPERATORS)
    facts = rebalance.gather(seen, holdings, world.clock.now(), {})
    return Outcome(decide(facts, OFF, asked=True), OFF, unread)


def printed(found: Outcome, output: Output, capsys: pytest.CaptureFixture[str]) -> str:
    show(found, output)
    return capsys.readouterr().out


def record(found: Outcome, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(printed(found, Output.JSON, capsys))
    return read


async def test_the_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(await outcome(await crowded()), Output.TABLE, capsys).splitlines()
    rows = [" ".join(line.split()) for line in lines]
    assert rows == [
        "Tenant From To Size Reason State",
        "acme shard-a shard-b 98Ki Rebalance planned (acme-e1)",
        "umbrella shard-a shard-b 98Ki Rebalance waits for TenantMove acme-e1 on shard-a",
        "",
        "Shard Before After Should be Share after",
        "shard-a 391Ki 195Ki 195Ki 1.00",
        "shard-b 0 195Ki 195Ki 1.00",
        "",
        "Moved 195Ki, lower bound 186Ki (ratio 1.05)",
    ]


async def test_json_and_csv_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    found = await outcome(await crowded())
    read = record(found, capsys)
    step = {"tenant": "acme", "from": "shard-a", "to": "shard-b", "bytes": 100_000, "reason": "Rebalance"}
    assert read["steps"][0] == {**step, "state": "planned", "move": "acme-e1", "waits": ""}
    assert read["shards"][1] == {
        "shard": "shard-b",
        "before": 0,
        "after": 200_000,
        "should": 200_000,
        "ratio": 1.0,
    }
    assert (read["movedBytes"], read["lowerBoundBytes"], read["theta"]) == (200_000, 190_000, 0.05)
    rows = list(csv.DictReader(io.StringIO(printed(found, Output.CSV, capsys))))
    assert [row["tenant"] for row in rows] == ["acme", "umbrella"]
    assert rows[1]["waits"] == "for TenantMove acme-e1 on shard-a"
    assert found.complete


async def test_where_nothing_moves_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(await outcome(await crowded(acme=0)), Output.TABLE, capsys)
    assert text.startswith("No tenant has to move.\n")
    assert "Moved 0, lower bound 0" in text


async def test_what_cannot_be_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    world = await crowded(acme=1000, umbrella=1)
    world.tenant("umbrella", vectorStore={"dimensions": 3, "shard": "shard-x"})
    world.shard("shard-c")
    await world.settle(timedelta(seconds=5))
    world.server("shard-c").down = True
    found = await outcome(world)
    text = printed(found, Output.TABLE, capsys)
    assert "Too large: acme alone is more than any shard's share and stays where it is" in text
    assert "Stuck: umbrella: spec.vectorStore.shard names VectorShard shard-x, which does not exist" in text
    assert "Not read: shard-c: its server cannot be read from here" in text
    assert not found.complete
    read = record(found, capsys)
    assert (read["tooLarge"], [item["shard"] for item in read["unread"]]) == (["acme"], ["shard-c"])


async def test_the_moves_that_may_begin_are_created_once(capsys: pytest.CaptureFixture[str]) -> None:
    world = await crowded()
    world.servers.difference = "a row differs"
    found = await outcome(world)
    begun = await begin(found, world.cx.objects)
    assert planned(world) == {"acme-e1": ("shard-b", "Rebalance")}
    assert [step["state"] for step in record(begun, capsys)["steps"]] == ["created", "waiting"]
    beaten = await begin(found, world.cx.objects)  # another one was quicker
    assert [step["state"] for step in record(beaten, capsys)["steps"]] == ["exists", "waiting"]
    await world.settle(timedelta(seconds=5))
    assert (await outcome(world)).decision.beginning == ()


class Refusing(Fault):
    """The API server takes no TenantMove."""

    def before(self, write: Write) -> None:
        if write.kind == "TenantMove":
            raise Refused("you may not create TenantMoves")


async def test_a_refusal_names_the_move() -> None:
    world = await crowded()
    found = await outcome(world)
    world.process.fault = Refusing()
    with pytest.raises(
        RebalanceFailed, match=r"after 0 of 1 moves, TenantMove acme-e1 cannot be created: you may"
    ):
        await begin(found, world.cx.objects)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "Secret shard-a in namespace tenantry-system has no key dsn"),
        ({"dsn": "gA=="}, "key dsn of Secret shard-a in namespace tenantry-system is no text"),
    ],
)
async def test_a_secret_that_has_no_address_is_named(data: dict[str, str], words: str) -> None:
    world = await crowded()
    world.api.replace({**world.found("Secret", "shard-a", OPERATORS), "data": data}, "kubectl")
    found = await outcome(world)
    assert found.unread["shard-a"].startswith(words)
    assert found.decision.plan.steps == ()


def test_the_exit_codes_are_documented() -> None:
    assert all(f"{code} " in rebalancing.EPILOG for code in (0, 1, 2, rebalancing.INCOMPLETE))
