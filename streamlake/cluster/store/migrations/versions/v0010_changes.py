"""What each revision changed is listed, and brokers prove to one another that they belong to one cluster.

The list begins empty: a broker reads everything when it starts, and lists from then on."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("cluster", sa.Column("secret", sa.LargeBinary, nullable=True))
    op.create_table(
        "change",
        sa.Column("revision", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("ids", sa.LargeBinary, nullable=True),
        sa.PrimaryKeyConstraint("revision", name="pk_change"),
    )
