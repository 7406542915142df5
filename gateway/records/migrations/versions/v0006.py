"""Sums of units other than tokens, beside the other sums."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0006"
down_revision = "v0005"


def upgrade() -> None:
    op.create_table(
        "usage_units",
        *(sa.Column(name, sa.Integer(), autoincrement=False, nullable=False) for name in ("seconds", "bucket")),
        sa.Column("dimension", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("amount", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("seconds", "bucket", "dimension", "unit", name="pk_usage_units"),
        sqlite_with_rowid=False,
        sqlite_strict=True,
    )
