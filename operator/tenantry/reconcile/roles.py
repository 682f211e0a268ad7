"""The four ClusterRoles behind tenants' RoleBindings, kept as this version of the operator wants them.

With the rights of an administrator it writes them. With those of the chart it may not: who may write the roles
that it binds could give anybody anything. Then they are the chart's, and where they differ, as between the upgrade
of the chart and that of the operator, it says so and leaves them.
"""

from __future__ import annotations

from collections.abc import Mapping

from tenantry.desired import access
from tenantry.desired.children import Group, key
from tenantry.desired.fingerprint import fingerprint
from tenantry.domain import names
from tenantry.domain.errors import PartError
from tenantry.domain.observed import ChildKey, Observed
from tenantry.domain.reasons import Reason
from tenantry.reconcile import report
from tenantry.reconcile.enact import Repair, apply_group
from tenantry.reconcile.ports import Context, Manifest
from tenantry.reconcile.result import Key, Result

KEY = Key("ClusterRole", "tenantry-tenant")
"""All four are one key: they are seldom written, and together."""


async def reconcile(_key: Key, cx: Context) -> Result:
    """Put right what differs where that is allowed, and tell of the rest; the next full list looks again."""
    problems: list[str] = []
    errors: list[PartError] = []
    for manifest in access.cluster_roles():
        seen = cx.seen.cluster_roles()
        problem = _problem(manifest, seen)
        if not problem:
            continue
        error = await _write(manifest, seen, cx) if await _may_write(manifest, cx) else None
        if error is not None and error.reason != Reason.REFUSED:
            errors.append(error)
        elif _problem(manifest, cx.seen.cluster_roles()):
            problems.append(problem)
    cx.watch.roles_amiss(problems)
    return Result(outcome="waiting") if problems and not errors else report.result_of(errors)


def _problem(desired: Manifest, seen: Mapping[ChildKey, Observed]) -> str:
    """Return what is wrong with a role, empty where nothing is."""
    name, present = key(desired), seen.get(key(desired))
    if present is None:
        return f"{name} is missing, or its label {names.ROLE} is"
    return f"{name} differs" if present.deleting or present.fingerprint != fingerprint(desired) else ""


async def _may_write(desired: Manifest, cx: Context) -> bool:
    """Ask first: at rest nothing is written, and nothing that will be refused either."""
    kind, name = desired["kind"], desired["metadata"]["name"]
    return all([await cx.objects.may(verb, kind, name) for verb in ("create", "patch", "update")])


async def _write(desired: Manifest, seen: Mapping[ChildKey, Observed], cx: Context) -> PartError | None:
    repairs: list[Repair] = []
    return await apply_group(Group(((desired,),), frozenset()), seen, cx, repairs)
