"""A Tenant that is being deleted: archive and close its namespace, or remove it, or give it back.

    Retain   audit row, TenantArchive, access cut, finalizer off; the archive's own reconcile goes on from there
    Delete   audit row, namespace deleted and awaited, finalizer off
    adopted  the same, but the namespace is released instead of deleted

Each step is safe to do again: names, times and identities come from the Tenant's UID and deletion time alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from tenantry.api.common import API_VERSION, GROUP, rfc3339
from tenantry.api.tenant import DeletionPolicy, Tenant
from tenantry.desired import children
from tenantry.desired.namespace import namespace as build_namespace
from tenantry.desired.namespace import pod_security_kept
from tenantry.desired.owner import Manifest, Owner
from tenantry.domain import conditions, names
from tenantry.domain.conditions import Outcome
from tenantry.domain.deletion import Farewell, farewell, purge_after
from tenantry.domain.errors import PartError, Retry, Stalled
from tenantry.domain.observed import ChildKey, NamespaceDetail, Observed
from tenantry.domain.ownership import (
    TELLING_KINDS,
    TERMINATING_CHECK_SECONDS,
    origin,
    owner_of,
    tenant_uids,
    terminating,
)
from tenantry.domain.reasons import Action, ConditionType, Reason
from tenantry.reconcile import record, report
from tenantry.reconcile.enact import Repair, apply_group, apply_namespace, translated
from tenantry.reconcile.ports import Context
from tenantry.reconcile.purge import may_hold, remove_vectors, wait_for_moves
from tenantry.reconcile.result import Result

DEFINITION = "CustomResourceDefinition"

MARKS = (names.TENANT_UID, names.ORIGIN, names.OWNER)
"""Annotations by which a namespace says whose it is."""

OF_SHARDS = frozenset({Reason.SHARD_NOT_FOUND, Reason.SHARD_UNAVAILABLE, Reason.SHARD_UNKNOWN, Reason.MOVES})
"""Reasons that a deletion waits for vectors."""

NO_NAMESPACE = "it has no namespace of its own"

DECISIVE = frozenset({"owner", "namespace", "deletionPolicy", "retentionDays"})
"""Fields of a Tenant's spec that say what becomes of its namespace and its data."""


def leaving(raw: Manifest, error: ValidationError) -> Tenant | None:
    """Return a Tenant without those fields of its spec that cannot be read and do not matter any more.

    None where it is not being deleted, or where what cannot be read decides what becomes of what it has.
    """
    places = [each["loc"] for each in error.errors()]
    within_spec = all(len(place) > 1 and place[0] == "spec" for place in places)
    unread = {str(place[1]) for place in places if len(place) > 1}
    if "deletionTimestamp" not in raw["metadata"] or not within_spec or unread & DECISIVE:
        return None
    return Tenant.model_validate({**raw, "spec": {k: v for k, v in raw["spec"].items() if k not in unread}})


async def finalize(tenant: Tenant, raw: Manifest, cx: Context) -> Result:
    """Take leave of a deleted Tenant; its finalizer comes off when nothing more needs its spec."""
    if names.FINALIZER not in tenant.metadata.finalizers:
        return Result.done()
    namespace = cx.seen.namespace(tenant.namespace_name)
    shelf = cx.seen.children(tenant.namespace_name)
    owner = owner_of(namespace, tenant_uids(shelf)) if namespace else None
    try:
        wait_for_moves(tenant.metadata.name, cx)
        match farewell(tenant, namespace, owner, origin(namespace, tenant.spec.namespace.adoption)):
            case Farewell.RETAIN:
                assert namespace is not None  # noqa: S101 - there is something to retain
                await stand_by_deleted_kind("tenants", f"namespace {namespace.name}", cx)
                row = await _retain(tenant, raw, namespace, shelf, cx)
            case way:
                row = await _leave(tenant, raw, way, namespace, cx)
        with translated():
            kept = [item for item in tenant.metadata.finalizers if item != names.FINALIZER]
            await cx.objects.patch(raw, {"finalizers": kept})
        await cx.objects.emit(raw, row.action, row.message)
    except PartError as error:
        return await _waits(tenant, raw, error, cx)
    return Result.done()


async def _leave(
    tenant: Tenant, raw: Manifest, way: Farewell, namespace: Observed | None, cx: Context
) -> record.Row:
    """Leave a namespace for good, if there is one, and the vectors: to an archive, or for good too."""
    what = f"namespace {namespace.name}" if namespace and way is not Farewell.NOTHING else "its vectors"
    vectors = may_hold(tenant, cx)
    if vectors or way is not Farewell.NOTHING:
        await stand_by_deleted_kind("tenants", what, cx)
    if vectors and tenant.spec.deletion_policy is DeletionPolicy.RETAIN:
        row = await _archived(tenant, raw, "its vectors", cx)
    else:
        left = _left(way, namespace.name) if namespace and way is not Farewell.NOTHING else NO_NAMESPACE
        row = await _record(tenant, Action.DELETED, left, cx)
        await remove_vectors(tenant, cx)
    if namespace is not None and way is not Farewell.NOTHING:
        await depart(way, namespace, cx)
    return row


async def stand_by_deleted_kind(plural: str, kept: str, cx: Context) -> None:
    """Raise Stalled where an object is deleted only because its whole kind is: that is nobody's wish for its data.

    Whoever deletes a CustomResourceDefinition (`kubectl delete -f crds/`) deletes every object of it.
    """
    name = f"{plural}.{GROUP}"
    with translated():
        definition = await cx.objects.get(DEFINITION, name)
    if definition is not None and definition["metadata"].get("deletionTimestamp"):
        raise Stalled(
            Reason.KIND_DELETED,
            f"{DEFINITION} {name} is being deleted, and with it every object of the kind: {kept} is left as it is; "
            f"save this object, take its finalizer {names.FINALIZER} off, and apply it again when the kind is back",
        )


async def depart(way: Farewell, namespace: Observed, cx: Context) -> None:
    """Delete or release a namespace; raises Retry until it is done."""
    if way is Farewell.RELEASE:
        await release(namespace, cx)
        return
    if not namespace.deleting:
        with translated():
            # The version is a condition: a Tenant that takes the namespace over meanwhile keeps it.
            await cx.objects.delete(
                "Namespace", namespace.name, uid=namespace.uid, resource_version=namespace.resource_version
            )
    left = cx.seen.namespace(namespace.name)
    if left is not None:
        raise Retry(Reason.NAMESPACE_TERMINATING, terminating(left), TERMINATING_CHECK_SECONDS)


async def release(namespace: Observed, cx: Context) -> None:
    """Take our marks and children off an adopted namespace and leave it to its owner.

    The marks first, on the condition that the namespace is the one that was seen; after a crash the children
    still tell whose it was, so those that can be believed go last.
    """
    if _is_marked(namespace.detail):
        await _unmark(namespace, cx)
    # What has lost its label is there still, and would be left behind.
    left = {**cx.seen.deleted(namespace.name), **cx.seen.children(namespace.name)}
    for child in sorted(left.values(), key=lambda item: item.kind in TELLING_KINDS):
        if child.deleting:
            continue  # somebody's finalizer holds it
        with translated():
            await cx.objects.delete(child.kind, child.name, child.namespace, uid=child.uid)


async def _unmark(namespace: Observed, cx: Context) -> None:
    with translated():
        metadata = {
            "name": namespace.name,
            "uid": namespace.uid,
            "resourceVersion": namespace.resource_version,
        }
        stored = await cx.objects.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        present = stored["metadata"]
        labels = {key: None for key in _ours(namespace.detail) if key in present.get("labels", {})}
        annotations = present.get("annotations", {})
        marks = {key: None for key in MARKS if key in annotations}
        if labels or marks:
            await cx.objects.patch(stored, {"labels": labels, "annotations": marks})


async def close(
    owner: Owner,
    namespace: Observed,
    shelf: Mapping[ChildKey, Observed],
    cx: Context,
    *,
    adoption: str,
    email: str,
) -> list[Repair]:
    """Cut access to a retained namespace, and keep it cut; raises PartError.

    adoption: `spec.namespace.adoption` of its tenant, for where the namespace has lost the mark of its origin.
    email: its contact.
    """
    detail = namespace.detail
    labels = detail.labels if isinstance(detail, NamespaceDetail) else {}
    marks = (names.MANAGED_BY, names.TENANT)
    own = detail.owned_labels if isinstance(detail, NamespaceDetail) else frozenset()
    manifest = build_namespace(
        owner,
        pod_security=pod_security_kept(namespace),
        labels={
            key: value
            for key, value in labels.items()
            if key in own and key not in marks and not key.startswith(names.POD_SECURITY)
        },
        origin=origin(namespace, adoption),
        email=email,
    )
    repairs: list[Repair] = []
    await apply_namespace(manifest, namespace, cx, repairs)
    error = await apply_group(children.archived_group(owner), shelf, cx, repairs)
    if error is not None:
        raise error
    return repairs


async def _retain(
    tenant: Tenant, raw: Manifest, namespace: Observed, shelf: Mapping[ChildKey, Observed], cx: Context
) -> record.Row:
    row = await _archived(tenant, raw, f"namespace {namespace.name}", cx)
    owner = Owner(tenant.metadata.name, tenant.metadata.uid, namespace.name)
    await close(
        owner,
        namespace,
        shelf,
        cx,
        adoption=tenant.spec.namespace.adoption,
        email=tenant.spec.owner.email,
    )
    return row


async def _archived(tenant: Tenant, raw: Manifest, kept: str, cx: Context) -> record.Row:
    """Leave an archive, unless it is there already."""
    archive = _archive(tenant, raw)
    name, until = archive["metadata"]["name"], archive["spec"]["purgeAfter"]
    row = await _record(tenant, Action.ARCHIVED, f"TenantArchive {name} keeps {kept} until {until}", cx)
    with translated():
        if await cx.objects.get("TenantArchive", name) is None:
            await cx.objects.apply(archive)
    return row


def _archive(tenant: Tenant, raw: Manifest) -> Manifest:
    spec: dict[str, Any] = {
        "tenant": tenant.metadata.name,
        "tenantUID": tenant.metadata.uid,
        "owner": {"email": tenant.spec.owner.email},
        "tenantSpec": raw["spec"],
        "namespace": tenant.namespace_name,
        "purgeAfter": rfc3339(purge_after(tenant)),
    }
    if tenant.placement is not None:
        spec["placement"] = tenant.placement.as_json()
    name = names.archive_name(tenant.metadata.name, tenant.metadata.uid)
    metadata = {"name": name, "finalizers": [names.FINALIZER]}
    return {"apiVersion": API_VERSION, "kind": "TenantArchive", "metadata": metadata, "spec": spec}


def _is_marked(detail: Any) -> bool:
    """Return whether anything of a namespace's metadata is ours, or may be."""
    if not isinstance(detail, NamespaceDetail):
        return True
    marks = [key for key in MARKS if key in detail.annotations]
    return bool(detail.owned_labels or detail.owned_annotations or _ours(detail) or marks)


def _ours(detail: Any) -> list[str]:
    labels = detail.labels if isinstance(detail, NamespaceDetail) else {}
    ours = (names.MANAGED_BY, names.TENANT)
    return [key for key in labels if key in ours or key.startswith(names.POD_SECURITY)]


def _left(way: Farewell, namespace: str) -> str:
    return f"namespace {namespace} is {'given back' if way is Farewell.RELEASE else 'removed'}"


async def _record(tenant: Tenant, action: Action, left: str, cx: Context) -> record.Row:
    before = tenant.spec.as_json()
    asked = tenant.metadata.deletion_timestamp
    assert asked is not None  # noqa: S101 - only a deleted Tenant is taken leave of
    identity = f"{tenant.metadata.uid}/{action.lower()}@{rfc3339(asked)}"
    message = f"deleted Tenant {tenant.metadata.name}; {left}"
    return await record.intent(tenant, cx, identity, action, message, actor="unknown", before=before)


async def _waits(tenant: Tenant, raw: Manifest, error: PartError, cx: Context) -> Result:
    """Say in the conditions what the deletion waits for."""
    part = ConditionType.SHARD_READY if error.reason in OF_SHARDS else ConditionType.NAMESPACE_READY
    listed = conditions.summarise(
        {part: Outcome.failed(error)},
        tenant.status.conditions,
        generation=tenant.metadata.generation,
        now=cx.clock.now(),
        ready_message="",
    )
    status = tenant.status.as_json()
    status.pop("placement", None)
    wanted = {
        **status,
        "observedGeneration": tenant.metadata.generation,
        "phase": "Deleting",
        "conditions": [item.as_json() for item in listed],
    }
    await report.write_status(raw, wanted, cx)
    return report.result_of([error])
