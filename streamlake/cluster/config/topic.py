"""THE list of topic configs: Kafka's standard ones and `streamlake.table.*`.

The names and the allowed values come from Kafka itself (kafka.py); this file says what each config means here. Some
have no effect on object storage: they are accepted, so that scripts and tools that set them work, and their doc says
so. A value that asks for something that StreamLake cannot do is refused.
"""

import re
from collections.abc import Collection, Mapping

from streamlake.cluster.config.definition import ConfigDef, ConfigDefs, Parser, Value, boolean, comma_list, from_fact
from streamlake.cluster.config.kafka import SYNONYMS, TOPIC
from streamlake.cluster.config.table import TABLE_CONFIGS, check_table_configs, translate_schema_type
from streamlake.core.errors import Invalid

ACCEPTED = "Accepted and without effect: "
_MS = {"minutes": 60_000, "hours": 3_600_000}
_FACTS = {fact.name: fact for fact in TOPIC}
_REPLICA = re.compile(r"[0-9]{1,10}:[0-9]{1,10}")


def _kafka(name: str, doc: str, parser: Parser | None = None) -> ConfigDef:
    keys = [broker_key for topic_key, broker_key in SYNONYMS if topic_key == name]
    coarser = tuple((key, _MS.get(key.rpartition(".")[2], 1)) for key in keys[1:])
    return from_fact(_FACTS[name], doc, parser, keys[0] if keys else None, coarser)


def _cleanup_policy(value: str) -> Value:
    policies = comma_list(value)
    if "compact" in policies and set(policies) <= {"compact", "delete"}:
        raise ValueError("compaction is not implemented yet; use delete, or nothing to keep records forever")
    if set(policies) - {"delete"}:
        raise ValueError("must be delete, or nothing to keep records forever")
    return policies


def _only_false(value: str) -> bool:
    if boolean(value):
        raise ValueError("must be false: all data is on object storage already")
    return False


def _replicas(value: str) -> Value:
    replicas = comma_list(value)
    if replicas != ("*",) and not all(_REPLICA.fullmatch(replica) for replica in replicas):
        raise ValueError("must be * or a list of partition:broker, such as 0:1,1:1")
    return replicas


_SEGMENTS = ACCEPTED + "a stream has no segment files."
_FLUSH = ACCEPTED + "what is acknowledged is durable already."
REPLICAS = ACCEPTED + "durability is the object storage's; a partition has one replica, its leader."
CLEANER = ACCEPTED + "it belongs to compaction, which is not implemented yet."
TIERED = ACCEPTED + "all data is on object storage already."

KAFKA_TOPIC_CONFIGS = (
    _kafka("cleanup.policy", "delete: retention.ms and retention.bytes delete old records; empty: they are kept "
           "forever. Compaction is not implemented yet.", _cleanup_policy),
    _kafka("retention.ms", "How long records are kept, by their timestamps; -1 forever. Expired records are deleted "
           "at the next check (log.retention.check.interval.ms), but not before they are in the topic's table."),
    _kafka("retention.bytes", "How many bytes of a partition are kept; -1 for no limit."),
    _kafka("max.message.bytes", "The largest record batch in bytes, after compression."),
    _kafka("message.timestamp.type",
           "Whether records have the producer's timestamp (CreateTime) or the broker's (LogAppendTime)."),
    _kafka("message.timestamp.before.max.ms", "How far a producer's timestamp may lie in the past."),
    _kafka("message.timestamp.after.max.ms", "How far a producer's timestamp may lie in the future."),
    _kafka("compression.type", "The codec of all batches: those of another one are compressed again when they are "
           "produced. producer: each keeps the codec of its producer."),
    _kafka("compression.gzip.level", "The level of gzip, where compression.type is gzip; -1 for its default."),
    _kafka("compression.lz4.level", "The level of lz4, where compression.type is lz4: 9 is its fast default, 12 to 17 "
           "are the same."),
    _kafka("compression.zstd.level", "The level of zstd, where compression.type is zstd."),
    _kafka("segment.bytes", _SEGMENTS),
    _kafka("segment.ms", _SEGMENTS),
    _kafka("segment.jitter.ms", _SEGMENTS),
    _kafka("segment.index.bytes", _SEGMENTS),
    _kafka("index.interval.bytes", _SEGMENTS),
    _kafka("file.delete.delay.ms", _SEGMENTS),
    _kafka("preallocate", _SEGMENTS),
    _kafka("flush.messages", _FLUSH),
    _kafka("flush.ms", _FLUSH),
    _kafka("min.insync.replicas", REPLICAS),
    _kafka("unclean.leader.election.enable", REPLICAS),
    _kafka("leader.replication.throttled.replicas", REPLICAS, _replicas),
    _kafka("follower.replication.throttled.replicas", REPLICAS, _replicas),
    _kafka("delete.retention.ms", CLEANER),
    _kafka("min.compaction.lag.ms", CLEANER),
    _kafka("max.compaction.lag.ms", CLEANER),
    _kafka("min.cleanable.dirty.ratio", CLEANER),
    _kafka("local.retention.ms", TIERED),
    _kafka("local.retention.bytes", TIERED),
    _kafka("remote.storage.enable", TIERED, _only_false),
    _kafka("remote.log.copy.disable", TIERED),
    _kafka("remote.log.delete.on.disable", TIERED),
)  # fmt: skip

TOPIC_CONFIGS = ConfigDefs("topic", (*KAFKA_TOPIC_CONFIGS, *TABLE_CONFIGS))


def check_topic_configs(configs: Mapping[str, str]) -> dict[str, str]:
    """All configs of a topic, under their canonical names. Invalid if a key is unknown, a value is wrong, or keys do
    not go together."""
    checked = TOPIC_CONFIGS.check(translate_schema_type(configs))
    check_table_configs(checked)
    least, most = checked.get("min.compaction.lag.ms"), checked.get("max.compaction.lag.ms")
    if least is not None and most is not None and int(least) > int(most):
        raise Invalid(f"min.compaction.lag.ms = {least} must not be larger than max.compaction.lag.ms = {most}")
    return checked


def altered_configs(
    configs: Mapping[str, str], set_: Mapping[str, str], remove: Collection[str] = ()
) -> dict[str, str]:
    """The configs of a topic after a change; Invalid as above. A key that is both set and removed is set. To remove a
    key that is not set, or that does not exist, changes nothing."""
    gone = {TOPIC_CONFIGS.canonical(name) for name in remove if name in TOPIC_CONFIGS}
    kept = {key: value for key, value in configs.items() if key not in gone}
    return check_topic_configs(kept | TOPIC_CONFIGS.check(translate_schema_type(set_)))
