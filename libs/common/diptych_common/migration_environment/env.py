"""What alembic executes for every command: the same for both services.

The connection is made in `diptych_common.migrations`; nothing here reads a file.
"""

from alembic import context

# Each revision commits by itself: one that fails leaves those before it in place, and one that
# builds an index CONCURRENTLY may step out of its transaction (`autocommit_block`).
context.configure(
    connection=context.config.attributes["connection"], transaction_per_migration=True
)
with context.begin_transaction():
    context.run_migrations()
