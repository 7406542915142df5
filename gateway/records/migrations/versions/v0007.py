"""What advice is computed from: a keyed digest of each call's question, and its wishes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0007"
down_revision = "v0006"


def upgrade() -> None:
    for name in ("question", "traits"):
        op.add_column("calls", sa.Column(name, sa.Text(), nullable=True))
