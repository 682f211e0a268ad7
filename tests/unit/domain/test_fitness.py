"""Which servers may be shards, and what people are told of those that may not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tenantry.domain.fitness import ServerFacts, unfit

GOOD = ServerFacts("18.4", None, "0.8.5", superuser=True, standby=False)

DAMAGE = "there may damage indexes or show rows of other tables"


@pytest.mark.parametrize(
    "facts",
    [
        GOOD,
        replace(GOOD, installed="0.8.4"),
        replace(GOOD, installed="0.10.0", available=None),
        replace(GOOD, version="16.14"),
        replace(GOOD, version="19beta1"),
    ],
)
def test_fit(facts: ServerFacts) -> None:
    assert unfit(facts) is None


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (replace(GOOD, version="15.20"), "the server is PostgreSQL 15.20: use 16 or newer"),
        (replace(GOOD, standby=True), "the server is a standby and takes no writes: name the primary"),
        (replace(GOOD, available=None), "the server has no pgvector: install version 0.8.4 or newer there"),
        (
            replace(GOOD, installed="0.8.3"),
            f"pgvector 0.8.3 {DAMAGE}: run ALTER EXTENSION vector UPDATE in the database",
        ),
        (
            replace(GOOD, available="0.6.0"),
            f"pgvector 0.6.0 {DAMAGE}: install 0.8.4 or newer on the server",
        ),
        (
            replace(GOOD, superuser=False),
            "the operator's user there is no superuser and cannot close what tells tenants of each other: use one",
        ),
    ],
)
def test_unfit(facts: ServerFacts, said: str) -> None:
    assert unfit(facts) == said


def test_it_is_told_in_one_line() -> None:
    assert str(GOOD) == "PostgreSQL 18.4, pgvector 0.8.5"
    assert str(replace(GOOD, available=None)) == "PostgreSQL 18.4, no pgvector"
