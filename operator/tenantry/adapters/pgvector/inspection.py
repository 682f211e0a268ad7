"""Whether a tenant's place is as it was made: who may log in, with which password, and what keeps others out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from psycopg import AsyncConnection

from tenantry.adapters.pgvector.hardening import OWNER, SCHEMA
from tenantry.adapters.pgvector.store import GRANTEES, LOGINS, TABLE, Place

_LOGINS: Final = """
SELECT rolname, rolcanlogin, rolpassword, (SELECT count(*) FROM pg_stat_activity s WHERE s.usesysid = a.oid)
  FROM pg_authid a WHERE rolname = ANY(%s)
"""

_SOUND: Final = f"""
SELECT (SELECT count(*) = 3
               AND NOT bool_or(rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication)
          FROM pg_roles WHERE rolname = ANY(%(roles)s))
   AND (SELECT count(*) = 2
               AND bool_and(g.rolname = %(role)s AND m.rolname <> %(role)s AND m.rolname = ANY(%(roles)s)
                            AND inherit_option AND NOT admin_option)
          FROM pg_auth_members JOIN pg_roles g ON g.oid = roleid JOIN pg_roles m ON m.oid = member
         WHERE g.rolname = ANY(%(roles)s) OR m.rolname = ANY(%(roles)s))
   AND EXISTS (SELECT FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid
                WHERE c.oid = to_regclass(%(table)s) AND i.inhparent = to_regclass(%(parent)s)
                  AND NOT inhdetachpending AND relrowsecurity AND relforcerowsecurity
                  AND relowner = '{OWNER}'::regrole)
   AND (SELECT count(*) = 4 FROM pg_class c, aclexplode(relacl) x
         WHERE c.oid = to_regclass(%(table)s) AND x.grantee = to_regrole(%(role)s)
           AND x.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE'))
   AND EXISTS (SELECT FROM pg_namespace n, aclexplode(nspacl) x
                WHERE nspname = %(role)s AND x.grantee = to_regrole(%(role)s) AND x.privilege_type = 'USAGE')
   AND NOT EXISTS ({GRANTEES})
   AND (SELECT count(*) = 1
               AND bool_and(polname = 'own' AND polcmd = '*' AND polroles = ARRAY[to_regrole(%(role)s)::oid]
                            AND regexp_replace(pg_get_expr(polqual, polrelid), '[()[:space:]]', '', 'g') = %(who)s
                            AND regexp_replace(pg_get_expr(polwithcheck, polrelid), '[()[:space:]]', '', 'g')
                                = %(who)s)
          FROM pg_policy WHERE polrelid = to_regclass(%(table)s) AND polpermissive)
"""

_WHO: Final = f"tenant_id=SELECT{SCHEMA}.tenantAStenant"
"""What the policy says, without brackets and spaces, which versions of PostgreSQL set differently."""


@dataclass(frozen=True, slots=True)
class Login:
    """One of a tenant's two logins. verifier: what the server keeps of its password. sessions: of now."""

    open: bool = False
    verifier: str | None = None
    sessions: int = 0


async def logins(connection: AsyncConnection[Any], place: Place) -> dict[str, Login]:
    """Return each of a tenant's logins by its slot; one that does not exist is closed."""
    names = {place.login(slot): slot for slot in LOGINS}
    cursor = await connection.execute(_LOGINS, (list(names),))
    found = {names[name]: Login(*rest) for name, *rest in await cursor.fetchall()}
    return {slot: found.get(slot, Login()) for slot in LOGINS}


async def is_sound(connection: AsyncConnection[Any], place: Place) -> bool:
    """Tell whether roles, rights, table and policy are what `store.provision` makes."""
    parameters = {
        "role": place.role,
        "roles": [place.role, *(place.login(slot) for slot in LOGINS)],
        "table": f"{place.role}.{TABLE}",
        "parent": place.parent_name,
        "who": _WHO,
    }
    return await (await connection.execute(_SOUND, parameters)).fetchone() == (True,)


async def is_elsewhere(connection: AsyncConnection[Any], place: Place) -> bool:
    """Tell whether the roles are those of a place in another database of the server: roles are common to all."""
    cursor = await connection.execute(
        "SELECT to_regrole(%s) IS NOT NULL AND to_regclass(%s) IS NULL", (place.role, f"{place.role}.{TABLE}")
    )
    return await cursor.fetchone() == (True,)
