"""Notes of streams: what the log layer must find beside a checkpoint, such as aborted transactions."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "stream_note",
        sa.Column("stream_id", sa.BigInteger, nullable=False),
        sa.Column("end_offset", sa.BigInteger, nullable=False),
        sa.Column("notes", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("stream_id", "end_offset", name="pk_stream_note"),
        sa.ForeignKeyConstraint(["stream_id"], ["stream.id"], name="fk_stream_note_stream", ondelete="CASCADE"),
    )
