"""Run by Alembic: use the connection, and the transaction, that `upgrade` was given."""

from alembic import context

from streamlake.cluster.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
