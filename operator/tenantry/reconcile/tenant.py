"""One Tenant: read everything, decide, apply, report.

gone            nothing to do
being deleted   reconcile.farewell
else            finalizer, then namespace, policy and configuration, each a part with its own condition;
                a part that stalls never blocks the others; then one status patch says how it stands
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from pydantic import ValidationError

from tenantry.api.plan import Plan
from tenantry.api.tenant import Tenant
from tenantry.desired import children
from tenantry.desired.namespace import namespace as build_namespace
from tenantry.desired.namespace import pod_security_kept
from tenantry.desired.owner import Access, Manifest, Owner
from tenantry.domain import conditions, names
from tenantry.domain.conditions import Outcome
from tenantry.domain.configuration import (
    Config,
    Configuration,
    Revision,
    configure,
    refusal,
    resolve,
)
from tenantry.domain.errors import PartError, Stalled
from tenantry.domain.observed import ChildKey, Observed, RevisionDetail
from tenantry.domain.ownership import Ownership, claim, tenant_uids
from tenantry.domain.reasons import ConditionType, Reason
from tenantry.reconcile import farewell, placing, record, report, vectors
from tenantry.reconcile.enact import apply_group, apply_namespace, translated
from tenantry.reconcile.ports import Conflict, Context, Refused, Unavailable
from tenantry.reconcile.result import Key, Result

TAKEN_CHECK_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything read for one reconcile. `no_plan`: why there is no plan, where there is none."""

    namespace: Observed | None
    children: Mapping[ChildKey, Observed]
    plan_name: str
    plan: Plan | None
    no_plan: PartError | None


async def reconcile(key: Key, cx: Context) -> Result:
    """Bring one tenant to its desired state; safe to run again after dying at any line."""
    with suppress(Conflict):  # it went away, or another has its name: that is seen now
        await cx.deferred.make(key)
    raw = cx.seen.tenant_object(key.name) or await cx.objects.get("Tenant", key.name)
    if raw is None:
        return Result.done()
    try:
        tenant = Tenant.model_validate(raw)
    except ValidationError as error:
        leaving = farewell.leaving(raw, error)
        if leaving is None:
            return await report.unreadable(raw, error, cx)
        tenant = leaving
    if tenant.deleting:
        return await farewell.finalize(tenant, raw, cx)
    try:
        return await _provision(tenant, raw, cx)
    except (Conflict, Refused, Unavailable):
        raise
    except Exception as error:
        await report.broken(tenant, raw, error, cx)
        raise


async def _provision(tenant: Tenant, raw: Manifest, cx: Context) -> Result:
    facts = observe(tenant, cx)
    progress = report.Progress(tenant, raw, plan=facts.plan_name)
    try:
        marked = await _marked(tenant, raw, facts, cx)
        if marked is None:
            return Result.done()
        progress.raw = marked
        ownership = claim(
            tenant,
            facts.namespace,
            tenant_uids(facts.children),
            cx.seen.claims(tenant.namespace_name),
            cx.seen.archives_of(tenant.metadata.name),
            cx.clock.now(),
        )
        if ownership.taken == "adopted":
            await _refuse_taken_names(tenant, facts, cx)
        taken = ownership.taken in ("adopted", "restored")
        row = await record.takeover(tenant, ownership, cx) if taken else None
        namespace = await _namespace(tenant, facts, ownership, progress, cx)
    except PartError as error:
        progress.outcomes[ConditionType.NAMESPACE_READY] = Outcome.failed(error)
        return await report.tenant(progress, cx)
    progress.ownership, progress.takeover = ownership, row
    progress.outcomes[ConditionType.NAMESPACE_READY] = Outcome(
        Reason.READY, f"namespace {namespace.name} is in place"
    )
    placed = await _placement(tenant, facts, progress, cx)
    await _policy(tenant, facts, vectors.egress(tenant, placed, cx), progress, cx)
    await _configuration(tenant, facts, namespace, progress, cx)
    if placed is not None:
        await _vectors(tenant, facts, placed, progress, cx)
    if ownership.taken:
        # How others have left what is taken over (a former tenant, a backup) is no drift.
        progress.repairs.clear()
    return await report.tenant(progress, cx)


async def _marked(tenant: Tenant, raw: Manifest, facts: Facts, cx: Context) -> Manifest | None:
    """Return the Tenant with our finalizer on it, None where it went away meanwhile."""
    present = tenant.metadata.finalizers
    with translated():
        if names.FINALIZER not in present:
            return await cx.objects.patch(raw, {"finalizers": [*present, names.FINALIZER]})
        if facts.namespace is not None:
            return raw
        # Its namespace is gone, which may be the first news of its own end: for nobody none is made.
        now = await cx.objects.get("Tenant", tenant.metadata.name)
        return raw if now is not None and now["metadata"]["uid"] == tenant.metadata.uid else None


def observe(tenant: Tenant, cx: Context) -> Facts:
    """Read all that the decisions need."""
    name = tenant.namespace_name
    plan_name = tenant.spec.plan or cx.policy.default_plan
    plan = cx.seen.plan(plan_name)
    no_plan = None
    if plan is None:
        field = "spec.plan" if tenant.spec.plan else "the setting TENANTRY_DEFAULT_PLAN (spec.plan is unset)"
        present, generation = tenant.status.conditions, tenant.metadata.generation
        edited = conditions.last_edit(tenant.metadata.managed_fields)
        no_plan = conditions.plan_not_found(
            plan_name, field, present, generation, cx.clock.now(), cx.policy.plan_grace, edited
        )
    return Facts(cx.seen.namespace(name), cx.seen.children(name), plan_name, plan, no_plan)


async def _refuse_taken_names(tenant: Tenant, facts: Facts, cx: Context) -> None:
    """Raise Stalled where something of its owner in a namespace to be adopted has the name of a child of ours."""
    owner = _owner(tenant)
    group = children.planless_group(owner, tenant.spec, Access.OPEN, limited=False)
    if facts.plan is not None:
        group = children.policy_group(owner, tenant.spec, facts.plan.spec, Access.OPEN, cx.policy.around)
    keys = [*map(children.key, group.manifests), ChildKey("ConfigMap", names.CONFIG_MAP)]
    if vectors.concerned(tenant, cx):
        keys.append(ChildKey("Secret", names.VECTOR_STORE))
    with translated():
        found = [key for key in keys if await cx.objects.get(key.kind, key.name, owner.namespace)]
    if found:
        taken = ", ".join(str(key) for key in found)
        raise Stalled(
            Reason.NAME_TAKEN,
            f"namespace {owner.namespace} has {taken} of its own, which this tenant would overwrite: rename or "
            f"delete it in the namespace before it is adopted",
            TAKEN_CHECK_SECONDS,
        )


async def _namespace(
    tenant: Tenant, facts: Facts, ownership: Ownership, progress: report.Progress, cx: Context
) -> Observed:
    manifest = build_namespace(
        _owner(tenant),
        pod_security=_pod_security(facts),
        labels=tenant.spec.namespace.labels,
        origin=ownership.origin,
        email=tenant.spec.owner.email,
    )
    repairs = [] if ownership.taken else progress.repairs
    return await apply_namespace(manifest, facts.namespace, cx, repairs)


async def _placement(
    tenant: Tenant, facts: Facts, progress: report.Progress, cx: Context
) -> placing.Placed | None:
    """Return where the tenant's vectors are; None where that is nowhere, for a reason that is in its outcome."""
    if not vectors.concerned(tenant, cx):
        return None
    try:
        placed = await placing.placement(tenant, progress.raw, facts.plan, facts.no_plan, cx)
    except PartError as error:
        progress.outcomes[ConditionType.SHARD_READY] = Outcome.failed(error)
        return None
    progress.raw = placed.raw
    progress.told.extend(placed.rows)
    return placed


async def _vectors(
    tenant: Tenant, facts: Facts, placed: placing.Placed, progress: report.Progress, cx: Context
) -> None:
    try:
        done = await vectors.provision(tenant, placed, facts.children, cx, progress.repairs)
    except PartError as error:
        progress.outcomes[ConditionType.SHARD_READY] = Outcome.failed(error)
        return
    progress.outcomes[ConditionType.SHARD_READY] = done.outcome
    progress.told.extend(done.rows)
    progress.due = done.after


def _pod_security(facts: Facts) -> str:
    if facts.plan is not None:
        return str(facts.plan.spec.pod_security)
    # Without its plan a tenant keeps the level that it had.
    return pod_security_kept(facts.namespace)


async def _policy(
    tenant: Tenant, facts: Facts, egress: Manifest | None, progress: report.Progress, cx: Context
) -> None:
    level = Access.SUSPENDED if tenant.spec.suspended else Access.OPEN
    if facts.plan is None:
        limited = ChildKey("ResourceQuota", names.QUOTA) in facts.children
        bound = any(child.kind == "RoleBinding" for child in facts.children)
        group = children.planless_group(_owner(tenant), tenant.spec, level, limited=limited, bound=bound)
    else:
        group = children.policy_group(
            _owner(tenant), tenant.spec, facts.plan.spec, level, cx.policy.around, shard=egress
        )
    error = await apply_group(group, facts.children, cx, progress.repairs)
    if not progress.was_ready:
        error = error or facts.no_plan
    progress.outcomes[ConditionType.POLICY_READY] = Outcome.failed(error) if error else _policy_ready(facts)


def _policy_ready(facts: Facts) -> Outcome:
    if facts.plan is not None:
        return Outcome(Reason.READY, "quotas, network and access are as desired")
    return Outcome(
        Reason.PLAN_NOT_FOUND,
        f"access is as desired; quotas and network stay as they were until plan {facts.plan_name} is there",
    )


async def _configuration(
    tenant: Tenant, facts: Facts, namespace: Observed, progress: report.Progress, cx: Context
) -> None:
    wanted, dropped = _wanted_config(tenant, facts)
    present = [
        child.detail
        for child in facts.children.values()
        if child.kind == "ControllerRevision" and isinstance(child.detail, RevisionDetail)
    ]
    # Those that are there stand before those that were lost, should both have one number.
    details = {item.revision: item for item in (*cx.seen.lost_revisions(namespace.name), *present)}
    kept = [Revision(item.revision, item.config) for item in details.values()]
    in_effect = tenant.status.config_revision
    decided = configure(wanted, tenant.spec.config_revision, kept, in_effect, _read_revision(facts), dropped)
    if facts.plan is None or decided.active is None:
        # The last good configuration stays as it is; it names the plan that it came from.
        problem = facts.no_plan or decided.problem
        assert problem is not None  # noqa: S101 - without a plan or a configuration there is a reason
        progress.outcomes[ConditionType.CONFIG_READY] = Outcome.failed(problem)
        return
    group = children.config_group(
        _owner(tenant), tenant.spec, facts.plan_name, str(facts.plan.spec.priority), decided, namespace.uid
    )
    error = await apply_group(group, facts.children, cx, progress.repairs)
    if error is None:
        # What could not be written is not in effect, and not on record as if it were.
        progress.config = decided
    progress.outcomes[ConditionType.CONFIG_READY] = _config_outcome(decided, error)


def _wanted_config(tenant: Tenant, facts: Facts) -> tuple[Config | PartError, tuple[str, ...]]:
    """Return the resolved configuration with the overrides that were dropped, or why there is none."""
    if facts.plan is None:
        assert facts.no_plan is not None  # noqa: S101 - observe() sets one of the two
        return facts.no_plan, ()
    resolution = resolve(tenant.spec.overrides, facts.plan.spec)
    if resolution.refused:
        allowed = [str(path) for path in facts.plan.spec.overridable]
        return refusal(facts.plan_name, allowed, resolution.refused), ()
    return resolution.config, resolution.dropped


def _read_revision(facts: Facts) -> Revision | None:
    """Return the revision that the application reads at present, by its own account."""
    seen = facts.children.get(ChildKey("ConfigMap", names.CONFIG_MAP))
    if seen is None or not isinstance(seen.detail, RevisionDetail):
        return None
    return Revision(seen.detail.revision, seen.detail.config)


def _config_outcome(decided: Configuration, error: PartError | None) -> Outcome:
    problem = decided.problem or error
    if problem is not None:
        return Outcome.failed(problem)
    number = decided.active.number if decided.active else 0
    if decided.dropped:
        fields = ", ".join(f"spec.overrides.{path}" for path in decided.dropped)
        return Outcome(
            Reason.OVERRIDES_DROPPED,
            f"revision {number}, without {fields}: the effective plan does not allow it",
        )
    return Outcome(Reason.READY, f"tenant-config is at revision {number}")


def _owner(tenant: Tenant) -> Owner:
    return Owner(tenant.metadata.name, tenant.metadata.uid, tenant.namespace_name)
