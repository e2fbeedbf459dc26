import pytest
from support.log_bench import log_settings

from streamlake.cluster.config.topic import TOPIC_CONFIGS
from streamlake.core.errors import Invalid
from streamlake.log.settings import LogSettings


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
        }
    )
    assert settings == LogSettings(5, "LogAppendTime", 6, 7, "compact", -1, 8, 9)
    assert settings.is_log_append_time
    assert not settings.deletes
    assert log_settings(cleanup_policy="compact,delete").deletes


def test_not_a_number():
    with pytest.raises(Invalid, match=r"retention\.ms"):
        LogSettings.from_configs(TOPIC_CONFIGS.effective([]) | {"retention.ms": "soon"})
