"""Groups of the consumer protocol (KIP-848) beside classic ones."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("consumer_group", sa.Column("kind", TEXT, nullable=False, server_default="classic"))
