"""What a bad API server, or whatever stands before it, does to requests: named faults for every controller's tests.

    Trouble ──► Selected(fault, where, first) ──► Ward: one Selected for each tenant ──► Proxy.fault

A fault says what happens to a request, `where` to which requests, `first` for how long: None is until it is lifted.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tests.faults.proxy import Answer, Cut, Fault, Object, Request, refusal
from tests.faults.rivals import Rival, fighter, holder

Where = Callable[[Request], bool]

PAGE = Answer(200, b"<html><body>Please log in</body></html>", {"Content-Type": "text/html"})
"""What a proxy that thinks itself cleverer than its users answers in place of the API server."""


class Instead(Fault):
    """Another answer comes in place of the API server's, which never hears of the request."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def before(self, request: Request) -> Answer | None:
        return self._answer


class Changed(Fault):
    """The request is done, and its answer is another."""

    def __init__(self, change: Callable[[Answer], Answer]) -> None:
        self._change = change

    async def after(self, request: Request, answer: Answer) -> Answer:
        return self._change(answer)


class Lost(Fault):
    """The connection breaks before the API server hears of the request."""

    async def before(self, request: Request) -> Answer | None:
        raise Cut


class Unheard(Fault):
    """The request is done, and the connection breaks before the answer."""

    async def after(self, request: Request, answer: Answer) -> Answer:
        raise Cut


class Late(Fault):
    """The API server hears of the request after so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def before(self, request: Request) -> Answer | None:
        await asyncio.sleep(self._seconds)
        return None


class Hanging(Fault):
    """No answer comes as long as the client waits; with `done` the request is done all the same."""

    def __init__(self, *, done: bool) -> None:
        self._done = done

    async def before(self, request: Request) -> Answer | None:
        return None if self._done else await _forever()

    async def after(self, request: Request, answer: Answer) -> Answer:
        return await _forever() if self._done else answer


async def _forever() -> Answer:
    """Wait until the client hangs up: the proxy then cancels what serves it."""
    await asyncio.Event().wait()
    raise AssertionError


class Selected(Fault):
    """Befalls those requests that `where` tells, of each subject (a verb on an object) the first so many."""

    def __init__(self, fault: Fault, where: Where, first: int | None = None) -> None:
        self._fault = fault
        self._where = where
        self._first = first
        self._seen: Counter[str] = Counter()
        self._hit: set[int] = set()
        self.met: list[Request] = []
        """The requests, and what watches tell, that it befell."""
        self.hit = asyncio.Event()
        """Set when there is one."""

    async def before(self, request: Request) -> Answer | None:
        if not self._where(request):
            return None
        self._seen[str(request)] += 1
        if self._first is not None and self._seen[str(request)] > self._first:
            return None
        self._hit.add(request.number)
        self._note(request)
        return await self._fault.before(request)

    async def after(self, request: Request, answer: Answer) -> Answer:
        return await self._fault.after(request, answer) if request.number in self._hit else answer

    def events(self, request: Request, event: Object) -> Iterable[Object]:
        told = telling(request, event)
        if not self._where(told):
            return (event,)
        self._note(told)
        return self._fault.events(request, event)

    def _note(self, request: Request) -> None:
        self.met.append(request)
        self.hit.set()


class Ward(Fault):
    """Gives each tenant a fault of its own; requests about others pass."""

    def __init__(self) -> None:
        self.faults: dict[str, Fault] = {}

    async def before(self, request: Request) -> Answer | None:
        return await self._of(request).before(request)

    async def after(self, request: Request, answer: Answer) -> Answer:
        return await self._of(request).after(request, answer)

    def events(self, request: Request, event: Object) -> Iterable[Object]:
        return self._of(telling(request, event)).events(request, event)

    def _of(self, request: Request) -> Fault:
        return self.faults.get(tenant_of(request, self.faults), Fault())


def telling(watch: Request, event: Object) -> Request:
    """Return an event of a watch as if it were a request, with the verb "tell", about the object."""
    metadata = event["object"].get("metadata") or {}
    name, namespace = metadata.get("name", ""), metadata.get("namespace", "")
    return Request(watch.number, watch.door, "tell", watch.kind, name, namespace)


def tenant_of(request: Request, tenants: Collection[str] | Mapping[str, object]) -> str:
    """Return the tenant that a request concerns, empty where it is none of these.

    Namespaces are called tenant-<name>, archives <name>-<8 digits>, Events <object>.<number>.
    """
    if request.verb in ("watch", "list"):
        return ""
    if request.kind == "namespaces" or request.namespace.startswith("tenant-"):
        found = (request.namespace or request.name).removeprefix("tenant-")
    elif request.kind in ("tenants", "plans"):
        found = request.name
    else:
        found = request.name.partition(".")[0]
    if found not in tenants:
        found = found.rpartition("-")[0]
    return found if found in tenants else ""


def writes(*kinds: str) -> Where:
    """Return a test for writes of these kinds (plural), of any where none is named; status is told apart."""
    return lambda request: (
        request.is_write and request.subresource == "" and (not kinds or request.kind in kinds)
    )


def statuses(request: Request) -> bool:
    """Whether it writes how something stands."""
    return request.is_write and request.subresource == "status"


def reads(request: Request) -> bool:
    """Whether it reads one object."""
    return request.verb == "get"


def applies(*kinds: str) -> Where:
    """Return a test for applies of these kinds."""
    return lambda request: request.verb == "apply" and writes(*kinds)(request)


def about_events(request: Request) -> bool:
    """Whether it tells an Event."""
    return request.kind == "events"


def anything(request: Request) -> bool:
    """Whether it is a request; watches are, what they tell is not."""
    return request.verb != "tell"


def nothing(_: Request) -> bool:
    """No request."""
    return False


def truncated(answer: Answer) -> Answer:
    """Return the first half of an answer, as if that were all of it."""
    return Answer(answer.status, answer.body[: len(answer.body) // 2], answer.headers)


class Told(NamedTuple):
    """What `Ready` says while a fault lasts: the reason, and words that its message must have."""

    reason: str
    words: str


@dataclass(frozen=True)
class Trouble:
    """A fault of a tenant's requests.

    told: what its conditions say while it lasts; None where nothing can be said, or nothing is amiss.
    kinds: those that it befalls, of which an act must write one to be worth the time. acts: the only ones that are.
    gap: the seconds that the server asks for by Retry-After before a request about that object is sent again.
    rival: somebody who is in the way, instead of a fault or beside it. fights: what is put back counts no repair.
    """

    fault: Fault
    where: Where
    first: int | None = None
    told: Told | None = None
    kinds: frozenset[str] = frozenset()
    acts: frozenset[str] = frozenset()
    gap: float = 0.0
    rival: Rival | None = None
    fights: bool = False


def lasting(
    fault: Fault, kind: str, reason: str, words: str, *, acts: Collection[str] = (), gap: float = 0.0
) -> Trouble:
    """Return a trouble with writes of one kind until it is lifted, and what its conditions say meanwhile."""
    return Trouble(fault, writes(kind), None, Told(reason, words), frozenset({kind}), frozenset(acts), gap)


def _silent(fault: Fault, where: Where, *acts: str, first: int | None = None) -> Trouble:
    return Trouble(fault, where, first, acts=frozenset(acts))


def _rivalry(rival: Rival, reason: str, words: str, *acts: str, fights: bool = False) -> Trouble:
    told = Told(reason, words)
    return Trouble(Fault(), nothing, told=told, acts=frozenset(acts), rival=rival, fights=fights)


def _fleeting(fault: Fault, *acts: str) -> Trouble:
    return Trouble(fault, anything, first=2, acts=frozenset(acts))


CONFLICT = refusal(
    409, "Conflict", "the object has been modified; please apply your changes to the latest version"
)
INVALID = refusal(422, "Invalid", "the value is invalid: spec.hard: Forbidden: policy no-quotas says no")
FORBIDDEN = refusal(403, "Forbidden", "User tenantry cannot do that: the role was taken away")
NOT_FOUND = refusal(404, "NotFound", "the namespace was not found")
BUSY = refusal(429, "TooManyRequests", "too many requests, please try again later", retry_after="2")
BUSY_AT_ONCE = refusal(429, "TooManyRequests", "too many requests, please try again later")
BUSY_FOR_LONG = refusal(429, "TooManyRequests", "too many requests, please try again later", retry_after="9")
BROKEN = refusal(500, "InternalError", "Internal error occurred: etcdserver: request timed out")
UNMANAGEABLE = refusal(500, "", "failed to create manager for existing fields: failed to convert new object")
AWAY = refusal(503, "ServiceUnavailable", "the server is currently unable to handle the request")
TIMED_OUT = refusal(504, "Timeout", "Timeout: request did not complete within requested timeout")
UNKNOWN = refusal(401, "Unauthorized", "Unauthorized")
GATEWAY = Answer(502, b"<html><body><h1>502 Bad Gateway</h1></body></html>", {"Content-Type": "text/html"})
MOVED = Answer(302, b"", {"Location": "/login"})

SOME = ("onboarding", "drift")
STAYING = ("onboarding", "plan edit", "suspension", "drift", "deletion Retain", "restore")
"""Acts that leave the namespace: the namespace controller takes seconds for each of the others."""

TROUBLES: dict[str, Trouble] = {
    # Until it is lifted, for writes of one kind: all else goes on, and the conditions say what is waited for.
    "409 for quotas": lasting(Instead(CONFLICT), "resourcequotas", "Conflict", "has been modified"),
    "409 for network policies": lasting(
        Instead(CONFLICT), "networkpolicies", "Conflict", "has been modified"
    ),
    "422 for quotas": lasting(Instead(INVALID), "resourcequotas", "Refused", "policy no-quotas says no"),
    "403 for network policies": lasting(Instead(FORBIDDEN), "networkpolicies", "Refused", "was taken away"),
    "404 for quotas": lasting(
        Instead(NOT_FOUND), "resourcequotas", "Conflict", "the namespace was not found", acts=SOME
    ),
    "429 with Retry-After for bindings": lasting(
        Instead(BUSY), "rolebindings", "ApiUnavailable", "/rolebindings.* with 429: too many", gap=2.0
    ),
    "429 with a long Retry-After for quotas": lasting(
        Instead(BUSY_FOR_LONG), "resourcequotas", "ApiUnavailable", "/resourcequotas.* with 429", gap=9.0
    ),
    "500 for quotas": lasting(
        Instead(BROKEN), "resourcequotas", "ApiUnavailable", "/resourcequotas.* with 500: .*etcdserver"
    ),
    "503 for namespaces": lasting(
        Instead(AWAY), "namespaces", "ApiUnavailable", "/namespaces.* with 503: .*unable to handle"
    ),
    "503 for archives": lasting(Instead(AWAY), "tenantarchives", "ApiUnavailable", "/tenantarchives/.*503"),
    "403 for tenants": lasting(Instead(FORBIDDEN), "tenants", "Refused", "the role was taken away"),
    "403 for archives": lasting(Instead(FORBIDDEN), "tenantarchives", "Refused", "the role was taken away"),
    "401 for bindings": lasting(
        Instead(UNKNOWN), "rolebindings", "ApiUnavailable", "/rolebindings.* with 401", acts=SOME
    ),
    "302 for quotas": lasting(
        Instead(MOVED), "resourcequotas", "ApiUnavailable", "/resourcequotas.* with 302", acts=SOME
    ),
    "a web page for quotas": lasting(
        Instead(PAGE), "resourcequotas", "ApiUnavailable", "/resourcequotas.* no JSON", acts=SOME
    ),
    "502 of a proxy for quotas": lasting(
        Instead(GATEWAY), "resourcequotas", "ApiUnavailable", "/resourcequotas.* with 502", acts=SOME
    ),
    "every write cut off": Trouble(Lost(), writes(), told=Told("ApiUnavailable", "did not answer")),
    "admission refuses quotas": Trouble(
        Instead(INVALID),
        lambda request: writes("resourcequotas")(request) and request.verb != "delete",
        told=Told("Refused", "policy no-quotas says no"),
        kinds=frozenset({"resourcequotas"}),
    ),
    # Until it is lifted, by somebody else on an API server with which nothing is amiss.
    "something holds the namespace": _rivalry(
        holder, "NamespaceTerminating", "hold.example/backup", "onboarding", "purge", "deletion Delete"
    ),
    "another manager fights for the quota": _rivalry(
        fighter, "ChildDiffers", "does not stay as it was written", "onboarding", "plan edit", fights=True
    ),
    # Until it is lifted, and nothing can be said about it, or nothing need be.
    "every answer to a write cut off": _silent(Unheard(), writes()),
    "every answer to a write cut short": _silent(Changed(truncated), writes(), *STAYING),
    "configuration that no apply goes over": _silent(
        Instead(UNMANAGEABLE), applies("configmaps"), "plan edit", "drift"
    ),
    "403 for the status": _silent(Instead(FORBIDDEN), statuses, "onboarding", "plan edit", "deletion Delete"),
    "409 for the status": _silent(Instead(CONFLICT), statuses, "onboarding", "restore"),
    "500 for the status": _silent(Instead(BROKEN), statuses, "onboarding", "deletion Retain"),
    "500 for reads": _silent(Instead(BROKEN), reads, "purge"),
    "403 for Events": _silent(Instead(FORBIDDEN), about_events, "onboarding", "suspension"),
    "every answer after 300 ms": _silent(Late(0.3), anything, "onboarding", "deletion Retain"),
    "a write hangs": _silent(Hanging(done=False), writes("resourcequotas"), *SOME, first=1),
    "a write is done and hangs": _silent(Hanging(done=True), writes("resourcequotas"), *SOME, first=1),
    # The first two requests of each verb about each object, whatever they are.
    "409 at first": _fleeting(Instead(CONFLICT)),
    "422 at first": _fleeting(Instead(INVALID), *STAYING),
    "403 at first": _fleeting(Instead(FORBIDDEN), "onboarding", "restore"),
    "429 at first": _fleeting(Instead(BUSY_AT_ONCE), "onboarding", "deletion Retain"),
    "500 at first": _fleeting(Instead(BROKEN), *STAYING),
    "503 at first": _fleeting(Instead(AWAY), "suspension", "restore"),
    "401 at first": _fleeting(Instead(UNKNOWN), "onboarding", "deletion Retain"),
    "a web page at first": _fleeting(Instead(PAGE), *STAYING),
    "cut off at first": _fleeting(Lost(), *STAYING),
    "done and cut off at first": _fleeting(Unheard()),
    "done and cut short at first": _fleeting(Changed(truncated), "onboarding", "plan edit", "restore"),
    "done and 504 at first": _fleeting(Changed(lambda _: TIMED_OUT), *STAYING),
}
