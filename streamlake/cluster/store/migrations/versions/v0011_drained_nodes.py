"""A node can be kept without partitions and slots, and a partition where an operator has put it."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("broker", sa.Column("drained", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("partition", sa.Column("pinned", sa.Boolean, nullable=False, server_default=sa.false()))
