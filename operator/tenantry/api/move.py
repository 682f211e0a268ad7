"""TenantMove: one live move of a tenant's vectors from one shard to another."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from tenantry.api.common import (
    AGE,
    PENDING_STATUS,
    ApiModel,
    Column,
    Definition,
    DnsLabel,
    Resource,
    Status,
    Timestamp,
)
from tenantry.api.schema import Rule, Schema


class MoveReason(StrEnum):
    """Why a tenant moves."""

    REBALANCE = "Rebalance"
    DRAIN = "Drain"
    PIN = "Pin"
    REQUESTED = "Requested"


class MovePhase(StrEnum):
    """Where a move is. Before Committed it can be rolled back, from then on it only goes forward."""

    PENDING = "Pending"
    PREPARING = "Preparing"
    COPYING = "Copying"
    CATCHING_UP = "CatchingUp"
    VERIFYING = "Verifying"
    BLOCKING = "Blocking"
    COMMITTED = "Committed"
    CLEANING = "Cleaning"
    COMPLETED = "Completed"
    ROLLING_BACK = "RollingBack"
    ABORTED = "Aborted"


def _immutable(field: str) -> Rule:
    return Rule(
        f"self.{field} == oldSelf.{field}",
        f"{field} cannot be changed, only abort can: abort this move and create another TenantMove",
        field_path=f".{field}",
        reason="FieldValueForbidden",
    )


class TenantMoveSpec(ApiModel):
    """Who moves where."""

    model_config = ConfigDict(
        json_schema_extra=Schema(
            rules=[
                _immutable("tenant"),
                _immutable("targetShard"),
                _immutable("reason"),
                Rule(
                    "self.abort || !oldSelf.abort",
                    "abort cannot be taken back: create another TenantMove",
                    field_path=".abort",
                    reason="FieldValueForbidden",
                ),
            ]
        ).keywords
    )

    tenant: Annotated[str, Schema(minLength=1, maxLength=56)]
    """The name of the Tenant that moves."""
    target_shard: DnsLabel
    """The name of the VectorShard that it moves to."""
    reason: MoveReason = MoveReason.REQUESTED
    """Why: Rebalance, Drain or Pin by the operator's planner, Requested by somebody."""
    abort: bool = False
    """Ends the move and leaves the tenant where it was, as long as it has not been decided; then it is completed."""


def _known_phase(value: object) -> object:
    """A phase that a newer operator wrote is no reason to stop reading the object."""
    return value if value is None or value in list(MovePhase) else None


class TenantMoveStatus(Status):
    """How far it has come."""

    phase: Annotated[MovePhase | None, BeforeValidator(_known_phase)] = None
    """Pending, Preparing, Copying, CatchingUp, Verifying, Blocking, Committed, Cleaning and Completed; or
    RollingBack and Aborted."""
    source: Annotated[str, Schema(maxLength=63)] | None = None
    """The VectorShard that the tenant comes from."""
    epoch: Annotated[int, Schema(minimum=0, format="int64")] | None = None
    """The epoch of the placement that is left; the move ends with the next one."""
    tenant_uid: Annotated[str, Schema(maxLength=64)] | None = Field(default=None, alias="tenantUID")
    """The UID of the Tenant that moves."""
    rows: Annotated[int, Schema(minimum=0, format="int64")] | None = None
    """Rows on the target, as last counted."""
    lag_bytes: Annotated[int, Schema(minimum=0, format="int64")] | None = None
    """How far the target is behind, in bytes of the source's log."""
    write_pause_ms: Annotated[int, Schema(minimum=0, format="int64")] | None = None
    """For how long writes were held back, as measured."""
    started_at: Timestamp | None = None
    """When it began."""
    finished_at: Timestamp | None = None
    """When it was completed or rolled back."""
    blocks: Annotated[int, Schema(minimum=0)] | None = None
    """How often writes were held back and let go again without a decision."""


class TenantMove(Resource):
    """A TenantMove is one live move of a tenant's vectors to another VectorShard. The operator's planner creates it,
    or a platform engineer; deleting it aborts it."""

    DEFINITION: ClassVar[Definition] = Definition(
        plural="tenantmoves",
        short_names=["tmv"],
        columns=[
            Column(name="Tenant", type="string", path=".spec.tenant", description="Who moves"),
            Column(name="From", type="string", path=".status.source", description="The shard that it leaves"),
            Column(
                name="To", type="string", path=".spec.targetShard", description="The shard that it moves to"
            ),
            Column(name="Phase", type="string", path=".status.phase", description="How far it has come"),
            Column(name="Rows", type="integer", path=".status.rows", description="Rows on the target"),
            Column(
                name="Lag",
                type="integer",
                path=".status.lagBytes",
                description="Bytes that the target is behind",
            ),
            Column(
                name="Pause-Ms",
                type="integer",
                path=".status.writePauseMs",
                description="How long writes were held back",
            ),
            AGE,
            Column(name="Reason", type="string", path=".spec.reason", description="Why", priority=1),
            Column(
                name="Message",
                type="string",
                path='.status.conditions[?(@.type=="Ready")].message',
                description="How it stands, and the next step",
                priority=1,
            ),
        ],
        selectable=[".spec.tenant", ".spec.targetShard", ".status.phase"],
        status_default={**PENDING_STATUS, "phase": str(MovePhase.PENDING)},
    )

    kind: Literal["TenantMove"] = "TenantMove"
    spec: TenantMoveSpec
    """Who moves where."""
    status: TenantMoveStatus = Field(default_factory=TenantMoveStatus)
    """How far it has come, as the operator last saw it. Written by the operator alone."""

    @property
    def active(self) -> bool:
        """Whether it is under way or about to be."""
        return self.status.phase not in (MovePhase.COMPLETED, MovePhase.ABORTED)
