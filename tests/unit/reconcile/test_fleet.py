"""Where a tenant's vectors are, by the records of all shards."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from tenantry.domain.places import Place, PlaceState, Record
from tenantry.domain.vectors import Shape
from tenantry.reconcile.fleet import Fleet, Known, Work

ENGINE: Any = object()
SINCE = datetime(2026, 1, 1, tzinfo=UTC)


def record(epoch: int, rows: int = 0, state: PlaceState = PlaceState.OWNER) -> Record:
    return Record(Place("acme", "uid", "owner", epoch, Shape(3), SINCE, state), "id", rows=rows)


async def test_work_that_comes_while_some_goes_on_is_done_after_it_the_last_only() -> None:
    known, done, goes_on = Known(), [], asyncio.Event()

    def work(number: int) -> Work:
        async def item() -> None:
            done.append(number)
            await goes_on.wait()
            if number == 1:
                raise ArithmeticError("which is logged")

        return item

    for number in (1, 2, 3):
        known.begin(work(number))
        await asyncio.sleep(0)
    assert done == [1]
    assert known.behind is not None
    goes_on.set()
    await known.behind
    assert done == [1, 3]
    known.begin(work(4))
    await known.behind
    assert done == [1, 3, 4]


@pytest.mark.parametrize(
    ("records", "where"),
    [
        ({}, None),
        ({"a": record(1)}, "a"),
        ({"a": record(2), "b": record(1, rows=9)}, "a"),
        ({"a": record(1, rows=9), "b": record(1)}, "a"),
        ({"a": record(1), "b": record(1, rows=9)}, "b"),
        ({"a": record(1), "b": record(2, state=PlaceState.IMPORTING)}, "a"),
        ({"a": record(1, state=PlaceState.MOVED), "b": record(2)}, "b"),
        ({"a": record(1, state=PlaceState.ARCHIVED)}, "a"),
        ({"a": record(1, state=PlaceState.MOVED)}, None),
    ],
    ids=[
        *(
            "nowhere",
            "the only one",
            "the highest epoch",
            "with vectors",
            "with vectors, the other way round",
        ),
        *("no copy", "not what was left", "an archive's too", "only what was left"),
    ],
)
def test_the_highest_epoch_counts_then_vectors(records: dict[str, Record], where: str | None) -> None:
    fleet = Fleet()
    for shard in ("a", "b"):
        fleet.saw(shard, ENGINE, [records[shard]] if shard in records else [], "")
    found = fleet.locate("acme", ("a", "b"))
    assert (found[0] if found else None) == where
