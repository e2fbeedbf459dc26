"""The tables of the metadata store, in SQLAlchemy Core; docs/formats/metadata.md explains each.

Rows that refer to a topic or a stream are deleted with it (ON DELETE CASCADE), so that no part of a deleted topic can
reappear under its name. Ids are never reused: object keys and schema ids outlive their rows. A change of a table here
needs a new revision in migrations/versions; a test compares the two.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    Uuid,
    false,
)
from sqlalchemy import Text as PlainText
from sqlalchemy.dialects import postgresql, sqlite

T = TypeVar("T")

IN_LIST_MAX = 500  # databases bound the parameters of one statement

# States of a node (`broker.state`).
STARTING = "starting"  # registered; clients are not sent to it
SERVING = "serving"
DRAINING = "draining"  # it serves, and is about to stop: what it has is assigned to others
LEFT = "left"  # its last process stopped cleanly, and acknowledges nothing any more
FENCED = "fenced"  # its last process was watched until it was dead, and taken over
RUNNING_STATES = (STARTING, SERVING, DRAINING)  # as far as anybody knows

# States of an object (`object.state`).
PREPARED = "prepared"
COMMITTED = "committed"
DESTROYED = "destroyed"

# Sorted by code points, as in SQLite and Python, whatever the locale of the PostgreSQL database is.
Text = PlainText().with_variant(postgresql.TEXT(collation="C"), "postgresql")

metadata = MetaData()

cluster = Table(
    "cluster",
    metadata,
    Column("id", Integer, autoincrement=False, nullable=False),
    Column("cluster_id", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("secret", LargeBinary, nullable=True),
    PrimaryKeyConstraint("id", name="pk_cluster"),
)

change = Table(
    "change",
    metadata,
    Column("revision", BigInteger, autoincrement=False, nullable=False),
    Column("kind", Text, nullable=False),
    Column("ids", LargeBinary, nullable=True),
    PrimaryKeyConstraint("revision", name="pk_change"),
)

id_block = Table(
    "id_block",
    metadata,
    Column("kind", Text, nullable=False),
    Column("next_id", BigInteger, nullable=False),
    PrimaryKeyConstraint("kind", name="pk_id_block"),
)

broker = Table(
    "broker",
    metadata,
    Column("node", Integer, autoincrement=False, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("host", Text, nullable=False),
    Column("port", Integer, nullable=False),
    Column("beat", BigInteger, nullable=False, server_default="0"),
    Column("state", Text, nullable=False, server_default="starting"),
    Column("drained", Boolean, nullable=False, server_default=false()),
    PrimaryKeyConstraint("node", name="pk_broker"),
)

wal = Table(
    "wal",
    metadata,
    Column("node", Integer, autoincrement=False, nullable=False),
    Column("uri", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("trim", BigInteger, nullable=False),
    Column("since_epoch", BigInteger, nullable=False, server_default="0"),
    PrimaryKeyConstraint("node", "uri", "epoch", name="pk_wal"),
)

drain = Table(
    "drain",
    metadata,
    Column("node", Integer, autoincrement=False, nullable=False),
    Column("uri", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("part", Integer, autoincrement=False, nullable=False),
    Column("parts", Integer, nullable=False),
    Column("by_node", Integer, nullable=False),
    Column("by_epoch", BigInteger, nullable=False),
    Column("done", Boolean, nullable=False),
    PrimaryKeyConstraint("node", "uri", "epoch", "part", name="pk_drain"),
    ForeignKeyConstraint(
        ["node", "uri", "epoch"], ["wal.node", "wal.uri", "wal.epoch"], name="fk_drain_wal", ondelete="CASCADE"
    ),
)

controller = Table(
    "controller",
    metadata,
    Column("id", Integer, autoincrement=False, nullable=False),
    Column("node", Integer, nullable=False),
    Column("broker_epoch", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    PrimaryKeyConstraint("id", name="pk_controller"),
)

stream = Table(
    "stream",
    metadata,
    Column("id", BigInteger, autoincrement=False, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("owner", Integer, nullable=True),
    Column("start_offset", BigInteger, nullable=False),
    Column("end_offset", BigInteger, nullable=False),
    Column("checkpoint", LargeBinary, nullable=False),
    Column("checkpoint_offset", BigInteger, nullable=False),
    Column("owner_epoch", BigInteger, nullable=False, server_default="0"),
    PrimaryKeyConstraint("id", name="pk_stream"),
)

stream_epoch = Table(
    "stream_epoch",
    metadata,
    Column("stream_id", BigInteger, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("start_offset", BigInteger, nullable=False),
    PrimaryKeyConstraint("stream_id", "epoch", name="pk_stream_epoch"),
    ForeignKeyConstraint(["stream_id"], ["stream.id"], name="fk_stream_epoch_stream", ondelete="CASCADE"),
)

stream_note = Table(
    "stream_note",
    metadata,
    Column("stream_id", BigInteger, nullable=False),
    Column("end_offset", BigInteger, nullable=False),
    Column("notes", LargeBinary, nullable=False),
    PrimaryKeyConstraint("stream_id", "end_offset", name="pk_stream_note"),
    ForeignKeyConstraint(["stream_id"], ["stream.id"], name="fk_stream_note_stream", ondelete="CASCADE"),
)

object_ = Table(
    "object",
    metadata,
    Column("id", BigInteger, autoincrement=False, nullable=False),
    Column("state", Text, nullable=False),
    Column("deadline_ms", BigInteger, nullable=False),
    Column("owner", Integer, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("ranges", LargeBinary, nullable=True),
    PrimaryKeyConstraint("id", name="pk_object"),
)

topic = Table(
    "topic",
    metadata,
    Column("id", Uuid, nullable=False),
    Column("name", Text, nullable=False),
    PrimaryKeyConstraint("id", name="pk_topic"),
    UniqueConstraint("name", name="uq_topic_name"),
)

partition = Table(
    "partition",
    metadata,
    Column("topic_id", Uuid, nullable=False),
    Column("index", Integer, nullable=False),
    Column("stream_id", BigInteger, nullable=False),
    Column("node", Integer, nullable=True),
    Column("pinned", Boolean, nullable=False, server_default=false()),
    PrimaryKeyConstraint("topic_id", "index", name="pk_partition"),
    UniqueConstraint("stream_id", name="uq_partition_stream"),
    ForeignKeyConstraint(["topic_id"], ["topic.id"], name="fk_partition_topic", ondelete="CASCADE"),
    ForeignKeyConstraint(["stream_id"], ["stream.id"], name="fk_partition_stream", ondelete="CASCADE"),
)

topic_config = Table(
    "topic_config",
    metadata,
    Column("topic_id", Uuid, nullable=False),
    Column("key", Text, nullable=False),
    Column("value", Text, nullable=False),
    PrimaryKeyConstraint("topic_id", "key", name="pk_topic_config"),
    ForeignKeyConstraint(["topic_id"], ["topic.id"], name="fk_topic_config_topic", ondelete="CASCADE"),
)

broker_config = Table(
    "broker_config",
    metadata,
    Column("node", Integer, nullable=False),
    Column("key", Text, nullable=False),
    Column("value", Text, nullable=False),
    PrimaryKeyConstraint("node", "key", name="pk_broker_config"),
)

resource_config = Table(
    "resource_config",
    metadata,
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("value", Text, nullable=False),
    PrimaryKeyConstraint("kind", "name", "key", name="pk_resource_config"),
)

slot = Table(
    "slot",
    metadata,
    Column("id", Integer, autoincrement=False, nullable=False),
    Column("node", Integer, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    PrimaryKeyConstraint("id", name="pk_slot"),
)

consumer_group = Table(
    "consumer_group",
    metadata,
    Column("group_id", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("protocol_type", Text, nullable=False),
    Column("protocol", Text, nullable=True),
    Column("leader", Text, nullable=True),
    Column("members", LargeBinary, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("slot", Integer, nullable=False, server_default="0"),
    Column("kind", Text, nullable=False, server_default="classic"),
    PrimaryKeyConstraint("group_id", name="pk_consumer_group"),
    Index("ix_consumer_group_slot", "slot"),
)


def _offset() -> "tuple[Column[Any], ...]":
    """The columns of an offset that a group has committed, and of one that it commits with a transaction."""
    return (
        Column("group_id", Text, nullable=False),
        Column("topic_id", Uuid, nullable=False),
        Column("partition", Integer, nullable=False),
        Column("offset", BigInteger, nullable=False),
        Column("leader_epoch", Integer, nullable=False),
        Column("metadata", Text, nullable=False),
        Column("commit_ms", BigInteger, nullable=False),
    )


consumer_offset = Table(
    "consumer_offset",
    metadata,
    *_offset(),
    PrimaryKeyConstraint("group_id", "topic_id", "partition", name="pk_consumer_offset"),
    ForeignKeyConstraint(["topic_id"], ["topic.id"], name="fk_consumer_offset_topic", ondelete="CASCADE"),
    Index("ix_consumer_offset_topic", "topic_id"),
)

txn = Table(
    "txn",
    metadata,
    Column("transactional_id", Text, nullable=False),
    Column("slot", Integer, nullable=False),
    Column("producer_id", BigInteger, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("last_id", BigInteger, nullable=False),
    Column("last_epoch", Integer, nullable=False),
    Column("next_id", BigInteger, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("timeout_ms", Integer, nullable=False),
    Column("started_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("members", LargeBinary, nullable=False),
    PrimaryKeyConstraint("transactional_id", name="pk_txn"),
    Index("ix_txn_slot", "slot", "state"),
    Index("ix_txn_producer", "producer_id"),
)

txn_offset = Table(
    "txn_offset",
    metadata,
    Column("transactional_id", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    *_offset(),
    PrimaryKeyConstraint("transactional_id", "number", "group_id", "topic_id", "partition", name="pk_txn_offset"),
    ForeignKeyConstraint(["transactional_id"], ["txn.transactional_id"], name="fk_txn_offset_txn", ondelete="CASCADE"),
    ForeignKeyConstraint(["topic_id"], ["topic.id"], name="fk_txn_offset_topic", ondelete="CASCADE"),
    Index("ix_txn_offset_group", "group_id"),
    Index("ix_txn_offset_topic", "topic_id"),
)

schema = Table(
    "schema",
    metadata,
    Column("id", Integer, autoincrement=False, nullable=False),
    Column("text", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("kind", Text, nullable=False, server_default="AVRO"),
    Column("compiled", LargeBinary, nullable=True),
    PrimaryKeyConstraint("id", name="pk_schema"),
    UniqueConstraint("hash", name="uq_schema_hash"),
)

schema_reference = Table(
    "schema_reference",
    metadata,
    Column("schema_id", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("referenced_id", Integer, nullable=False),
    PrimaryKeyConstraint("schema_id", "name", name="pk_schema_reference"),
    ForeignKeyConstraint(["schema_id"], ["schema.id"], name="fk_schema_reference_schema"),
    ForeignKeyConstraint(["referenced_id"], ["schema.id"], name="fk_schema_reference_referenced"),
    Index("ix_schema_reference_subject", "subject", "version"),
)

subject_version = Table(
    "subject_version",
    metadata,
    Column("subject", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("schema_id", Integer, nullable=False),
    Column("deleted", Boolean, nullable=False),
    PrimaryKeyConstraint("subject", "version", name="pk_subject_version"),
    ForeignKeyConstraint(["schema_id"], ["schema.id"], name="fk_subject_version_schema"),
    Index("ix_subject_version_schema", "schema_id"),
)

subject_config = Table(
    "subject_config",
    metadata,
    Column("subject", Text, nullable=False),
    Column("level", Text, nullable=False),
    PrimaryKeyConstraint("subject", name="pk_subject_config"),
)

table_progress = Table(
    "table_progress",
    metadata,
    Column("topic_id", Uuid, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("hold_offset", BigInteger, nullable=True),
    Column("committed_offset", BigInteger, nullable=False),
    Column("committed_once", Boolean, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("incarnation", Integer, nullable=False, server_default="0"),
    PrimaryKeyConstraint("topic_id", "partition", name="pk_table_progress"),
    ForeignKeyConstraint(["topic_id"], ["topic.id"], name="fk_table_progress_topic", ondelete="CASCADE"),
)


def in_lists(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """The values in slices that fit an `IN (…)`."""
    for at in range(0, len(values), IN_LIST_MAX):
        yield values[at : at + IN_LIST_MAX]


def insert_into(connection: Connection, table: Table) -> "sqlite.Insert | postgresql.Insert":
    """An INSERT with `on_conflict_do_update`, which is not standard SQL but the same in both databases."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def upsert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows; a row whose primary key exists gets the new values of all other columns given."""
    if not rows:
        return
    statement = insert_into(connection, table)
    keys = [column.name for column in table.primary_key]
    others = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=others), list(rows))


def take_ids(connection: Connection, kind: str, count: int) -> int:
    """The first of `count` new ids of this kind; the very first id is 1. Committed ids are never returned again."""
    statement = insert_into(connection, id_block).values(kind=kind, next_id=1 + count)
    taking = statement.on_conflict_do_update(
        index_elements=["kind"], set_={"next_id": id_block.c.next_id + count}
    ).returning(id_block.c.next_id)
    next_id: int = connection.execute(taking).scalar_one()
    return next_id - count
