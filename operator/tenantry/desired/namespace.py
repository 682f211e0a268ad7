"""The tenant's namespace, and whether the one in the cluster is as it should be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tenantry.api.plan import PodSecurity
from tenantry.desired.owner import Manifest, Owner
from tenantry.domain import names
from tenantry.domain.observed import NamespaceDetail, Observed
from tenantry.domain.ownership import address_digest

PROTECTED = (*names.PROTECTED_LABEL_PREFIXES, names.MANAGED_BY)


def namespace(
    owner: Owner, *, pod_security: str, labels: Mapping[str, str], origin: str, email: str
) -> Manifest:
    """Return the namespace: our marks, Pod Security at the plan's level, and the tenant's own labels.

    email: the tenant's contact, of which the namespace carries a digest.
    """
    levels = {
        f"{names.POD_SECURITY}{mode}{suffix}": value
        for mode in ("enforce", "audit", "warn")
        for suffix, value in (("", pod_security), ("-version", "latest"))
    }
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": owner.namespace,
            "labels": {
                **labels,
                **levels,
                names.MANAGED_BY: names.MANAGER,
                names.TENANT: owner.tenant,
            },
            "annotations": {
                names.TENANT_UID: owner.uid,
                names.ORIGIN: origin,
                names.OWNER: address_digest(email),
            },
        },
    }


def pod_security_kept(seen: Observed | None) -> str:
    """Return the Pod Security level for a namespace without a plan: the one it has, if a plan can set that."""
    detail = seen.detail if seen else None
    present = (
        detail.labels.get(f"{names.POD_SECURITY}enforce") if isinstance(detail, NamespaceDetail) else None
    )
    return str(PodSecurity.BASELINE if present == PodSecurity.BASELINE else PodSecurity.RESTRICTED)


def of_uid(desired: Manifest, uid: str) -> Manifest:
    """Return the manifest for the very namespace that was seen; another by that name is a conflict."""
    return {**desired, "metadata": {**desired["metadata"], "uid": uid}}


def matches(desired: Manifest, seen: Observed) -> bool:
    """Return whether a namespace needs no write.

    Others may label and annotate a namespace too (service meshes, policy engines); only what we applied
    and the label prefixes that are ours alone are held to what is desired.
    """
    detail = seen.detail
    if not isinstance(detail, NamespaceDetail) or detail.has_owner_references:
        return False
    labels, annotations = desired["metadata"]["labels"], desired["metadata"]["annotations"]
    return (
        _held(labels, detail.labels)
        and _held(annotations, detail.annotations)
        and detail.owned_labels <= labels.keys()
        and detail.owned_annotations <= annotations.keys()
        and not surplus(desired, detail)
    )


def tampered(desired: Manifest, seen: Observed) -> bool:
    """Return whether somebody else has changed what is ours, rather than we our mind.

    A value that another manager forced is not ours in managedFields any more.
    """
    detail = seen.detail
    if not isinstance(detail, NamespaceDetail):
        return False
    labels, annotations = desired["metadata"]["labels"], desired["metadata"]["annotations"]
    taken = {key for key in labels if key.startswith(PROTECTED) and key not in detail.owned_labels}
    lost = {key for key in annotations if key not in detail.owned_annotations}
    return bool(taken or lost or surplus(desired, detail))


def surplus(desired: Manifest, detail: NamespaceDetail) -> dict[str, Any]:
    """Return the metadata, as a merge patch, that takes off what only we may set and did not; {} if nothing."""
    wanted = desired["metadata"]
    labels = {
        key: None
        for key in detail.labels
        if key.startswith(names.PROTECTED_LABEL_PREFIXES) and key not in wanted["labels"]
    }
    annotations = {
        key: None
        for key in detail.annotations
        if key not in wanted["annotations"] and key != names.ADOPTABLE_BY
    }
    patch: dict[str, Any] = {}
    if labels:
        patch["labels"] = labels
    if annotations:
        patch["annotations"] = annotations
    if detail.has_owner_references:
        # A reference to an owner that does not exist makes garbage collection delete the namespace.
        patch["ownerReferences"] = None
    return patch


def left_over(desired: Manifest, detail: NamespaceDetail) -> dict[str, Any]:
    """Return the metadata, as a merge patch, that an apply of what is desired leaves there and that must go.

    That is what is surplus, and what we wanted once: an apply does not take off what a create has set.
    """
    wanted, patch = desired["metadata"], surplus(desired, detail)
    for section, owned in (("labels", detail.owned_labels), ("annotations", detail.owned_annotations)):
        if unwanted := owned - wanted[section].keys():
            patch[section] = {**patch.get(section, {}), **dict.fromkeys(sorted(unwanted))}
    return patch


def _held(wanted: Mapping[str, str], present: Mapping[str, str]) -> bool:
    return all(present.get(key) == value for key, value in wanted.items())
