"""Write one group of bytes and make it durable: the only way to the disk on the path of an ack.

One call is one write and one fdatasync, in a thread that does nothing else, so that a group waits for the disk only
and never for other work. The caller keeps one call in flight. What happens after an error is not decided here: the
durable content of the file is then unknown for ever and nobody may sync it again (fsyncgate).
"""

from bisect import bisect_left
from collections.abc import Sequence

from streamlake.core.clock import Clock
from streamlake.core.disk import Buffer, DiskFile
from streamlake.core.tasks import Executor
from streamlake.s3stream.wal.port import LATENCY_BOUNDS_MS


class Flusher:
    def __init__(self, executor: Executor, clock: Clock) -> None:
        """`executor` should have one thread of its own. It stays the caller's to close."""
        self._executor = executor
        self._clock = clock
        self.syncs = 0
        self.written_bytes = 0
        self.latency_buckets = [0] * (len(LATENCY_BOUNDS_MS) + 1)
        self.latency_sum_ms = 0.0

    async def flush(self, file: DiskFile, buffers: Sequence[Buffer], offset: int) -> None:
        """Write `buffers` one after the other at `offset`; returns when they are on stable storage. OSError."""
        started = self._clock.boottime()
        written_bytes = await self._write_and_sync(file, buffers, offset)
        latency_ms = (self._clock.boottime() - started) * 1000
        self.syncs += 1
        self.written_bytes += written_bytes
        self.latency_buckets[bisect_left(LATENCY_BOUNDS_MS, latency_ms)] += 1
        self.latency_sum_ms += latency_ms

    async def close(self) -> None:
        """Nothing to do here: the executor is the caller's."""

    async def _write_and_sync(self, file: DiskFile, buffers: Sequence[Buffer], offset: int) -> int:
        return await self._executor.run(write_and_sync, file, buffers, offset)


def write_and_sync(file: DiskFile, buffers: Sequence[Buffer], offset: int) -> int:
    written_bytes = file.pwrite(buffers, offset)
    file.sync()
    return written_bytes
