"""The tables of the ledger, as the code uses them; `alembic/versions` is how a database gets them.

Rows are written by plain INSERTs and never changed: triggers in the migrations refuse anything else.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB


class UtcDateTime(TypeDecorator[datetime]):
    """A moment: aware in Python, `timestamptz` on PostgreSQL, text in UTC on SQLite (it has no such type)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Refuse a naive moment (ValueError): nobody knows which one it is."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value.isoformat()} has no time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return the moment in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# SQLite counts up by itself only in a column that is INTEGER and nothing else (64 bits there).
SequenceNumber = BigInteger().with_variant(Integer(), "sqlite")
Document = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(column_0_label)s",
    }
)

audit = Table(
    "audit",
    metadata,
    Column("id", SequenceNumber, Identity(always=True), primary_key=True),
    Column("identity", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("uid", Text, nullable=False),
    Column("tenant", Text),
    Column("before", Document),
    Column("after", Document),
    Column("message", Text, nullable=False),
    UniqueConstraint("identity"),
    Index("ix_audit_at", "at", "id"),
    Index("ix_audit_tenant", "tenant", "at", "id"),
    Index("ix_audit_uid", "uid", "id"),
)
"""One row per change that matters; `id` is the order of recording, `identity` makes it idempotent."""
