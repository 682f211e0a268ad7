"""What a user gets to read when the ledger's URL or the ledger itself is not as it should be."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import psycopg
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sqlalchemy import URL
from sqlalchemy.exc import OperationalError

from tenantry.adapters.ledger import LedgerError, errors
from tenantry.adapters.ledger.database import async_engine, parse_url
from tenantry.adapters.ledger.errors import location, sentence

PASSWORD = "s3cr3t-Hunter2"


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("postgres://db.example/ledger", "postgresql+psycopg"),
        ("postgresql://db.example/ledger", "postgresql+psycopg"),
        ("postgresql+asyncpg://db.example/ledger", "postgresql+psycopg"),
        ("sqlite:///ledger.db", "sqlite+aiosqlite"),
        ("sqlite+pysqlite:///ledger.db", "sqlite+aiosqlite"),
    ],
)
def test_urls_are_normalised_to_our_drivers(url: str, driver: str) -> None:
    assert async_engine(parse_url(url)).url.drivername == driver


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "cannot be read"),
        ("ledger.db", "cannot be read"),
        (f"postgres://tenantry:a@b:{PASSWORD}/ledger", "cannot be read"),
        (f"postgres://tenantry:a@{PASSWORD}@db/ledger", "percent-encoded"),
        (f"postgres://tenantry:a@{PASSWORD}?b@db/ledger", "percent-encoded"),
        (f"mysql://tenantry:{PASSWORD}@db/ledger", "does not know: write sqlite:///<path> or postgresql://"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:////no/such/directory/ledger.db", "create /no/such/directory first"),
        ("sqlite:////tmp", "is a directory"),
    ],
)
def test_a_url_that_cannot_work_is_refused_without_repeating_it(url: str, says: str) -> None:
    with pytest.raises(LedgerError, match=says) as refused:
        parse_url(url)
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"postgresql://tenantry:{PASSWORD}@db/ledger", "PostgreSQL at db:5432, database ledger"),
        (f"postgresql://tenantry:{PASSWORD}@db:6432/ledger", "PostgreSQL at db:6432, database ledger"),
        (f"postgresql://tenantry:{PASSWORD}@[::1]:6432/ledger", "PostgreSQL at [::1]:6432, database ledger"),
        ("postgresql:///ledger?host=/run/postgresql", "PostgreSQL at /run/postgresql, database ledger"),
        ("postgresql:///ledger?host=a:1&host=b:2", "PostgreSQL at a:1,b:2, database ledger"),
        ("postgresql://tenantry@db", "PostgreSQL at db:5432, database tenantry"),
    ],
)
def test_a_location_holds_neither_user_nor_password(url: str, says: str) -> None:
    assert location(parse_url(url)) == says


@given(password=st.text(min_size=1), spot=st.sampled_from(["authority", "query"]))
def test_no_error_repeats_a_password(password: str, spot: str) -> None:
    url = URL.create("postgresql", "u", password if spot == "authority" else None, "h", None, "d")
    if spot == "query":
        url = url.update_query_dict({"password": password})
    prefix = sentence(psycopg.OperationalError(""), url).removesuffix("OperationalError")
    chance = (f"***{prefix}", '***"', *errors._PHRASES.values())
    assume(not any(password in said for said in chance))
    error = OperationalError("SELECT 1", {}, psycopg.OperationalError(f'invalid option "{password}"'))
    assert password not in sentence(error, url).removeprefix(prefix).replace('invalid option "', "")


def test_an_error_is_one_sentence_without_the_statement() -> None:
    original = psycopg.OperationalError(
        'connection failed: connection to server at "10.0.0.1", port 5432 failed: FATAL:  too many clients\n'
        "\tMultiple connection attempts failed."
    )
    said = sentence(
        OperationalError("INSERT INTO audit", {"name": "acme"}, original), parse_url("postgres://db/l")
    )
    assert said == "the ledger (PostgreSQL at db:5432, database l) fails: too many clients"


def test_an_unknown_error_without_a_text_is_named() -> None:
    said = sentence(ConnectionResetError(), parse_url("postgres://db/l"))
    assert said.endswith("fails: ConnectionResetError")


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database at all, but long enough to be taken for the header of one " * 20)
    with pytest.raises(sqlite3.DatabaseError) as met:
        sqlite3.connect(path).execute("SELECT * FROM sqlite_master")
    assert "is not an SQLite database" in sentence(met.value, parse_url(f"sqlite:///{path}"))
