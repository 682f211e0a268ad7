"""Which places of a shard nobody uses, and which of them somebody wants removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tenantry.api.move import TenantMove
from tenantry.domain.leftovers import Leftover, in_words, leftovers, named
from tenantry.domain.observed import TenantClaim
from tenantry.domain.places import Place, PlaceState, Record
from tenantry.domain.vectors import Shape

SINCE = datetime(2026, 1, 1, tzinfo=UTC)


def record(tenant: str, epoch: int = 1, state: PlaceState = PlaceState.OWNER) -> Record:
    place = Place(tenant, f"uid-{tenant}", "owner", epoch, Shape(3), SINCE, state)
    return Record(place, f"id-{tenant}", rows=7)


def claim(name: str, shard: str, *, deleting: bool = False) -> TenantClaim:
    return TenantClaim(
        name, f"uid-{name}", SINCE, f"tenant-{name}", "pro", "Ready", deleting, shard=shard, epoch=1
    )


def move(phase: str | None, source: str | None, target: str) -> TenantMove:
    return TenantMove.model_validate(
        {
            "kind": "TenantMove",
            "metadata": {"name": "acme"},
            "spec": {"tenant": "acme", "targetShard": target},
            "status": {"phase": phase, "source": source},
        }
    )


def found(
    *claims: TenantClaim,
    kept: bool = False,
    state: PlaceState = PlaceState.OWNER,
    moves: Sequence[TenantMove] = (),
) -> list[Leftover]:
    by_name = {item.name: item for item in claims}
    return leftovers("shard-a", [record("acme", 2, state)], by_name.get, lambda _: moves, lambda _: kept)


@pytest.mark.parametrize("state", PlaceState)
def test_a_place_of_a_tenant_that_is_elsewhere_is_left_over(state: PlaceState) -> None:
    (left,) = found(claim("acme", "shard-b"), state=state)
    assert (left.token, left.why) == ("acme@2", "Tenant acme is on VectorShard shard-b")


def test_a_place_of_nobody_is_left_over() -> None:
    (left,) = found(claim("umbrella", "shard-a"))
    assert left.why == "there is neither a Tenant nor a TenantArchive acme"


@pytest.mark.parametrize(
    "tenant",
    [
        claim("acme", "shard-a"),  # it is there
        claim("acme", ""),  # it looks for its vectors still
        claim("acme", "shard-b", deleting=True),  # it takes everything along
    ],
    ids=["at home", "looking", "leaving"],
)
def test_a_place_that_somebody_sees_to_is_not(tenant: TenantClaim) -> None:
    assert found(tenant) == []


@pytest.mark.parametrize(("epoch", "older"), [(1, False), (2, False), (3, True)])
def test_a_place_is_older_where_the_tenant_was_placed_elsewhere_later(epoch: int, *, older: bool) -> None:
    (left,) = found(replace(claim("acme", "shard-b"), epoch=epoch))
    assert left.older is older


def test_nor_is_one_that_an_archive_keeps() -> None:
    assert found(kept=True) == []
    # But one of a Tenant that is there, and elsewhere, is no archive's.
    assert len(found(claim("acme", "shard-b"), kept=True)) == 1


@pytest.mark.parametrize(
    ("state", "phase", "source", "target", "seen_to"),
    [
        (PlaceState.IMPORTING, "Copying", "shard-b", "shard-a", True),
        (PlaceState.IMPORTING, "Copying", "shard-b", "shard-c", False),
        (PlaceState.BLOCKED, "Committed", "shard-a", "shard-b", True),
        (PlaceState.OWNER, "Committed", "shard-a", "shard-b", True),
        (PlaceState.MOVED, "Cleaning", "shard-a", "shard-b", True),
        (PlaceState.MOVED, "Cleaning", "shard-c", "shard-b", False),
        (PlaceState.OWNER, "Cleaning", "shard-a", "shard-b", False),  # it has come back from a backup
        (PlaceState.OWNER, "Preparing", "shard-b", "shard-a", False),  # it is in the way of that move
        (PlaceState.OWNER, None, None, "shard-a", False),
    ],
)
def test_what_a_move_sees_to(
    state: PlaceState, phase: str | None, source: str | None, target: str, *, seen_to: bool
) -> None:
    left = found(claim("acme", "shard-b"), state=state, moves=[move(phase, source, target)])
    assert bool(left) is not seen_to


def test_what_somebody_names_is_what_goes() -> None:
    left = [Leftover(record("acme", 2)), Leftover(record("umbrella"))]
    assert named(left, " umbrella@1 ,acme@2,, acme@2") == (left[::-1], [])
    assert named(left, "acme@1, umbrella") == ([], ["acme@1", "umbrella"])
    assert named(left, "") == ([], [])


def test_an_event_tells_of_the_first_and_counts_the_others() -> None:
    left = [Leftover(record(name), "shard-b") for name in ("acme", "umbrella", "zeta")]
    assert in_words(left) == (
        "nobody uses acme@1 (Tenant acme is on VectorShard shard-b), and 2 more: status.leftovers has them"
    )
    assert "more" not in in_words(left[:1])
    assert in_words([]) == ""
