"""Tenants' passwords. They are derived and nowhere kept: a Secret can be put back at any time, by any process.

    password = HMAC-SHA256(the shard's key, what the place is called / the number of the credentials)

The key is random and stays in the database, where only superusers read it. A crash between the server's taking a
password and the Secret's does no harm: the next try comes to the same one.
"""

from __future__ import annotations

import hmac
import secrets
from base64 import b64decode, urlsafe_b64encode
from dataclasses import dataclass
from hashlib import pbkdf2_hmac, sha256
from typing import Any, Final

from psycopg import AsyncConnection

from tenantry.adapters.pgvector.hardening import KEY_TABLE
from tenantry.adapters.pgvector.store import LOGINS
from tenantry.domain.places import Place

KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Key:
    """A shard's key. It is never shown."""

    _bytes: bytes

    def __repr__(self) -> str:
        return "Key(...)"

    def password(self, id_: str, generation: int) -> str:
        """Return the password of a place's credentials with that number."""
        digest = hmac.digest(self._bytes, f"{id_}/{generation}".encode(), "sha256")
        return urlsafe_b64encode(digest).decode().rstrip("=")


async def load_key(connection: AsyncConnection[Any]) -> Key:
    """Return the shard's key, made by whoever asks first. Needs a superuser."""
    await connection.execute(
        f"INSERT INTO {KEY_TABLE} (key) VALUES (%s) ON CONFLICT DO NOTHING", (secrets.token_bytes(KEY_BYTES),)
    )
    row = await (await connection.execute(f"SELECT key FROM {KEY_TABLE}")).fetchone()
    assert row is not None  # noqa: S101 - it was inserted before
    return Key(bytes(row[0]))


def wanted(place: Place) -> dict[str, int | None]:
    """Return which credentials each of the two logins is to have; None: nobody is to log in by it."""
    before = place.generation - 1
    used = {
        place.slot: place.generation if place.open else None,
        _other(place.slot): before if place.open and place.previous and before > 0 else None,
    }
    return {slot: used[slot] for slot in LOGINS}


def fits(verifier: str | None, password: str) -> bool:
    """Tell whether what the server keeps of a password, by which it can only be checked, is of that one."""
    try:
        mechanism, how, keys = (verifier or "").split("$")
        iterations, salt = how.split(":")
        stored = b64decode(keys.partition(":")[0])
        salted = pbkdf2_hmac("sha256", password.encode(), b64decode(salt), int(iterations))
    except ValueError:
        return False
    client = hmac.digest(salted, b"Client Key", "sha256")
    return mechanism == "SCRAM-SHA-256" and hmac.compare_digest(stored, sha256(client).digest())


def _other(slot: str) -> str:
    return LOGINS[1 - LOGINS.index(slot)]
