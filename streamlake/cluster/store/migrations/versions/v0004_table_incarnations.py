"""The incarnation of a topic's table, to which its progress belongs."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("table_progress", sa.Column("incarnation", sa.Integer, nullable=False, server_default="0"))
