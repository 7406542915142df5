"""Provider objects and who made them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0002"
down_revision = "v0001"


def upgrade() -> None:
    texts = [sa.Column(name, sa.Text(), nullable=False) for name in ("id", "org", "client", "provider", "kind")]
    op.create_table(
        "objects",
        *texts,
        sa.Column("created_wall_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_objects"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_objects_org", "objects", ["org"])
