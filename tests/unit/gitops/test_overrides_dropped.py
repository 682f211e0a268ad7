"""An override that the requested plan allows but the effective one does not, as after a downgrade, is dropped."""

from __future__ import annotations

from datetime import UTC, datetime

from tenantry.api.plan import PlanSpec
from tenantry.api.tenant import Overrides
from tenantry.domain.conditions import find, is_true, summarise
from tenantry.domain.configuration import configure, resolve
from tenantry.reconcile.tenant import _config_outcome

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def plan(overridable: list[str]) -> PlanSpec:
    return PlanSpec.model_validate(
        {
            "displayName": "P",
            "rank": 1,
            "currency": "usd",
            "resources": {"quota": {"pods": "1"}},
            "model": {"name": "small"},
            "retrieval": {"topK": 3},
            "overridable": overridable,
        }
    )


OVERRIDES = Overrides.model_validate({"model": {"name": "large"}, "retrieval": {"topK": 9}})


def test_a_dropped_override_leaves_the_tenant_ready() -> None:
    requested, effective = plan(["model.name", "retrieval.topK"]), plan(["retrieval.topK"])
    resolution = resolve(OVERRIDES, effective, requested)
    assert (resolution.refused, resolution.dropped) == ((), ("model.name",))
    assert (resolution.config["model"]["name"], resolution.config["retrieval"]["topK"]) == ("small", 9)

    outcome = _config_outcome(configure(resolution.config, None, [], None, None, resolution.dropped), None)
    conditions = summarise({"ConfigReady": outcome}, [], generation=1, now=NOW, ready_message="")
    config = find(conditions, "ConfigReady")
    assert config is not None
    assert (config.status, config.reason) == ("True", "OverridesDropped")
    assert "spec.overrides.model.name" in config.message
    assert is_true(conditions, "Ready")
    assert find(conditions, "Stalled") is None


def test_what_even_the_requested_plan_does_not_allow_is_a_mistake() -> None:
    resolution = resolve(OVERRIDES, plan(["retrieval.topK"]), plan(["retrieval.topK"]))
    assert (resolution.refused, resolution.dropped) == (("model.name",), ())
