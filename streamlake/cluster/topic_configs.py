"""THE list of topic configs: Kafka's standard ones and `streamlake.table.*`.

Each says what it means here. Some of Kafka's have no effect on object storage: they are accepted, so that scripts
and tools that set them work, and their doc says so. A value that asks for what StreamLake cannot do is refused.
"""

from collections.abc import Collection, Mapping

from streamlake.cluster.config_def import (
    INT32_MAX,
    INT64_MAX,
    ConfigDef,
    ConfigDefs,
    ConfigType,
    Parser,
    Value,
    any_text,
    boolean,
    integer,
    number,
    one_of,
)
from streamlake.cluster.table_configs import TABLE_CONFIGS, TableSettings, translate_schema_type

DAY_MS = 24 * 3_600_000
ACCEPTED = "Accepted and without effect: "


def _long(name: str, default: int, low: int, doc: str, broker_key: str | None) -> ConfigDef:
    return ConfigDef(name, ConfigType.LONG, str(default), integer(low, INT64_MAX), doc, broker_key)


def _int(name: str, default: int, low: int, doc: str, broker_key: str | None) -> ConfigDef:
    return ConfigDef(name, ConfigType.INT, str(default), integer(low, INT32_MAX), doc, broker_key)


def _text(name: str, default: str, parser: Parser, doc: str, broker_key: str | None = None) -> ConfigDef:
    return ConfigDef(name, ConfigType.STRING, default, parser, doc, broker_key)


def _bool(name: str, default: str, doc: str, broker_key: str | None = None) -> ConfigDef:
    return ConfigDef(name, ConfigType.BOOLEAN, default, boolean, doc, broker_key)


def _cleanup_policy(value: str) -> Value:
    policies = {policy.strip() for policy in value.split(",")}
    if "compact" in policies and policies <= {"compact", "delete"}:
        raise ValueError("compaction is not implemented yet; use delete")
    if policies != {"delete"}:
        raise ValueError("must be delete")
    return ("delete",)


def _only_false(value: str) -> bool:
    if boolean(value):
        raise ValueError("must be false: all data is on object storage already")
    return False


_RETENTION = (
    ConfigDef(
        "cleanup.policy", ConfigType.LIST, "delete", _cleanup_policy,
        "delete: old data goes by retention.ms and retention.bytes. Compaction is not implemented yet.",
        "log.cleanup.policy",
    ),
    _long("retention.ms", 7 * DAY_MS, -1, "How long records are kept; -1 for ever. A table that has not translated "
          "them yet holds them back.", "log.retention.ms"),
    _long("retention.bytes", -1, -1, "How many bytes of a partition are kept; -1 for no bound.", "log.retention.bytes"),
)  # fmt: skip

_RECORDS = (
    _int("max.message.bytes", 1_048_588, 0, "The largest record batch, in bytes, compressed.", "message.max.bytes"),
    _text("message.timestamp.type", "CreateTime", one_of("CreateTime", "LogAppendTime"),
          "Whose clock stamps records: the producer's or the broker's.", "log.message.timestamp.type"),
    _long("message.timestamp.before.max.ms", INT64_MAX, 0, "How far a producer's timestamp may lie in the past.",
          "log.message.timestamp.before.max.ms"),
    _long("message.timestamp.after.max.ms", 3_600_000, 0, "How far a producer's timestamp may lie in the future.",
          "log.message.timestamp.after.max.ms"),
    _text("compression.type", "producer",
          one_of("producer", not_yet=("uncompressed", "zstd", "lz4", "snappy", "gzip")),
          "producer: batches are kept as they were compressed by the producer.", "compression.type"),
)  # fmt: skip

_SEGMENTS = ACCEPTED + "a stream has no segment files."
_FLUSH = ACCEPTED + "what is acknowledged is durable already."
_REPLICAS = ACCEPTED + "durability is the object storage's; a partition has one replica, its leader."
_CLEANER = ACCEPTED + "it belongs to compaction, which is not implemented yet."
_TIERED = ACCEPTED + "all data is on object storage already."
_CODECS = ACCEPTED + "the broker does not compress."

_WITHOUT_EFFECT = (
    _int("segment.bytes", 1_073_741_824, 14, _SEGMENTS, "log.segment.bytes"),
    _long("segment.ms", 7 * DAY_MS, 1, _SEGMENTS, "log.roll.ms"),
    _long("segment.jitter.ms", 0, 0, _SEGMENTS, "log.roll.jitter.ms"),
    _int("segment.index.bytes", 10_485_760, 4, _SEGMENTS, "log.index.size.max.bytes"),
    _int("index.interval.bytes", 4_096, 0, _SEGMENTS, "log.index.interval.bytes"),
    _long("file.delete.delay.ms", 60_000, 0, _SEGMENTS, "log.segment.delete.delay.ms"),
    _bool("preallocate", "false", _SEGMENTS, "log.preallocate"),
    _long("flush.messages", INT64_MAX, 1, _FLUSH, "log.flush.interval.messages"),
    _long("flush.ms", INT64_MAX, 0, _FLUSH, "log.flush.interval.ms"),
    _int("min.insync.replicas", 1, 1, _REPLICAS, "min.insync.replicas"),
    _bool("unclean.leader.election.enable", "false", _REPLICAS, "unclean.leader.election.enable"),
    _text("leader.replication.throttled.replicas", "", any_text, _REPLICAS),
    _text("follower.replication.throttled.replicas", "", any_text, _REPLICAS),
    _long("delete.retention.ms", DAY_MS, 0, _CLEANER, "log.cleaner.delete.retention.ms"),
    _long("min.compaction.lag.ms", 0, 0, _CLEANER, "log.cleaner.min.compaction.lag.ms"),
    _long("max.compaction.lag.ms", INT64_MAX, 1, _CLEANER, "log.cleaner.max.compaction.lag.ms"),
    ConfigDef("min.cleanable.dirty.ratio", ConfigType.DOUBLE, "0.5", number(0, 1), _CLEANER,
              "log.cleaner.min.cleanable.ratio"),
    _long("local.retention.ms", -2, -2, _TIERED, "log.local.retention.ms"),
    _long("local.retention.bytes", -2, -2, _TIERED, "log.local.retention.bytes"),
    ConfigDef("remote.storage.enable", ConfigType.BOOLEAN, "false", _only_false, _TIERED),
    ConfigDef("compression.gzip.level", ConfigType.INT, "-1", integer(-1, 9), _CODECS, "compression.gzip.level"),
    ConfigDef("compression.lz4.level", ConfigType.INT, "9", integer(1, 17), _CODECS, "compression.lz4.level"),
    ConfigDef("compression.zstd.level", ConfigType.INT, "3", integer(-131_072, 22), _CODECS, "compression.zstd.level"),
)  # fmt: skip

KAFKA_TOPIC_CONFIGS = (*_RETENTION, *_RECORDS, *_WITHOUT_EFFECT)
TOPIC_CONFIGS = ConfigDefs("topic", (*KAFKA_TOPIC_CONFIGS, *TABLE_CONFIGS))


def check_topic_configs(configs: Mapping[str, str]) -> dict[str, str]:
    """All configs of a topic, under their canonical names. Invalid if a key is unknown, a value is wrong, or keys do
    not go together."""
    checked = TOPIC_CONFIGS.check(translate_schema_type(configs))
    TableSettings.from_configs(checked)
    return checked


def altered_configs(
    configs: Mapping[str, str], set_: Mapping[str, str], remove: Collection[str] = ()
) -> dict[str, str]:
    """The configs of a topic after a change; Invalid as above. What is set wins over what is removed."""
    gone = {TOPIC_CONFIGS.canonical(name) for name in remove}
    kept = {key: value for key, value in configs.items() if key not in gone}
    return check_topic_configs(kept | TOPIC_CONFIGS.check(translate_schema_type(set_)))
