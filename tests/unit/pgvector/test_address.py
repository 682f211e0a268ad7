"""What an address says, and the one that an application is given in its stead."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest

from tenantry.adapters.pgvector.credentials import Key
from tenantry.adapters.pgvector.engine import PgvectorEngine
from tenantry.domain.places import Place, Record
from tenantry.domain.vectors import Shape
from tenantry.reconcile.ports import Refused

RECORD = Record(
    Place("acme", "uid", "owner", 3, Shape(3), datetime(2026, 11, 25, tzinfo=UTC)), "0123456789abcdef"
)


def access(address: str) -> Mapping[str, str]:
    """Return what an application is told by an engine that has read the shard's key."""
    engine = PgvectorEngine("one", address)
    engine._key = Key(bytes(32))
    return engine.access(RECORD)


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        ("postgresql://postgres:hunter2@db.data.svc:6543/vectors", ("db.data.svc", 6543)),
        ("postgres://postgres@db.data.svc/vectors", ("db.data.svc", 5432)),
        ("postgresql://postgres:hunter2@[fd00::5]:5433/vectors", ("fd00::5", 5433)),
        ("postgresql://postgres:x@one:5433,two:5434/vectors", ("one", 5433)),
        ("host=db.data.svc port=6543 user=postgres dbname=vectors", ("db.data.svc", 6543)),
    ],
)
def test_the_endpoint_is_that_of_the_address(address: str, endpoint: tuple[str, int]) -> None:
    assert PgvectorEngine("one", address).endpoint == endpoint


@pytest.mark.parametrize(
    "address",
    [
        "",
        "hunter2",
        "postgresql://",
        "postgresql:///vectors",
        "postgresql://db.data.svc/vectors",
        "postgresql://postgres:hunter2@[fd00/vectors",
        "postgresql://postgres:hunter2@db:port/vectors",
        "postgresql://postgres:hunter2@db:70000/vectors",
        "https://postgres:hunter2@db/vectors",
    ],
)
def test_what_is_no_address_is_refused_without_being_repeated(address: str) -> None:
    with pytest.raises(Refused, match="is no address") as error:
        PgvectorEngine("one", address)
    assert "hunter2" not in str(error.value)


def test_an_application_learns_nothing_of_the_operators_access() -> None:
    told = access(
        "postgresql://postgres:hunter2@db.data.svc/vectors?sslmode=verify-full&sslrootcert=/etc/ca.crt"
    )
    assert "hunter2" not in str(told)
    assert "/etc/ca.crt" not in str(told)
    assert told["user"] == "t_0123456789abcdef_a"
    assert told["dsn"].endswith("/vectors?sslmode=verify-full")


@pytest.mark.parametrize("host", ["db.data.svc", "[fd00::5]"])
def test_the_address_is_made_of_the_same_parts_as_are_told_besides(host: str) -> None:
    told = access(f"postgresql://postgres:hunter2@{host}:6543/a%20database")
    parts = urlsplit(told["dsn"])
    assert (parts.hostname, str(parts.port)) == (told["host"], told["port"])
    assert (parts.username, parts.password) == (told["user"], told["password"])
    assert parts.path == "/a%20database"
    assert told["database"] == "a database"


def test_a_database_that_is_not_named_is_that_of_the_user() -> None:
    assert access("postgresql://postgres:x@db")["database"] == "postgres"
