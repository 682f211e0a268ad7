"""The audit rows of what a reconcile changed or found changed, each recorded at most once.

A row's identity is the same when the process dies and tries again, and another when the cluster was set back to a
backup and goes on differently from there: generations and revisions come again then, times do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenantry.api.common import Resource, rfc3339
from tenantry.api.plan import Plan
from tenantry.api.tenant import Tenant
from tenantry.domain.audit import AuditEntry, actor_of
from tenantry.domain.conditions import last_edit
from tenantry.domain.edits import in_words
from tenantry.domain.errors import Retry
from tenantry.domain.observed import ChildKey
from tenantry.domain.ownership import Ownership
from tenantry.domain.reasons import Action, Reason
from tenantry.reconcile.ports import Context, Unavailable

if TYPE_CHECKING:
    from tenantry.reconcile.report import Progress

SPEC = "spec"

EDITS = frozenset(
    {
        *(Action.CREATED, Action.SPEC_CHANGED, Action.PLAN_CHANGED, Action.SUSPENDED, Action.RESUMED),
        *(Action.ARCHIVED, Action.DELETED),
    }
)
"""What somebody does to an object, and not the operator by itself: messages go on from who it was."""


@dataclass(frozen=True, slots=True)
class Row:
    """What an Event says of an audit row."""

    action: str
    message: str
    warning: bool = False


async def of_tenant(progress: Progress, cx: Context) -> list[Row]:
    """Record what changed about a tenant; return it for the Events. Raises Unavailable."""
    entries: list[AuditEntry] = []
    if progress.tenant.status.observed_generation != progress.tenant.metadata.generation:
        entries.append(await spec_change(progress.tenant, progress.raw, cx))
    entries.extend(_revision(progress, cx))
    entries.extend(_repairs(progress, cx))
    if entries:
        await cx.audit.record(entries)
    # That the first configuration is in effect is said with Ready.
    fresh = progress.tenant.status.config_revision is None
    return [told(entry) for entry in entries if not (fresh and entry.action == Action.CONFIG_CHANGED)]


def told(entry: AuditEntry) -> Row:
    """Return what the Event of a row says; of an edit that includes by whom."""
    who = f"{entry.actor if entry.actor != 'unknown' else 'somebody'} " if entry.action in EDITS else ""
    return Row(entry.action, who + entry.message, warning=entry.action == Action.REPAIRED)


async def spec_change(subject: Tenant | Plan, raw: dict[str, Any], cx: Context) -> AuditEntry:
    """Return the row for the present generation of an object's spec."""
    uid, generation = subject.metadata.uid, subject.metadata.generation
    prefix = f"{uid}/{SPEC}/"
    last = await cx.audit.latest(uid, prefix)
    after = raw.get("spec") or {}
    if last is not None and last.after == after and _generation(last, prefix) == str(generation):
        return last  # the process died between recording it and the status
    identity = f"{prefix}{generation}@{moment(subject.metadata.managed_fields)}"
    before = last.after if last is not None else None
    known = before or {}
    changed = sorted(name for name in known.keys() | after.keys() if known.get(name) != after.get(name))
    if before is not None:
        action, message = _action(changed, after), in_words(before, after)
    elif subject.status.observed_generation < 0:
        action, message = Action.CREATED, f"created {subject.kind} {subject.metadata.name}"
    else:
        action, message = Action.SPEC_CHANGED, "changed the spec; how it was before is not in this audit log"
    actor = actor_of(subject.metadata.managed_fields, changed=changed)
    return entry(subject, cx, identity, action, message, actor=actor, before=before, after=after)


def _generation(row: AuditEntry, prefix: str) -> str:
    return row.identity.removeprefix(prefix).partition("@")[0]


def moment(*managed_fields: list[dict[str, Any]]) -> str:
    """Return when somebody else wrote any of these objects last; empty where nobody did."""
    edits = [edit for edit in map(last_edit, managed_fields) if edit is not None]
    return rfc3339(max(edits)) if edits else ""


def _action(changed: list[str], after: dict[str, Any]) -> Action:
    if "suspended" in changed:
        return Action.SUSPENDED if after.get("suspended") else Action.RESUMED
    return Action.PLAN_CHANGED if "plan" in changed else Action.SPEC_CHANGED


def _revision(progress: Progress, cx: Context) -> list[AuditEntry]:
    subject, config = progress.tenant, progress.config
    present = subject.status.config_revision
    if config is None or config.active is None or config.active.number == present:
        return []
    number = config.active.number
    before = next((item.value for item in config.kept if item.number == present), None)
    back = present is not None and number < present
    message = f"configuration revision {number} is in effect" + (f" instead of {present}" if present else "")
    plan = cx.seen.plan(progress.plan)
    causes = [item.metadata.managed_fields for item in (subject, plan) if item is not None]
    identity = f"{subject.metadata.uid}/config/{number}@{subject.metadata.generation}/{moment(*causes)}"
    action = Action.CONFIG_ROLLED_BACK if back else Action.CONFIG_CHANGED
    return [
        entry(
            subject,
            cx,
            identity,
            action,
            message,
            actor=_author(progress, cx),
            before=before,
            after=config.active.value,
        )
    ]


def _author(progress: Progress, cx: Context) -> str | None:
    """Return who edited the Plan where the Tenant itself has not changed; None: who edited the Tenant."""
    subject, plan = progress.tenant, cx.seen.plan(progress.plan)
    if plan is None or subject.status.observed_generation != subject.metadata.generation:
        return None
    edited, planned = last_edit(subject.metadata.managed_fields), last_edit(plan.metadata.managed_fields)
    if edited is not None and planned is not None and edited > planned:
        return None  # an edit of the Tenant that could not be put into effect at once
    return actor_of(plan.metadata.managed_fields)


def _repairs(progress: Progress, cx: Context) -> list[AuditEntry]:
    subject = progress.tenant
    return [
        entry(
            subject,
            cx,
            f"{subject.metadata.uid}/repair/{repair.child}/{repair.mark}",
            Action.REPAIRED,
            f"put back {_place(repair.child, subject.namespace_name)}, which was {repair.what}",
            actor=repair.what.removeprefix("changed by ") if repair.what != "deleted" else "unknown",
        )
        for repair in progress.repairs
    ]


def _place(child: ChildKey, namespace: str) -> str:
    return f"namespace {namespace}" if child.kind == "Namespace" else f"{child} in namespace {namespace}"


async def takeover(tenant: Tenant, ownership: Ownership, cx: Context) -> Row:
    """Record that a tenant takes a namespace over, before it does. Raises Retry without the ledger."""
    if ownership.taken == "restored":
        source = f"archive {ownership.archive}" if ownership.archive else "an earlier Tenant of that name"
        action, message = Action.RESTORED, f"restored namespace {tenant.namespace_name} from {source}"
    else:
        action, message = Action.ADOPTED, f"adopted namespace {tenant.namespace_name}"
    return await intent(tenant, cx, f"{tenant.metadata.uid}/{action.lower()}", action, message)


async def intent(
    subject: Resource, cx: Context, identity: str, action: Action, message: str, **more: Any
) -> Row:
    """Record what is about to be done and cannot be undone; return what is on record, for an Event.

    That is the row of the first try: a later one may find it half done, and who waits for a namespace to go tries
    every few seconds, so it is looked for before it is written. Raises Retry without the ledger.
    """
    row = entry(subject, cx, identity, action, message, **more)
    try:
        known = await cx.audit.latest(row.uid, identity)
        if known is None:
            await cx.audit.record([row])
            known = await cx.audit.latest(row.uid, identity)
        return told(known or row)
    except Unavailable as error:
        raise Retry(Reason.LEDGER_UNAVAILABLE, f"waits for the audit log: {error}") from error


def entry(
    subject: Resource,
    cx: Context,
    identity: str,
    action: Action,
    message: str,
    *,
    actor: str | None = None,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> AuditEntry:
    """Return an audit row about an object of ours; who did it comes from managedFields where not given."""
    metadata = subject.metadata
    tenant = getattr(getattr(subject, "spec", None), "tenant", None)
    return AuditEntry(
        identity=identity,
        at=cx.clock.now(),
        actor=actor or actor_of(metadata.managed_fields),
        action=action,
        kind=subject.kind,
        name=metadata.name,
        uid=metadata.uid,
        tenant=metadata.name if subject.kind == "Tenant" else tenant,
        before=before,
        after=after,
        message=message,
    )
