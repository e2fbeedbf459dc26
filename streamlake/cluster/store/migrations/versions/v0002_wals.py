"""Which WALs may hold records is a table of its own: a node may have several, of several kinds and lives."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "wal",
        sa.Column("node", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("uri", TEXT, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("trim", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("node", "uri", name="pk_wal"),
    )
    # Until now a WAL was always the one in the data directory.
    op.execute("INSERT INTO wal (node, uri, epoch, trim) SELECT node, 'file', epoch, wal_trim FROM broker")
    op.drop_column("broker", "wal_uri")
    op.drop_column("broker", "wal_trim")
