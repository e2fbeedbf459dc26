"""Partitions are assigned to brokers by a controller, and each life of a node has a row of its own in the list of WALs.

Code of before this revision cannot use the tables any more. Nothing was released by then.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("partition", sa.Column("node", sa.Integer, nullable=True))
    op.execute("UPDATE broker SET state = 'starting' WHERE state = 'running'")
    with op.batch_alter_table("broker") as broker:
        broker.alter_column("state", existing_type=TEXT, server_default="starting")
    with op.batch_alter_table("wal") as wal:
        wal.drop_constraint("pk_wal", type_="primary")
        wal.create_primary_key("pk_wal", ["node", "uri", "epoch"])
    op.create_table(
        "drain",
        sa.Column("node", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("uri", TEXT, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("part", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("parts", sa.Integer, nullable=False),
        sa.Column("by_node", sa.Integer, nullable=False),
        sa.Column("by_epoch", sa.BigInteger, nullable=False),
        sa.Column("done", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("node", "uri", "epoch", "part", name="pk_drain"),
        sa.ForeignKeyConstraint(
            ["node", "uri", "epoch"], ["wal.node", "wal.uri", "wal.epoch"], name="fk_drain_wal", ondelete="CASCADE"
        ),
    )
    op.create_table(
        "controller",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("node", sa.Integer, nullable=False),
        sa.Column("broker_epoch", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_controller"),
    )
