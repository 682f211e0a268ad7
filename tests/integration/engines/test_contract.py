"""What every engine keeps to: the port `Engine` on real servers."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta

import pytest

from tenantry.adapters.engines import RealEngines
from tenantry.api.shard import EngineKind
from tenantry.api.tenant import Metric, VectorType
from tenantry.domain.places import Place, PlaceState, Record, archived
from tenantry.domain.vectors import Shape
from tenantry.reconcile.ports import Engine, Refused, Unavailable
from tests.integration.engines.conftest import described
from tests.integration.engines.rig import Denied, Rig

pytestmark = pytest.mark.tool("weaviate-server")

WHERE_THE_OPERATOR_INDEXES = pytest.mark.parametrize("rig", ["pgvector"], indirect=True)
"""Other engines see to their indexes themselves."""


async def ids(rig: Rig, engine: Engine, record: Record) -> list[str]:
    """Return what an application of the place sees that connects now."""
    async with rig.application(engine.access(record)) as application:
        return await application.ids()


async def insert(rig: Rig, engine: Engine, record: Record, *names: str) -> None:
    async with rig.application(engine.access(record)) as application:
        await application.insert(names, record.place.shape.dimensions)


async def measured(engine: Engine, tenant: str, until: Callable[[Record], bool]) -> Record:
    """Return the record as soon as its measures are so; engines may count with some delay."""
    async with asyncio.timeout(60):
        while True:
            record = await engine.find(tenant)
            assert record is not None
            if until(record):
                return record
            await asyncio.sleep(0.1)


# --- a place --------------------------------------------------------------------------------------------------------


async def test_a_place_is_made_and_used(rig: Rig, engine: Engine, place: Place) -> None:
    record = await engine.ensure(place)
    assert record.place == place
    assert record.rows == 0
    assert not record.indexed
    await insert(rig, engine, record, "one", "two")
    assert await ids(rig, engine, record) == ["one", "two"]


@pytest.mark.parametrize("state", PlaceState)
async def test_what_is_on_record_is_what_was_described(
    engine: Engine, place: Place, state: PlaceState
) -> None:
    for shape in (Shape(3), Shape(1536, Metric.L2), Shape(8, Metric.INNER_PRODUCT, VectorType.HALFVEC)):
        wanted = replace(
            place,
            tenant=f"recorded-{state}-{shape.dimensions}",
            uid=f"uid-{state}-{shape.dimensions}",
            shape=shape,
            state=state,
            epoch=7,
            generation=4,
            mark="a mark, of any text: ' \" \\ %s",
            previous=True,
        )
        assert (await engine.ensure(wanted)).place == wanted
        found = await engine.find(wanted.tenant)
        assert found is not None
        assert found.place == wanted
        assert found in await engine.records()


async def test_what_is_so_already_is_not_written(rig: Rig, engine: Engine, place: Place) -> None:
    for wanted in (
        place,
        replace(place, generation=2, previous=True),
        replace(place, generation=2, open=False),
        replace(archived(place), generation=2),
    ):
        record = await engine.ensure(wanted)
        before = await rig.traces(record)
        assert await engine.ensure(wanted) == record
        assert await rig.traces(record) == before


async def test_a_write_leaves_traces(rig: Rig, engine: Engine, place: Place) -> None:
    """What the test before looks at tells writes."""
    record = await engine.ensure(place)
    before = await rig.traces(record)
    await engine.ensure(replace(place, mark="another"))
    assert await rig.traces(record) != before


async def test_a_description_made_from_an_older_record_changes_nothing(engine: Engine, place: Place) -> None:
    record = await engine.ensure(replace(place, generation=2, epoch=2))
    for older in (replace(place, generation=2), replace(place, epoch=2)):
        with pytest.raises(Unavailable, match="changed meanwhile"):
            await engine.ensure(older)
    assert await engine.find(place.tenant) == record


async def test_a_description_instead_of_another_one_than_is_on_record_changes_nothing(
    engine: Engine, place: Place
) -> None:
    wanted = replace(place, open=False)
    with pytest.raises(Unavailable, match="changed meanwhile"):
        await engine.ensure(wanted, place)  # there is none at all
    held = await engine.ensure(replace(place, state=PlaceState.BLOCKED))
    with pytest.raises(Unavailable, match="changed meanwhile"):
        await engine.ensure(wanted, place)
    assert await engine.find(place.tenant) == held
    assert (await engine.ensure(wanted, held.place)).place == wanted


async def test_places_made_at_once(engine: Engine) -> None:
    wanted = [described(f"at-once-{number}") for number in range(6)]
    records = await asyncio.gather(*(engine.ensure(place) for place in wanted * 2))
    assert [record.place for record in records] == wanted * 2
    assert len({record.id for record in records}) == 6


async def test_the_next_tenant_of_the_name_has_the_place_with_all_that_is_in_it(
    rig: Rig, engine: Engine, place: Place
) -> None:
    first = await engine.ensure(place)
    await insert(rig, engine, first, "kept")
    await engine.ensure(archived(place))
    taken = replace(place, uid="another-uid", owner="another-digest", generation=2)
    record = await engine.ensure(taken)
    assert record.place == taken
    assert record.id == first.id
    assert await ids(rig, engine, record) == ["kept"]
    with pytest.raises(Denied):
        await ids(rig, engine, first)


async def test_an_empty_place_takes_another_shape(rig: Rig, engine: Engine, place: Place) -> None:
    await engine.ensure(place)
    record = await engine.ensure(replace(place, shape=Shape(5, Metric.L2)))
    assert record.place.shape == Shape(5, Metric.L2)
    await insert(rig, engine, record, "of-five")
    assert await ids(rig, engine, record) == ["of-five"]


async def test_a_place_with_vectors_keeps_its_shape(rig: Rig, engine: Engine, place: Place) -> None:
    record = await engine.ensure(place)
    await insert(rig, engine, record, "of-three")
    with pytest.raises(Refused, match="holds vectors of 3 dimensions"):
        await engine.ensure(replace(place, shape=Shape(5)))
    assert await ids(rig, engine, record) == ["of-three"]
    found = await engine.find(place.tenant)
    assert found is not None
    assert found.place == place


async def test_measures(rig: Rig, engine: Engine, place: Place) -> None:
    record = await engine.ensure(place)
    empty = record.size
    await insert(rig, engine, record, *(f"row-{number}" for number in range(400)))
    grown = await measured(engine, place.tenant, lambda found: found.rows == 400)
    assert grown.size > empty
    assert not grown.indexed
    assert grown in await engine.records()


@WHERE_THE_OPERATOR_INDEXES
async def test_an_index_is_measured(rig: Rig, engine: Engine, place: Place) -> None:
    record = await engine.ensure(place)
    await insert(rig, engine, record, *(f"row-{number}" for number in range(400)))
    grown = await measured(engine, place.tenant, lambda found: found.rows == 400)
    await engine.index(place.tenant)
    indexed = await measured(engine, place.tenant, lambda found: found.indexed)
    assert indexed.size > grown.size
    assert indexed.rows == 400
    assert indexed in await engine.records()


@WHERE_THE_OPERATOR_INDEXES
async def test_an_index_is_built_once_and_a_spoilt_one_anew(rig: Rig, engine: Engine, place: Place) -> None:
    record = await engine.ensure(place)
    await insert(rig, engine, record, "one")
    await engine.index(place.tenant)
    before = await rig.traces(record)
    await engine.index(place.tenant)
    assert await rig.traces(record) == before
    await rig.spoil_index(record)
    spoilt = await engine.find(place.tenant)
    assert spoilt is not None
    assert not spoilt.indexed
    await engine.index(place.tenant)
    await measured(engine, place.tenant, lambda found: found.indexed)
    assert await ids(rig, engine, record) == ["one"]


async def test_nothing_is_known_of_who_was_never_there(engine: Engine) -> None:
    assert await engine.find("nobody") is None
    await engine.remove("nobody")
    await engine.index("nobody")
    assert "nobody" not in {record.place.tenant for record in await engine.records()}


# --- who may log in -------------------------------------------------------------------------------------------------


async def test_credentials_are_replaced_with_no_outage(rig: Rig, engine: Engine, place: Place) -> None:
    first = await engine.ensure(place)
    async with rig.application(engine.access(first)) as old:
        await old.insert(["by-the-first"])
        second = await engine.ensure(replace(place, generation=2, previous=True))
        assert engine.access(second)["password"] != engine.access(first)["password"]
        async with rig.application(engine.access(second)) as new:
            assert await new.ids() == ["by-the-first"]
            # In the grace the ones before go on, in sessions that are there and in new ones.
            await old.insert(["in-the-grace"])
            assert await ids(rig, engine, first) == ["by-the-first", "in-the-grace"]
            ended = await engine.ensure(replace(second.place, previous=False))
            assert await new.ids() == ["by-the-first", "in-the-grace"]
            with pytest.raises(Denied):
                await old.ids()
            with pytest.raises(Denied):
                await ids(rig, engine, first)
            third = await engine.ensure(replace(ended.place, generation=3, previous=True))
            assert await new.ids() == await ids(rig, engine, third)
        with pytest.raises(Denied):
            await ids(rig, engine, first)


async def test_credentials_replaced_twice_in_the_grace(rig: Rig, engine: Engine, place: Place) -> None:
    first = await engine.ensure(place)
    async with rig.application(engine.access(first)) as oldest:
        second = await engine.ensure(replace(place, generation=2, previous=True))
        third = await engine.ensure(replace(place, generation=3, previous=True))
        with pytest.raises(Denied):
            await oldest.ids()
    assert await ids(rig, engine, second) == await ids(rig, engine, third) == []
    with pytest.raises(Denied):
        await ids(rig, engine, first)


async def test_a_closed_place_lets_nobody_in_and_an_open_one_the_same_ones_again(
    rig: Rig, engine: Engine, place: Place
) -> None:
    first = await engine.ensure(place)
    second = await engine.ensure(replace(place, generation=2, previous=True))
    async with rig.application(engine.access(first)) as one, rig.application(engine.access(second)) as other:
        await one.insert(["kept"])
        await engine.ensure(replace(second.place, open=False))
        for application in (one, other):
            with pytest.raises(Denied):
                await application.ids()
    for record in (first, second):
        with pytest.raises(Denied):
            await ids(rig, engine, record)
    await engine.ensure(second.place)
    assert await ids(rig, engine, first) == await ids(rig, engine, second) == ["kept"]


async def test_the_same_record_gives_the_same_access_in_any_process(
    rig: Rig, engine: Engine, second: Engine, place: Place
) -> None:
    record = await engine.ensure(place)
    found = await second.find(place.tenant)
    assert found is not None
    assert second.access(found) == engine.access(record)
    assert all(isinstance(text, str) and text for text in engine.access(record).values())
    later = replace(record, rows=5, size=99, place=replace(place, since=place.since + timedelta(days=1)))
    assert engine.access(later) == engine.access(record)


async def test_what_an_application_is_told(rig: Rig, engine: Engine, place: Place) -> None:
    access = engine.access(await engine.ensure(replace(place, epoch=4, generation=2)))
    host, port = engine.endpoint
    assert (access["host"], access["port"]) == (host, str(port))
    assert (access["engine"], access["tenant"], access["shard"]) == (rig.kind, place.tenant, "one")
    assert (access["epoch"], access["generation"]) == ("4", "2")
    assert (access["dimensions"], access["metric"], access["type"]) == ("3", "cosine", "vector")
    assert rig.secret not in str(access)


async def test_two_tenants_have_nothing_in_common(rig: Rig, engine: Engine) -> None:
    one, other = [await engine.ensure(described(f"apart-{name}")) for name in ("one", "other")]
    await insert(rig, engine, one, "same-id")
    await insert(rig, engine, other, "same-id", "more")
    assert await ids(rig, engine, one) == ["same-id"]
    assert engine.access(one)["password"] != engine.access(other)["password"]
    assert one.id != other.id
    assert await engine.probe(one, [other]) == []
    assert await engine.probe(other, [one]) == []


# --- the end of a place ---------------------------------------------------------------------------------------------


async def test_what_is_removed_is_gone_and_its_neighbour_is_not(rig: Rig, engine: Engine) -> None:
    leaves, stays = [await engine.ensure(described(f"removal-{name}")) for name in ("leaves", "stays")]
    for record in (leaves, stays):
        await insert(rig, engine, record, "row")
    async with rig.application(engine.access(leaves)) as application:
        for _ in range(2):
            await engine.remove(leaves.place.tenant)
        with pytest.raises(Denied):
            await application.ids()
    with pytest.raises(Denied):
        await ids(rig, engine, leaves)
    assert await engine.find(leaves.place.tenant) is None
    assert await ids(rig, engine, stays) == ["row"]
    again = await engine.ensure(replace(leaves.place, uid="uid-of-the-next"))
    assert await ids(rig, engine, again) == []


# --- rows out and back ----------------------------------------------------------------------------------------------


async def test_rows_are_exported_and_taken_back(rig: Rig, engine: Engine, place: Place) -> None:
    record = await engine.ensure(place)
    await insert(rig, engine, record, "one", "two")
    exported = b"".join([piece async for piece in engine.export(place.tenant)])
    assert sorted(json.loads(line)["id"] for line in exported.splitlines()) == ["one", "two"]
    other = await engine.ensure(described("taken-back"))

    async def pieces() -> AsyncIterator[bytes]:
        yield exported

    assert await engine.restore("taken-back", pieces()) == 2
    assert await ids(rig, engine, other) == ["one", "two"]
    with pytest.raises(Refused):
        await engine.restore("taken-back", pieces())


async def test_who_was_never_there_has_no_rows(engine: Engine) -> None:
    with pytest.raises(Refused, match="nobody"):
        async for _ in engine.export("nobody"):
            pass


# --- crashes --------------------------------------------------------------------------------------------------------


async def carried_out(rig: Rig, engine: Engine, changes: list[Place], prefix: str) -> int:
    """Make each change crash one step later than before, until it does not; it comes right by itself each time."""
    step = crashes = 0
    async for crash in rig.crashes():
        step += 1
        tenant = f"{prefix}-{step}"
        record = await engine.ensure(described(tenant)) if len(changes) > 1 else None
        wanted = replace(changes[-1], tenant=tenant, uid=f"uid-of-{tenant}")
        try:
            async with crash:
                await engine.ensure(wanted)
        except Unavailable:
            crashes += 1
        if rig.kind is not EngineKind.PGVECTOR:  # which does it in one transaction
            await _is_true_if_settled(rig, engine, tenant)
        now = await engine.ensure(wanted)
        assert now.place == wanted
        await insert(rig, engine, now, "after")
        assert await ids(rig, engine, now) == ["after"]
        if record is not None:
            assert (await _may_log_in(rig, engine, record)) is wanted.previous
        assert await engine.probe(now, []) == []
    return crashes


async def _is_true_if_settled(rig: Rig, engine: Engine, tenant: str) -> None:
    """A record that is settled is not looked at again: then everything must be as it says."""
    found = await engine.find(tenant)
    if found is not None and found.settled:
        before = await rig.traces(found)
        assert await engine.ensure(found.place) == found
        assert await rig.traces(found) == before


async def _may_log_in(rig: Rig, engine: Engine, record: Record) -> bool:
    try:
        await ids(rig, engine, record)
    except Denied:
        return False
    return True


async def test_a_place_whose_making_was_interrupted_anywhere_is_made(rig: Rig, engine: Engine) -> None:
    assert await carried_out(rig, engine, [described("made")], "made") > 10


@pytest.mark.parametrize("previous", [True, False])
async def test_credentials_whose_replacement_was_interrupted_anywhere_are_replaced(
    rig: Rig, engine: Engine, previous: bool
) -> None:
    changes = [described("turned"), described("turned", generation=2, previous=previous)]
    assert await carried_out(rig, engine, changes, f"turned-{previous}".lower()) > 5


async def test_a_place_whose_removal_was_interrupted_anywhere_is_removed(rig: Rig, engine: Engine) -> None:
    step = crashes = 0
    async for crash in rig.crashes():
        step += 1
        record = await engine.ensure(described(f"interrupted-{step}"))
        await insert(rig, engine, record, "row")
        try:
            async with crash:
                await engine.remove(record.place.tenant)
        except Unavailable:
            crashes += 1
        await engine.remove(record.place.tenant)
        assert await engine.find(record.place.tenant) is None
        assert not await _may_log_in(rig, engine, record)
    assert crashes > 5


async def test_a_server_that_was_killed_is_used_again_by_itself(
    rig: Rig, engine: Engine, place: Place
) -> None:
    record = await engine.ensure(place)
    await insert(rig, engine, record, "kept")
    access = engine.access(record)
    rig.kill()
    try:
        with pytest.raises(Unavailable):
            await engine.find(place.tenant)
        with pytest.raises(Unavailable):
            await engine.prepare()
    finally:
        rig.start()
    assert (await engine.prepare()).unfit is None
    found = await engine.find(place.tenant)
    assert found is not None
    assert found.place == place
    assert engine.access(found) == access
    assert await ids(rig, engine, found) == ["kept"]
    assert (await engine.ensure(place)).place == place


# The HTTP client of Qdrant's library sometimes forgets a connection that it was opening when its server died.
@pytest.mark.filterwarnings("ignore:unclosed (transport )?<:ResourceWarning")
async def test_a_server_killed_in_the_middle_of_many_writes(rig: Rig, engine: Engine) -> None:
    wanted = [described(f"killed-{number}") for number in range(30)]
    work = [asyncio.create_task(engine.ensure(place)) for place in wanted]
    await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
    rig.kill()
    try:
        done = await asyncio.gather(*work, return_exceptions=True)
    finally:
        rig.start()
        gc.collect()  # here, and not in a test after this one
    assert all(isinstance(outcome, Unavailable | Record) for outcome in done)
    for place, outcome in zip(wanted, done, strict=True):
        if isinstance(outcome, Record):
            assert await ids(rig, engine, outcome) == []
        record = await engine.ensure(place)
        assert await ids(rig, engine, record) == []


# --- addresses ------------------------------------------------------------------------------------------------------


async def test_a_server_that_is_not_there(rig: Rig) -> None:
    engine = RealEngines().open("one", rig.kind, rig.unreachable_address())
    for _ in range(2):
        with pytest.raises(Unavailable) as error:
            await engine.prepare()
        assert rig.secret not in str(error.value)
    await engine.close()


async def test_a_server_that_refuses_the_operator(rig: Rig) -> None:
    for address in rig.wrong_addresses():
        engine = RealEngines().open("one", rig.kind, address)
        with pytest.raises(Refused) as error:
            await engine.prepare()
        assert "wrong" not in str(error.value)
        assert rig.secret not in str(error.value)
        await engine.close()


async def test_an_engine_that_is_closed_asks_nothing(engine: Engine) -> None:
    await engine.close()
    with pytest.raises(Unavailable):
        await engine.records()
    await engine.close()


async def test_access_is_not_told_before_the_server_was_seen(rig: Rig, engine: Engine, place: Place) -> None:
    record = await engine.ensure(place)
    fresh = RealEngines().open("one", rig.kind, rig.address())
    with pytest.raises(Unavailable):
        fresh.access(record)
    await fresh.close()


def test_what_is_no_address_is_refused(rig: Rig) -> None:
    for address in ("", "nothing", "postgresql://", "http://", "https://weaviate.example"):
        with pytest.raises(Refused, match="is no address"):
            RealEngines().open("one", rig.kind, address)


# --- exports -----------------------------------------------------------------------------------------------------


async def test_what_is_exported_of_a_closed_place_comes_back_into_an_empty_one(
    rig: Rig, engine: Engine, place: Place
) -> None:
    record = await engine.ensure(place)
    await insert(rig, engine, record, "one", "two", "three")
    await engine.ensure(archived(place))
    text = b"".join([piece async for piece in engine.export(place.tenant)])
    assert sorted(json.loads(line)["id"] for line in text.splitlines()) == ["one", "three", "two"]
    other = await engine.ensure(described("exported-again"))

    async def lines(end: int) -> AsyncIterator[bytes]:
        for start in range(0, end, 7):
            yield text[start : min(end, start + 7)]

    with pytest.raises(Refused):
        await engine.restore(other.place.tenant, lines(len(text) - 1))
    assert await ids(rig, engine, other) == []
    assert await engine.restore(other.place.tenant, lines(len(text))) == 3
    assert await ids(rig, engine, other) == ["one", "three", "two"]
    with pytest.raises(Refused):
        await engine.restore(other.place.tenant, lines(len(text)))
    with pytest.raises(Refused):
        await engine.restore("nobody", lines(len(text)))


async def test_an_export_that_is_given_up_leaves_the_engine_as_it_was(
    rig: Rig, engine: Engine, place: Place
) -> None:
    record = await engine.ensure(place)
    await insert(rig, engine, record, *(f"row-{number}" for number in range(20)))
    for _ in range(30):  # more often than a server has connections for the operator
        async with aclosing(engine.export(place.tenant)) as pieces:
            await anext(pieces)
    await engine.remove(place.tenant)
    assert await engine.find(place.tenant) is None
