"""From the outcome of each part to the conditions, the phase and the status that tools trust.

The one place where `Stalled` and `Retry` become conditions. The kstatus rules it keeps: Ready is always there;
Reconciling and Stalled are there only while True, and never both; `lastTransitionTime` changes only with
`status`; every condition names the generation that it speaks of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tenantry.api.common import Condition
from tenantry.domain.errors import PartError, Retry, Stalled
from tenantry.domain.names import MANAGERS
from tenantry.domain.reasons import ConditionType, Reason

PLAN_GRACE = timedelta(minutes=2)
"""How long a Plan that is not there yet may still come, within the same sync, before it counts as a mistake,
where the settings say nothing else."""

MESSAGE_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one part ended: verified, or not and why."""

    reason: Reason
    message: str
    error: PartError | None = None

    @property
    def ready(self) -> bool:
        """Return whether the part is as desired."""
        return self.error is None

    @classmethod
    def failed(cls, error: PartError) -> Outcome:
        """Return the outcome of a part that ended with an error."""
        return cls(error.reason, error.message, error)


@dataclass(frozen=True, slots=True)
class Observation:
    """A condition that Ready does not depend on."""

    holds: bool
    reason: Reason
    message: str


def plan_not_found(
    plan: str,
    field: str,
    present: Sequence[Condition],
    generation: int,
    now: datetime,
    grace: timedelta = PLAN_GRACE,
    edited: datetime | None = None,
) -> PartError:
    """Return the error for a Plan that does not exist.

    For a while it may still come (Retry), then the user must act (Stalled); a spec that is changed after that
    is given the same time again. edited: when somebody changed the Tenant last, where that is known.
    """
    message = f"{field} names plan {plan}, which does not exist: apply a Plan of that name, or name another"
    stalled = find(present, ConditionType.STALLED)
    if stalled and stalled.reason == Reason.PLAN_NOT_FOUND and stalled.observed_generation == generation:
        return Stalled(Reason.PLAN_NOT_FOUND, message)
    waiting = find(present, ConditionType.CONFIG_READY)
    if (
        waiting is None
        or waiting.reason != Reason.PLAN_NOT_FOUND
        or waiting.observed_generation != generation
    ):
        return Retry(Reason.PLAN_NOT_FOUND, message, grace.total_seconds())
    # A condition keeps its time when only its reason changes: the wait began with the last of these.
    began = [waiting.last_transition_time, edited, *_times(present, ConditionType.RECONCILING)]
    # Whoever writes a status or managedFields by hand may give a time that is yet to come: it counts for nothing.
    since = max((moment for moment in began if moment is not None and moment <= now), default=now)
    left = (since + grace - now).total_seconds()
    if left <= 0:
        return Stalled(Reason.PLAN_NOT_FOUND, message)
    return Retry(Reason.PLAN_NOT_FOUND, message, left)


def last_edit(managed_fields: Sequence[Mapping[str, Any]]) -> datetime | None:
    """Return when somebody else than the operator wrote more than the status last, None where nobody did."""
    times = [
        str(entry.get("time", ""))
        for entry in managed_fields
        if entry.get("subresource") != "status" and entry.get("manager") not in MANAGERS
    ]
    try:
        return datetime.fromisoformat(max(times, default=""))
    except ValueError:  # nobody, or somebody who has put times of no calendar there
        return None


def _times(present: Sequence[Condition], kind: ConditionType) -> list[datetime]:
    return [condition.last_transition_time for condition in present if condition.type == kind]


def find(conditions: Sequence[Condition], kind: ConditionType) -> Condition | None:
    """Return the condition of that type."""
    return next((condition for condition in conditions if condition.type == kind), None)


def is_true(conditions: Sequence[Condition], kind: ConditionType) -> bool:
    """Return whether the condition of that type is there and True."""
    condition = find(conditions, kind)
    return condition is not None and condition.status == "True"


def summarise(
    parts: Mapping[ConditionType, Outcome],
    present: Sequence[Condition],
    *,
    generation: int,
    now: datetime,
    ready_message: str,
    suspended: tuple[Reason, str] | None = None,
    also: Sequence[Outcome] = (),
    observed: Mapping[ConditionType, Observation] | None = None,
) -> list[Condition]:
    """Return all conditions: one for each part, then Ready, and Suspended, Stalled or Reconciling where True.

    parts: outcome by condition type, in the order in which their messages are shown. suspended: reason and
    message of a suspension on purpose, which leaves Ready True. also: outcomes without a condition of their
    own that Ready depends on too. observed: conditions that Ready does not depend on.
    """
    wanted = [
        (kind, "True" if outcome.ready else "False", outcome.reason, outcome.message)
        for kind, outcome in parts.items()
    ]
    for observation, found in (observed or {}).items():
        wanted.append((observation, "True" if found.holds else "False", found.reason, found.message))
    failed = [outcome for outcome in (*parts.values(), *also) if outcome.error is not None]
    stalled = [outcome for outcome in failed if isinstance(outcome.error, Stalled)]
    # What the user must do stands before what only needs time.
    first = next(iter(stalled or failed), None)
    if first is None:
        wanted.append(
            (ConditionType.READY, "True", Reason.SUSPENDED if suspended else Reason.READY, ready_message)
        )
    else:
        messages = "; ".join(dict.fromkeys(outcome.message for outcome in stalled or failed))
        wanted.append((ConditionType.READY, "False", first.reason, messages))
        wanted.append(
            (ConditionType.STALLED if stalled else ConditionType.RECONCILING, "True", first.reason, messages)
        )
    if suspended:
        wanted.append((ConditionType.SUSPENDED, "True", *suspended))
    return [
        _condition(kind, status, reason, message, present, generation, now)
        for kind, status, reason, message in wanted
    ]


def _condition(
    kind: ConditionType,
    status: str,
    reason: str,
    message: str,
    present: Sequence[Condition],
    generation: int,
    now: datetime,
) -> Condition:
    before = find(present, kind)
    changed = before is None or before.status != status
    return Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…",
        observed_generation=generation,
        last_transition_time=now if before is None or changed else before.last_transition_time,
    )


def phase(conditions: Sequence[Condition], *, namespace_ours: bool, was_ready: bool) -> str:
    """Return the phase for people.

    was_ready: the tenant has been Ready before; then a fault makes it Degraded, not Provisioning.
    """
    if is_true(conditions, ConditionType.READY):
        return "Suspended" if is_true(conditions, ConditionType.SUSPENDED) else "Ready"
    if is_true(conditions, ConditionType.STALLED):
        return "Degraded" if namespace_ours else "Pending"
    return "Degraded" if was_ready else "Provisioning"
