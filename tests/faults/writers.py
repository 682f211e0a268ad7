"""Who held the Lease when, and who wrote without it: read from what a proxy passed on, in that order.

    a  acquires ── writes ── renews ── writes ──(renew deadline)          term of a
    b                                                ──(duration)── acquires ── writes    term of b
                                           └── here a must have stopped by itself

Each replica has a door of its own. A freeze cannot be told from here, so the rules are the same for all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.faults.proxy import WRITES, Request

HARMLESS = frozenset({"leases", "selfsubjectaccessreviews"})
"""What a replica without the Lease may send: its own candidacy, and questions. An Event is a write."""

SLACK = 0.5
"""Seconds between a write's fence and its arrival here, on a busy machine. Less than from deadline to duration."""


@dataclass(slots=True)
class Term:
    """One replica's time as leader. Times are monotonic seconds; `ended`: by its release or another's acquisition."""

    door: str
    identity: str
    duration: float
    began: float
    renewed: list[float] = field(default_factory=list)
    """When each successful write of the Lease arrived, the first one too."""
    ended: float | None = None
    released: bool = False


def writes_of(log: Iterable[Request]) -> list[Request]:
    """Return what reached the API server and changes something but the Lease, in that order."""
    found = [item for item in log if item.verb in WRITES and item.kind not in HARMLESS]
    return _in_order(found)


def terms_of(log: Iterable[Request]) -> list[Term]:
    """Return the terms that the successful writes of the Lease make, oldest first."""
    terms: list[Term] = []
    for item in _in_order(log):
        if item.kind != "leases" or item.verb not in WRITES or item.status is None or item.status >= 300:
            continue
        spec = item.content["spec"]
        present = terms[-1] if terms and terms[-1].ended is None else None
        when, holder = item.forwarded or 0.0, spec.get("holderIdentity") or ""
        if present is not None and holder != present.identity:
            present.ended, present.released = when, not holder
            present = None
        if not holder:
            continue
        if present is None:
            present = Term(item.door, holder, float(spec["leaseDurationSeconds"]), when)
            terms.append(present)
        present.renewed.append(item.at)
    return terms


@dataclass(frozen=True, slots=True)
class Breach:
    """One breach of "never two writers". request: the write; None where a Lease was taken too early."""

    text: str
    request: Request | None = None

    def __str__(self) -> str:
        return self.text


def trespasses(log: Iterable[Request], slack: float = SLACK) -> list[Breach]:
    """Return each breach of "never two writers"; nothing where there is none.

    Writes outside of one's own term, writes later than the renew deadline (two thirds of the duration) and `slack`
    after one's last renewal, and a Lease that was taken before it ran out. What was sent while the proxy stood still
    counts from when it may have been sent.
    """
    items = list(log)
    terms = terms_of(items)
    judged = [(item, _judged(item, terms, slack)) for item in writes_of(items)]
    return [*_taken_early(terms), *(Breach(text, item) for item, text in judged if text)]


def _judged(item: Request, terms: list[Term], slack: float) -> str:
    when = item.forwarded or 0.0
    term = next((term for term in reversed(terms) if term.began <= when), None)
    what = f"{item.door}: {item} (request {item.number})"
    if term is None:
        return f"{what} was written before anybody had the Lease"
    if term.door != item.door:
        return f"{what} was written {when - term.began:.3f} s after {term.door} took the Lease"
    if term.ended is not None and term.ended <= when:
        return f"{what} was written {when - term.ended:.3f} s after {item.door} had released the Lease"
    late = when - max(at for at in term.renewed if at <= when) - term.duration * 2 / 3
    return f"{what} was written {late:.3f} s after the renew deadline" if late > slack + item.late else ""


def _taken_early(terms: list[Term]) -> list[Breach]:
    return [
        Breach(
            f"{after.door} took the Lease {after.began - before.renewed[-1]:.3f} s "
            f"after {before.door} had renewed it"
        )
        for before, after in itertools.pairwise(terms)
        if not before.released and after.began < before.renewed[-1] + before.duration
    ]


def _in_order(log: Iterable[Request]) -> list[Request]:
    """Return what reached the API server, in the order in which it was passed on."""
    return sorted(
        (item for item in log if item.forwarded is not None), key=lambda item: item.forwarded or 0.0
    )
