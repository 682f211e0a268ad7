"""Whether a PostgreSQL server is fit to be a shard, and what to change where it is not."""

from __future__ import annotations

from dataclasses import dataclass

LEAST_SERVER = 16
"""Older ones do not know all that tenants' roles and moves use."""

LEAST_VECTOR = (0, 8, 4)
"""0.8.2 mends CVE-2026-3172, by which building an index could put rows of other tables into it; 0.8.3 and 0.8.4 mend
indexes that vacuum and inserts damaged (pgvector's CHANGELOG)."""


@dataclass(frozen=True, slots=True)
class Fitness:
    """What a server of any engine is, in a few words, and what is wrong with it with the next step; None: nothing."""

    server: str
    unfit: str | None = None


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself.

    version: such as 18.4. installed, available: pgvector's version in the database, and that of the server's files;
    None: there is none. superuser: what the operator logs in as. standby: it takes no writes.
    """

    version: str
    installed: str | None
    available: str | None
    superuser: bool
    standby: bool

    @property
    def vector(self) -> str | None:
        """Return the version of pgvector that tenants get."""
        return self.installed or self.available

    def __str__(self) -> str:
        return f"PostgreSQL {self.version}, " + (f"pgvector {self.vector}" if self.vector else "no pgvector")


def unfit(facts: ServerFacts) -> str | None:
    """Return what is wrong with a server and the next step; None: it is fit."""
    least = ".".join(map(str, LEAST_VECTOR))
    if _numbers(facts.version)[:1] < (LEAST_SERVER,):
        return f"the server is PostgreSQL {facts.version}: use {LEAST_SERVER} or newer"
    if facts.standby:
        return "the server is a standby and takes no writes: name the primary"
    if facts.vector is None:
        return f"the server has no pgvector: install version {least} or newer there"
    if _numbers(facts.vector) < LEAST_VECTOR:
        step = f"install {least} or newer on the server"
        if facts.available and _numbers(facts.available) >= LEAST_VECTOR:
            step = "run ALTER EXTENSION vector UPDATE in the database"
        return f"pgvector {facts.vector} there may damage indexes or show rows of other tables: {step}"
    if not facts.superuser:
        return "the operator's user there is no superuser and cannot close what tells tenants of each other: use one"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: (0, 8, 5) of 0.8.5, (19,) of 19beta1."""
    numbers = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)
