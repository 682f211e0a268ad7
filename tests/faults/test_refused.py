"""Hostile documents on a real API server: refused in words that name the field and what is wrong with it.

No operator runs: what is refused never reaches one.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import Cluster
from tests.faults.hostile import REFUSED, Refused, tenant
from tests.faults.innocent import PLANS, applied
from tests.integration.conftest import Api

AT_ONCE = 4
"""How many kubectl run beside each other."""

API_SERVERS_OWN = ("some validation rules were not checked", "<nil>:")
"""What an API server adds to a refusal by itself."""

Said = dict[str, tuple[int, str]]


@pytest.fixture(scope="module")
def said(cluster: Cluster) -> Said:
    """The exit code and the words of kubectl, by case."""

    def ask(case: Refused) -> tuple[int, str]:
        return applied(cluster, case.document)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return dict(zip(REFUSED, threads.map(ask, REFUSED.values()), strict=True))


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_words_that_name_the_field(said: Said, case: str) -> None:
    code, stderr = said[case]
    assert code != 0, "let in"
    for words in REFUSED[case].words:
        assert words in stderr
    assert not re.search(r"cost budget|panic|goroutine|Internal error", stderr, re.IGNORECASE)


async def test_nothing_of_all_that_is_there(said: Said, api: Api) -> None:
    assert all(code for code, _ in said.values())
    listed = [await api.list(kind) for kind in ("Tenant", "TenantArchive", "Plan")]
    assert {item["metadata"]["name"] for items in listed for item in items} == PLANS


async def test_one_bad_document_among_good_ones_is_refused_alone(cluster: Cluster, api: Api) -> None:
    items = [tenant("one"), tenant("two", plan="No Plan"), tenant("three")]
    code, stderr = applied(cluster, {"apiVersion": "v1", "kind": "List", "items": items})
    assert code != 0
    (line,) = [line for line in stderr.splitlines() if not any(words in line for words in API_SERVERS_OWN)]
    assert line.startswith(
        'The Tenant "two" is invalid: spec.plan: Invalid value: "No Plan": must be a name of a-z'
    )
    assert {item["metadata"]["name"] for item in await api.list("Tenant")} == {"one", "three"}
    for name in ("one", "three"):
        await api.delete("Tenant", name)
