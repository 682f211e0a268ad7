"""Places on a shard that nobody uses: left by a shard that was set back, a restore in the wrong order, a lost move.

They are told, and stay (closed where their tenant has a newer one): what is in one may be all that is left of
something. Somebody says which ones go, each by its token: the tenant and the epoch of the place. So what was said of
one place is never taken for another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tenantry.api.move import MovePhase, TenantMove
from tenantry.domain.observed import TenantClaim
from tenantry.domain.places import Place, PlaceState, Record

MOST_TOLD = 20
"""So many are in a shard's status; the Event has the number of all."""

COPIES = frozenset({PlaceState.IMPORTING, PlaceState.MOVED})
"""States in which a place is one side of a move."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A place that nobody uses. elsewhere: the shard that its tenant is on; empty: there is no such tenant.

    older: the tenant was placed there later than here. Else this may be its true place, as after etcd was set back.
    """

    record: Record
    elsewhere: str = ""
    older: bool = False

    @property
    def token(self) -> str:
        """Return what it is removed by."""
        return f"{self.record.place.tenant}@{self.record.place.epoch}"

    @property
    def why(self) -> str:
        """Return why nobody uses it, for people."""
        tenant = self.record.place.tenant
        if self.elsewhere:
            return f"Tenant {tenant} is on VectorShard {self.elsewhere}"
        return f"there is neither a Tenant nor a TenantArchive {tenant}"


def leftovers(
    shard: str,
    records: Iterable[Record],
    tenant: Callable[[str], TenantClaim | None],
    moves: Callable[[str], Iterable[TenantMove]],
    kept: Callable[[str], bool],
) -> list[Leftover]:
    """Return the places of a shard that nobody uses, by tenant.

    Of the tenant of a name: tenant, the Tenant; moves, its active moves; kept, whether an archive sees to its places.
    """
    found = []
    for record in sorted(records, key=lambda item: item.place.tenant):
        name = record.place.tenant
        if any(_in_hand(record.place, shard, move) for move in moves(name)):
            continue
        claim = tenant(name)
        if claim is None:
            if not kept(name):
                found.append(Leftover(record))
        elif claim.shard not in ("", shard) and not claim.deleting:
            # One without a placement looks for its vectors still; one that leaves takes everything along.
            found.append(Leftover(record, claim.shard, record.place.epoch < claim.epoch))
    return found


def _in_hand(place: Place, shard: str, move: TenantMove) -> bool:
    """Tell whether a move sees to a place: as its copy, or as what it was copied from, until it is removed."""
    if place.state is PlaceState.IMPORTING:
        return move.spec.target_shard == shard
    # One that is cleaned up after is on record as moved; else it has come back from a backup.
    cleaned = move.status.phase is MovePhase.CLEANING
    return move.status.source == shard and (place.state is PlaceState.MOVED or not cleaned)


def named(found: Iterable[Leftover], asked: str) -> tuple[list[Leftover], list[str]]:
    """Return those that somebody wants removed, and the tokens of none. asked: tokens, with commas between them."""
    by_token = {item.token: item for item in found}
    tokens = [token for token in dict.fromkeys(token.strip() for token in asked.split(",")) if token]
    return [by_token[token] for token in tokens if token in by_token], [
        token for token in tokens if token not in by_token
    ]


def in_words(found: list[Leftover]) -> str:
    """Say what is left over, for an Event; empty where nothing is."""
    if not found:
        return ""
    rest = len(found) - 1
    more = f", and {rest} more" if rest else ""
    return f"nobody uses {found[0].token} ({found[0].why}){more}: status.leftovers has them"
