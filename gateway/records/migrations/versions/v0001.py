"""Calls, attempts, their sums, clients and keys."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "v0001"
down_revision = None

_ATTEMPT = """
id call_id n# org client key route provider model upstream_model started_wall_ns# worst_pusd# worst_tokens#
outcome status# error ttfb_us# duration_us# input_tokens# cached_tokens# cache_write_tokens#
cache_write_1h_tokens# audio_input_tokens# output_tokens# reasoning_tokens# audio_output_tokens# units?
cost_pusd# price_version estimated! unpriced! upstream_request_id
"""
_CALL = """
id org client key route method path dialect model served_model provider started_wall_ns# outcome status# error
policy stream! attempts# ttfb_us# duration_us# overhead_us# wait_us# input_tokens# cached_tokens#
output_tokens# reasoning_tokens# cost_pusd# charge_pusd# saved_pusd# saving estimated! unpriced! notes?
"""
_SUMS = """
calls answered refused failed gone charge_pusd saved_pusd duration_us wait_us attempts
failed_attempts input_tokens cached_tokens cache_write_tokens output_tokens reasoning_tokens cost_pusd
unresolved_pusd estimated unpriced
"""
_DIMENSIONS = "org client key model provider route"


def _columns(names: str) -> list[sa.Column[Any]]:
    """Texts; # integers, ! booleans, ? texts that may be null."""
    types = {"#": sa.BigInteger, "!": sa.Boolean}
    return [
        sa.Column(name.rstrip("#!?"), types.get(name[-1], sa.Text)(), nullable=name.endswith("?"))
        for name in names.split()
    ]


def upgrade() -> None:
    _rows()
    _sums()
    _people()


def _rows() -> None:
    primary = sa.PrimaryKeyConstraint
    op.create_table("attempts", *_columns(_ATTEMPT), primary("id", name="pk_attempts"), sqlite_with_rowid=False)
    op.create_index("ix_attempts_open", "attempts", ["id"], sqlite_where=sa.text("outcome = 'open'"))
    op.create_table("calls", *_columns(_CALL), primary("id", name="pk_calls"), sqlite_with_rowid=False)
    op.create_index("ix_calls_client_id", "calls", ["client", "id"])


def _sums() -> None:
    op.create_table(
        "dimensions",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=False),
        *_columns(_DIMENSIONS),
        sa.PrimaryKeyConstraint("id", name="pk_dimensions"),
        sa.UniqueConstraint(*_DIMENSIONS.split(), name="uq_dimensions_org"),
    )
    whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "usage",
        sa.Column("seconds", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("bucket", whole, nullable=False, autoincrement=False),
        sa.Column("dimension", sa.Integer(), nullable=False, autoincrement=False),
        *(sa.Column(name, whole, nullable=False) for name in _SUMS.split()),
        sa.PrimaryKeyConstraint("seconds", "bucket", "dimension", name="pk_usage"),
        sqlite_with_rowid=False,
        sqlite_strict=True,
    )
    op.create_table(
        "ledger_state",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=False),
        *_columns("applied_seq# closed_seq#"),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_state"),
    )


def _people() -> None:
    op.create_table(
        "clients", *_columns("id org tier rules created_wall_ns#"), sa.PrimaryKeyConstraint("id", name="pk_clients")
    )
    op.create_index("ix_clients_org", "clients", ["org"])
    op.create_table(
        "keys",
        *_columns("id client role digest hint rules created_wall_ns#"),
        sa.Column("expires_wall_ns", sa.BigInteger(), nullable=True),
        sa.Column("revoked_wall_ns", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
        sa.UniqueConstraint("digest", name="uq_keys_digest"),
    )
    op.create_index("ix_keys_client", "keys", ["client"])
