"""410 Gone: what happened while no watch ran is found by the list that follows, and only by that.

One gap for all: no watch is answered, everything below happens, then each is told that it comes too late.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from tenantry.adapters.kubernetes.kinds import CHILD_KINDS, OWN_KINDS
from tests.conftest import Cluster
from tests.faults.acts import SPEC, archive_of, phase
from tests.faults.news import Gap
from tests.faults.proxy import Fault, Object, Proxy
from tests.faults.view import View, picture, viewed
from tests.integration.conftest import Api, OperatorProcess, is_ready, running, tenant

PATIENCE_SECONDS = 60.0
QUIET_SECONDS = 2.5
SETTINGS = {"TENANTRY_LEASE_SECONDS": "60"}  # everything is listed anew every ten minutes: not in this test

Happening = Callable[[Api, str], Awaitable[None]]

REVISION = re.compile(r"((?:tenant-config-|[rR]evision\W{1,6}))\d+")

SYSTEM = ("uid", "resourceVersion", "creationTimestamp", "managedFields", "deletionTimestamp", "generation")


async def nothing(api: Api, name: str) -> None:
    """Leave a tenant as it is: the others must look like it."""


async def children_go(api: Api, name: str) -> None:
    for kind, child in (("NetworkPolicy", "tenantry-default-deny"), ("ResourceQuota", "tenantry")):
        await api.delete(kind, child, f"tenant-{name}")


async def children_come_again(api: Api, name: str) -> None:
    """Another object by the same name, with another UID and other content."""
    old = await api.get("ResourceQuota", "tenantry", f"tenant-{name}")
    await api.delete("ResourceQuota", "tenantry", f"tenant-{name}")
    await api.create("ResourceQuota", made_anew(old, spec={"hard": {"pods": "99"}}))


async def tenant_comes_again(api: Api, name: str) -> None:
    """Somebody forces its finalizers off, and applies it again."""
    await api.patch("Tenant", name, {"metadata": {"finalizers": None}})
    await api.delete("Tenant", name)
    await api.apply(tenant(name, **SPEC))


async def namespace_comes_again(api: Api, name: str) -> None:
    """Somebody makes it anew as it was marked, as a backup tool does, and nothing in it."""
    namespace = f"tenant-{name}"
    old = await api.get("Namespace", namespace)
    await api.delete("Namespace", namespace)
    await api.until("Namespace", namespace, lambda found: found is None, timeout=PATIENCE_SECONDS)
    await api.create("Namespace", made_anew(old))


async def namespace_goes(api: Api, name: str) -> None:
    await api.delete("Namespace", f"tenant-{name}")
    await api.until("Namespace", f"tenant-{name}", lambda found: found is None, timeout=PATIENCE_SECONDS)


async def tenant_goes(api: Api, name: str) -> None:
    await api.delete("Tenant", name)


async def tenant_is_torn_out(api: Api, name: str) -> None:
    """It is gone at once, with no leave taken; so are its namespace and all in it."""
    await api.patch("Tenant", name, {"metadata": {"finalizers": None}})
    await api.delete("Tenant", name)
    await namespace_goes(api, name)


def made_anew(old: Object | None, **content: Object) -> Object:
    """Return an object to create that has what identifies another, but for what the API server gives."""
    assert old is not None
    metadata = {key: value for key, value in old["metadata"].items() if key not in SYSTEM}
    return {"metadata": metadata, **content}


SAME: dict[str, Happening] = {
    "nothing happens": nothing,
    "children go": children_go,
    "a child comes again": children_come_again,
    "the tenant comes again": tenant_comes_again,
    "the namespace comes again": namespace_comes_again,
    "the namespace goes": namespace_goes,
}
"""By which a tenant is in the end as it was."""

LEAVING: dict[str, Happening] = {"the tenant goes": tenant_goes, "the tenant is torn out": tenant_is_torn_out}
HAPPENINGS = SAME | LEAVING


@dataclass
class Outcome:
    """How everybody looks in the end, by what happened to them. lists: how many there were since."""

    pictures: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, set[str]] = field(default_factory=dict)
    lists: int = 0
    problems: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
async def outcome(cluster: Cluster, api: Api, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Have it all happen in one gap."""
    folder = tmp_path_factory.mktemp("operator")
    outcome = Outcome()
    names = {what: f"t{number}" for number, what in enumerate(HAPPENINGS, 1)}
    async with Proxy(cluster) as proxy, viewed(api.client) as view:
        operator = OperatorProcess(await proxy.door("a", folder), folder, **SETTINGS)
        with running(operator):
            await operator.start()
            for name in names.values():
                await api.apply(tenant(name, **SPEC))
            for name in names.values():
                await api.until("Tenant", name, is_ready, timeout=PATIENCE_SECONDS)
            await proxy.quiet(QUIET_SECONDS)
            proxy.fault = gap = Gap()
            proxy.end_watches()
            await asyncio.gather(*(happen(api, names[what]) for what, happen in HAPPENINGS.items()))
            first = len(proxy.log)
            gap.over.set()
            await asyncio.gather(*(_end(view, what, names, outcome) for what in HAPPENINGS))
            await proxy.quiet(QUIET_SECONDS)
            outcome.lists = sum(request.verb == "list" for request in proxy.log[first:])
            assert len(gap.told) == len((*OWN_KINDS, *CHILD_KINDS)), "not every watch was told"
            proxy.fault = Fault()
            for what, name in names.items():
                outcome.pictures[what] = look(view, name)
                outcome.kinds[what] = {item["kind"] for item in view.of(name)}
            assert await asyncio.to_thread(operator.stop) == 0
    return outcome


def look(view: View, name: str) -> str:
    """Return how a tenant looks, whatever the number of its revision.

    With a namespace its revisions go: as its kinds are listed in one order or another, the operator knows that
    there was a first one, and puts it back, or that there was something, and counts on.
    """
    return REVISION.sub(r"\1N", picture(view.of(name), name))


async def _end(view: View, what: str, names: dict[str, str], outcome: Outcome) -> None:
    """Wait until a tenant looks as it must."""
    name, control = names[what], names["nothing happens"]

    def as_it_was() -> bool:
        return look(view, name) == look(view, control)

    def archived() -> bool:
        return view.get("Tenant", name) is None and phase(archive_of(view, name)) == "Kept"

    ends = {"the tenant goes": archived, "the tenant is torn out": lambda: not view.of(name)}
    try:
        await view.until(ends.get(what, as_it_was), what, PATIENCE_SECONDS, name)
    except AssertionError as error:
        outcome.problems[what] = str(error)


@pytest.mark.parametrize("what", SAME)
def test_everything_is_as_it_was_where(outcome: Outcome, what: str) -> None:
    assert what not in outcome.problems
    assert outcome.pictures[what].splitlines() == outcome.pictures["nothing happens"].splitlines()


def test_who_has_left_is_archived(outcome: Outcome) -> None:
    assert "the tenant goes" not in outcome.problems
    assert {"TenantArchive", "Namespace"} <= outcome.kinds["the tenant goes"]


def test_who_is_torn_out_leaves_nothing(outcome: Outcome) -> None:
    assert outcome.kinds["the tenant is torn out"] == set()


def test_each_kind_is_listed_once_or_twice(outcome: Outcome) -> None:
    # By the reflector or by Kopf, and ours once more, to see what Kopf cannot tell.
    assert 12 <= outcome.lists <= 25
