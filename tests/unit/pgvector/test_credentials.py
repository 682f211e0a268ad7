"""Tenants' passwords: derived, each another, and which of them are valid."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.adapters.pgvector.credentials import Key, fits, wanted
from tenantry.domain.places import Place
from tenantry.domain.vectors import Shape

KEY = Key(bytes(range(32)))
PLACE = Place("acme", "uid", "owner", 1, Shape(3), datetime(2026, 11, 25, tzinfo=UTC))


def test_a_password_is_what_it_was_in_every_version() -> None:
    """Another way to derive them would lock all applications out until their Secrets are written."""
    assert KEY.password("0123456789abcdef", 1) == "Z-YY-uqcD_0S6PkC9EFQ_AXqojyfvPRJ4hW7z3vrGZY"


@given(
    st.sets(
        st.tuples(st.sampled_from(("0123456789abcdef", "0123456789abcde0")), st.integers(1, 50)), min_size=2
    )
)
def test_every_place_and_number_has_another_password(places: set[tuple[str, int]]) -> None:
    passwords = {KEY.password(id_, number) for id_, number in places}
    assert len(passwords) == len(places)
    assert passwords.isdisjoint(Key(bytes(32)).password(id_, number) for id_, number in places)


def test_a_password_needs_no_escaping_in_an_address() -> None:
    assert all(
        character.isalnum() or character in "-_"
        for number in range(200)
        for character in KEY.password("0123456789abcdef", number)
    )


def test_the_key_is_not_shown() -> None:
    assert repr(KEY) == str(KEY) == "Key(...)"
    assert "Key(...)" in f"{[KEY]}"


@pytest.mark.parametrize(
    ("place", "logins"),
    [
        (PLACE, {"a": 1, "b": None}),
        (replace(PLACE, generation=2), {"a": None, "b": 2}),
        (replace(PLACE, generation=2, previous=True), {"a": 1, "b": 2}),
        (replace(PLACE, generation=7, previous=True), {"a": 7, "b": 6}),
        (replace(PLACE, previous=True), {"a": 1, "b": None}),
        (replace(PLACE, generation=2, previous=True, open=False), {"a": None, "b": None}),
    ],
)
def test_which_credentials_are_valid(place: Place, logins: dict[str, int | None]) -> None:
    assert wanted(place) == logins


VERIFIER = (
    "SCRAM-SHA-256$4096:fuv+lcSKTdTQGyaEI1m8yA==$La+U8qHWm2EzglEY9W8zkJJqqu"
    "NIi/197FEdONhZCQA=:gqJ6YmIxleyJ7hzob5Y96xB+c1gHx/2B/WFDEdX3ux0="
)
"""What PostgreSQL 18 keeps of `a password`."""


@pytest.mark.parametrize(
    ("verifier", "password", "fit"),
    [
        (VERIFIER, "a password", True),
        (VERIFIER, "another password", False),
        (VERIFIER, "", False),
        (VERIFIER.replace("SCRAM-SHA-256", "SCRAM-SHA-512"), "a password", False),
        (None, "a password", False),
        ("", "a password", False),
        ("md5c5b8a3c6a8b1f5c6d7e8f9a0b1c2d3e4", "a password", False),
        ("SCRAM-SHA-256$4096$x", "a password", False),
        ("SCRAM-SHA-256$many:c2FsdA==$a:b", "a password", False),
    ],
)
def test_what_the_server_keeps_tells_one_password_from_all_others(
    verifier: str | None, password: str, fit: bool
) -> None:
    assert fits(verifier, password) is fit
