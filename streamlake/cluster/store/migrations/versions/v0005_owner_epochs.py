"""Which life of a broker owns a stream, and whose lives' records a WAL holds.

Streams and WALs of before count as those of epoch 0, so that each stream is found in the WAL of its node."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("stream", sa.Column("owner_epoch", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("wal", sa.Column("since_epoch", sa.BigInteger, nullable=False, server_default="0"))
