"""Changes to budgets, kept as history."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0003"
down_revision = "v0002"


def upgrade() -> None:
    texts = [sa.Column(name, sa.Text(), nullable=False) for name in ("scope", "subject", "span", "action", "reason")]
    op.create_table(
        "budget_adjustments",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("at_wall_ns", sa.BigInteger(), nullable=False),
        *texts,
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("amount_pusd", sa.BigInteger(), nullable=True),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("until_wall_ns", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_budget_adjustments"),
    )
