"""A tenant's configuration: the plan's, with what the tenant may override, kept as numbered revisions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tenantry.api.plan import PlanSpec
from tenantry.api.tenant import Overrides
from tenantry.domain.errors import PartError, Stalled
from tenantry.domain.reasons import Reason

KEPT_REVISIONS = 10

Config = dict[str, Any]
"""The resolved `model`, `retrieval` and `limits`, by the field names of the API."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """A plan's configuration with the overrides laid over it.

    `refused`: paths that the requested plan does not let a tenant override (a user's mistake). `dropped`:
    paths that it does, but the effective plan does not (after a downgrade).
    """

    config: Config
    refused: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Revision:
    """One numbered state of the configuration; its content never changes."""

    number: int
    config: str

    @property
    def value(self) -> Config:
        """Return the content as an object."""
        loaded: Config = json.loads(self.config)
        return loaded


@dataclass(frozen=True, slots=True)
class Configuration:
    """What `tenant-config` holds (`active`), which revisions are kept, and what is wrong if something is."""

    active: Revision | None
    kept: tuple[Revision, ...]
    problem: PartError | None = None
    dropped: tuple[str, ...] = field(default=())


def canonical(config: Mapping[str, Any]) -> str:
    """Return a configuration as canonical JSON: equal text for equal content."""
    return json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def resolve(
    overrides: Overrides | None, effective: PlanSpec, requested: PlanSpec | None = None
) -> Resolution:
    """Lay a tenant's overrides over its effective plan.

    `requested` is the plan that was asked for, where billing has put another into effect.
    """
    requested = requested or effective
    config: Config = {part: getattr(effective, part).as_json() for part in ("model", "retrieval", "limits")}
    refused: list[str] = []
    dropped: list[str] = []
    for path, value in override_paths(overrides).items():
        if path not in requested.overridable:
            refused.append(path)
        elif path not in effective.overridable:
            dropped.append(path)
        else:
            part, name = path.split(".")
            config[part][name] = value
    return Resolution(config, tuple(refused), tuple(dropped))


def override_paths(overrides: Overrides | None) -> dict[str, Any]:
    """Return the overrides that are set, by dotted path (``model.temperature``)."""
    if overrides is None:
        return {}
    parts = overrides.as_json()
    return {f"{part}.{name}": value for part, fields in parts.items() for name, value in fields.items()}


def refusal(plan: str, overridable: Sequence[str], refused: Sequence[str]) -> Stalled:
    """Return the sentence for overrides that a plan does not allow."""
    allowed = ", ".join(sorted(overridable)) or "nothing"
    fields = ", ".join(f"spec.overrides.{path}" for path in sorted(refused))
    return Stalled(
        Reason.OVERRIDE_NOT_ALLOWED,
        f"plan {plan} does not let a tenant override {fields}: remove it, or choose a plan that lists it "
        f"under spec.overridable (this one allows {allowed})",
    )


def configure(
    wanted: Config | PartError,
    pinned: int | None,
    kept: Sequence[Revision],
    in_effect: int | None,
    read: Revision | None,
    dropped: tuple[str, ...] = (),
) -> Configuration:
    """Decide which revision is active and which are kept.

    wanted: the resolved configuration, or why there is none: then the last good one stays. pinned:
    `spec.configRevision`. kept: the revisions that the cluster holds. in_effect: the number in status. read:
    what `tenant-config` says at present, None where it cannot be made out; believed only where the revision
    itself is lost, since the revision cannot be edited and `tenant-config` can.

    A new revision gets the number after the highest known, so that a number never means two contents; a lost
    current revision comes back under its own number.
    """
    history = {revision.number: revision for revision in kept}
    if read is not None and read.number == in_effect:
        history.setdefault(read.number, read)
    newest = history[max(history)] if history else None
    last_good = history.get(in_effect or 0, newest)
    if pinned is not None:
        return _pinned(pinned, history, last_good, dropped)
    if isinstance(wanted, PartError):
        return Configuration(last_good, _retained(history, last_good), wanted)
    text = canonical(wanted)
    if newest is not None and newest.config == text:
        active = newest
    else:
        active = Revision(max(0, in_effect or 0, *history) + 1, text)
        history[active.number] = active
    return Configuration(active, _retained(history, active), None, dropped)


def _pinned(
    pinned: int, history: dict[int, Revision], last_good: Revision | None, dropped: tuple[str, ...]
) -> Configuration:
    if pinned in history:
        active = history[pinned]
        return Configuration(active, _retained(history, active), None, dropped)
    choices = ", ".join(str(number) for number in sorted(history))
    step = (
        f"choose one of {choices}, or remove the field"
        if choices
        else "remove the field, no revision is there yet"
    )
    problem = Stalled(Reason.REVISION_NOT_FOUND, f"spec.configRevision {pinned} is not kept: {step}")
    return Configuration(last_good, _retained(history, last_good), problem)


def _retained(history: Mapping[int, Revision], active: Revision | None) -> tuple[Revision, ...]:
    """Return the last ten revisions, oldest first; an active one that is older takes the place of the tenth."""
    numbers = sorted(history)[-KEPT_REVISIONS:]
    if active is not None and active.number not in numbers:
        numbers = [active.number, *numbers[-(KEPT_REVISIONS - 1) :]]
    return tuple(history[number] for number in numbers)
