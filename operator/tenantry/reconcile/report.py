"""The end of a reconcile: audit rows, Events, one status patch, and when to look again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from tenantry.api.archive import TenantArchive, TenantArchiveStatus
from tenantry.api.common import Condition, Status
from tenantry.api.move import TenantMove, TenantMoveStatus
from tenantry.api.plan import Plan, PlanStatus
from tenantry.api.shard import VectorShard, VectorShardStatus
from tenantry.api.tenant import Tenant, TenantStatus
from tenantry.desired.owner import Manifest
from tenantry.domain import conditions, names
from tenantry.domain.conditions import Observation, Outcome
from tenantry.domain.configuration import Configuration
from tenantry.domain.errors import PartError, Retry, Stalled
from tenantry.domain.ownership import Ownership
from tenantry.domain.reasons import ConditionType, Reason
from tenantry.reconcile import record
from tenantry.reconcile.enact import Repair
from tenantry.reconcile.ports import Conflict, Context, Unavailable
from tenantry.reconcile.result import Key, Result

OUTRUN = timedelta(seconds=5)

CONFLICT_SECONDS = 5.0
"""The longest wait after a conflict: who has changed a child again and again may have stopped long since."""

STATUS_FIELDS = {
    kind.__name__: frozenset(field.alias or name for name, field in status.model_fields.items())
    for kind, status in (
        (Tenant, TenantStatus),
        (Plan, PlanStatus),
        (VectorShard, VectorShardStatus),
        (TenantMove, TenantMoveStatus),
        (TenantArchive, TenantArchiveStatus),
    )
}
"""What this version knows of the status of each kind, as it is written there."""


@dataclass(slots=True)
class Progress:
    """What one reconcile of a Tenant has come to, part by part.

    told: what is on record already, for Events. due: seconds until something changes by itself.
    """

    tenant: Tenant
    raw: Manifest
    plan: str
    outcomes: dict[ConditionType, Outcome] = field(default_factory=dict)
    ownership: Ownership | None = None
    config: Configuration | None = None
    repairs: list[Repair] = field(default_factory=list)
    unrecorded: list[Outcome] = field(default_factory=list)
    takeover: record.Row | None = None
    told: list[record.Row] = field(default_factory=list)
    due: float | None = None

    @property
    def was_ready(self) -> bool:
        """Return whether the tenant has been Ready before: it has a configuration in effect."""
        return self.tenant.status.config_revision is not None

    def outran(self, now: datetime) -> bool:
        """Return whether all that went wrong is that something changed meanwhile: try again, say nothing.

        Only soon after an edit: a conflict that lasts is reported.
        """
        errors = [outcome.error for outcome in self.outcomes.values() if outcome.error is not None]
        edited = conditions.last_edit(self.tenant.metadata.managed_fields)
        fresh = edited is not None and now - edited < OUTRUN
        return (
            bool(errors)
            and fresh
            and not self.repairs
            and all(error.reason == Reason.CONFLICT for error in errors)
        )


async def tenant(progress: Progress, cx: Context) -> Result:
    """Write audit rows first, then the status that says the spec has been dealt with, then Events.

    The last two may wait until others have been looked at; the audit log has what happened, in its order, at once.
    """
    subject = progress.tenant
    if progress.outran(cx.clock.now()):
        return Result(failed=True, at_most=CONFLICT_SECONDS, outcome="conflict")
    try:
        rows = await record.of_tenant(progress, cx)
    except Unavailable as error:
        # The children are right already; only this tenant's report waits for the ledger.
        problem = Retry(Reason.LEDGER_UNAVAILABLE, f"a change could not be written to the audit log: {error}")
        progress.unrecorded.append(Outcome.failed(problem))
        rows = []
    status = tenant_status(progress, cx)

    async def publish() -> None:
        if await write_status(progress.raw, status, cx):
            _first_ready(subject, status, cx)
        await _emit(progress, rows, status, cx)

    if _may_wait(progress, status) and cx.deferred.put(Key("Tenant", subject.metadata.name), publish):
        return Result(after=0.0, low=True, outcome="deferred")
    await publish()
    return _result(progress)


def _may_wait(progress: Progress, status: dict[str, Any]) -> bool:
    """Tell whether nobody waits for the status: a healthy tenant has a new revision by an edit of its Plan."""
    subject = progress.tenant
    healthy = not any(outcome.error for outcome in (*progress.outcomes.values(), *progress.unrecorded))
    return (
        healthy
        and not progress.repairs
        and not progress.told
        and progress.takeover is None
        and subject.status.observed_generation == subject.metadata.generation
        and (subject.status.phase, subject.status.plan) == (status["phase"], status["plan"])
        and subject.status.config_revision != status.get("configRevision")
    )


def tenant_status(progress: Progress, cx: Context) -> dict[str, Any]:
    """Return the whole status that the operator's field manager owns."""
    subject, now = progress.tenant, cx.clock.now()
    suspended = None
    if subject.spec.suspended:
        suspended = (Reason.REQUESTED, "suspended by spec.suspended: set it to false to resume")
    active = progress.config.active if progress.config else None
    revision = active.number if active else subject.status.config_revision
    observed, leaks = _isolation(progress, cx)
    listed = conditions.summarise(
        progress.outcomes,
        subject.status.conditions,
        generation=subject.metadata.generation,
        now=now,
        ready_message=_ready_message(subject, progress.plan, revision),
        suspended=suspended,
        also=[*progress.unrecorded, *leaks],
        observed=observed,
    )
    ours = progress.ownership is not None
    recorded = not progress.unrecorded
    phase = conditions.phase(listed, namespace_ours=ours, was_ready=progress.was_ready)
    status: dict[str, Any] = {
        # What is not in the audit log yet counts as not seen yet: the next try still finds it changed.
        "observedGeneration": subject.metadata.generation if recorded else subject.status.observed_generation,
        "phase": phase,
        "plan": progress.plan,
        "conditions": [condition.as_json() for condition in listed],
        "namespace": subject.namespace_name
        if ours
        else None
        if _stalled(progress)
        else subject.status.namespace,
        "configRevision": revision if recorded else subject.status.config_revision,
    }
    return {name: value for name, value in status.items() if value is not None}


def _isolation(progress: Progress, cx: Context) -> tuple[dict[ConditionType, Observation], list[Outcome]]:
    """Return what the last probe of the tenant's isolation has found, as a condition, and as a failure of Ready.

    A new process has not probed yet: then it is as it was.
    """
    kind = ConditionType.ISOLATION_VERIFIED
    if ConditionType.SHARD_READY not in progress.outcomes:
        return {}, []
    leaks = cx.fleet.leaks(progress.tenant.metadata.name)
    before = conditions.find(progress.tenant.status.conditions, kind)
    if leaks is None and before is None:
        return {}, []
    if leaks == () or (leaks is None and before is not None and before.status == "True"):
        return {kind: Observation(True, Reason.NO_LEAK, "its credentials read no row of its neighbours")}, []
    message = "; ".join(leaks or ()) or (before.message if before else "")
    leak = Stalled(Reason.LEAK_FOUND, message)
    return {kind: Observation(False, Reason.LEAK_FOUND, message)}, [Outcome.failed(leak)]


def _stalled(progress: Progress) -> bool:
    return any(isinstance(outcome.error, Stalled) for outcome in progress.outcomes.values())


def _ready_message(subject: Tenant, plan: str, revision: int | None) -> str:
    place = f"namespace {subject.namespace_name}, plan {plan}, configuration revision {revision}"
    return f"suspended on purpose: {place}" if subject.spec.suspended else place


async def write_status(raw: Manifest, wanted: dict[str, Any], cx: Context) -> Manifest | None:
    """Bring the status of the very object that was read to what is wanted; return it as stored by that write.

    None: it took none. Another object by the same name is a conflict. What other field managers own in the
    status is theirs: it stays, and gives no cause for a write. So does what a newer version of ours wrote there
    before a rollback: it may be all that it knows.
    """
    wanted = {**_of_a_newer_version(raw), **wanted}
    if not _status_differs(raw, wanted):
        return None
    try:
        return await apply_status(raw, wanted, cx)
    except Conflict:
        # An edit meanwhile is no obstacle; a successor is. The API server checks no UID of a status that is
        # written, so it is the version that must be the present one.
        now = await cx.objects.get(raw["kind"], raw["metadata"]["name"])
        if now is None or now["metadata"]["uid"] != raw["metadata"]["uid"]:
            raise
        return await apply_status(now, wanted, cx)


async def apply_status(
    of: Manifest, wanted: dict[str, Any], cx: Context, manager: str = names.MANAGER
) -> Manifest:
    """Write the whole status that a field manager owns of the very object that was read; return it as stored.

    Raises Conflict where the object has changed since.
    """
    metadata = {name: of["metadata"][name] for name in ("name", "uid", "resourceVersion")}
    return await cx.objects.apply_status(
        {"apiVersion": of["apiVersion"], "kind": of["kind"], "metadata": metadata, "status": wanted},
        manager=manager,
    )


def _status_differs(raw: Manifest, wanted: dict[str, Any]) -> bool:
    present, owned = raw.get("status") or {}, _owned_status(raw)
    fields = {name.removeprefix("f:") for name in owned} | wanted.keys()
    if any(present.get(name) != wanted.get(name) for name in fields - {"conditions"}):
        return True
    listed = {item["type"]: item for item in wanted["conditions"]}
    kept = {json.loads(name[2:])["type"] for name in owned.get("f:conditions", {}) if name.startswith("k:")}
    ours = kept | listed.keys()
    return listed != {item["type"]: item for item in present.get("conditions", []) if item["type"] in ours}


def _of_a_newer_version(raw: Manifest) -> dict[str, Any]:
    """Return the fields of the status that are ours by managedFields, and that this version does not know."""
    known, owned = STATUS_FIELDS[raw["kind"]], _owned_status(raw)
    present = raw.get("status") or {}
    return {name: value for name, value in present.items() if name not in known and f"f:{name}" in owned}


def _owned_status(raw: Manifest) -> dict[str, Any]:
    """Return the fields of the status that are ours by managedFields."""
    for item in raw["metadata"].get("managedFields", []):
        if item.get("manager") == names.MANAGER and item.get("subresource") == "status":
            fields: dict[str, Any] = item.get("fieldsV1", {}).get("f:status", {})
            return fields
    return {}


async def unreadable(raw: Manifest, error: ValidationError, cx: Context) -> Result:
    """Report an object that passed another version's schema but makes no sense to this one."""
    first = error.errors()[0]
    field_name = ".".join(str(part) for part in first["loc"])
    found = f", not {first['input']!r}" if isinstance(first["input"], str | int | float) else ""
    step = "correct it and apply again"
    if "deletionTimestamp" in raw["metadata"]:
        step = (
            f"correct it, without it nobody knows what is to become of what this object keeps; or take its finalizer "
            f"{names.FINALIZER} off, and all of that is left as it is"
        )
    problem = Stalled(Reason.INVALID_SPEC, f"{field_name}: {first['msg']}{found}: {step}")
    present = Status.model_validate({"conditions": (raw.get("status") or {}).get("conditions")}).conditions
    generation = raw["metadata"].get("generation", 0)
    listed = conditions.summarise(
        {},
        present,
        generation=generation,
        now=cx.clock.now(),
        ready_message="",
        also=[Outcome.failed(problem)],
    )
    wanted = [condition.as_json() for condition in listed]
    await write_status(raw, {**_degraded(raw), "observedGeneration": generation, "conditions": wanted}, cx)
    return Result(outcome="stalled")


async def broken(subject: Tenant, raw: Manifest, error: Exception, cx: Context) -> None:
    """Say that a bug keeps a tenant from being looked after; the caller raises it on, for the queue and the log."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    problem = Retry(Reason.INTERNAL_ERROR, f"the operator failed and tries again; its log says more ({text})")
    listed = conditions.summarise(
        {},
        subject.status.conditions,
        generation=subject.metadata.generation,
        now=cx.clock.now(),
        ready_message="",
        also=[Outcome.failed(problem)],
    )
    # The generation that was observed stays: what has changed since is not in the audit log yet.
    wanted = {
        "observedGeneration": subject.status.observed_generation,
        **_degraded(raw),
        "conditions": [condition.as_json() for condition in listed],
    }
    await write_status(raw, wanted, cx)


def _degraded(raw: Manifest) -> dict[str, Any]:
    """Return what is ours of the present status, for one that says no more than that something is wrong."""
    before, owned = raw.get("status") or {}, _owned_status(raw)
    kept = {name: value for name, value in before.items() if f"f:{name}" in owned}
    return {**kept, "phase": "Degraded"} if "phase" in kept else kept


def _first_ready(subject: Tenant, status: dict[str, Any], cx: Context) -> None:
    if subject.status.config_revision is None and status.get("phase") == "Ready":
        cx.watch.became_ready((cx.clock.now() - subject.metadata.creation_timestamp).total_seconds())


async def _emit(progress: Progress, rows: list[record.Row], status: dict[str, Any], cx: Context) -> None:
    for row in [*rows, *([progress.takeover] if progress.takeover else []), *progress.told]:
        await cx.objects.emit(progress.raw, row.action, row.message, warning=row.warning)
    before = conditions.find(progress.tenant.status.conditions, ConditionType.READY)
    after = conditions.find(
        [Condition.model_validate(item) for item in status["conditions"]], ConditionType.READY
    )
    if after is None or (before and (before.status, before.reason) == (after.status, after.reason)):
        return
    # Still Ready for another reason is what the rows say already; any other change has not been told.
    if not rows or after.status != "True" or before is None or before.status != "True":
        await cx.objects.emit(progress.raw, after.reason, after.message, warning=after.status != "True")


def _result(progress: Progress) -> Result:
    outcomes = [*progress.outcomes.values(), *progress.unrecorded]
    result = result_of([outcome.error for outcome in outcomes if outcome.error is not None])
    if progress.due is None or result.failed:
        # What failed is tried again soon: what is due in months must not become the least delay before that.
        return result
    return replace(result, after=progress.due if result.after is None else min(result.after, progress.due))


def result_of(errors: Sequence[PartError]) -> Result:
    """Return what the queue is to do after these errors: back off, look again after a delay, or nothing."""
    retries = [error for error in errors if isinstance(error, Retry)]
    failed = [error for error in retries if error.failed]
    if failed:
        # What others wait for is no least delay of these.
        outran = all(error.reason == Reason.CONFLICT for error in failed)
        longest = CONFLICT_SECONDS if outran else None
        return Result(after=_soonest(failed), failed=True, at_most=longest, outcome="retry")
    if retries:
        return Result(after=_soonest(errors), outcome="waiting")
    return Result(after=_soonest(errors), outcome="stalled" if errors else "ok")


def _soonest(errors: Sequence[PartError]) -> float | None:
    delays = [error.delay for error in errors if isinstance(error, Retry | Stalled)]
    return min((delay for delay in delays if delay is not None), default=None)
