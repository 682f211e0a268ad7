"""What is asked of a Qdrant server."""

from __future__ import annotations

from typing import Final

from tenantry.adapters.addresses import Address
from tenantry.adapters.qdrant import logins, schema
from tenantry.adapters.qdrant.client import Client, Denied
from tenantry.adapters.qdrant.schema import LOGINS
from tenantry.domain.fitness import Fitness

LEAST: Final = (1, 16)
"""The first whose metrics tell the number of points of each collection. Nothing was tried on a real server."""

SHORTEST_KEY: Final = 32
"""Bytes of the API key: as many as its hash has (RFC 7518, 3.2)."""


async def prepare(client: Client, address: Address) -> Fitness:
    """Look whether a server is fit, and make the operator's own collections there."""
    version = (await client.ask(lambda server: server.info())).version
    server = f"Qdrant {version}"
    if _numbers(version) < LEAST:
        return Fitness(server, f"the server is {server}: use {'.'.join(map(str, LEAST))} or newer")
    await client.ask(lambda server: server.get_collections())  # what came before needs no key
    if len(address.key.encode()) < SHORTEST_KEY:
        return Fitness(
            server,
            f"the server's API key is shorter than {SHORTEST_KEY} bytes, and tenants' tokens are signed with it: set "
            f"a longer service.api_key on it",
        )
    if not await _lets_in(address, logins.signed(address.key, [{"collection": LOGINS, "access": "r"}])):
        return Fitness(
            server,
            "the server takes no tokens that are signed with the operator's key: set service.jwt_rbac: true on it, "
            "and have the operator's key be its service.api_key",
        )
    await schema.make_own(client)
    if await _lets_in(address, logins.token(address.key, "nobody", 0)):
        return Fitness(
            server, "the server lets in who has no login: set service.api_key and service.jwt_rbac on it"
        )
    return Fitness(server)


async def _lets_in(address: Address, token: str) -> bool:
    client = Client(address, token)
    try:
        await client.ask(lambda server: server.get_collections())
    except Denied:
        return False
    finally:
        await client.close()
    return True


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[: len(LEAST)] if part.isdecimal())
