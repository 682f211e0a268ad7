"""What goes wrong at writes to the API server or the ledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Crash(BaseException):
    """The process dies here: no `except` of the code under test may go on."""


class Write(NamedTuple):
    """One write to the API server, or (verb "record") to the ledger."""

    verb: str
    kind: str
    name: str
    namespace: str = ""


class Fault:
    """What goes wrong at writes; of this one nothing does."""

    def before(self, write: Write) -> None:
        """Raise what keeps a write from being done."""

    def after(self, write: Write) -> None:
        """Raise what keeps the answer to a write that was done from coming."""


class DiesAt(Fault):
    """The process dies before its next write of that verb to that kind."""

    def __init__(self, verb: str, kind: str) -> None:
        self.verb, self.kind = verb, kind

    def before(self, write: Write) -> None:
        if (write.verb, write.kind) == (self.verb, self.kind):
            raise Crash


class Refusing(Fault):
    """Writes that `which` picks fail, as often as `times`."""

    def __init__(self, which: Callable[[Write], bool], error: Exception, times: int = 1_000) -> None:
        self.which, self.error, self.times = which, error, times

    def before(self, write: Write) -> None:
        if self.times > 0 and self.which(write):
            self.times -= 1
            raise self.error


def applied(kind: str, name: str) -> Callable[[Write], bool]:
    """Pick the writes of one child's content."""

    def is_that(write: Write) -> bool:
        return (write.kind, write.name) == (kind, name) and write.verb in ("create", "apply", "replace")

    return is_that
