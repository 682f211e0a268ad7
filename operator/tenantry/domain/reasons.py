"""Every condition, every reason that one can have, and every action on record; `docs/conditions.md` explains each.

One list, so that the type checker finds what is not in it and a test finds what nobody has explained.
"""

from __future__ import annotations

from enum import StrEnum


class ConditionType(StrEnum):
    """What a condition speaks of."""

    READY = "Ready"
    NAMESPACE_READY = "NamespaceReady"
    POLICY_READY = "PolicyReady"
    CONFIG_READY = "ConfigReady"
    SHARD_READY = "ShardReady"
    ISOLATION_VERIFIED = "IsolationVerified"
    BALANCED = "Balanced"
    SUSPENDED = "Suspended"
    STALLED = "Stalled"
    RECONCILING = "Reconciling"


class Reason(StrEnum):
    """Why a condition is as it is; programs may rely on these words, so they never change."""

    # All is well, or as somebody wants it.
    PENDING = "Pending"
    READY = "Ready"
    SUSPENDED = "Suspended"
    REQUESTED = "Requested"
    OVERRIDES_DROPPED = "OverridesDropped"
    WITHIN_SHARE = "WithinShare"
    OVER_SHARE = "OverShare"
    NO_LEAK = "NoLeak"

    # The user must act.
    INVALID_SPEC = "InvalidSpec"
    PLAN_NOT_FOUND = "PlanNotFound"
    OVERRIDE_NOT_ALLOWED = "OverrideNotAllowed"
    REVISION_NOT_FOUND = "RevisionNotFound"
    NAMESPACE_CLAIMED = "NamespaceClaimed"
    NAMESPACE_NOT_OURS = "NamespaceNotOurs"
    NAMESPACE_NOT_MARKED = "NamespaceNotMarked"
    NAME_TAKEN = "NameTaken"
    RESTORE_NOT_ALLOWED = "RestoreNotAllowed"
    TENANT_LIVES = "TenantLives"
    KIND_DELETED = "KindDeleted"
    SHARD_NOT_FOUND = "ShardNotFound"
    NO_SHARD_WITH_ROOM = "NoShardWithRoom"
    ENGINE_CANNOT_MOVE = "EngineCannotMove"
    SHAPE_FIXED = "ShapeFixed"
    SECRET_NOT_FOUND = "SecretNotFound"
    CONNECTION_REFUSED = "ConnectionRefused"
    SHARD_UNFIT = "ShardUnfit"
    LEAK_FOUND = "LeakFound"
    TENANT_NOT_FOUND = "TenantNotFound"
    NO_EXPORT_STORE = "NoExportStore"

    # It is tried again.
    NAMESPACE_TERMINATING = "NamespaceTerminating"
    ARCHIVE_PURGING = "ArchivePurging"
    CHILD_DIFFERS = "ChildDiffers"
    CONFLICT = "Conflict"
    REFUSED = "Refused"
    API_UNAVAILABLE = "ApiUnavailable"
    SHARD_UNAVAILABLE = "ShardUnavailable"
    SHARD_UNKNOWN = "ShardUnknown"
    EXPORTING = "Exporting"
    EXPORT_FAILED = "ExportFailed"
    MOVES = "Moves"
    MOVES_ALREADY = "MovesAlready"
    LEDGER_UNAVAILABLE = "LedgerUnavailable"
    INTERNAL_ERROR = "InternalError"


class Action(StrEnum):
    """What a row of the audit log says was done; also the reason of the Event that tells of it."""

    CREATED = "Created"
    SPEC_CHANGED = "SpecChanged"
    PLAN_CHANGED = "PlanChanged"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    CONFIG_CHANGED = "ConfigChanged"
    CONFIG_ROLLED_BACK = "ConfigRolledBack"
    REPAIRED = "Repaired"
    ADOPTED = "Adopted"
    RESTORED = "Restored"
    ARCHIVED = "Archived"
    DELETED = "Deleted"
    PURGING = "Purging"
    EXPORTED = "Exported"
    VECTORS_RESTORED = "VectorsRestored"
    PURGED = "Purged"
    PLACED = "Placed"
    CREDENTIALS_ROTATED = "CredentialsRotated"
    MOVING = "Moving"
    MOVED = "Moved"
    MOVE_ABORTED = "MoveAborted"
    LEFTOVER_REMOVED = "LeftoverRemoved"
