"""One Plan: how many tenants are on it, and an audit row for each edit. Tenants follow a Plan by themselves."""

from __future__ import annotations

from pydantic import ValidationError

from tenantry.api.plan import Plan
from tenantry.desired.owner import Manifest
from tenantry.domain import conditions
from tenantry.domain.conditions import Outcome
from tenantry.domain.errors import Retry
from tenantry.domain.reasons import Action, Reason
from tenantry.reconcile import record, report
from tenantry.reconcile.ports import Context, Unavailable
from tenantry.reconcile.result import Key, Result


async def _record_deletions(name: str, raw: Manifest | None, cx: Context) -> None:
    """Record each Plan of this name that was seen and is deleted. Raises Retry without the ledger."""
    while (gone := cx.seen.deleted_plan(name)) is not None:
        if raw is not None and raw["metadata"]["uid"] == gone.metadata.uid:
            return
        identity = f"{gone.metadata.uid}/deleted@{gone.metadata.resource_version}"
        before = gone.spec.as_json()
        message = f"deleted Plan {name}"
        row = await record.intent(gone, cx, identity, Action.DELETED, message, actor="unknown", before=before)
        cx.seen.plan_deletion_recorded(gone)
        await cx.objects.emit(gone.as_json(), row.action, row.message)


async def reconcile(key: Key, cx: Context) -> Result:
    """Report on one Plan; safe to run again after dying at any line."""
    raw = await cx.objects.get("Plan", key.name)
    try:
        await _record_deletions(key.name, raw, cx)
    except Retry as error:
        return report.result_of([error])
    if raw is None:
        return Result.done()
    try:
        plan = Plan.model_validate(raw)
    except ValidationError as error:
        return await report.unreadable(raw, error, cx)
    count = len(cx.seen.tenants_on(plan.metadata.name))
    outcome = Outcome(Reason.READY, "valid, in use" if count else "valid, not in use")
    rows: list[record.Row] = []
    observed = plan.metadata.generation
    if plan.status.observed_generation != plan.metadata.generation:
        try:
            change = await record.spec_change(plan, raw, cx)
            await cx.audit.record([change])
            rows = [record.told(change)]
        except Unavailable as error:
            problem = f"a change could not be written to the audit log: {error}"
            outcome = Outcome.failed(Retry(Reason.LEDGER_UNAVAILABLE, problem))
            observed = plan.status.observed_generation  # the next try still finds it changed
    listed = conditions.summarise(
        {},
        plan.status.conditions,
        generation=plan.metadata.generation,
        now=cx.clock.now(),
        ready_message=outcome.message,
        also=(outcome,),
    )
    wanted = {
        "observedGeneration": observed,
        "tenants": count,
        "conditions": [item.as_json() for item in listed],
    }
    await report.write_status(raw, wanted, cx)
    for row in rows:
        await cx.objects.emit(raw, row.action, row.message)
    return report.result_of([outcome.error] if outcome.error else [])
