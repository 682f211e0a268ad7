"""Every name that users, other controllers and our own children are tied together by."""

from __future__ import annotations

import re

MANAGER = "tenantry"
"""The field manager of the operator's own writes, and the value of the managed-by label."""

EXPORTS = "tenantry-export"
"""The field manager of the exports in an archive's status: no other write there takes them off."""

MANAGERS = frozenset({MANAGER, EXPORTS, "tenantry-placement", "tenantry-billing", "tenantry-move"})
"""All field managers of ours, one for each writer."""

MANAGED_BY = "app.kubernetes.io/managed-by"
TENANT = "tenantry.dev/tenant"
"""Label of each child: the tenant's name."""

TENANT_UID = "tenantry.dev/tenant-uid"
"""Annotation of each child: the UID of the Tenant that it was made for. A name comes again, a UID never."""

ROLE = "tenantry.dev/role"
"""Label of the ClusterRoles that tenants' members are bound to. Of our own, for Helm sets the managed-by label of
everything that it installs."""

ORIGIN = "tenantry.dev/namespace-origin"
"""Annotation of the namespace: whether we created it (and may delete it) or adopted it (and release it)."""
ORIGIN_CREATED = "created"
ORIGIN_ADOPTED = "adopted"

OWNER = "tenantry.dev/owner-digest"
"""Annotation of the namespace: whose it is, as `domain.ownership.address_digest` of `spec.owner.email`.

It outlives the Tenant's UID: after a restore to another cluster it tells whether a Tenant of that name is still
the same customer's. A digest, since more people may read namespaces than Tenants.
"""

ADOPTABLE_BY = "tenantry.dev/adoptable-by"
"""Annotation that a namespace's owner sets: the one tenant that may adopt it."""

RESTORE_FROM = "tenantry.dev/restore-from"
"""Annotation of a Tenant: the archive that a platform engineer allows it to take over."""

ROTATE = "tenantry.dev/rotate-credentials"
"""Annotation of a Tenant: another value than before asks for new credentials of its vector store."""

WITHOUT_EXPORT = "tenantry.dev/purge-without-export"
"""Annotation of a TenantArchive: "true" throws the vectors away, where they would be exported first."""

REMOVE_LEFTOVERS = "tenantry.dev/remove-leftovers"
"""Annotation of a VectorShard: places that nobody uses and that are to go, as `acme@2, umbrella@1`. A value is
carried out once."""

FINALIZER = "tenantry.dev/cleanup"

QUOTA = "tenantry"
QUOTA_SUSPENDED = "tenantry-suspended"
QUOTA_SYSTEM_CLASSES = "tenantry-system-classes"
LIMIT_RANGE = "tenantry"
SERVICE_ACCOUNT = "app"
CONFIG_MAP = "tenant-config"
VECTOR_STORE = "vector-store"
REVISION_PREFIX = "tenant-config-"

WRITTEN_BY_MEMBERS = {
    "ConfigMap": (CONFIG_MAP,),
    "Secret": (VECTOR_STORE,),
    "ServiceAccount": (SERVICE_ACCOUNT,),
}
"""Kinds of children that members may write too, and the names that ours have: others are the members' own."""

DEFAULT_DENY = "tenantry-default-deny"
SHARD_EGRESS = "tenantry-shard"

POD_SECURITY = "pod-security.kubernetes.io/"
PROTECTED_LABEL_PREFIXES = ("tenantry.dev/", POD_SECURITY)
"""Namespace labels that only we set: one that we did not set is taken off again."""


def archive_name(tenant: str, uid: str) -> str:
    """Return the name of the archive of that very tenant: its name and the first 8 digits of its UID."""
    return f"{tenant}-{uid[:8]}"


def revision_name(revision: int) -> str:
    """Return the name of the ControllerRevision with that number."""
    return f"{REVISION_PREFIX}{revision}"


def revision_number(name: str) -> int | None:
    """Return the number in the name of a ControllerRevision of ours; None for that of anybody else.

    A StatefulSet of the tenant that is called tenant-config names its own revisions tenant-config-<hash>, of
    at most ten digits and letters. A number that comes after one of ours is one of ours too, as long as it
    fits the int64 of the API.
    """
    number = name.removeprefix(REVISION_PREFIX)
    return (
        int(number) if name.startswith(REVISION_PREFIX) and re.fullmatch("[1-9][0-9]{0,17}", number) else None
    )
