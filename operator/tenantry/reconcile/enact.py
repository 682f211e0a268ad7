"""Bring children to their desired state: apply what differs, take off what is surplus, prune what is left."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tenantry.desired import namespace as namespaces
from tenantry.desired.children import Group, key
from tenantry.desired.fingerprint import fingerprint
from tenantry.desired.observe import observe
from tenantry.desired.owner import Manifest
from tenantry.domain import names
from tenantry.domain.errors import PartError, Retry
from tenantry.domain.observed import ChildKey, NamespaceDetail, Observed
from tenantry.domain.reasons import Reason
from tenantry.reconcile.brake import REFILL_SECONDS
from tenantry.reconcile.ports import Conflict, Context, Missing, Refused, Unavailable

WITH_FIXED_PARTS = frozenset({"ConfigMap", "ControllerRevision", "ResourceQuota", "RoleBinding", "Secret"})
"""Kinds that may have to be made anew: immutable data, scopes, roleRef and types cannot be changed in place."""

NEVER_POSTED = frozenset({"Secret"})
"""Kinds that the operator may write under some names only: RBAC does not see the name of what is POSTed."""

NEVER_REPLACED = frozenset({"ControllerRevision"})
"""Kinds whose content cannot be replaced: the API server compares their data byte for byte."""


@dataclass(frozen=True, slots=True)
class Repair:
    """A child that was put back: what had happened to it, and what tells this time from any other."""

    child: ChildKey
    what: str
    mark: str


def repair_of(child: ChildKey, seen: Observed | None, deleted: bool, now: datetime) -> Repair | None:
    """Return what somebody else had done to a child that was written just now.

    None where it is new, or where it was our own change of mind (an edited Plan or Tenant).
    """
    if seen is None:
        return Repair(child, "deleted", now.isoformat()) if deleted else None
    if seen.writer in names.MANAGERS:
        return None
    return Repair(child, f"changed by {seen.writer}", seen.resource_version)


async def apply_namespace(
    desired: Manifest, seen: Observed | None, cx: Context, repairs: list[Repair]
) -> Observed:
    """Bring the namespace to its desired labels and annotations; return it as it is then."""
    if seen is not None and namespaces.matches(desired, seen):
        return seen
    # Written last by us, it is our own work half done, or we have changed our mind.
    if seen is not None and seen.writer not in names.MANAGERS and namespaces.tampered(desired, seen):
        repairs.append(Repair(key(desired), f"changed by {seen.writer}", seen.resource_version))
    with translated():
        if seen is None:
            # An apply would take over a namespace that somebody else creates at this moment; a create does not.
            stored = await cx.objects.create(desired)
        else:
            stored = await cx.objects.apply(namespaces.of_uid(desired, seen.uid))
        now = observe(stored)
        detail = now.detail
        left_over = namespaces.left_over(desired, detail) if isinstance(detail, NamespaceDetail) else {}
        if left_over:
            stored = await cx.objects.patch(stored, left_over) or stored
            now = observe(stored)
    if not namespaces.matches(desired, now):
        raise _differs(key(desired))
    return now


async def apply_group(
    group: Group, seen: Mapping[ChildKey, Observed], cx: Context, repairs: list[Repair]
) -> PartError | None:
    """Bring a group of children to their desired state; return the first error.

    After an error only what is there already is kept right: nobody is let in before the limits stand.
    """
    first: PartError | None = None
    for wave in group.waves:
        due = wave if first is None else [manifest for manifest in wave if key(manifest) in seen]
        error = await _all(_ensure(manifest, seen.get(key(manifest)), cx, repairs) for manifest in due)
        first = first or error
    wanted = {key(manifest) for manifest in group.manifests}
    surplus = [item for child, item in seen.items() if child.kind in group.prune and child not in wanted]
    # Also after an error: what is surplus is mostly an allowance that has been taken back.
    removal = await _all(_remove(item, cx) for item in [*surplus, *_hidden(group, seen, wanted, cx)])
    return first or removal


def _hidden(
    group: Group, seen: Mapping[ChildKey, Observed], wanted: set[ChildKey], cx: Context
) -> list[Observed]:
    """Return what is surplus too, if it is there: what was not deleted but lost its label looks the same to us."""
    spaces = {manifest["metadata"].get("namespace", "") for manifest in group.manifests}
    lost = [item for namespace in spaces for item in cx.seen.deleted(namespace).values()]
    return [item for item in lost if item.kind in group.prune and item.key not in wanted | seen.keys()]


async def _all(steps: Iterable[Coroutine[Any, Any, None]]) -> PartError | None:
    """Run steps side by side to their ends; return the first PartError, raise anything else."""
    errors = [error for error in await asyncio.gather(*steps, return_exceptions=True) if error is not None]
    for error in errors:
        if not isinstance(error, PartError):
            raise error
    return next((error for error in errors if isinstance(error, PartError)), None)


async def _ensure(desired: Manifest, seen: Observed | None, cx: Context, repairs: list[Repair]) -> None:
    wanted, child = fingerprint(desired), key(desired)
    # Asked before writing: a child that has come back is not among them any more.
    deleted = child in cx.seen.deleted(desired["metadata"].get("namespace", ""))
    if seen is not None and not seen.deleting and seen.fingerprint == wanted:
        return
    repair = repair_of(child, seen, deleted, cx.clock.now())
    mark = (desired["metadata"].get("namespace", ""), child, seen.fingerprint if seen else "")
    if repair is not None:
        wait = cx.brake.take(mark, cx.clock.now())
        if wait > 0:
            raise _differs(child, wait)
    with translated():
        if seen is not None and seen.deleting:
            await _let_go(seen, cx)
        if not await _write(desired, wanted, cx, new=seen is None):
            raise _differs(child)
    if repair is not None:
        repairs.append(repair)
        cx.watch.repaired(child.kind)
        if cx.brake.is_spent(mark):
            # Put back, but it has not stayed so before: not called Ready until it does.
            raise _differs(child, REFILL_SECONDS)


def _differs(child: ChildKey, delay: float | None = None) -> Retry:
    return Retry(
        Reason.CHILD_DIFFERS,
        f"{child} does not stay as it was written: another controller or an admission webhook changes it",
        delay,
    )


async def _write(desired: Manifest, wanted: str, cx: Context, *, new: bool) -> bool:
    """Store; take off what others added by a replace; make anew what cannot be changed in place.

    Returns whether the child is as desired then.
    """
    try:
        stored = await _store(desired, cx, new=new)
        if fingerprint(stored) == wanted:
            return True
        if desired["kind"] not in NEVER_REPLACED:
            return fingerprint(await cx.objects.replace(_replacement(desired, stored))) == wanted
    except Refused as error:
        # Not what was seen: one that somebody made in its place may lack our label.
        kind, metadata = desired["kind"], desired["metadata"]
        present = await cx.objects.get(kind, metadata["name"], metadata.get("namespace", ""))
        if present is None:
            raise
        return fingerprint(await _overwrite(desired, present, error, cx)) == wanted
    return fingerprint(await _make_anew(desired, stored, cx)) == wanted


async def _store(desired: Manifest, cx: Context, *, new: bool) -> Manifest:
    """Create what is new, which costs the API server a quarter less than an apply; apply all else, and all Secrets.

    What a later apply wants no more it leaves to the create's field manager, and so in the object: a replace takes
    it off, as it does with what others added.
    """
    if new and desired["kind"] not in NEVER_POSTED:
        try:
            return await cx.objects.create(desired)
        except Missing:
            raise
        except Conflict:
            pass  # it is there, without our label or since a moment
    return await cx.objects.apply(desired)


async def _overwrite(desired: Manifest, present: Manifest, error: Refused, cx: Context) -> Manifest:
    """Replace what no apply can be laid over; make anew what has parts that cannot be changed at all."""
    if desired["kind"] not in NEVER_REPLACED:
        try:
            return await cx.objects.replace(_replacement(desired, present))
        except Refused:
            if desired["kind"] not in WITH_FIXED_PARTS:
                raise error from None
    return await _make_anew(desired, present, cx)


async def _make_anew(desired: Manifest, present: Manifest, cx: Context) -> Manifest:
    # What is there goes only where the new one would be let in: better an old quota than none.
    if desired["kind"] not in NEVER_POSTED:
        await cx.objects.try_create(desired)
    if present["metadata"].get("finalizers"):
        present = await _free(present, cx)
    kind, metadata = desired["kind"], present["metadata"]
    await cx.objects.delete(kind, metadata["name"], metadata.get("namespace", ""), uid=metadata["uid"])
    return await cx.objects.apply(desired)


def _replacement(desired: Manifest, stored: Manifest) -> Manifest:
    """Return the desired object with what identifies the stored one, and nothing else of it that counts."""
    kept = {name: stored["metadata"][name] for name in ("uid", "resourceVersion")}
    if desired["kind"] == "ClusterRole":
        # Without its marks Helm would not know it any more.
        for part in ("labels", "annotations"):
            kept[part] = {**stored["metadata"].get(part, {}), **desired["metadata"].get(part, {})}
    return {**desired, "metadata": {**desired["metadata"], **kept}}


async def _let_go(seen: Observed, cx: Context) -> None:
    """Take finalizers that are not ours off a child that is being deleted, so that it can come again."""
    stored = await cx.objects.get(seen.kind, seen.name, seen.namespace)
    if stored is None or stored["metadata"].get("uid") != seen.uid:
        return
    if stored["metadata"].get("finalizers"):
        await _free(stored, cx)


async def _free(stored: Manifest, cx: Context) -> Manifest:
    """Take all finalizers off an object, and return it as it is then.

    A ControllerRevision whose author wrote its JSON with blanks, as Python does, refuses every patch: its data is
    compared byte for byte, and a patch spells it without them. A replace that spells it as Python does is let in.
    """
    try:
        return await cx.objects.patch(stored, {"finalizers": None}) or stored
    except Refused:
        if stored["kind"] not in NEVER_REPLACED:
            raise
        kept = {key: value for key, value in stored["metadata"].items() if key != "finalizers"}
        return await cx.objects.replace({**stored, "metadata": kept})


async def _remove(item: Observed, cx: Context) -> None:
    with translated():
        if item.key in cx.seen.deleted(item.namespace):
            stored = await cx.objects.get(item.kind, item.name, item.namespace)
            if stored is None or stored["metadata"]["uid"] != item.uid:
                return
        if item.deleting:
            await _let_go(item, cx)
        else:
            await cx.objects.delete(item.kind, item.name, item.namespace, uid=item.uid)


class translated:  # noqa: N801 - reads as a clause of `with`
    """Turn what the API server answers into a part's error, for the tenant's conditions."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: Any, error: BaseException | None, _trace: Any) -> None:
        if isinstance(error, Conflict):
            raise Retry(Reason.CONFLICT, f"changed by somebody else meanwhile: {error}")
        if isinstance(error, Refused):
            raise Retry(Reason.REFUSED, f"the API server refuses: {error}") from error
        if isinstance(error, Unavailable):
            raise Retry(Reason.API_UNAVAILABLE, str(error), error.retry_after, failed=True) from error
