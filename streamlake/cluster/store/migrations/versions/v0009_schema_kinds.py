"""Schemas have a kind, and may refer to versions of other subjects.

Schemas of before are Avro, without references: their hashes stay what they are."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("schema", sa.Column("kind", TEXT, nullable=False, server_default="AVRO"))
    op.add_column("schema", sa.Column("compiled", sa.LargeBinary, nullable=True))
    op.create_table(
        "schema_reference",
        sa.Column("schema_id", sa.Integer, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("referenced_id", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("schema_id", "name", name="pk_schema_reference"),
        sa.ForeignKeyConstraint(["schema_id"], ["schema.id"], name="fk_schema_reference_schema"),
        sa.ForeignKeyConstraint(["referenced_id"], ["schema.id"], name="fk_schema_reference_referenced"),
    )
    op.create_index("ix_schema_reference_subject", "schema_reference", ["subject", "version"])
