"""The models read what an API server gives, of older and newer versions too, and lose nothing they know."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from tenantry.api.archive import TenantArchive, TenantArchiveSpec
from tenantry.api.common import API_VERSION, Condition, ObjectMeta, Resource
from tenantry.api.currencies import MINOR_UNITS, codes_with
from tenantry.api.plan import OVERRIDABLE, Plan, Tier
from tenantry.api.tenant import Owner, Phase, Tenant, TenantSpec

SAMPLES = Path(__file__).parents[3] / "manifests" / "samples"
KINDS: dict[str, type[Resource]] = {"Tenant": Tenant, "Plan": Plan}


def sample(file: str, name: str) -> dict[str, Any]:
    documents = yaml.safe_load_all((SAMPLES / file).read_text(encoding="utf-8"))
    return next(document for document in documents if document["metadata"]["name"] == name)


def tenant(**spec: Any) -> Tenant:
    return Tenant.model_validate(
        {"metadata": {"name": "acme"}, "spec": {"owner": {"email": "ops@acme.example"}, **spec}}
    )


@pytest.mark.parametrize("file", ["acme.yaml", "small.yaml", "plans.yaml"])
def test_samples_survive_a_round_trip(file: str) -> None:
    for document in yaml.safe_load_all((SAMPLES / file).read_text(encoding="utf-8")):
        kind = KINDS[document["kind"]]
        read = kind.model_validate(document)
        written = read.model_dump(by_alias=True, exclude_none=True, mode="json")
        assert kind.model_validate(written) == read
        assert _contains(written, document)


def _contains(whole: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return all(key in whole and _contains(whole[key], value) for key, value in part.items())
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(_contains, whole, part))
    return bool(whole == part)


def test_the_sample_reads_as_it_is_written() -> None:
    acme = Tenant.model_validate(sample("acme.yaml", "acme"))
    assert acme.api_version == API_VERSION
    assert acme.spec.display_name == "Acme Corp"
    assert [(member.kind, member.namespace, member.name, member.role) for member in acme.spec.members] == [
        ("User", "", "alice@acme.example", "owner"),
        ("Group", "", "acme-developers", "editor"),
        ("ServiceAccount", "", "dashboard", "viewer"),
    ]
    assert acme.spec.overrides.model.temperature == Decimal("0.5")
    assert acme.spec.overrides.retrieval.top_k == 8
    assert acme.spec.vector_store is not None
    assert (acme.spec.vector_store.metric, acme.spec.vector_store.type) == ("cosine", "vector")


def test_money_is_exact_and_keeps_its_decimals() -> None:
    pro = Plan.model_validate(sample("plans.yaml", "pro"))
    assert pro.spec.prices[0].amount == Decimal("99.00")
    amounts = [tier.unit_amount for entry in pro.spec.usage for tier in entry.tiers]
    assert amounts[-1] == Decimal("0.0000015")
    written = pro.model_dump(by_alias=True, mode="json")["spec"]
    assert written["prices"][0]["amount"] == "99.00"
    tiny = Tier(unit_amount=Decimal("0.000000000001")).model_dump(by_alias=True, mode="json")
    assert tiny["unitAmount"] == "0.000000000001", "no exponent: the API server's rule knows none"


def test_a_tenant_needs_only_an_owner() -> None:
    small = tenant()
    assert small.namespace_name == "tenant-acme"
    assert small.spec.plan is None
    assert small.spec.deletion_policy == "Retain"
    assert small.spec.retention_days == 30
    assert (small.status.observed_generation, small.status.conditions, small.status.phase) == (-1, [], None)


def test_a_chosen_namespace_wins() -> None:
    assert tenant(namespace={"name": "customers-acme"}).namespace_name == "customers-acme"


def test_fields_of_a_newer_version_are_ignored() -> None:
    newer = tenant(colour="blue", namespace={"shape": "round"}, vectorStore={"dimensions": 8, "colour": "b"})
    assert newer.spec == tenant(vectorStore={"dimensions": 8}).spec


def test_a_phase_of_a_newer_version_is_read_as_none() -> None:
    base = {"metadata": {"name": "acme"}, "spec": {"owner": {"email": "ops@acme.example"}}}
    assert Tenant.model_validate({**base, "status": {"phase": "Moving"}}).status.phase is None
    assert Tenant.model_validate({**base, "status": {"phase": "Ready"}}).status.phase is Phase.READY


def test_limits_of_the_schema_do_not_stop_reading() -> None:
    """An object stored under a laxer schema stays readable: the API server validates, the models do not."""
    assert tenant(displayName="x" * 500, retentionDays=100_000).spec.retention_days == 100_000


def test_an_object_of_another_kind_is_not_a_tenant() -> None:
    with pytest.raises(ValidationError, match="kind"):
        Tenant.model_validate(
            {"kind": "Plan", "metadata": {"name": "x"}, "spec": {"owner": {"email": "a@b.example"}}}
        )


def test_models_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        tenant().spec.suspended = True  # type: ignore[misc]


def test_metadata_of_a_deleted_object() -> None:
    metadata = {
        "name": "acme",
        "uid": "1f0c9a2e-0000",
        "generation": 3,
        "resourceVersion": "42",
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "deletionTimestamp": "2026-01-02T05:04:05+01:00",
        "finalizers": ["tenantry.dev/cleanup"],
        "managedFields": [{"manager": "kubectl", "operation": "Apply"}],
    }
    gone = Tenant.model_validate({"metadata": metadata, "spec": {"owner": {"email": "a@b.example"}}})
    assert gone.deleting
    assert not tenant().deleting
    assert gone.metadata.deletion_timestamp == datetime(2026, 1, 2, 4, 4, 5, tzinfo=UTC)
    assert gone.metadata.managed_fields[0]["manager"] == "kubectl"
    written = gone.metadata.model_dump(by_alias=True, exclude_none=True, mode="json")
    assert written["deletionTimestamp"] == "2026-01-02T04:04:05Z"


def test_times_are_utc_in_whole_seconds() -> None:
    berlin = timezone(timedelta(hours=2))
    moment = datetime(2026, 6, 1, 12, 0, 0, 999_000, tzinfo=berlin)
    condition = Condition(type="Ready", status="True", reason="Verified", last_transition_time=moment)
    assert condition.last_transition_time.tzinfo is UTC
    assert condition.model_dump(by_alias=True, mode="json")["lastTransitionTime"] == "2026-06-01T10:00:00Z"


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        ObjectMeta.model_validate({"name": "x", "creationTimestamp": "2026-01-02T03:04:05"})


def test_times_of_years_that_utc_does_not_have_are_refused_and_all_others_are_written_with_four_digits() -> (
    None
):
    first = {"name": "x", "creationTimestamp": "0001-01-01T00:00:00Z"}
    written = ObjectMeta.model_validate(first).model_dump(by_alias=True, mode="json")
    assert written["creationTimestamp"] == first["creationTimestamp"]
    for moment in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        with pytest.raises(ValidationError, match="within the years 1 to 9999 in UTC"):
            ObjectMeta.model_validate({"name": "x", "creationTimestamp": moment})


def test_conditions_are_found_by_type() -> None:
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Verified",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }
    base = {"metadata": {"name": "acme"}, "spec": {"owner": {"email": "ops@acme.example"}}}
    status = Tenant.model_validate({**base, "status": {"conditions": [ready]}}).status
    condition = status.condition("Ready")
    assert condition is not None
    assert condition.status == "True"
    assert status.condition("Stalled") is None


def test_an_archive_keeps_the_whole_spec() -> None:
    spec = tenant(namespace={"labels": {"team": "a"}}).spec.model_dump(
        by_alias=True, exclude_none=True, mode="json"
    )
    archive = TenantArchive(
        metadata=ObjectMeta(name="acme-1f0c9a2e"),
        spec=TenantArchiveSpec(
            tenant="acme",
            tenant_uid="1f0c9a2e-0000",
            owner=Owner(email="ops@acme.example"),
            tenant_spec={**spec, "ofANewerVersion": True},
            purge_after=datetime(2026, 2, 1, tzinfo=UTC),
        ),
    )
    written = archive.model_dump(by_alias=True, exclude_none=True, mode="json")
    assert written["spec"]["tenantUID"] == "1f0c9a2e-0000"
    assert written["spec"]["purgeAfter"] == "2026-02-01T00:00:00Z"
    read = TenantArchive.model_validate(written)
    assert read == archive
    assert read.spec.tenant_spec["ofANewerVersion"] is True
    assert (
        TenantSpec.model_validate(read.spec.tenant_spec) == tenant(namespace={"labels": {"team": "a"}}).spec
    )


def test_overridable_settings_are_those_of_overrides() -> None:
    every = dict.fromkeys(OVERRIDABLE)
    assert list(every) == list(OVERRIDABLE), "no path twice"
    assert {"model.temperature", "retrieval.topK", "limits.requestsPerSecond"} <= every.keys()
    properties = TenantSpec.model_json_schema(by_alias=True)["$defs"]
    of_overrides = {"model": "Model", "retrieval": "Retrieval", "limits": "RateLimits"}
    assert set(OVERRIDABLE) == {
        f"{section}.{name}"
        for section, model in of_overrides.items()
        for name in properties[model]["properties"]
    }


def test_currencies_by_their_decimals() -> None:
    assert (MINOR_UNITS["usd"], MINOR_UNITS["jpy"], MINOR_UNITS["kwd"]) == (2, 0, 3)
    assert sum(len(codes_with(decimals)) for decimals in (0, 2, 3)) == len(MINOR_UNITS)
    assert all(len(code) == 3 and code.islower() for code in MINOR_UNITS)
