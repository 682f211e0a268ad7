"""What users do to tenants on a real API server: after each act a tenant is as a fresh one with its spec would be.

`simulated/test_transitions.py` does the same in thousands of orders; here are the real rules, defaults, field
managers and namespace controller. The fresh one is made under another name beside it, by the same operator.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from tests.conftest import Cluster
from tests.faults.users import ACTS, TENANTS, Act, Users
from tests.faults.view import View, viewed
from tests.integration.conftest import Api, OperatorProcess, is_ready, running

RANDOM_ACTS = 8
"""About 20 s; the fixed order, with each kind of act, takes about 35 s. A namespace is gone after five."""


@pytest.fixture(scope="module")
async def operator(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OperatorProcess]:
    """The operator, running; in the end it has said nothing of a bug."""
    process = OperatorProcess(cluster, tmp_path_factory.mktemp("operator"))
    with running(process):
        await process.start()
        yield process
    said = process.log.read_text()
    assert "Traceback" not in said
    assert "InternalError" not in said


@pytest.fixture
async def view(api: Api) -> AsyncIterator[View]:
    """Everything that is there, by watches."""
    async with viewed(api.client) as view:
        yield view


async def walk(api: Api, view: View, seed: int, acts: list[Act]) -> None:
    """Do these acts, each to one of the tenants; whoever it may concern is as a fresh one then."""
    users = Users(api, view, seed)
    for name in TENANTS:
        await users.apply(name, plan="pro")
        await users.told(name, is_ready, "Ready")
    for number, act in enumerate(acts):
        name = TENANTS[number % len(TENANTS)]
        what = f"act {number + 1}, {act.__name__} {name}, seed {seed}"
        try:
            await act(users, name)
            concerned = TENANTS if act in (Users.edits_its_plan, Users.loses_its_plan) else (name,)
            for each in concerned:
                await users.like_fresh(each)
        except BaseException as error:
            error.add_note(what)
            raise
    for name in TENANTS:
        await users.like_fresh(name)
    await asyncio.gather(*(clean_up(users, name) for name in TENANTS))


async def clean_up(users: Users, name: str) -> None:
    """Remove a tenant; also its namespace where that was adopted."""
    await users.leave(name)
    await users.api.delete("Namespace", f"tenant-{name}")
    await users.gone("Namespace", f"tenant-{name}")


@pytest.mark.usefixtures("operator")
async def test_each_kind_of_act(api: Api, view: View) -> None:
    await walk(api, view, 1, ACTS)


@pytest.mark.random
@pytest.mark.usefixtures("operator")
async def test_acts_in_any_order(api: Api, view: View, seed: int) -> None:
    await walk(api, view, seed, random.Random(seed).choices(ACTS, k=RANDOM_ACTS))
