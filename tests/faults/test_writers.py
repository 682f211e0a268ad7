"""The oracle of replicas finds each way in which two could write at once, and nothing in an orderly log."""

from __future__ import annotations

import json

from tests.faults.proxy import Request
from tests.faults.writers import terms_of, trespasses, writes_of

DURATION = 3


class Log(list[Request]):
    """A made-up log: each call is one request, forwarded and answered at that second."""

    def lease(self, at: float, door: str, holder: str | None = None, status: int | None = 200) -> Log:
        """Acquire, renew, or release by holder ""."""
        spec = {"holderIdentity": f"host_1_{door}" if holder is None else holder}
        body = json.dumps({"spec": {**spec, "leaseDurationSeconds": DURATION}}).encode()
        return self._add(at, door, "replace", "leases", body, status)

    def write(self, at: float, door: str, kind: str = "configmaps", status: int | None = 200) -> Log:
        return self._add(at, door, "apply", kind, b"{}", status)

    def read(self, at: float, door: str) -> Log:
        return self._add(at, door, "get", "configmaps", b"", 200)

    def lost(self, at: float, door: str) -> Log:
        """A write that a fault kept from the API server."""
        self._add(at, door, "apply", "configmaps", b"{}", None)
        self[-1].forwarded = None
        return self

    def _add(self, at: float, door: str, verb: str, kind: str, body: bytes, status: int | None) -> Log:
        number = len(self) + 1
        self.append(Request(number, door, verb, kind, "x", body=body, at=at, forwarded=at, status=status))
        return self


def found(log: Log) -> list[str]:
    return [str(breach) for breach in trespasses(log)]


def test_an_orderly_takeover_and_a_release_are_no_breach() -> None:
    log = Log().lease(0, "a").write(0.1, "a").lease(1, "a").write(2.9, "a")
    log.lease(4.1, "b").write(4.2, "b").lease(5, "b", holder="").lease(5.1, "a").write(5.2, "a")
    log.read(5.3, "b").lost(5.4, "b")
    assert found(log) == []
    terms = terms_of(log)
    assert [(term.door, term.began, term.ended, term.released) for term in terms] == [
        ("a", 0, 4.1, False),
        ("b", 4.1, 5, True),
        ("a", 5.1, None, False),
    ]
    assert terms[0].renewed == [0, 1]


def test_two_writers_are_found() -> None:
    log = Log().lease(0, "a").write(0.1, "a").lease(3.5, "b").write(3.6, "b").write(3.7, "a", kind="events")
    assert found(log) == ["a: apply events/x (request 5) was written 0.200 s after b took the Lease"]


def test_a_write_that_the_api_server_refused_or_did_not_answer_counts() -> None:
    log = Log().lease(0, "a").lease(3.5, "b").write(3.7, "a", status=409).write(3.8, "a", status=None)
    assert len(trespasses(log)) == 2


def test_the_order_is_that_of_passing_on_not_of_arrival() -> None:
    log = Log().lease(0, "a").write(1, "a").lease(3.5, "b")
    log[1].forwarded = 3.6
    assert len(trespasses(log)) == 1


def test_a_write_at_the_very_moment_of_the_takeover_counts() -> None:
    assert len(trespasses(Log().lease(0, "a").lease(3.5, "b").write(3.5, "a"))) == 1


def test_a_write_before_any_term_and_one_after_a_release() -> None:
    first = Log().write(0, "a").lease(1, "a")
    assert found(first) == ["a: apply configmaps/x (request 1) was written before anybody had the Lease"]
    second = Log().lease(0, "a").lease(1, "a", holder="").write(1.1, "a")
    assert found(second) == [
        "a: apply configmaps/x (request 3) was written 0.100 s after a had released the Lease"
    ]


def test_a_write_on_an_old_renewal_and_one_just_in_time() -> None:
    log = Log().lease(0, "a").lease(1, "a").write(3.4, "a").write(3.6, "a")
    assert found(log) == ["a: apply configmaps/x (request 4) was written 0.600 s after the renew deadline"]


def test_renewals_that_failed_do_not_count() -> None:
    for status in (409, 500, None):
        log = Log().lease(0, "a").lease(2, "a", status=status).lease(3, "b", status=status).write(2.9, "a")
        assert len(trespasses(log)) == 1
        assert len(terms_of(log)) == 1


def test_a_lease_that_was_taken_too_early() -> None:
    log = Log().lease(0, "a").lease(1, "a").lease(3.9, "b")
    assert found(log) == ["b took the Lease 2.900 s after a had renewed it"]


def test_questions_and_candidacies_are_no_writes() -> None:
    log = Log().lease(0, "a").write(0.5, "b", kind="selfsubjectaccessreviews").lease(1, "b", status=409)
    assert found(log) == []
    assert writes_of(log) == []
