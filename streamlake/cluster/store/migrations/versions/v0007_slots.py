"""Groups are coordinated by the owners of their slots.

Code of before this revision stores groups without their slot. Nothing was released by then.
"""

import sqlalchemy as sa
from alembic import op
from crc32c import crc32c

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SLOTS = 256


def upgrade() -> None:
    op.create_table(
        "slot",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("node", sa.Integer, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_slot"),
    )
    op.add_column("consumer_group", sa.Column("slot", sa.Integer, nullable=False, server_default="0"))
    op.create_index("ix_consumer_group_slot", "consumer_group", ["slot"])
    group = sa.table("consumer_group", sa.column("group_id", sa.Text), sa.column("slot", sa.Integer))
    connection = op.get_bind()
    for group_id in connection.execute(sa.select(group.c.group_id)).scalars().all():
        slot = crc32c(group_id.encode()) % SLOTS
        connection.execute(sa.update(group).where(group.c.group_id == group_id).values(slot=slot))
