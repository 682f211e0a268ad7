"""What goes wrong with news on their way from a real API server: watches that lose, repeat or mix up, old answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable

from tests.faults.faults import Trouble, Where, reads
from tests.faults.proxy import Answer, Fault, Object, Request

EXPIRED = Answer(
    200,
    json.dumps(
        {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old resource version"}}
    ).encode()
    + b"\n",
)
"""What a watch is answered that wants to go on from where the API server remembers nothing any more."""


class Never(Fault):
    """Watches tell nothing."""

    def events(self, request: Request, event: Object) -> Iterable[Object]:
        return ()


class Twice(Fault):
    """Watches tell everything twice."""

    def events(self, request: Request, event: Object) -> Iterable[Object]:
        return (event, event)


class Backwards(Fault):
    """Watches tell of two changes of an object the second one first, and the last of an odd number never."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, str, str], Object] = {}

    def events(self, request: Request, event: Object) -> Iterable[Object]:
        metadata = event["object"]["metadata"]
        key = (request.number, metadata.get("namespace", ""), metadata["name"])
        held = self._held.pop(key, None)
        if held is None:
            self._held[key] = event
            return ()
        return (event, held)


class Older(Fault):
    """Of each object every second read is answered as the first was."""

    def __init__(self) -> None:
        self._first: dict[str, Answer] = {}
        self._count: dict[str, int] = {}

    async def after(self, request: Request, answer: Answer) -> Answer:
        what = str(request)
        self._count[what] = self._count.get(what, 0) + 1
        first = self._first.setdefault(what, answer)
        return first if self._count[what] % 2 == 0 else answer


class Gap(Fault):
    """No watch is answered until it is over; then the first one of each kind comes too late, and has to list anew."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.told: set[str] = set()

    async def before(self, request: Request) -> Answer | None:
        if request.verb != "watch" or request.kind in self.told:
            return None
        await self.over.wait()
        self.told.add(request.kind)
        return EXPIRED


def told(*kinds: str) -> Where:
    """Return a test for what watches tell of these kinds (plural), of any where none is named."""
    return lambda request: request.verb == "tell" and (not kinds or request.kind in kinds)


CHILDREN = (
    *("namespaces", "resourcequotas", "limitranges", "serviceaccounts", "configmaps", "networkpolicies"),
    *("rolebindings", "controllerrevisions"),
)

STATUS = frozenset({"onboarding", "plan edit", "suspension", "deletion Retain", "restore", "deletion Delete"})
"""Acts by which the Tenant itself changes."""


def _of_children(name: str, fault: Fault, *acts: str) -> dict[str, Trouble]:
    return {
        f"{name} of {kind}": Trouble(fault, told(kind), kinds=frozenset({kind}), acts=frozenset(acts))
        for kind in CHILDREN
    }


def _of(kind: str, fault: Fault, *acts: str) -> Trouble:
    return Trouble(fault, told(kind), acts=frozenset(acts))


TROUBLES: dict[str, Trouble] = {
    "nothing is told": Trouble(Never(), told()),
    "everything is told twice": Trouble(Twice(), told()),
    "everything is told backwards": Trouble(Backwards(), told()),
    "old objects are read": Trouble(
        Older(), reads, acts=frozenset({"plan edit", "deletion Retain", "restore"})
    ),
    **_of_children("nothing is told", Never(), "onboarding", "drift", "deletion Retain"),
    **_of_children("the last is told first", Backwards(), "onboarding", "drift"),
    "nothing is told of tenants": _of("tenants", Never(), *STATUS),
    "the last is told first of tenants": _of("tenants", Backwards(), *STATUS),
    "nothing is told of plans": _of("plans", Never(), "plan edit"),
    "the last is told first of plans": _of("plans", Backwards(), "plan edit"),
    "nothing is told of archives": _of("tenantarchives", Never(), "deletion Retain", "restore", "purge"),
    "the last is told first of archives": _of("tenantarchives", Backwards(), "deletion Retain", "purge"),
}
