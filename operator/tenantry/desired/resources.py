"""Quotas and the LimitRange: how much a tenant may use, and what a container gets that asks for nothing."""

from __future__ import annotations

from tenantry.api.plan import PlanSpec
from tenantry.desired.owner import Manifest, Owner, child
from tenantry.domain import names

NOTHING_NEW = {"persistentvolumeclaims": "0", "pods": "0", "services": "0"}
"""While suspended: never a kind that the operator itself writes, or it would lock itself out."""

CLUSTER_DOORS = {"services.loadbalancers": "0", "services.nodeports": "0"}
"""Ways into the cluster past the ingress; none, unless the plan's quota grants them."""

SYSTEM_CLASSES = ("system-cluster-critical", "system-node-critical")


def quota(owner: Owner, plan: PlanSpec) -> Manifest:
    """Return the plan's quota."""
    hard = {**CLUSTER_DOORS, **{name: str(amount) for name, amount in plan.resources.quota.items()}}
    return child(owner, "v1", "ResourceQuota", names.QUOTA, spec={"hard": hard})


def suspended_quota(owner: Owner) -> Manifest:
    """Return the second quota of a suspended tenant: running pods stay, nothing new starts."""
    return child(owner, "v1", "ResourceQuota", names.QUOTA_SUSPENDED, spec={"hard": dict(NOTHING_NEW)})


def system_classes_quota(owner: Owner) -> Manifest:
    """Return the quota that keeps members' pods from preempting the cluster's own."""
    scope = {"scopeName": "PriorityClass", "operator": "In", "values": list(SYSTEM_CLASSES)}
    spec = {"hard": {"pods": "0"}, "scopeSelector": {"matchExpressions": [scope]}}
    return child(owner, "v1", "ResourceQuota", names.QUOTA_SYSTEM_CLASSES, spec=spec)


def limit_range(owner: Owner, plan: PlanSpec) -> Manifest | None:
    """Return the LimitRange, None where the plan sets neither defaults nor a maximum.

    Every value that the API server would default is written out, so that drift can be told from defaulting.
    """
    resources = plan.resources
    largest = _strings(resources.container_max)
    defaults = resources.container_defaults
    limits = {**largest, **_strings(defaults.limits if defaults else None)}
    requests = {**limits, **_strings(defaults.requests if defaults else None)}
    item = {"type": "Container", "default": limits, "defaultRequest": requests, "max": largest}
    item = {key: value for key, value in item.items() if value}
    if len(item) == 1:
        return None
    return child(owner, "v1", "LimitRange", names.LIMIT_RANGE, spec={"limits": [item]})


def _strings(amounts: object) -> dict[str, str]:
    return {name: str(amount) for name, amount in dict(amounts or {}).items()}  # type: ignore[call-overload]
