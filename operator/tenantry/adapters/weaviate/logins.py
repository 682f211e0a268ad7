"""A tenant's users and their role: two users, `t_<id>_a` and `t_<id>_b`, so that keys are replaced with no outage.

The role `t_<id>` lets them do everything with the vectors of the tenant's own native tenant, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tenantry.adapters.weaviate.client import Client
from tenantry.adapters.weaviate.owners import Kept

SLOTS: Final = ("a", "b")

_ACTIONS: Final = ("create_data", "read_data", "update_data", "delete_data")


@dataclass(frozen=True, slots=True)
class Login:
    """A user as the server has it. begins: the first letters of its key, all that the server tells of it."""

    active: bool
    begins: str
    roles: tuple[str, ...]


def role(id_: str) -> str:
    """Return the name of a tenant's role."""
    return f"t_{id_}"


def user(id_: str, slot: str) -> str:
    """Return the name of one of a tenant's users."""
    return f"t_{id_}_{slot}"


async def find(client: Client, id_: str) -> dict[str, Login]:
    """Return the users that are there, by slot."""
    found = {slot: await find_one(client, id_, slot) for slot in SLOTS}
    return {slot: login for slot, login in found.items() if login is not None}


async def find_one(client: Client, id_: str, slot: str) -> Login | None:
    """Return one of the users."""
    said = await client.ask("GET", f"users/db/{user(id_, slot)}")
    if said is None:
        return None
    return Login(bool(said["active"]), said.get("apiKeyFirstLetters") or "", tuple(said.get("roles") or ()))


async def make_key(client: Client, id_: str, slot: str, present: Login | None) -> str:
    """Give a user a key that nobody has yet, and return it. The one before lets nobody in from here on."""
    name = user(id_, slot)
    said = None
    if present is not None:
        said = await client.ask("POST", f"users/db/{name}/rotate-key")
    if said is None:
        said = await client.ask("POST", f"users/db/{name}", {})
    return str(said["apikey"])


async def set_active(client: Client, id_: str, slot: str, active: bool) -> None:
    """Let a user in, or not any more."""
    name = user(id_, slot)
    if active:
        await client.ask("POST", f"users/db/{name}/activate")
    else:
        await client.ask("POST", f"users/db/{name}/deactivate", {"revoke_key": False})


async def has_role(client: Client, kept: Kept) -> bool:
    """Tell whether the role lets its users do what it should, and no more."""
    said = await client.ask("GET", f"authz/roles/{role(kept.id)}")
    return said is not None and _same(said.get("permissions") or [], _permissions(kept))


async def set_role(client: Client, kept: Kept) -> None:
    """Have the role as it should be; where it is otherwise it is made anew."""
    name = role(kept.id)
    await client.ask("DELETE", f"authz/roles/{name}")
    await client.ask("POST", "authz/roles", {"name": name, "permissions": _permissions(kept)})


async def assign(client: Client, id_: str, slot: str, present: Login | None) -> None:
    """Have a user in its role, and in no other."""
    name, body = user(id_, slot), {"roles": [role(id_)], "userType": "db"}
    if present is None or role(id_) not in present.roles:
        await client.ask("POST", f"authz/users/{name}/assign", body)
    surplus = [each for each in (present.roles if present else ()) if each != role(id_)]
    if surplus:
        await client.ask("POST", f"authz/users/{name}/revoke", {**body, "roles": surplus})


async def remove(client: Client, id_: str) -> None:
    """Remove users and role."""
    for slot in SLOTS:
        await client.ask("DELETE", f"users/db/{user(id_, slot)}")
    await client.ask("DELETE", f"authz/roles/{role(id_)}")


def _permissions(kept: Kept) -> list[dict[str, Any]]:
    where = {"collection": kept.collection, "tenant": kept.place.tenant}
    data = [{"action": action, "data": where} for action in _ACTIONS]
    # What the library reads before anything else.
    read = {"action": "read_collections", "collections": {"collection": kept.collection}}
    return [*data, read, {"action": "read_tenants", "tenants": where}]


def _same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    return _plain(one) == _plain(other)


def _plain(permissions: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    """Return permissions without what the server fills in itself."""
    return {(each["action"], *sorted(_resource(each).items())) for each in permissions}


def _resource(permission: Mapping[str, Any]) -> dict[str, str]:
    resources: list[Mapping[str, str]] = [
        part for key, part in permission.items() if key != "action" and part
    ]
    return {key: value for part in resources for key, value in part.items() if value != "*"}
