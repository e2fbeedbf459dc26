"""Transactions of producers, and the offsets that they are to commit."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "txn",
        sa.Column("transactional_id", TEXT, nullable=False),
        sa.Column("slot", sa.Integer, nullable=False),
        sa.Column("producer_id", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("last_id", sa.BigInteger, nullable=False),
        sa.Column("last_epoch", sa.Integer, nullable=False),
        sa.Column("next_id", sa.BigInteger, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("timeout_ms", sa.Integer, nullable=False),
        sa.Column("started_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        sa.Column("members", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("transactional_id", name="pk_txn"),
    )
    op.create_index("ix_txn_slot", "txn", ["slot", "state"])
    op.create_index("ix_txn_producer", "txn", ["producer_id"])
    op.create_table(
        "txn_offset",
        sa.Column("transactional_id", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("group_id", TEXT, nullable=False),
        sa.Column("topic_id", sa.Uuid, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("leader_epoch", sa.Integer, nullable=False),
        sa.Column("metadata", TEXT, nullable=False),
        sa.Column("commit_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint(
            "transactional_id", "number", "group_id", "topic_id", "partition", name="pk_txn_offset"
        ),
        sa.ForeignKeyConstraint(
            ["transactional_id"], ["txn.transactional_id"], name="fk_txn_offset_txn", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["topic_id"], ["topic.id"], name="fk_txn_offset_topic", ondelete="CASCADE"),
    )
    op.create_index("ix_txn_offset_group", "txn_offset", ["group_id"])
    op.create_index("ix_txn_offset_topic", "txn_offset", ["topic_id"])
