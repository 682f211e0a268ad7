"""What users do to tenants that have a place on a shard, and the troubles of an API server that concern it.

See `acts` and `faults`, which have those without.
"""

from __future__ import annotations

from typing import Any

from tenantry.domain import names
from tests.faults.acts import ACTS as PLAIN
from tests.faults.acts import EVERYTHING, PATIENCE, SPEC, Act, Step
from tests.faults.faults import (
    BROKEN,
    CONFLICT,
    FORBIDDEN,
    TIMED_OUT,
    Changed,
    Instead,
    Lost,
    Told,
    Trouble,
    Unheard,
    anything,
    lasting,
    statuses,
    writes,
)
from tests.faults.proxy import Fault
from tests.faults.view import View
from tests.integration.conftest import Api, condition, in_phase, is_ready, tenant
from tests.integration.shards import contents_of

SUSPENSION, DELETION = PLAIN["suspension"], PLAIN["deletion Delete"]
SHARDS = ("shard-a", "shard-b")


def _settled(view: View, name: str) -> bool:
    """Tell whether a tenant is Ready and was probed: that is the last thing which is written."""
    found = view.get("Tenant", name)
    return is_ready(found) and (condition(found, "IsolationVerified") or {}).get("status") == "True"


def _said(view: View, name: str, key: str) -> str:
    """Return what the Secret of a tenant says, empty where there is none."""
    secret = view.get("Secret", names.VECTOR_STORE, f"tenant-{name}")
    return contents_of(secret).get(key, "") if secret and "data" in secret else ""


async def _create(api: Api, view: View, name: str, **spec: Any) -> None:
    where = {"vectorStore": {"dimensions": 3, "shard": SHARDS[0]}}
    await api.apply(tenant(name, **SPEC | where | spec))


def _placed(**spec: Any) -> Step:
    async def prepare(api: Api, view: View, name: str) -> None:
        await _create(api, view, name, **spec)
        await view.until(lambda: _settled(view, name), f"Tenant {name} is Ready and probed", PATIENCE, name)

    return prepare


async def _rotate(api: Api, view: View, name: str) -> None:
    await api.patch("Tenant", name, {"metadata": {"annotations": {names.ROTATE: "once"}}})


async def _drop_the_secret(api: Api, view: View, name: str) -> None:
    await api.delete("Secret", names.VECTOR_STORE, f"tenant-{name}")


async def _move(api: Api, view: View, name: str) -> None:
    move = {"kind": "TenantMove", "metadata": {"name": name}}
    await api.apply({**move, "spec": {"tenant": name, "targetShard": SHARDS[1]}})


def _moved(view: View, name: str) -> bool:
    done = in_phase("Cleaning")(view.get("TenantMove", name))
    return done and _settled(view, name) and _said(view, name, "shard") == SHARDS[1]


def _rotated(view: View, name: str) -> bool:
    return _settled(view, name) and _said(view, name, "generation") == "2"


def _restored(view: View, name: str) -> bool:
    return _settled(view, name) and _said(view, name, "generation") == "1"


ACTS: dict[str, Act] = {
    "onboarding with a place": Act(
        PLAIN["onboarding"].prepare,
        _create,
        _settled,
        EVERYTHING | {"secrets"},
        writers=2,  # of the status: where it is placed, and how it stands
    ),
    "rotation of credentials": Act(_placed(), _rotate, _rotated, frozenset({"secrets"})),
    "a deleted Secret": Act(_placed(), _drop_the_secret, _restored, frozenset({"secrets"})),
    "suspension with a place": Act(_placed(), SUSPENSION.begin, SUSPENSION.done, SUSPENSION.writes),
    "a move": Act(
        _placed(),
        _move,
        _moved,
        frozenset({"tenantmoves", "secrets", "networkpolicies"}),
        "TenantMove",
        writers=2,  # of the Secret: the move, and its tenant
    ),
    "deletion Delete with a place": Act(
        _placed(deletionPolicy="Delete"),
        DELETION.begin,
        DELETION.done,
        DELETION.writes,
        ends=True,
    ),
}


WITHOUT_STATUS = ("rotation of credentials", "a deleted Secret")


def _fleeting(fault: Fault) -> Trouble:
    return Trouble(fault, anything, first=1)


def _of_statuses(fault: Fault) -> Trouble:
    """Of acts by which what a status says changes: where a tenant is placed is written there too."""
    return Trouble(fault, statuses, acts=frozenset({name for name in ACTS if name not in WITHOUT_STATUS}))


TROUBLES: dict[str, Trouble] = {
    "409 for Secrets": lasting(Instead(CONFLICT), "secrets", "Conflict", "has been modified"),
    "403 for Secrets": lasting(Instead(FORBIDDEN), "secrets", "Refused", "the role was taken away"),
    "500 for Secrets": lasting(
        Instead(BROKEN), "secrets", "ApiUnavailable", "/secrets.* with 500: .*etcdserver"
    ),
    "every write cut off": Trouble(Lost(), writes(), told=Told("ApiUnavailable", "did not answer")),
    "every answer to a write cut off": Trouble(Unheard(), writes()),
    "500 for the status": _of_statuses(Instead(BROKEN)),
    "409 for the status": _of_statuses(Instead(CONFLICT)),
    "every answer to a status cut off": _of_statuses(Unheard()),
    "409 at first": _fleeting(Instead(CONFLICT)),
    "500 at first": _fleeting(Instead(BROKEN)),
    "cut off at first": _fleeting(Lost()),
    "done and cut off at first": _fleeting(Unheard()),
    "done and 504 at first": _fleeting(Changed(lambda _: TIMED_OUT)),
}
