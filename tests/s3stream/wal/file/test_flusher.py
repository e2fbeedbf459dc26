import errno

import pytest
from simulation.world.disk import SimDisk

from streamlake.core.tasks import InlineExecutor
from streamlake.s3stream.wal.file.flusher import Flusher
from streamlake.s3stream.wal.port import LATENCY_BOUNDS_MS


class TickingClock:
    """Each look is as much later as the test says."""

    def __init__(self, *steps_s: float) -> None:
        self._times = [sum(steps_s[:i]) for i in range(len(steps_s) + 1)]

    def now_ms(self) -> int:
        return 0

    def boottime(self) -> float:
        return self._times.pop(0)


async def test_a_flush_is_a_write_and_then_a_sync() -> None:
    disk = SimDisk()
    file = disk.open("/a", create=True)
    operations: list[str] = []
    disk.before = lambda operation, path: operations.append(operation)
    flusher = Flusher(InlineExecutor(), TickingClock(0.002))
    await flusher.flush(file, [b"ab", b"c"], 1)
    assert operations == ["pwrite", "sync"]
    assert file.pread(9, 0) == b"\0abc"
    assert (flusher.syncs, flusher.written_bytes) == (1, 3)


async def test_a_failed_sync_is_raised_and_not_repeated() -> None:
    disk = SimDisk()
    file = disk.open("/a", create=True)
    syncs: list[str] = []

    def before(operation: str, path: str) -> None:
        if operation == "sync":
            syncs.append(path)
            raise OSError(errno.EIO, "planned")

    disk.before = before
    flusher = Flusher(InlineExecutor(), TickingClock(1))
    with pytest.raises(OSError):
        await flusher.flush(file, [b"ab"], 0)
    assert len(syncs) == 1
    assert (flusher.syncs, flusher.written_bytes) == (0, 0)


async def test_latencies_fall_into_buckets() -> None:
    file = SimDisk().open("/a", create=True)
    flusher = Flusher(InlineExecutor(), TickingClock(0.0001, 0, 0.0007, 0, 0.0008, 0, 5))
    for _ in range(4):
        await flusher.flush(file, [b"x"], 0)
    counts = dict(zip((*LATENCY_BOUNDS_MS, "more"), flusher.latency_buckets, strict=True))
    assert {bound: n for bound, n in counts.items() if n} == {0.1: 1, 1: 2, "more": 1}
    assert round(flusher.latency_sum_ms, 1) == 5001.6
