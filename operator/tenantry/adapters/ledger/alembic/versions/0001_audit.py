"""The append-only audit log.

Triggers refuse what would change the past, whoever tries. The owner of the table can still drop them: whoever
must be kept from that gets a role that does not own it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_POSTGRESQL = (
    """
    CREATE FUNCTION tenantry_audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'the audit log is append-only: % is refused', TG_OP
            USING ERRCODE = 'restrict_violation';
    END $$
    """,
    # Once per statement, so that one that would hit no row is refused as well.
    """
    CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
        FOR EACH STATEMENT EXECUTE FUNCTION tenantry_audit_refuse()
    """,
    # Also where session_replication_role would switch ordinary triggers off.
    "ALTER TABLE audit ENABLE ALWAYS TRIGGER audit_append_only",
)

_SQLITE = (
    """
    CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit log is append-only: UPDATE is refused'); END
    """,
    """
    CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit log is append-only: DELETE is refused'); END
    """,
    # INSERT OR REPLACE deletes without telling the trigger above: a row that is there already stays as it is.
    # (NEW.id is -1 where SQLite is to choose it.)
    """
    CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit
        WHEN EXISTS (SELECT 1 FROM audit WHERE identity = NEW.identity OR id = NEW.id)
        BEGIN SELECT RAISE(IGNORE); END
    """,
)


def upgrade() -> None:
    """Create the table, its indexes and its triggers."""
    document = sa.JSON().with_variant(JSONB(), "postgresql")
    op.create_table(
        "audit",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(always=True),
            nullable=False,
        ),
        sa.Column("identity", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("uid", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text),
        sa.Column("before", document),
        sa.Column("after", document),
        sa.Column("message", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
        sa.UniqueConstraint("identity", name="uq_audit_identity"),
    )
    op.create_index("ix_audit_at", "audit", ["at", "id"])
    op.create_index("ix_audit_tenant", "audit", ["tenant", "at", "id"])
    op.create_index("ix_audit_uid", "audit", ["uid", "id"])
    for statement in _POSTGRESQL if op.get_bind().dialect.name == "postgresql" else _SQLITE:
        op.execute(statement)
