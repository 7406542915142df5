"""Alembic's entry: runs the migrations on the connection it is given, all in one transaction."""

from __future__ import annotations

from alembic import context

from gateway.records.schema import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection, target_metadata=metadata, render_as_batch=True, transaction_per_migration=False
)
with connection.begin():
    context.run_migrations()
