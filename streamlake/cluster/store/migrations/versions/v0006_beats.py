"""Brokers beat instead of naming the end of their lease: nobody compares wall clocks any more.

Code of before this revision cannot use the table any more. Nothing was released by then.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("broker", sa.Column("beat", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("broker", sa.Column("state", TEXT, nullable=False, server_default="running"))
    op.execute("UPDATE broker SET state = 'left' WHERE lease_until_ms = 0")
    op.drop_column("broker", "lease_until_ms")
