import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlake.cluster.table_configs import PREFIX
from streamlake.cluster.topic_configs import (
    ACCEPTED,
    KAFKA_TOPIC_CONFIGS,
    TOPIC_CONFIGS,
    altered_configs,
    check_topic_configs,
)
from streamlake.core.errors import Invalid

# Kafka 4's org.apache.kafka.common.config.TopicConfig, but for the two that switch tiered storage off again.
KAFKA_4 = """
    cleanup.policy compression.gzip.level compression.lz4.level compression.type compression.zstd.level
    delete.retention.ms file.delete.delay.ms flush.messages flush.ms follower.replication.throttled.replicas
    index.interval.bytes leader.replication.throttled.replicas local.retention.bytes local.retention.ms
    max.compaction.lag.ms max.message.bytes message.timestamp.after.max.ms message.timestamp.before.max.ms
    message.timestamp.type min.cleanable.dirty.ratio min.compaction.lag.ms min.insync.replicas preallocate
    remote.storage.enable retention.bytes retention.ms segment.bytes segment.index.bytes segment.jitter.ms segment.ms
    unclean.leader.election.enable
"""


def test_every_config_of_kafka_is_known() -> None:
    assert sorted(d.name for d in KAFKA_TOPIC_CONFIGS) == KAFKA_4.split()


def test_every_default_is_valid_and_every_config_explained() -> None:
    for definition in TOPIC_CONFIGS:
        definition.parse(definition.default)
        assert definition.doc.endswith((".", "]"))
    defaults = {d.name: d.default for d in TOPIC_CONFIGS}
    assert check_topic_configs(defaults) == defaults


def test_what_has_no_effect_says_so() -> None:
    silent = {d.name for d in KAFKA_TOPIC_CONFIGS if d.doc.startswith(ACCEPTED)}
    assert "segment.bytes" in silent
    assert not silent & {"retention.ms", "retention.bytes", "max.message.bytes", "cleanup.policy"}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("cleanup.policy", "compact", "compaction is not implemented yet; use delete"),
        ("cleanup.policy", "compact,delete", "compaction is not implemented yet"),
        ("cleanup.policy", "forget", "must be delete"),
        ("cleanup.policy", "", "must be delete"),
        ("compression.type", "zstd", "not implemented yet; use producer"),
        ("compression.type", "rar", "must be producer"),
        ("retention.ms", "-2", "whole number from -1"),
        ("retention.ms", str(2**63), "whole number from -1"),
        ("retention.ms", "7 days", "whole number"),
        ("message.timestamp.type", "createtime", "must be CreateTime or LogAppendTime"),
        ("remote.storage.enable", "true", "on object storage already"),
        ("preallocate", "maybe", "must be true or false"),
        ("retention.mss", "1", "did you mean retention.ms"),
        ("streamlake.table.enabled", "true", "did you mean streamlake.table.enable"),
    ],
)
def test_wrong_configs(key: str, value: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        check_topic_configs({key: value})


def test_right_configs() -> None:
    configs = {"cleanup.policy": "delete", "retention.ms": "-1", "segment.bytes": "1000000", "min.insync.replicas": "2"}
    assert check_topic_configs(configs) == configs


def test_altering_keeps_what_is_not_named() -> None:
    before = {"retention.ms": "1", PREFIX + "enable": "true", "flush.ms": "5"}
    assert altered_configs(before, {"retention.ms": "2"}, ["automq.table.topic.enable"]) == {
        "retention.ms": "2",
        "flush.ms": "5",
    }
    with pytest.raises(Invalid, match="no topic config"):
        altered_configs(before, {}, ["nonsense"])


@given(st.dictionaries(st.sampled_from([d.name for d in TOPIC_CONFIGS]), st.text(max_size=20), max_size=4))
def test_any_value_is_right_or_invalid(configs: dict[str, str]) -> None:
    try:
        checked = check_topic_configs(configs)
    except Invalid:
        return
    assert check_topic_configs(checked) == checked == configs
