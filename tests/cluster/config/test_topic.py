import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlake.cluster.config.definition import ConfigSource, Layer
from streamlake.cluster.config.kafka import TOPIC
from streamlake.cluster.config.table import PREFIX
from streamlake.cluster.config.topic import (
    ACCEPTED,
    KAFKA_TOPIC_CONFIGS,
    TOPIC_CONFIGS,
    altered_configs,
    check_topic_configs,
)
from streamlake.core.errors import Invalid
from streamlake.log.settings import LogSettings


def test_every_config_of_kafka_is_known() -> None:
    assert {d.name for d in KAFKA_TOPIC_CONFIGS} == {fact.name for fact in TOPIC}


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
        ("leader.replication.throttled.replicas", "0-1", "partition:broker"),
        ("segment.bytes", "14", "from 1048576"),
        ("compression.gzip.level", "0", "from 1 to 9, or -1"),
        ("retention.ms", "1_000", "whole number"),
        ("min.cleanable.dirty.ratio", "nan", "a number from 0 to 1"),
        ("cleanup.policy", "compact,delete", "compaction is not implemented yet"),
        ("cleanup.policy", "forget", "must be delete"),
        ("compression.type", "rar", "must be uncompressed or zstd or lz4 or snappy or gzip or producer"),
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
    configs = {"cleanup.policy": "delete", "retention.ms": "-1", "segment.bytes": "2000000", "min.insync.replicas": "2"}
    assert check_topic_configs(configs) == configs


def test_altering_keeps_what_is_not_named() -> None:
    before = {"retention.ms": "1", PREFIX + "enable": "true", "flush.ms": "5"}
    assert altered_configs(before, {"retention.ms": "2"}, ["automq.table.topic.enable"]) == {
        "retention.ms": "2",
        "flush.ms": "5",
    }
    assert altered_configs(before, {}, ["nonsense"]) == before, "Kafka, too, removes what is not there"
    with pytest.raises(Invalid, match="not a topic config"):
        altered_configs(before, {"nonsense": "1"})


@pytest.mark.parametrize("codec", ["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"])
def test_every_compression_of_kafka_is_taken(codec: str) -> None:
    assert check_topic_configs({"compression.type": codec}) == {"compression.type": codec}


def test_lags_that_do_not_go_together() -> None:
    lags = {"min.compaction.lag.ms": "5", "max.compaction.lag.ms": "5"}
    assert check_topic_configs(lags) == lags
    with pytest.raises(Invalid, match="must not be larger"):
        check_topic_configs(lags | {"max.compaction.lag.ms": "4"})


def test_no_policy_keeps_for_ever() -> None:
    effective = TOPIC_CONFIGS.effective([Layer(ConfigSource.DYNAMIC_TOPIC, {"cleanup.policy": ""})])
    assert not LogSettings.from_configs(effective | {"producer.id.expiration.ms": "1"}).deletes


def test_hours_and_minutes_of_the_broker_are_defaults_too() -> None:
    """The finest unit that is set counts, as in Kafka."""

    def retention(**static: str) -> str:
        layers = [Layer(ConfigSource.STATIC_BROKER, {f"log.retention.{unit}": text for unit, text in static.items()})]
        return TOPIC_CONFIGS.effective(layers)["retention.ms"]

    assert retention(hours="2") == "7200000"
    assert retention(hours="2", minutes="3") == "180000"
    assert retention(hours="2", minutes="3", ms="4") == "4"
    assert retention(hours="-1") == "-1"
    assert retention() == "604800000"


@given(st.dictionaries(st.sampled_from([d.name for d in TOPIC_CONFIGS]), st.text(max_size=20), max_size=4))
def test_any_value_is_right_or_invalid(configs: dict[str, str]) -> None:
    try:
        checked = check_topic_configs(configs)
    except Invalid:
        return
    assert check_topic_configs(checked) == checked == configs
