"""Anything that users do, in any order, at any moment: in the end each tenant is as if it had just been applied.

Hypothesis draws what several people do to a few tenants that may get into each other's way: they apply, edit,
delete and re-create Tenants and Plans, give and take namespaces, meddle with children by hand, delete archives, let
time pass. Between two acts the operator does nothing, a few steps, or all that is to be done; it may be restarted,
and the ledger may be away. `onlooker` checks every write, `at_rest` everything once nothing is left to do.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.faults.simulated.acts_on_children import ActsOnChildren
from tests.faults.simulated.acts_on_tenants import ActsOnTenants

STEPS = 50
EXAMPLES = 90
"""Of the random test, about 30 s; `make soak` does as many for each seed."""

EXAMPLES_AS_EVER = 15
"""About 6 s."""

pytestmark = pytest.mark.timeout(600)
"""Hypothesis takes up to five minutes to find the shortest way to a failure."""


class Transitions(ActsOnTenants, ActsOnChildren):
    """All that users do."""


def walk(**options: Any) -> None:
    """Do what Hypothesis draws; a failure is told with the acts that lead to it and how to repeat them."""
    own = settings(
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        database=None,
        **options,
    )
    run_state_machine_as_test(Transitions, settings=own)


@pytest.mark.random
def test_whatever_users_do_each_tenant_ends_as_a_fresh_one() -> None:
    walk(max_examples=EXAMPLES, derandomize=False)


def test_the_same_as_ever() -> None:
    walk(max_examples=EXAMPLES_AS_EVER, derandomize=True)
