"""`tenantry rebalance`: show which tenants would move between shards, or have those moves begin.

It decides as the operator does, from the same objects, and with the rights of whoever calls it: to list Tenants,
Plans, VectorShards and TenantMoves, to read the Secrets of the shards, whose servers tell the sizes, and to create
TenantMoves. Nothing is written to a server.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import csv
import json
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from tenantry.adapters.kubernetes.client import Client
    from tenantry.adapters.kubernetes.seen import Seen
    from tenantry.api.shard import VectorShard
    from tenantry.domain.layout import Holding
    from tenantry.domain.rebalance import Share, Step
    from tenantry.domain.rebalancing import Decision, RebalanceTerms
    from tenantry.reconcile.ports import Engines, Objects
    from tenantry.settings import Settings

INCOMPLETE = 3
"""Exit code: some shard could not be read, or some tenant cannot be brought to where it should be."""

EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done as far as can be: a shard could not be read, or a tenant "
    "cannot be moved to where it belongs."
)

NARROWEST = 160  # columns of a table that is piped somewhere

STEP_COLUMNS = ("tenant", "from", "to", "bytes", "reason", "state", "move", "waits")


class Output(StrEnum):
    """How a plan is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


class RebalanceFailed(Exception):  # noqa: N818 - reads as what has happened
    """There is no plan, or not all of it was begun; `str()` is a sentence with the next step."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A plan, and what became of it. unread: by shard, why it could not be read. created: names of TenantMoves.

    beaten: names of those that somebody else created meanwhile.
    """

    decision: Decision
    terms: RebalanceTerms
    unread: Mapping[str, str] = field(default_factory=dict)
    created: frozenset[str] = frozenset()
    beaten: frozenset[str] = frozenset()

    @property
    def complete(self) -> bool:
        """Return whether every shard was read and every tenant can be where it should be."""
        return not (self.unread or self.decision.notes or self.decision.plan.too_large)


def rebalance(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and create nothing.")] = False,
    theta: Annotated[
        float | None,
        typer.Option(
            help="How far above its share a shard may be. Default: TENANTRY_REBALANCE_THETA, else 0.05.",
            min=0.001,
            max=1.0,
        ),
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="Format.")] = Output.TABLE,
    kubeconfig: Annotated[
        str | None, typer.Option(envvar="KUBECONFIG", help="Kubeconfig of the cluster. In a pod: not needed.")
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
) -> None:
    """Even out vector shards: create the moves of tenants that may begin now, and say what the others wait for.

    Without --dry-run one move begins on each shard; the operator goes on with what is left, or call it again.
    """
    from tenantry.cli import fail, load_settings

    settings = load_settings()
    try:
        outcome = asyncio.run(_rebalance(settings, theta, (kubeconfig, context), dry_run=dry_run))
    except RebalanceFailed as error:
        raise fail(str(error)) from None
    show(outcome, output)
    if not outcome.complete:
        raise typer.Exit(INCOMPLETE)


async def _rebalance(
    settings: Settings, theta: float | None, cluster: tuple[str | None, str | None], *, dry_run: bool
) -> Outcome:
    """Make a plan, and begin it unless it is only to be shown. Raises RebalanceFailed."""
    from tenantry.adapters.engines import RealEngines
    from tenantry.adapters.kubernetes.client import Client, ConnectionFailed, Expired, configure
    from tenantry.adapters.kubernetes.objects import ApiObjects
    from tenantry.domain.rebalancing import decide
    from tenantry.reconcile.ports import Refused, Unavailable
    from tenantry.reconcile.rebalance import gather

    terms = settings.rebalance_terms
    terms = terms if theta is None else replace(terms, theta=theta)
    try:
        client = Client(await configure(*cluster))
    except ConnectionFailed as error:
        raise RebalanceFailed(str(error)) from error
    try:
        objects = ApiObjects(client, lambda: True, lambda _: None, lambda *_: None)
        seen = await _seen(client, settings.default_plan)
        holdings, unread = await read_shards(seen.shards(), objects, RealEngines(), settings.own_namespace)
        decision = decide(gather(seen, holdings, datetime.now(UTC), {}), terms, asked=True)
        outcome = Outcome(decision, terms, unread)
        return outcome if dry_run else await begin(outcome, objects)
    except (Refused, Unavailable, Expired) as error:
        raise RebalanceFailed(f"there is no plan: {error}") from error
    except LookupError as error:
        raise RebalanceFailed(
            "the cluster has no CustomResourceDefinitions of Tenantry: apply crds/"
        ) from error
    finally:
        await client.close()


async def _seen(client: Client, default_plan: str) -> Seen:
    """Return all objects that a plan is made from."""
    from tenantry.adapters.kubernetes.kinds import OWN_KINDS
    from tenantry.adapters.kubernetes.reflector import list_own
    from tenantry.adapters.kubernetes.seen import Seen

    seen = Seen(default_plan, lambda *_: None)
    # Moves before tenants: where a move has ended, the placement that is read after it is the new one.
    order = ("Plan", "VectorShard", "TenantMove", "Tenant")
    kinds = {kind.kind: kind for kind in OWN_KINDS}
    for name in order:
        await list_own(client, kinds[name], seen)
    return seen


# --- sizes ----------------------------------------------------------------------------------------------------------


async def read_shards(
    shards: Sequence[VectorShard], objects: Objects, engines: Engines, namespace: str
) -> tuple[dict[str, Holding], dict[str, str]]:
    """Return what each shard has on record, and why the others cannot be read. namespace: of their Secrets."""
    answers = await asyncio.gather(*(_read(shard, objects, engines, namespace) for shard in shards))
    named = dict(zip((shard.metadata.name for shard in shards), answers, strict=True))
    unread = {name: answer for name, answer in named.items() if isinstance(answer, str)}
    return {name: answer for name, answer in named.items() if not isinstance(answer, str)}, unread


async def _read(shard: VectorShard, objects: Objects, engines: Engines, namespace: str) -> Holding | str:
    """Return what a shard has on record, or a sentence that says why it cannot be read."""
    from tenantry.domain.layout import Holding
    from tenantry.reconcile.ports import Refused, Unavailable

    ref = shard.spec.connection.secret_ref
    secret = f"Secret {ref.name} in namespace {namespace}"
    try:
        found = await objects.get("Secret", ref.name, namespace)
    except (Refused, Unavailable) as error:
        return f"{secret} cannot be read: {error}"
    encoded = (found or {}).get("data", {}).get(ref.key)
    if encoded is None:
        return f"{secret} has no key {ref.key}: name the operator's namespace by TENANTRY_OWN_NAMESPACE"
    try:
        address = base64.b64decode(encoded).decode().strip()
    except (binascii.Error, UnicodeDecodeError):
        return f"key {ref.key} of {secret} is no text"
    try:
        engine = engines.open(shard.metadata.name, shard.spec.engine, address)
    except Refused as error:
        return str(error)
    try:
        return Holding.of(await engine.records())
    except (Refused, Unavailable) as error:
        return f"its server cannot be read from here: {error}"
    finally:
        with suppress(Refused, Unavailable):
            await engine.close()


# --- moves ----------------------------------------------------------------------------------------------------------


async def begin(outcome: Outcome, objects: Objects) -> Outcome:
    """Create the moves that may begin now. Raises RebalanceFailed."""
    from tenantry.reconcile.ports import Conflict, Refused, Unavailable
    from tenantry.reconcile.rebalance import manifest

    created: set[str] = set()
    beaten: set[str] = set()
    for beginning in outcome.decision.beginning:
        try:
            await objects.create(manifest(beginning))
            created.add(beginning.name)
        except Conflict:
            beaten.add(beginning.name)
        except (Refused, Unavailable) as error:
            done = f"after {len(created)} of {len(outcome.decision.beginning)} moves"
            raise RebalanceFailed(
                f"{done}, TenantMove {beginning.name} cannot be created: {error}"
            ) from error
    return replace(outcome, created=frozenset(created), beaten=frozenset(beaten))


# --- output ---------------------------------------------------------------------------------------------------------


def show(outcome: Outcome, output: Output) -> None:
    """Print a plan on stdout."""
    if output is Output.JSON:
        typer.echo(json.dumps(as_record(outcome), indent=2, ensure_ascii=False))
    elif output is Output.CSV:
        rows = [[record[column] for column in STEP_COLUMNS] for record in _steps(outcome)]
        csv.writer(sys.stdout).writerows([STEP_COLUMNS, *rows])
    else:
        _print_tables(outcome)


def as_record(outcome: Outcome) -> dict[str, Any]:
    """Return a plan for programs; sizes are in bytes."""
    plan = outcome.decision.plan
    return {
        "theta": outcome.terms.theta,
        "triggers": list(outcome.decision.triggers),
        "steps": _steps(outcome),
        "shards": [_share(share) for share in plan.shares],
        "movedBytes": plan.moved,
        "lowerBoundBytes": plan.bound,
        "ratio": _finite(plan.ratio),
        "tooLarge": list(plan.too_large),
        "over": list(plan.over),
        "stuck": [{"tenant": name, "reason": why} for name, why in sorted(outcome.decision.notes.items())],
        "unread": [{"shard": name, "reason": why} for name, why in sorted(outcome.unread.items())],
    }


def _steps(outcome: Outcome) -> list[dict[str, Any]]:
    """Return the steps, each with its state: planned (may begin), created, exists, or waiting."""
    found = []
    for item in outcome.decision.beginning:
        created = "created" if item.name in outcome.created else "planned"
        state = "exists" if item.name in outcome.beaten else created
        found.append({**_step(item.step), "state": state, "move": item.name, "waits": ""})
    found.extend(
        {**_step(item.step), "state": "waiting", "move": "", "waits": item.reason}
        for item in outcome.decision.waiting
    )
    return found


def _step(step: Step) -> dict[str, Any]:
    return {
        "tenant": step.tenant,
        "from": step.source,
        "to": step.target,
        "bytes": step.size,
        "reason": str(step.reason),
    }


def _share(share: Share) -> dict[str, Any]:
    return {
        "shard": share.shard,
        "before": share.before,
        "after": share.after,
        "should": round(share.share),
        "ratio": _finite(share.ratio),
    }


def _finite(ratio: float) -> float | None:
    return round(ratio, 4) if math.isfinite(ratio) else None


def _print_tables(outcome: Outcome) -> None:
    from rich.console import Console

    from tenantry.domain.quantities import as_quantity

    console = Console(highlight=False, width=None if sys.stdout.isatty() else NARROWEST)
    record, plan = as_record(outcome), outcome.decision.plan
    if record["steps"]:
        console.print(_step_table(record["steps"]))
    else:
        console.print("No tenant has to move.")
    if record["shards"]:
        console.print()
        console.print(_shard_table(record["shards"]))
    ratio = f" (ratio {plan.ratio:.2f})" if plan.bound else ""
    console.print()
    console.print(f"Moved {as_quantity(plan.moved)}, lower bound {as_quantity(plan.bound)}{ratio}")
    for sentence in _sentences(outcome):
        console.print(sentence, markup=False)


def _step_table(steps: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    from tenantry.domain.quantities import as_quantity

    table = Table("Tenant", "From", "To", "Size", "Reason", "State", box=None)
    for step in steps:
        state = f"waits {step['waits']}" if step["waits"] else f"{step['state']} ({step['move']})"
        size = as_quantity(step["bytes"])
        table.add_row(step["tenant"], step["from"], step["to"], size, step["reason"], state)
    return table


def _shard_table(shards: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    from tenantry.domain.quantities import as_quantity

    table = Table("Shard", "Before", "After", "Should be", "Share after", box=None)
    for item in shards:
        ratio = "-" if item["ratio"] is None or not item["should"] else f"{item['ratio']:.2f}"
        sizes = [as_quantity(item[column]) for column in ("before", "after", "should")]
        table.add_row(item["shard"], *sizes, ratio)
    return table


def _sentences(outcome: Outcome) -> list[str]:
    """Say what does not go as it should."""
    plan = outcome.decision.plan
    found = [
        f"Too large: {tenant} alone is more than any shard's share and stays where it is"
        for tenant in plan.too_large
    ]
    found += [f"Stuck: {tenant}: {why}" for tenant, why in sorted(outcome.decision.notes.items())]
    found += [f"Over: {shard} stays over its share: nothing on it fits in elsewhere" for shard in plan.over]
    found += [f"Not read: {shard}: {why}" for shard, why in sorted(outcome.unread.items())]
    return found
