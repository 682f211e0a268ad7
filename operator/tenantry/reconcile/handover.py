"""The moment of a move: the decision where the tenant is, and all that follows from it while writes wait.

The decision is one compare-and-swap of `status.placement`. Before it the move can be given up; from it on it goes
forward, and each step after it may be done again.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tenantry.api.move import TenantMove
from tenantry.api.tenant import PLACEMENT_MANAGER, Placement, Tenant
from tenantry.desired import children
from tenantry.desired.owner import Manifest, Owner
from tenantry.domain import moves
from tenantry.domain.errors import Retry
from tenantry.domain.places import PlaceState, Record
from tenantry.domain.reasons import Reason
from tenantry.reconcile import report
from tenantry.reconcile.enact import apply_group, translated
from tenantry.reconcile.mover import Mover, Progress
from tenantry.reconcile.ports import Conflict, Context, Engine, Refused, Unavailable

COMMIT_TRIES = 5
"""An edit of the Tenant at the moment of the decision is no reason against it."""


@dataclass(slots=True)
class Under:
    """A move under way: the object as last written, both engines, and what its status is to say."""

    move: TenantMove
    raw: Manifest
    cx: Context
    source: Engine
    target: Engine
    mover: Mover
    status: dict[str, Any] = field(default_factory=dict)

    @property
    def tenant(self) -> str:
        """Return the name of the tenant that moves."""
        return self.move.spec.tenant

    @property
    def source_shard(self) -> str:
        """Return the name of the shard that it leaves."""
        return str(self.status["source"])

    @property
    def target_shard(self) -> str:
        """Return the name of the shard that it comes to."""
        return self.move.spec.target_shard

    def saw(self, progress: Progress) -> None:
        """Take note of how far the copy has come."""
        self.status["rows"], self.status["lagBytes"] = progress.rows, progress.lag_bytes


@dataclass(frozen=True, slots=True)
class Places:
    """A tenant's places as the shards have them on record. here: at the source. there: at the target."""

    here: Record | None
    there: Record


async def tenant_of(under: Under) -> Manifest | None:
    """Return the Tenant as the API server has it now."""
    with translated():
        return await under.cx.objects.get("Tenant", under.tenant)


def is_decided(under: Under, raw: Manifest | None) -> bool:
    """Tell whether an earlier process has decided already. raw: the Tenant as it is now."""
    placement = Tenant.model_validate(raw).placement if raw is not None else None
    return (
        placement is not None
        and placement.shard == under.target_shard
        and placement.epoch > under.status["epoch"]
    )


async def places(under: Under) -> Places:
    """Return what both shards have on record. Raises Refused where the target has nothing."""
    here, there = await asyncio.gather(under.source.find(under.tenant), under.target.find(under.tenant))
    if there is None:
        raise Refused(f"there is no record of Tenant {under.tenant}")
    return Places(here, there)


async def commit(under: Under, raw: Manifest | None) -> bool:
    """Swap the placement; False where the tenant is gone, leaves, or is elsewhere by now: nothing is decided then.

    raw: the Tenant as read a moment ago; where it has changed since it is read again.

    Raises Retry where the API server's answer did not come: then nobody knows, and writes stay held back until it
    tells.
    """
    wanted = Placement(shard=under.target_shard, epoch=under.status["epoch"] + 1)
    for attempt in range(COMMIT_TRIES):
        if attempt:
            raw = await tenant_of(under)
        if raw is None or raw["metadata"]["uid"] != under.status["tenantUID"]:
            return False
        present = Tenant.model_validate(raw).placement
        if (
            "deletionTimestamp" in raw["metadata"]
            or present is None
            or present.epoch != under.status["epoch"]
        ):
            return present == wanted
        with suppress(Conflict):
            try:
                await report.apply_status(raw, {"placement": wanted.as_json()}, under.cx, PLACEMENT_MANAGER)
            except Unavailable as error:
                raise Retry(
                    Reason.API_UNAVAILABLE, f"{error}: whether the move is decided is asked again", 0.2
                ) from error
            return True
    return False


async def switch(under: Under, known: Places) -> None:
    """After the decision: the target takes writes, the Secret leads there, the source sends writers away."""
    here, there = known.here, known.there
    open_ = here.place.open if here is not None else True
    activation = _activate(under, there, open_=open_)
    if open_:
        # Decided is decided: whoever reads the Secret first may write there already.
        await asyncio.gather(activation, _point_to(under, there))
    else:
        await activation
        await _point_to(under, there)
    await under.mover.redirect()


async def _activate(under: Under, there: Record, *, open_: bool) -> None:
    if there.place.state is PlaceState.IMPORTING:
        await under.mover.activate(moves.activated(there.place, open_=open_))


async def _point_to(under: Under, there: Record) -> None:
    """Have the Secret lead to the target."""
    claim = under.cx.seen.tenant(under.tenant)
    if claim is None or claim.deleting:
        return
    group = children.shard_group(Owner(under.tenant, claim.uid, claim.namespace), under.target.access(there))
    error = await apply_group(group, under.cx.seen.children(claim.namespace), under.cx, [])
    if error is not None:
        raise error


async def take_note(under: Under) -> None:
    """Know of both places how they are now."""
    for shard, engine in ((under.target_shard, under.target), (under.source_shard, under.source)):
        record = await engine.find(under.tenant)
        if record is not None:
            under.cx.fleet.put(shard, record)
