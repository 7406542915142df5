"""Finds the attempts whose end a crash took, without reading all of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0008"
down_revision = "v0007"


def upgrade() -> None:
    op.create_index("ix_attempts_unresolved", "attempts", ["id"], sqlite_where=sa.text("outcome = 'unresolved'"))
