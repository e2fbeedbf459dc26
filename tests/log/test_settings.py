import pytest

from streamlake.core.errors import Invalid
from streamlake.log.settings import LogSettings


def test_defaults():
    assert LogSettings.from_configs({}) == LogSettings()
    assert LogSettings().deletes
    assert not LogSettings().is_log_append_time


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
    assert LogSettings(cleanup_policy="compact,delete").deletes


def test_not_a_number():
    with pytest.raises(Invalid, match=r"retention\.ms"):
        LogSettings.from_configs({"retention.ms": "soon"})
