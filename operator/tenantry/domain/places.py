"""A tenant's place on a vector shard: what it should be, decided from what the shard has on record of it.

A place is described whole (`Place`), and a shard brings itself to it: the same description twice changes nothing.

    generation   counts the credentials. Odd ones are of the login a, even ones of b, so that the next ones are made
                 while applications still use the present ones; the ones before may be used until `previous` ends.
    epoch        counts the placements of the tenant on any shard; the highest is the true one.
    owner        a digest of the customer's address: whoever has the name later is not given what is in the place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256

from tenantry.api.shard import VectorShard
from tenantry.domain.errors import Stalled
from tenantry.domain.names import archive_name
from tenantry.domain.quantities import in_bytes
from tenantry.domain.reasons import Reason
from tenantry.domain.vectors import Shape


class PlaceState(StrEnum):
    """What a shard is to a tenant."""

    OWNER = "owner"  # the tenant's vectors are here
    IMPORTING = "importing"  # they are being copied to here
    BLOCKED = "blocked"  # they are here, writes wait for a decision
    MOVED = "moved"  # they were here, and have another place
    ARCHIVED = "archived"  # here, kept of a deleted tenant


COUNTS = frozenset({PlaceState.OWNER, PlaceState.BLOCKED, PlaceState.ARCHIVED})
"""States of a place that holds a tenant's vectors."""


@dataclass(frozen=True, slots=True)
class Place:
    """A tenant's place as it should be, or as a shard has it on record. since: when `generation` came into use.

    uid: of the Tenant that has it. open: applications may log in. mark: the value of the annotation that asked for
    `generation`. previous: the credentials before may still be used.
    """

    tenant: str
    uid: str
    owner: str
    epoch: int
    shape: Shape
    since: datetime
    state: PlaceState = PlaceState.OWNER
    open: bool = True
    generation: int = 1
    mark: str = ""
    previous: bool = False

    @property
    def slot(self) -> str:
        """Return which of the two logins is in use: a or b."""
        return "ba"[self.generation % 2]


@dataclass(frozen=True, slots=True)
class Record:
    """What a shard has on record of a place, with what was measured there. size: bytes, with indexes.

    id: what roles and schema are called after; it tells nothing. rows: an estimate. indexed: there is an approximate
    index. settled: the server is as the record says; where it is not, a change was interrupted, and is made again.
    """

    place: Place
    id: str
    rows: int = 0
    size: int = 0
    indexed: bool = False
    settled: bool = True

    def is_as(self, place: Place) -> bool:
        """Tell whether a place is as described already."""
        return self.place == place and self.settled


@dataclass(frozen=True, slots=True)
class Rotation:
    """When credentials are replaced. age: of the present ones at most. grace: how long the ones before stay valid."""

    age: timedelta = timedelta(days=90)
    grace: timedelta = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Applicant:
    """The tenant that a place is for. restore_from: the archive that a platform engineer allows it to take over."""

    tenant: str
    uid: str
    owner: str
    shape: Shape
    suspended: bool = False
    mark: str = ""
    restore_from: str = ""


def upkeep(
    applicant: Applicant,
    epoch: int,
    record: Record | None,
    now: datetime,
    rotation: Rotation,
    *,
    chosen: bool = True,
) -> tuple[Place, float | None]:
    """Return how a tenant's place should be, and after how many seconds that will change by itself.

    chosen: the shape was asked for; a default one never changes a place that is there. Raises Stalled where the place
    is somebody else's, or holds vectors of another shape.
    """
    if record is None:
        first = Place(
            applicant.tenant,
            applicant.uid,
            applicant.owner,
            epoch,
            applicant.shape,
            now,
            open=not applicant.suspended,
            mark=applicant.mark,
        )
        return first, rotation.age.total_seconds()
    _check_owner(applicant, record.place)
    place = record.place
    if place.uid != applicant.uid:
        # Whoever had the place before knows its password.
        place = replace(
            place, generation=place.generation + 1, since=now, mark=applicant.mark, previous=False
        )
    place = replace(
        place,
        uid=applicant.uid,
        owner=applicant.owner,
        epoch=max(epoch, record.place.epoch),
        state=PlaceState.OWNER,
        open=not applicant.suspended,
        shape=_shape(applicant, record) if chosen else record.place.shape,
    )
    return _credentials(place, applicant.mark, now, rotation)


def _credentials(place: Place, mark: str, now: datetime, rotation: Rotation) -> tuple[Place, float | None]:
    """Replace credentials that are too old or that somebody wants replaced; let those before go in time."""
    asked = mark not in ("", place.mark)
    if asked or now >= place.since + rotation.age:
        place = replace(
            place, generation=place.generation + 1, since=now, mark=mark or place.mark, previous=place.open
        )
    ends = place.since + rotation.grace
    if place.previous and now >= ends:
        place = replace(place, previous=False)
    due = place.since + rotation.age
    if place.previous:
        due = min(due, ends)
    return place, max(0.0, (due - now).total_seconds())


def _check_owner(applicant: Applicant, place: Place) -> None:
    allowed = applicant.restore_from == archive_name(place.tenant, place.uid)
    if place.uid == applicant.uid or place.owner == applicant.owner or allowed:
        return
    raise Stalled(
        Reason.RESTORE_NOT_ALLOWED,
        f"vectors of an earlier Tenant {applicant.tenant} with another owner are kept: set spec.owner.email to the "
        f"earlier owner's, or purge them by deleting its TenantArchive",
    )


def _shape(applicant: Applicant, record: Record) -> Shape:
    present = record.place.shape
    if applicant.shape == present or record.rows == 0:
        return applicant.shape
    raise Stalled(
        Reason.SHAPE_FIXED,
        f"spec.vectorStore asks for {applicant.shape}, and {record.rows} vectors of {present} are stored: put it "
        f"back, or delete the vectors first",
    )


def id_of(uid: str) -> str:
    """Return the id of a place by the UID of the tenant that had it first: random, so nobody can guess it."""
    return sha256(uid.encode()).hexdigest()[:16]


def outdated(place: Place, present: Place | None, instead_of: Place | None = None) -> bool:
    """Tell whether a description was made from an older record than the present one.

    instead_of: the record that it was made from, where any other one makes it outdated.
    """
    if instead_of not in (None, present):
        return True
    if present is None or (place.epoch, place.generation) >= (present.epoch, present.generation):
        return False
    return place.epoch < present.epoch or place.state is present.state


def archived(place: Place) -> Place:
    """Return a place as it is kept of a deleted tenant: nobody logs in."""
    return replace(place, state=PlaceState.ARCHIVED, open=False, previous=False)


def unreachable_pin(shard: str) -> Stalled:
    """Return the error for a pin to a shard that does not exist."""
    return Stalled(
        Reason.SHARD_NOT_FOUND,
        f"spec.vectorStore.shard names VectorShard {shard}, which does not exist: apply it, name another, or leave "
        f"it empty",
    )


def capacity_of(shard: VectorShard) -> int | None:
    """Return the bytes that a shard may hold; None: no limit is said."""
    return in_bytes(shard.spec.capacity.storage) if shard.spec.capacity.storage else None
