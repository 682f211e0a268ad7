"""Run by Alembic: migrate on the connection, and in the transaction, that `migrations.migrate` hands over."""

from alembic import context

from tenantry.adapters.ledger.migrations import VERSION_TABLE
from tenantry.adapters.ledger.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
