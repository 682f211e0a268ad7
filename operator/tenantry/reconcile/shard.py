"""One VectorShard: look at its server, make it fit, read what it has on record, and say how it stands.

What was read goes into the fleet, from which tenants' reconciles take it; tenants whose records changed are woken.
What takes long (probes of isolation, building indexes) is done behind it, one thing at a time for each server.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from tenantry.api.common import Condition
from tenantry.api.shard import VectorShard
from tenantry.desired.network import unnamed_shard
from tenantry.desired.owner import Manifest
from tenantry.domain import conditions
from tenantry.domain.conditions import Observation, Outcome
from tenantry.domain.errors import PartError, Retry, Stalled
from tenantry.domain.moves import MOVABLE
from tenantry.domain.places import PlaceState, Record
from tenantry.domain.quantities import as_quantity
from tenantry.domain.reasons import ConditionType, Reason
from tenantry.domain.rebalancing import Balance, balance
from tenantry.domain.vectors import wants_index
from tenantry.reconcile import leftovers, rebalance, report
from tenantry.reconcile.enact import translated
from tenantry.reconcile.fleet import Known
from tenantry.reconcile.ports import Context, Engine, Refused, Unavailable
from tenantry.reconcile.result import Key, Result

SECRET_CHECK_SECONDS = 15.0
"""How often to look for a Secret or a server that somebody has to put right: nothing tells of either."""

ROUND = 20
"""Every tenant of a shard is probed once in so many looks."""


async def reconcile(key: Key, cx: Context) -> Result:
    """Look at one shard and report; safe to run again after dying at any line."""
    raw = await cx.objects.get("VectorShard", key.name)
    if raw is None:
        return await _gone(key.name, cx)
    try:
        shard = VectorShard.model_validate(raw)
    except ValidationError as error:
        return await report.unreadable(raw, error, cx)
    problem: PartError | None = None
    tidy = False
    try:
        engine = await _look(shard, cx)
    except PartError as error:
        problem = error
        if cx.fleet.lost(key.name, error):
            _wake(key.name, cx)
    else:
        tidy = await leftovers.see_to(shard, raw, engine, cx)
    await _report(shard, raw, problem, cx, tidy=tidy)
    if problem is None:
        _go_on_behind(shard, cx)
        return Result(after=cx.policy.shard_pause.total_seconds(), low=True)
    return report.result_of([problem])


async def _gone(name: str, cx: Context) -> Result:
    known = cx.fleet.forget(name)
    if known is not None:
        await known.close()
    _wake(name, cx)
    return Result.done()


def _wake(shard: str, cx: Context) -> None:
    for claim in cx.seen.placed_on(shard):
        cx.wake(Key("Tenant", claim.name))


async def _look(shard: VectorShard, cx: Context) -> Engine:
    """Read a shard into the fleet, and wake those for whom anything is new. Raises PartError."""
    name = shard.metadata.name
    address = await _address(shard, cx)
    engine = await _engine(shard, address, cx)
    try:
        fitness = await engine.prepare()
        if fitness.unfit is not None:
            raise Stalled(Reason.SHARD_UNFIT, f"{fitness.unfit}", SECRET_CHECK_SECONDS)
        since = cx.fleet.turn
        records = await engine.records()
    except Refused as error:
        raise _refused(shard, str(error)) from error
    except Unavailable as error:
        message = f"the server cannot be reached: {error}"
        raise Retry(Reason.SHARD_UNAVAILABLE, message, SECRET_CHECK_SECONDS, failed=False) from error
    for tenant in sorted(cx.fleet.saw(name, engine, records, fitness.server, since)):
        cx.wake(Key("Tenant", tenant))
    return engine


async def _engine(shard: VectorShard, address: str, cx: Context) -> Engine:
    """Return the engine of that address: the present one, or another where the address has changed."""
    known = cx.fleet[shard.metadata.name]
    if known.engine is not None and known.address == address:
        return known.engine
    try:
        engine = cx.engines.open(shard.metadata.name, shard.spec.engine, address)
    except Refused as error:
        raise _refused(shard, str(error)) from error
    if known.engine is not None:
        # Where applications connect has changed with it.
        await known.close()
        _wake(shard.metadata.name, cx)
    known.engine, known.address = engine, address
    return engine


def _refused(shard: VectorShard, said: str) -> Stalled:
    ref = shard.spec.connection.secret_ref
    return Stalled(
        Reason.CONNECTION_REFUSED,
        f"spec.connection: {said} (Secret {ref.name}, key {ref.key}): correct the Secret or the server",
        SECRET_CHECK_SECONDS,
    )


async def _address(shard: VectorShard, cx: Context) -> str:
    """Return the address in the Secret. Raises Stalled where there is none, Retry where it cannot be read."""
    ref, namespace = shard.spec.connection.secret_ref, cx.policy.own_namespace
    with translated():
        secret = await cx.objects.get("Secret", ref.name, namespace)
    encoded = (secret or {}).get("data", {}).get(ref.key)
    if encoded is None:
        what = f"has no key {ref.key}" if secret is not None else "does not exist"
        raise Stalled(
            Reason.SECRET_NOT_FOUND,
            f"spec.connection.secretRef names Secret {ref.name}, which {what} in namespace {namespace}: create it "
            f"with the server's address under the key {ref.key}",
            SECRET_CHECK_SECONDS,
        )
    try:
        return base64.b64decode(encoded).decode().strip()
    except (binascii.Error, UnicodeDecodeError):
        raise _refused(shard, "is no text") from None


# --- what is said of it ---------------------------------------------------------------------------------------------


async def _report(
    shard: VectorShard, raw: Manifest, problem: PartError | None, cx: Context, *, tidy: bool
) -> None:
    """Say how a shard stands. tidy: what somebody wanted removed there is."""
    name = shard.metadata.name
    known = cx.fleet[name]
    share = _balance(cx).get(name)
    outcome = Outcome.failed(problem) if problem else Outcome(Reason.READY, _ready_message(shard, known))
    stood = conditions.find(shard.status.conditions, ConditionType.BALANCED)
    balanced = _balanced(share, stood) if shard.spec.engine in MOVABLE else None
    listed = conditions.summarise(
        {},
        shard.status.conditions,
        generation=shard.metadata.generation,
        now=cx.clock.now(),
        ready_message=outcome.message,
        also=(outcome,),
        observed={ConditionType.BALANCED: balanced} if balanced is not None else {},
    )
    status = {
        "observedGeneration": shard.metadata.generation,
        "tenants": len(cx.seen.placed_on(name)),
        "storage": as_quantity(known.size) if known.records is not None else shard.status.storage,
        "share": share.share if share is not None else shard.status.share,
        "server": known.server or shard.status.server,
        "endpoint": _endpoint(known) or shard.status.endpoint,
        "morePorts": _more_ports(known) or shard.status.more_ports or None,
        "leftovers": await leftovers.told(shard, raw, cx) or None,
        "leftoversRemoved": (tidy and leftovers.to_do(shard)) or shard.status.leftovers_removed,
        "conditions": [item.as_json() for item in listed],
    }
    await report.write_status(raw, {key: value for key, value in status.items() if value is not None}, cx)
    if (status["endpoint"], status["morePorts"] or []) != (shard.status.endpoint, shard.status.more_ports):
        _wake(name, cx)  # their network policies let them out to it
    if balanced is not None and not balanced.holds and (stood is None or stood.status != "False"):
        cx.wake(rebalance.KEY)  # it counts the minutes from now on
    before = conditions.find(shard.status.conditions, ConditionType.READY)
    if before is None or before.reason != outcome.reason:
        await cx.objects.emit(raw, outcome.reason, outcome.message, warning=problem is not None)


def _balance(cx: Context) -> Mapping[str, Balance]:
    """Return how all shards stand, compared with each other; nothing before all have been read."""
    shards = cx.seen.shards()
    if cx.fleet.unread(shard.metadata.name for shard in shards):
        return {}
    held = {shard.metadata.name: cx.fleet[shard.metadata.name].held for shard in shards}
    return balance(shards, held, cx.policy.rebalance.theta, cx.policy.rebalance.floor)


def _balanced(share: Balance | None, before: Condition | None) -> Observation | None:
    if share is None:
        # A new process has not compared yet: then it is as it was.
        if before is None or before.reason not in list(Reason):
            return None
        return Observation(before.status == "True", Reason(before.reason), before.message)
    if share.within:
        return Observation(True, Reason.WITHIN_SHARE, "holds about its share of all vectors")
    return Observation(
        False, Reason.OVER_SHARE, "holds more than its share: tenants will be moved to other shards"
    )


def _ready_message(shard: VectorShard, known: Known) -> str:
    if known.engine is not None:
        unnamed = unnamed_shard(shard.spec.network, known.engine.endpoint[0])
        if unnamed is not None:
            return f"{known.server}; {unnamed}"
    closed = "drains: its tenants are moved away" if shard.spec.drain else "takes no new tenants (cordoned)"
    return f"{known.server}; {closed}" if shard.spec.drain or shard.spec.cordoned else known.server


def _endpoint(known: Known) -> str | None:
    if known.engine is None:
        return None
    host, port = known.engine.endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _more_ports(known: Known) -> list[int]:
    return list(known.engine.more_ports) if known.engine is not None else []


# --- what is done behind it -----------------------------------------------------------------------------------------


def _go_on_behind(shard: VectorShard, cx: Context) -> None:
    """Have probes and indexes go on, unless those of the last look do still."""
    known = cx.fleet[shard.metadata.name]
    engine, records = known.engine, known.records
    if engine is None or records is None:
        return

    async def work() -> None:
        await _probe(engine, list(records.values()), cx)
        for record in list(records.values()):
            if _wants_index(record):
                await engine.index(record.place.tenant)

    known.begin(work)


def _wants_index(record: Record) -> bool:
    settled = record.place.state is PlaceState.OWNER
    return settled and not record.indexed and wants_index(record.rows, record.indexed)


async def _probe(engine: Engine, records: Sequence[Record], cx: Context) -> None:
    """Have some tenants try to read their neighbours' rows: those that never did first, then in turn."""
    open_ = [item for item in records if item.place.open and item.place.state is PlaceState.OWNER]
    for record in cx.fleet.due(open_, -(-len(open_) // ROUND)):
        others = [item for item in records if item.place.tenant != record.place.tenant]
        leaks = await engine.probe(record, others)
        cx.watch.probed(len(leaks))
        # After a leak the tenant's reconcile puts back what somebody changed of its place; the next look tells more.
        if cx.fleet.probed(record.place.tenant, leaks) or leaks:
            cx.wake(Key("Tenant", record.place.tenant))
