"""What a topic's configuration means to its log. Names, units and defaults are Kafka's topic configs (4.x)."""

from collections.abc import Mapping
from dataclasses import dataclass

from streamlake.core.errors import Invalid

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
INT64_MAX = 2**63 - 1
CREATE_TIME, LOG_APPEND_TIME = "CreateTime", "LogAppendTime"


@dataclass(frozen=True, slots=True)
class LogSettings:
    max_message_bytes: int = 1_048_588  # of a whole batch, compressed
    message_timestamp_type: str = CREATE_TIME
    message_timestamp_before_max_ms: int = INT64_MAX
    message_timestamp_after_max_ms: int = HOUR_MS
    cleanup_policy: str = "delete"  # a list, comma-separated; retention works only if `delete` is in it
    retention_ms: int = 7 * DAY_MS  # -1: no limit
    retention_bytes: int = -1  # -1: no limit
    producer_id_expiration_ms: int = DAY_MS
    producers_max: int = 2_000  # per partition; the one that was silent longest is forgotten first

    @classmethod
    def from_configs(cls, configs: Mapping[str, str]) -> "LogSettings":
        """From a topic's effective configs, keyed and written as in Kafka; what is absent has its default."""

        def number(name: str, default: int) -> int:
            text = configs.get(name)
            try:
                return default if text is None else int(text)
            except ValueError:
                raise Invalid(f"{name} must be a whole number, not {text!r}") from None

        default = cls()
        return cls(
            max_message_bytes=number("max.message.bytes", default.max_message_bytes),
            message_timestamp_type=configs.get("message.timestamp.type", default.message_timestamp_type),
            message_timestamp_before_max_ms=number(
                "message.timestamp.before.max.ms", default.message_timestamp_before_max_ms
            ),
            message_timestamp_after_max_ms=number(
                "message.timestamp.after.max.ms", default.message_timestamp_after_max_ms
            ),
            cleanup_policy=configs.get("cleanup.policy", default.cleanup_policy),
            retention_ms=number("retention.ms", default.retention_ms),
            retention_bytes=number("retention.bytes", default.retention_bytes),
            producer_id_expiration_ms=number("producer.id.expiration.ms", default.producer_id_expiration_ms),
        )

    @property
    def deletes(self) -> bool:
        return "delete" in (policy.strip() for policy in self.cleanup_policy.split(","))

    @property
    def is_log_append_time(self) -> bool:
        return self.message_timestamp_type == LOG_APPEND_TIME
