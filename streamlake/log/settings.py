"""The settings of a log, from the configs of its topic. Names and units are those of Kafka; cluster/config has the
defaults."""

from collections.abc import Mapping
from dataclasses import dataclass

from streamlake.core.errors import Invalid
from streamlake.record.compression import Compression
from streamlake.record.recompress import Codec

CREATE_TIME, LOG_APPEND_TIME = "CreateTime", "LogAppendTime"
LZ4_FAST, LZ4_LEVEL_MAX = 9, 12  # the default of Kafka, which is not level 9 of anything there; and the library's best


@dataclass(frozen=True, slots=True)
class LogSettings:
    max_message_bytes: int  # of a whole batch, compressed
    message_timestamp_type: str
    message_timestamp_before_max_ms: int
    message_timestamp_after_max_ms: int
    cleanup_policy: str  # a list, comma-separated; retention works only if `delete` is in it
    retention_ms: int  # -1: no limit
    retention_bytes: int  # -1: no limit
    producer_id_expiration_ms: int
    producers_max: int = 2_000  # per partition; above it the producer that was idle longest expires
    codec: Codec | None = None  # of all batches; None: of each what its producer chose

    @classmethod
    def from_configs(cls, configs: Mapping[str, str]) -> "LogSettings":
        """From a topic's effective configs, all of them, keyed and written as in Kafka. Invalid."""

        def number(name: str) -> int:
            try:
                return int(configs[name])
            except ValueError:
                raise Invalid(f"{name} must be a whole number, not {configs[name]!r}") from None

        return cls(
            max_message_bytes=number("max.message.bytes"),
            message_timestamp_type=configs["message.timestamp.type"],
            message_timestamp_before_max_ms=number("message.timestamp.before.max.ms"),
            message_timestamp_after_max_ms=number("message.timestamp.after.max.ms"),
            cleanup_policy=configs["cleanup.policy"],
            retention_ms=number("retention.ms"),
            retention_bytes=number("retention.bytes"),
            producer_id_expiration_ms=number("producer.id.expiration.ms"),
            codec=_codec(
                configs["compression.type"],
                gzip=number("compression.gzip.level"),
                lz4=number("compression.lz4.level"),
                zstd=number("compression.zstd.level"),
            ),
        )

    @property
    def deletes(self) -> bool:
        return "delete" in (policy.strip() for policy in self.cleanup_policy.split(","))

    @property
    def is_log_append_time(self) -> bool:
        return self.message_timestamp_type == LOG_APPEND_TIME


def _codec(name: str, gzip: int, lz4: int, zstd: int) -> Codec | None:
    match name:
        case "producer":
            return None
        case "uncompressed":
            return Codec(Compression.NONE)
        case "snappy":
            return Codec(Compression.SNAPPY)
        case "gzip":
            return Codec(Compression.GZIP, None if gzip < 0 else gzip)
        case "lz4":
            return Codec(Compression.LZ4, None if lz4 == LZ4_FAST else min(lz4, LZ4_LEVEL_MAX))
        case "zstd":
            return Codec(Compression.ZSTD, zstd)
    raise Invalid(f"compression.type must be uncompressed, zstd, lz4, snappy, gzip or producer, not {name!r}")
