"""For tests of the log: a partition on a stream in memory, a clock that stands still, and batches as producers send them."""

from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from support.fake_stream import FakeStream

from streamlake.cluster.broker_configs import BROKER_CONFIGS
from streamlake.cluster.config.topic import TOPIC_CONFIGS
from streamlake.core.tasks import InlineExecutor
from streamlake.log.partition import Appended, LogCounters, Partition
from streamlake.log.settings import LogSettings
from streamlake.record.batch import Buffer, frames
from streamlake.record.compression import Compression
from streamlake.record.decode import Record, decode_batch
from streamlake.record.encode import encode_batch

TOPIC = UUID(int=7)
NOW_MS = 1_700_000_000_000


@dataclass
class FixedClock:
    ms: int = NOW_MS

    def now_ms(self) -> int:
        return self.ms

    def boottime(self) -> float:
        return self.ms / 1000


def log_settings(**changes: Any) -> LogSettings:
    """Of a topic with the default configs, but for `changes`."""
    name = "producer.id.expiration.ms"
    configs = TOPIC_CONFIGS.effective([]) | {name: BROKER_CONFIGS[name].default}
    return replace(LogSettings.from_configs(configs), **changes)


def append(partition: Partition, records: Buffer) -> Appended:
    """One batch, checked and appended, as Produce does."""
    return partition.append(partition.check(records))


@dataclass
class Bench:
    """What the tests of this package work with."""

    clock: FixedClock = field(default_factory=FixedClock)
    executor: InlineExecutor = field(default_factory=InlineExecutor)
    counters: LogCounters = field(default_factory=LogCounters)
    topic: UUID = TOPIC

    async def open(self, stream: FakeStream | None = None, **settings) -> Partition:
        return await Partition.open(
            stream or FakeStream(), TOPIC, 0, log_settings(**settings), self.clock, self.executor, self.counters
        )

    def batch(self, count: int = 1, *, at_ms: int | None = None, step_ms: int = 0, size: int = 10, **kind) -> bytes:
        """`count` records from `at_ms` (now) on; idempotent with producer_id, producer_epoch, base_sequence."""
        start = self.clock.ms if at_ms is None else at_ms
        return encode_batch([Record(i, start + i * step_ms, b"k", bytes(size)) for i in range(count)], **kind)

    def idempotent(self, sequence: int, count: int = 1, *, producer: int = 1, epoch: int = 0) -> bytes:
        return self.batch(count, producer_id=producer, producer_epoch=epoch, base_sequence=sequence)

    def compressed(self, count: int, **kind) -> bytes:
        return self.batch(count, compression=Compression.ZSTD, **kind)

    def offsets(self, chunks) -> list[int]:
        """Of all records in what was read."""
        return [r.offset for c in chunks for header, batch in frames(c) for r in decode_batch(header, batch, 1 << 20)]
