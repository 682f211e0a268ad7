"""Tenants, Plans and observations for tests of the pure core."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import yaml

from tenantry.api.archive import TenantArchive
from tenantry.api.common import rfc3339
from tenantry.api.plan import Plan, PlanSpec
from tenantry.api.tenant import Tenant
from tenantry.domain.names import archive_name
from tenantry.domain.observed import NamespaceDetail, Observed, TenantClaim
from tests.conftest import REPOSITORY

SAMPLES = REPOSITORY / "manifests" / "samples"
T0 = datetime(2026, 1, 1, 12, tzinfo=UTC)
EMAIL = "ops@acme.example"


@cache
def _documents(file: str) -> dict[str, dict[str, Any]]:
    documents = yaml.safe_load_all((SAMPLES / file).read_text(encoding="utf-8"))
    return {document["metadata"]["name"]: document for document in documents}


def sample(file: str, name: str) -> dict[str, Any]:
    """Return one document of a file of the samples."""
    return deepcopy(_documents(file)[name])


def plan(name: str = "pro", **changes: Any) -> PlanSpec:
    """Return the spec of a sample Plan with some fields of its own, by their names in YAML."""
    document = sample("plans.yaml", name)
    return Plan.model_validate({**document, "spec": {**document["spec"], **changes}}).spec


def tenant(
    name: str = "acme", uid: str = "", *, metadata: dict[str, Any] | None = None, **spec: Any
) -> Tenant:
    """Return a Tenant; `spec` and `metadata` by their names in YAML."""
    identity = {
        "name": name,
        "uid": uid or f"uid-of-{name}",
        "creationTimestamp": rfc3339(T0),
        "generation": 1,
    }
    return Tenant.model_validate(
        {"metadata": {**identity, **(metadata or {})}, "spec": {"owner": {"email": EMAIL}, **spec}}
    )


def claim_of(subject: Tenant) -> TenantClaim:
    """Return what is remembered of a Tenant."""
    return TenantClaim(
        name=subject.metadata.name,
        uid=subject.metadata.uid,
        created=subject.metadata.creation_timestamp,
        namespace=subject.namespace_name,
        plan=subject.spec.plan or "free",
        phase="Ready",
        deleting=subject.deleting,
        finalizers=tuple(subject.metadata.finalizers),
    )


def namespace(
    name: str = "tenant-acme",
    *,
    uid: str | None = None,
    tenant_name: str | None = None,
    annotations: dict[str, str] | None = None,
    deleting: bool = False,
    made_by_us: bool = False,
) -> Observed:
    """Return a namespace as seen; `uid` is that of the Tenant that it is marked with."""
    detail = NamespaceDetail({}, annotations or {}, frozenset(), frozenset(), False, "", made_by_us)
    return Observed(
        kind="Namespace",
        namespace="",
        name=name,
        uid=f"uid-of-namespace-{name}",
        resource_version="1",
        fingerprint="",
        deleting=deleting,
        tenant=tenant_name,
        tenant_uid=uid,
        writer="unknown",
        detail=detail,
    )


def archive(
    name: str = "acme",
    uid: str = "uid-of-former",
    *,
    email: str = EMAIL,
    deleting: bool = False,
    purge_after: datetime = T0 + timedelta(days=30),
) -> TenantArchive:
    """Return the archive of a former tenant."""
    metadata: dict[str, Any] = {"name": archive_name(name, uid), "uid": f"archive-{uid}"}
    if deleting:
        metadata["deletionTimestamp"] = rfc3339(T0)
    spec = {"tenant": name, "tenantUID": uid, "owner": {"email": email}, "purgeAfter": rfc3339(purge_after)}
    return TenantArchive.model_validate({"metadata": metadata, "spec": spec})
