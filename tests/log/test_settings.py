import pytest
from support.log_bench import log_settings

from streamlake.cluster.config.topic import TOPIC_CONFIGS
from streamlake.core.errors import Invalid
from streamlake.log.settings import LogSettings
from streamlake.record.compression import Compression, compress
from streamlake.record.recompress import Codec


def test_defaults_are_kafkas():
    week_ms, day_ms = 7 * 24 * 3_600_000, 24 * 3_600_000
    defaults = LogSettings(1_048_588, "CreateTime", 2**63 - 1, 3_600_000, "delete", week_ms, -1, day_ms, 2_000)
    assert log_settings() == defaults
    assert defaults.deletes
    assert not defaults.is_log_append_time


def test_from_topic_configs():
    settings = LogSettings.from_configs(
        {
            "max.message.bytes": "5",
            "message.timestamp.type": "LogAppendTime",
            "message.timestamp.before.max.ms": "6",
            "message.timestamp.after.max.ms": "7",
            "cleanup.policy": "compact",
            "retention.ms": "-1",
            "retention.bytes": "8",
            "producer.id.expiration.ms": "9",
            "segment.bytes": "10",
            "compression.type": "producer",
            "compression.gzip.level": "1",
            "compression.lz4.level": "1",
            "compression.zstd.level": "1",
        }
    )
    assert settings == LogSettings(5, "LogAppendTime", 6, 7, "compact", -1, 8, 9)
    assert settings.is_log_append_time
    assert not settings.deletes
    assert log_settings(cleanup_policy="compact,delete").deletes


@pytest.mark.parametrize(
    ("configs", "codec"),
    [
        ({}, None),
        ({"type": "producer", "gzip.level": "3"}, None),
        ({"type": "uncompressed"}, Codec(Compression.NONE)),
        ({"type": "snappy"}, Codec(Compression.SNAPPY)),
        ({"type": "gzip"}, Codec(Compression.GZIP)),
        ({"type": "gzip", "gzip.level": "1"}, Codec(Compression.GZIP, 1)),
        ({"type": "lz4"}, Codec(Compression.LZ4)),
        ({"type": "lz4", "lz4.level": "3"}, Codec(Compression.LZ4, 3)),
        ({"type": "lz4", "lz4.level": "17"}, Codec(Compression.LZ4, 12)),
        ({"type": "zstd"}, Codec(Compression.ZSTD, 3)),
        ({"type": "zstd", "zstd.level": "-5"}, Codec(Compression.ZSTD, -5)),
    ],
)
def test_codecs(configs, codec):
    given = {f"compression.{key}": value for key, value in configs.items()} | {"producer.id.expiration.ms": "1"}
    settings = LogSettings.from_configs(TOPIC_CONFIGS.effective([]) | given)
    assert settings.codec == codec
    if codec is not None:
        assert compress(codec.compression, b"records", codec.level)


def test_an_unknown_codec():
    with pytest.raises(Invalid, match=r"compression\.type"):
        LogSettings.from_configs(
            TOPIC_CONFIGS.effective([]) | {"compression.type": "rar", "producer.id.expiration.ms": "1"}
        )


def test_not_a_number():
    with pytest.raises(Invalid, match=r"retention\.ms"):
        LogSettings.from_configs(TOPIC_CONFIGS.effective([]) | {"retention.ms": "soon"})
