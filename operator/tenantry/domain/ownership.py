"""Whose namespace is it? The decision that keeps one tenant's mistake from touching anybody else's namespace."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Literal

from tenantry.api.archive import TenantArchive
from tenantry.api.tenant import Tenant
from tenantry.domain import names
from tenantry.domain.errors import Retry, Stalled
from tenantry.domain.observed import ChildKey, NamespaceDetail, Observed, TenantClaim
from tenantry.domain.reasons import Reason

Origin = Literal["created", "adopted"]

TERMINATING_CHECK_SECONDS = 5.0

TELLING_KINDS = frozenset({"ResourceQuota", "LimitRange", "NetworkPolicy", "RoleBinding"})
"""Children that no member may write: what they are marked with can be believed.

Not ControllerRevision: a StatefulSet copies what its author chose to its revisions.
"""


@dataclass(frozen=True, slots=True)
class Ownership:
    """The namespace is ours to write. `taken` says how it became so just now: an audit row is due.

    archive: what it is restored from; empty where the earlier Tenant has left none (another cluster).
    """

    origin: Origin
    taken: Literal["", "created", "adopted", "restored"] = ""
    archive: str = ""


def claim(
    tenant: Tenant,
    namespace: Observed | None,
    child_uids: Collection[str],
    rivals: Sequence[TenantClaim],
    archives: Sequence[TenantArchive],
    now: datetime,
) -> Ownership:
    """Decide whether a tenant may have its namespace.

    child_uids: the tenant UIDs that our children in it carry, by `tenant_uids`; they still tell whose it is
    when somebody has stripped the namespace itself of labels and annotations. rivals: every Tenant that wants
    this namespace.

    Raises Stalled where the user must act, Retry while the namespace is terminating.
    """
    if namespace is None:
        _give_way_to_older(tenant, rivals)
        return Ownership("created", "created")
    owner = owner_of(namespace, child_uids)
    if namespace.deleting and owner in (None, tenant.metadata.uid):
        raise Retry(Reason.NAMESPACE_TERMINATING, terminating(namespace), TERMINATING_CHECK_SECONDS)
    if owner == tenant.metadata.uid:
        return Ownership(origin(namespace, tenant.spec.namespace.adoption))
    if owner is not None:
        return _of_another(tenant, namespace, owner, rivals, archives, now)
    _give_way_to_older(tenant, rivals)
    return _unmarked(tenant, namespace)


def tenant_uids(children: Mapping[ChildKey, Observed]) -> set[str]:
    """Return the tenant UIDs that the children in a namespace carry, as far as they can be believed."""
    return {
        child.tenant_uid for child in children.values() if child.tenant_uid and child.kind in TELLING_KINDS
    }


def owner_of(namespace: Observed, child_uids: Collection[str]) -> str | None:
    """Return the UID of the Tenant that a namespace belongs to, None where it is not one of ours."""
    if namespace.tenant_uid:
        return namespace.tenant_uid
    return next(iter(child_uids)) if len(set(child_uids)) == 1 else None


def terminating(namespace: Observed) -> str:
    """Return the sentence about a namespace that is being deleted, with what holds it."""
    detail = namespace.detail
    holding = detail.holding if isinstance(detail, NamespaceDetail) else ""
    waits = f": {holding}" if holding else ""
    return f"namespace {namespace.name} is being deleted and must be gone before it can be made anew{waits}"


def origin(namespace: Observed | None, adoption: str) -> Origin:
    """Return whether we made the namespace; where the mark is lost, "created" only if that can be proved.

    An adopted namespace is never deleted, so in doubt it is that. adoption: `spec.namespace.adoption` of its
    tenant, which may have been edited since.
    """
    detail = namespace.detail if namespace else None
    if not isinstance(detail, NamespaceDetail):
        return "adopted"
    mark = detail.annotations.get(names.ORIGIN)
    if mark == names.ORIGIN_CREATED:
        return "created"
    if mark == names.ORIGIN_ADOPTED or adoption == "IfMarked" or names.ADOPTABLE_BY in detail.annotations:
        return "adopted"
    return "created" if detail.made_by_us else "adopted"


def _give_way_to_older(tenant: Tenant, rivals: Sequence[TenantClaim]) -> None:
    mine = (tenant.metadata.creation_timestamp, tenant.metadata.uid)
    older = [rival for rival in rivals if rival.uid != tenant.metadata.uid and rival.seniority < mine]
    if older:
        first = min(older, key=lambda rival: rival.seniority)
        raise Stalled(
            Reason.NAMESPACE_CLAIMED,
            f"namespace {tenant.namespace_name} is wanted by Tenant {first.name} too, which is older: delete one "
            f"of the two, or create this one again with another spec.namespace.name",
        )


def _of_another(
    tenant: Tenant,
    namespace: Observed,
    owner: str,
    rivals: Sequence[TenantClaim],
    archives: Sequence[TenantArchive],
    now: datetime,
) -> Ownership:
    """Decide about a namespace that carries the UID of another Tenant, alive or deleted."""
    alive = next((rival for rival in rivals if rival.uid == owner), None)
    if alive is not None:
        raise Stalled(
            Reason.NAMESPACE_CLAIMED,
            f"namespace {namespace.name} belongs to Tenant {alive.name}: create this one again with another "
            f"spec.namespace.name",
        )
    if namespace.deleting:
        raise Retry(Reason.NAMESPACE_TERMINATING, terminating(namespace), TERMINATING_CHECK_SECONDS)
    if namespace.tenant != tenant.metadata.name:
        raise Stalled(
            Reason.NAMESPACE_NOT_OURS,
            f"namespace {namespace.name} belongs to a former tenant {namespace.tenant or owner}: create this one "
            f"again with another spec.namespace.name",
        )
    return _restore(tenant, namespace, owner, archives, now)


def _restore(
    tenant: Tenant, namespace: Observed, owner: str, archives: Sequence[TenantArchive], now: datetime
) -> Ownership:
    name = names.archive_name(tenant.metadata.name, owner)
    archive = next((item for item in archives if item.spec.tenant_uid == owner), None)
    allowed = (tenant.metadata.annotations or {}).get(names.RESTORE_FROM)
    if archive is not None and (archive.deleting or archive.spec.purge_after <= now):
        raise Retry(
            Reason.ARCHIVE_PURGING,
            f"the data of the former tenant in namespace {namespace.name} is being purged ({name}): it must be "
            f"gone before this tenant gets the namespace",
            TERMINATING_CHECK_SECONDS,
        )
    mark = address_digest(archive.spec.owner.email) if archive is not None else _owner_mark(namespace)
    if mark == address_digest(tenant.spec.owner.email) or allowed == name:
        restored = name if archive is not None else ""
        return Ownership(origin(namespace, tenant.spec.namespace.adoption), "restored", restored)
    if archive is None:
        raise Stalled(
            Reason.RESTORE_NOT_ALLOWED,
            f"namespace {namespace.name} is of an earlier Tenant {tenant.metadata.name} with another owner, of "
            f"which there is no TenantArchive: set spec.owner.email to the earlier owner's, or annotate this "
            f"Tenant with {names.RESTORE_FROM}={name} to take the namespace over with its data, or delete the "
            f"namespace to begin with an empty one",
        )
    raise Stalled(
        Reason.RESTORE_NOT_ALLOWED,
        f"namespace {namespace.name} still holds the data of a former tenant {tenant.metadata.name} with another "
        f"owner ({name}): set spec.owner.email to the former owner's, or annotate this Tenant with "
        f"{names.RESTORE_FROM}={name} to take the data over, or delete TenantArchive {name} to purge it",
    )


def address_digest(email: str) -> str:
    """Return 32 hexadecimal digits that are equal for the same address, whatever its case.

    The case of ASCII letters only: others fold into letters of other people.
    """
    return blake2b(email.strip().encode().lower(), digest_size=16).hexdigest()


def _owner_mark(namespace: Observed) -> str | None:
    """Return the digest of the last owner's address, None where the namespace does not say."""
    detail = namespace.detail
    return detail.annotations.get(names.OWNER) if isinstance(detail, NamespaceDetail) else None


def _unmarked(tenant: Tenant, namespace: Observed) -> Ownership:
    detail = namespace.detail
    marked_for = detail.annotations.get(names.ADOPTABLE_BY) if isinstance(detail, NamespaceDetail) else None
    name = tenant.metadata.name
    if tenant.spec.namespace.adoption != "IfMarked":
        raise Stalled(
            Reason.NAMESPACE_NOT_OURS,
            f"namespace {namespace.name} exists and is not this tenant's: set spec.namespace.adoption to IfMarked "
            f"and annotate the namespace with {names.ADOPTABLE_BY}={name}, or delete the namespace, or create "
            f"this Tenant again with another spec.namespace.name",
        )
    if marked_for != name:
        found = f"is marked for {marked_for}" if marked_for else "is not marked"
        raise Stalled(
            Reason.NAMESPACE_NOT_MARKED,
            f"namespace {namespace.name} exists and {found}: its owner must annotate it with "
            f"{names.ADOPTABLE_BY}={name} before this tenant may adopt it",
        )
    return Ownership("adopted", "adopted")
