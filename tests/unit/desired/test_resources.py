"""Quotas and LimitRanges that neither lock the operator out nor differ from what the API server stores."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tenantry.adapters.kubernetes.kinds import CHILD_KINDS
from tenantry.desired.owner import Owner
from tenantry.desired.resources import limit_range, quota, suspended_quota, system_classes_quota
from tests.unit.builders import plan, sample

ACME = Owner("acme", "uid-of-acme", "tenant-acme")
AMOUNTS = st.dictionaries(
    st.sampled_from(["cpu", "memory", "ephemeral-storage", "nvidia.com/gpu"]),
    st.sampled_from(["1", "2", "500m"]),
)


def resources(**changes: Any) -> dict[str, Any]:
    return {"quota": sample("plans.yaml", "pro")["spec"]["resources"]["quota"], **changes}


def as_defaulted(item: dict[str, Any]) -> dict[str, Any]:
    """Return a limit of containers with the defaults of the API server (SetDefaults_LimitRangeItem)."""
    largest = item.get("max", {})
    default = {**largest, **item.get("default", {})}
    request = {**item.get("min", {}), **default, **item.get("defaultRequest", {})}
    filled = {**item, "default": default, "defaultRequest": request}
    return {key: value for key, value in filled.items() if value}


@given(limits=AMOUNTS, requests=AMOUNTS, largest=AMOUNTS)
def test_the_api_server_has_nothing_to_default(
    limits: dict[str, str], requests: dict[str, str], largest: dict[str, str]
) -> None:
    defaults = {"limits": limits, "requests": requests}
    built = limit_range(
        ACME, plan("pro", resources=resources(containerDefaults=defaults, containerMax=largest))
    )
    if not limits and not requests and not largest:
        assert built is None
        return
    assert built is not None
    [item] = built["spec"]["limits"]
    assert as_defaulted(item) == item
    given_ = {"type": "Container", "default": limits, "defaultRequest": requests, "max": largest}
    assert as_defaulted(given_) == item, "and it is what the plan says"


def test_a_suspended_tenant_starts_nothing_and_the_operator_can_still_write() -> None:
    hard = suspended_quota(ACME)["spec"]["hard"]
    assert {hard[name] for name in ("pods", "persistentvolumeclaims", "services")} == {"0"}
    counted = {name.removeprefix("count/").partition(".")[0] for name in hard}
    assert not counted & {kind.plural for kind in CHILD_KINDS}
    assert "scopeSelector" not in suspended_quota(ACME)["spec"], "it counts every pod"


def test_members_pods_get_no_system_priority() -> None:
    spec = system_classes_quota(ACME)["spec"]
    [expression] = spec["scopeSelector"]["matchExpressions"]
    assert spec["hard"] == {"pods": "0"}
    assert (expression["scopeName"], expression["operator"]) == ("PriorityClass", "In")
    assert set(expression["values"]) == {"system-cluster-critical", "system-node-critical"}


def test_doors_past_the_ingress_are_shut_unless_the_plan_opens_them() -> None:
    shut = quota(ACME, plan("pro"))["spec"]["hard"]
    assert (shut["services.loadbalancers"], shut["services.nodeports"]) == ("0", "0")
    opened = quota(ACME, plan("pro", resources=resources(quota={"services.loadbalancers": "2"})))["spec"][
        "hard"
    ]
    assert (opened["services.loadbalancers"], opened["services.nodeports"]) == ("2", "0")
    assert quota(ACME, plan("pro"))["spec"]["hard"].items() >= resources()["quota"].items()
