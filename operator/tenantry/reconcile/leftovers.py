"""Places on a shard that nobody uses: closed, told in its status, removed where an annotation of it names them."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator

from tenantry.api.shard import LeftoverPlace, VectorShard
from tenantry.desired.owner import Manifest
from tenantry.domain import leftovers, names
from tenantry.domain.errors import PartError
from tenantry.domain.leftovers import COPIES, MOST_TOLD, Leftover
from tenantry.domain.places import COUNTS, PlaceState, archived
from tenantry.domain.quantities import as_quantity
from tenantry.domain.reasons import Action
from tenantry.reconcile import record as audit
from tenantry.reconcile.fleet import Known
from tenantry.reconcile.ports import Context, Engine
from tenantry.reconcile.vectors import shard_errors

EVENT = "LeftoverPlaces"
"""Reason of the Event about a VectorShard."""

UNDONE = "leftovers that could not be seen to"

MOST_ASKED = 1024
"""Characters of the annotation that are read."""


def left_on(shard: str, cx: Context) -> list[Leftover]:
    """Return the places of a shard that nobody uses."""
    records = (cx.fleet[shard].records or {}).values()
    return leftovers.leftovers(
        shard, records, cx.seen.tenant, cx.seen.moves_of, lambda tenant: bool(cx.seen.archives_of(tenant))
    )


def to_do(shard: VectorShard) -> str:
    """Return what somebody wants removed and nobody has seen to yet; empty where nothing is."""
    asked = shard.metadata.annotations.get(names.REMOVE_LEFTOVERS, "")[:MOST_ASKED]
    return asked if asked != shard.status.leftovers_removed else ""


async def see_to(shard: VectorShard, raw: Manifest, engine: Engine, cx: Context) -> bool:
    """Close the older places of tenants, and remove those that somebody wants removed; return whether all is done.

    What cannot be done is told, and is in nobody's way: neither in another place's nor in the shard's.
    """
    problems = [
        *[
            await _tried(_close(shard.metadata.name, item, engine, cx))
            for item in left_on(shard.metadata.name, cx)
        ],
        *[await _tried(step) for step in _removals(shard, raw, engine, cx)],
    ]
    said = next(filter(None, problems), "")
    if cx.fleet.news(shard.metadata.name, UNDONE, said):
        await cx.objects.emit(raw, EVENT, said, warning=True)
    return not said


async def _tried(step: Awaitable[None]) -> str:
    """Return why a step could not be done; empty: it was."""
    try:
        await step
    except PartError as error:
        return error.message
    return ""


async def _close(shard: str, item: Leftover, engine: Engine, cx: Context) -> None:
    """Let nobody in to the older place of a tenant: it is written to in one place only.

    That of a tenant which is not there at all stays open: its Tenant may be what was lost.
    """
    place = item.record.place
    if item.older and place.state in COUNTS and not item.record.is_as(archived(place)):
        with shard_errors(shard):
            record = await engine.ensure(archived(place), place)
        cx.fleet.put(shard, record)


def _removals(shard: VectorShard, raw: Manifest, engine: Engine, cx: Context) -> Iterator[Awaitable[None]]:
    asked = to_do(shard)
    if not asked:
        return
    found, unknown = leftovers.named(left_on(shard.metadata.name, cx), asked)
    for item in found:
        yield _remove(item, shard, raw, engine, cx)
    if unknown:
        said = f"annotation {names.REMOVE_LEFTOVERS} names {unknown[0]}, which status.leftovers has not: not removed"
        yield cx.objects.emit(raw, EVENT, said, warning=True)


async def _remove(item: Leftover, shard: VectorShard, raw: Manifest, engine: Engine, cx: Context) -> None:
    name = shard.metadata.name
    message = f"removed place {item.token} of VectorShard {name}, of about {item.record.rows} vectors"
    identity = f"{shard.metadata.uid}/removed/{item.token}/{audit.moment(shard.metadata.managed_fields)}"
    row = await audit.intent(shard, cx, identity, Action.LEFTOVER_REMOVED, f"{message}: {item.why}")
    with shard_errors(name):
        await _removed(item, engine, cx)
    cx.fleet.drop(name, item.record.place.tenant)
    await cx.objects.emit(raw, row.action, row.message)


async def _removed(item: Leftover, engine: Engine, cx: Context) -> None:
    """Remove a place, and the other side of a move that it was left by."""
    tenant, state = item.record.place.tenant, item.record.place.state
    other = cx.fleet[item.elsewhere] if item.elsewhere else Known()
    if state not in COPIES or other.engine is None or tenant not in (other.records or {}):
        await engine.remove(tenant)
        return
    if state is PlaceState.IMPORTING:
        mover = cx.engines.mover(other.engine, engine, tenant)
        await mover.clean_target()
    else:
        mover = cx.engines.mover(engine, other.engine, tenant)
        await mover.clean_source()
    await mover.close()


async def told(shard: VectorShard, raw: Manifest, cx: Context) -> list[Manifest]:
    """Return what the status of a shard says of them, as before where it was not read; send an Event of news."""
    name = shard.metadata.name
    if cx.fleet[name].records is None:
        return [item.as_json() for item in shard.status.leftovers]
    found = left_on(name, cx)
    said = leftovers.in_words(found)
    if cx.fleet.news(name, EVENT, said):
        await cx.objects.emit(raw, EVENT, said, warning=True)
    return [
        LeftoverPlace(
            place=item.token,
            state=str(item.record.place.state),
            rows=item.record.rows,
            storage=as_quantity(item.record.size),
            reason=item.why,
        ).as_json()
        for item in found[:MOST_TOLD]
    ]
