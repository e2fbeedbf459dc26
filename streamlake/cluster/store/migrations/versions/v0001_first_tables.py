"""The first tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    create_broker_tables()
    create_stream_tables()
    create_topic_tables()
    create_group_tables()
    create_registry_tables()
    create_progress_tables()


def create_broker_tables() -> None:
    op.create_table(
        "cluster",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("cluster_id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_cluster"),
    )
    op.create_table(
        "id_block",
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("next_id", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("kind", name="pk_id_block"),
    )
    op.create_table(
        "broker",
        sa.Column("node", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("lease_until_ms", sa.BigInteger, nullable=False),
        sa.Column("host", TEXT, nullable=False),
        sa.Column("port", sa.Integer, nullable=False),
        sa.Column("wal_uri", TEXT, nullable=False),
        sa.Column("wal_trim", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("node", name="pk_broker"),
    )


def create_stream_tables() -> None:
    op.create_table(
        "stream",
        sa.Column("id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("owner", sa.Integer, nullable=True),
        sa.Column("start_offset", sa.BigInteger, nullable=False),
        sa.Column("end_offset", sa.BigInteger, nullable=False),
        sa.Column("checkpoint", sa.LargeBinary, nullable=False),
        sa.Column("checkpoint_offset", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_stream"),
    )
    op.create_table(
        "stream_epoch",
        sa.Column("stream_id", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("start_offset", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("stream_id", "epoch", name="pk_stream_epoch"),
        sa.ForeignKeyConstraint(["stream_id"], ["stream.id"], name="fk_stream_epoch_stream", ondelete="CASCADE"),
    )
    op.create_table(
        "object",
        sa.Column("id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("deadline_ms", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.Integer, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("ranges", sa.LargeBinary, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_object"),
    )


def create_topic_tables() -> None:
    op.create_table(
        "topic",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_topic"),
        sa.UniqueConstraint("name", name="uq_topic_name"),
    )
    op.create_table(
        "partition",
        sa.Column("topic_id", sa.Uuid, nullable=False),
        sa.Column("index", sa.Integer, nullable=False),
        sa.Column("stream_id", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("topic_id", "index", name="pk_partition"),
        sa.UniqueConstraint("stream_id", name="uq_partition_stream"),
        sa.ForeignKeyConstraint(["topic_id"], ["topic.id"], name="fk_partition_topic", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["stream_id"], ["stream.id"], name="fk_partition_stream", ondelete="CASCADE"),
    )
    op.create_table(
        "topic_config",
        sa.Column("topic_id", sa.Uuid, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("topic_id", "key", name="pk_topic_config"),
        sa.ForeignKeyConstraint(["topic_id"], ["topic.id"], name="fk_topic_config_topic", ondelete="CASCADE"),
    )
    op.create_table(
        "broker_config",
        sa.Column("node", sa.Integer, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("node", "key", name="pk_broker_config"),
    )


def create_group_tables() -> None:
    op.create_table(
        "consumer_group",
        sa.Column("group_id", TEXT, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("protocol_type", TEXT, nullable=False),
        sa.Column("protocol", TEXT, nullable=True),
        sa.Column("leader", TEXT, nullable=True),
        sa.Column("members", sa.LargeBinary, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("group_id", name="pk_consumer_group"),
    )
    op.create_table(
        "consumer_offset",
        sa.Column("group_id", TEXT, nullable=False),
        sa.Column("topic_id", sa.Uuid, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("leader_epoch", sa.Integer, nullable=False),
        sa.Column("metadata", TEXT, nullable=False),
        sa.Column("commit_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("group_id", "topic_id", "partition", name="pk_consumer_offset"),
        sa.ForeignKeyConstraint(["topic_id"], ["topic.id"], name="fk_consumer_offset_topic", ondelete="CASCADE"),
    )
    op.create_index("ix_consumer_offset_topic", "consumer_offset", ["topic_id"])


def create_registry_tables() -> None:
    op.create_table(
        "schema",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("text", TEXT, nullable=False),
        sa.Column("hash", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_schema"),
        sa.UniqueConstraint("hash", name="uq_schema_hash"),
    )
    op.create_table(
        "subject_version",
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("schema_id", sa.Integer, nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("subject", "version", name="pk_subject_version"),
        sa.ForeignKeyConstraint(["schema_id"], ["schema.id"], name="fk_subject_version_schema"),
    )
    op.create_index("ix_subject_version_schema", "subject_version", ["schema_id"])
    op.create_table(
        "subject_config",
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("level", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_subject_config"),
    )


def create_progress_tables() -> None:
    op.create_table(
        "table_progress",
        sa.Column("topic_id", sa.Uuid, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("hold_offset", sa.BigInteger, nullable=True),
        sa.Column("committed_offset", sa.BigInteger, nullable=False),
        sa.Column("committed_once", sa.Boolean, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("topic_id", "partition", name="pk_table_progress"),
        sa.ForeignKeyConstraint(["topic_id"], ["topic.id"], name="fk_table_progress_topic", ondelete="CASCADE"),
    )
