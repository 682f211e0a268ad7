"""The four ClusterRoles behind tenants' RoleBindings, kept as the operator's version of them wants it."""

from __future__ import annotations

from tenantry.desired import access
from tenantry.desired.children import Group
from tenantry.domain.errors import Retry
from tenantry.domain.reasons import Reason
from tenantry.reconcile import report
from tenantry.reconcile.enact import Repair, apply_group
from tenantry.reconcile.ports import Context
from tenantry.reconcile.result import Key, Result

KEY = Key("ClusterRole", "tenantry-tenant")
"""All four are one key: they are seldom written, and together."""

RETRY_SECONDS = 60.0


async def reconcile(_key: Key, cx: Context) -> Result:
    """Create or put back the ClusterRoles, where the operator may: the chart ships them too."""
    group = Group((tuple(access.cluster_roles()),), frozenset())
    repairs: list[Repair] = []
    error = await apply_group(group, cx.seen.cluster_roles(), cx, repairs)
    if isinstance(error, Retry) and error.reason == Reason.REFUSED:
        # Without the right to write them they are the chart's; without them, bindings grant nothing.
        return Result(after=RETRY_SECONDS, outcome="waiting")
    return report.result_of([error] if error else [])
