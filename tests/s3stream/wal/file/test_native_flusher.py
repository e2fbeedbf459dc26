import asyncio
import errno
import itertools
import os
import resource
import signal
import threading
from random import Random

import pytest
from simulation.world.disk import SimDisk

from streamlake.core.clock import SystemClock
from streamlake.core.disk import RealDisk
from streamlake.core.tasks import InlineExecutor, ThreadExecutor
from streamlake.s3stream.wal.file import native_flusher
from streamlake.s3stream.wal.file.flusher import Flusher
from streamlake.s3stream.wal.file.native_flusher import NativeFlusher

needs_kernel = pytest.mark.skipif(native_flusher._kernel is None, reason="no C compiler, or no eventfd")


class NoExecutor:
    """Fails if the twin is asked to do the work."""

    async def run(self, fn, *args):
        raise AssertionError("the executor was used")

    def close(self) -> None:
        pass


@pytest.fixture
def file(tmp_path):
    file = RealDisk().open(str(tmp_path / "segment"), create=True)
    yield file
    file.close()


@pytest.fixture
async def flusher():
    flusher = NativeFlusher(NoExecutor(), SystemClock())
    yield flusher
    await flusher.close()


@needs_kernel
async def test_buffers_are_written_one_after_the_other_and_counted(file, flusher) -> None:
    for n in range(50):
        await flusher.flush(file, [b"ab", b"", bytearray(b"cd"), memoryview(b"xefx")[1:3]], n * 6)
    assert file.pread(1000, 0) == b"abcdef" * 50
    assert (flusher.writes.count, flusher.written_bytes, sum(flusher.writes.buckets)) == (50, 300, 50)


@needs_kernel
@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 1025, 5000])
async def test_more_buffers_than_one_call_takes(file, flusher, count) -> None:
    buffers = [b"%06d" % n * (n % 3) for n in range(count)]
    await flusher.flush(file, buffers, 3)
    assert file.pread(1 << 20, 3) == b"".join(buffers)


@needs_kernel
async def test_twin_and_kernel_leave_the_same_bytes(tmp_path, flusher) -> None:
    executor = ThreadExecutor("test")
    twin = Flusher(executor, SystemClock())
    files = [RealDisk().open(str(tmp_path / name), create=True) for name in ("twin", "kernel")]
    for n in range(30):
        buffers = [os.urandom(n * 37 % 101) for _ in range(n)]
        for one, file in zip((twin, flusher), files, strict=True):
            await one.flush(file, buffers, n * 50)
    assert files[0].pread(1 << 20, 0) == files[1].pread(1 << 20, 0)
    assert (twin.writes.count, twin.written_bytes) == (flusher.writes.count, flusher.written_bytes)
    for file in files:
        file.close()
    executor.close()


@needs_kernel
async def test_blocks_that_the_file_has_are_written_past_the_page_cache(tmp_path, flusher) -> None:
    """Groups one after the other, as a segment is filled; what is before the first one was there, what is behind too."""
    random = Random(1)
    file = RealDisk().open(str(tmp_path / "segment"), create=True)
    file.pwrite([b"#" * (6 << 20)], 0)
    expected = bytearray(file.pread(6 << 20, 0))
    offset, groups = 5000, 0
    for size in [1, 7000, 1 << 20, (1 << 20) - 1, 3, 4096, 8192, *(random.randrange(1, 9000) for _ in range(200))]:
        data = random.randbytes(size)
        cuts = sorted(random.randrange(size + 1) for _ in range(random.choice((0, 1, 1030))))
        await flusher.flush(file, [data[a:b] for a, b in itertools.pairwise([0, *cuts, size])], offset)
        expected[offset : offset + size] = data
        offset += size
        groups += 1
        end = -(-offset // 4096) * 4096
        expected[offset:end] = bytes(end - offset)
    assert flusher._thread.direct_writes in (groups, 0), "0 where the file system cannot"
    if flusher._thread.direct_writes:
        assert file.pread(6 << 20, 0) == expected
    file.close()


@needs_kernel
@pytest.mark.parametrize("seed", range(6))
async def test_large_groups_go_out_in_pieces(tmp_path, flusher, seed) -> None:
    """Of any size and cut anywhere, large and small ones after one another."""
    random = Random(seed)
    file = RealDisk().open(str(tmp_path / "segment"), create=True)
    file.pwrite([b"#" * (40 << 20)], 0)
    expected, offset = bytearray(b"#" * (40 << 20)), random.randrange(10_000)
    sizes = [random.choice((1, 5000, 256 << 10, 1 << 20, 2 << 20, 4 << 20, 9 << 20)) for _ in range(12)]
    for size in (size + random.choice((-4096, -1, 0, 1, 777)) if size > 1 else 1 for size in sizes):
        if offset + size > 39 << 20:
            break
        data = random.randbytes(size)
        cuts = sorted(random.randrange(size + 1) for _ in range(random.choice((0, 1, 5, 3000))))
        await flusher.flush(file, [data[a:b] for a, b in itertools.pairwise([0, *cuts, size])], offset)
        expected[offset : offset + size] = data
        offset += size
        if flusher._thread.direct_writes:
            end = -(-offset // 4096) * 4096
            expected[offset:end] = bytes(end - offset)
    assert file.pread(40 << 20, 0) == expected
    file.close()


@needs_kernel
async def test_a_failure_in_one_piece_fails_the_group(file, flusher) -> None:
    file.write_zeros(16 << 20, 0)
    await flusher.flush(file, [b"a" * 10_000], 0)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 20, limits[1]))
    try:
        with pytest.raises(OSError) as raised:
            await flusher.flush(file, [b"b" * (8 << 20)], 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert raised.value.errno == errno.EFBIG
    assert flusher.written_bytes == 10_000
    await flusher.flush(file, [b"c" * (8 << 20)], 10_000)  # the thread lives on
    assert file.pread(10_001 + (8 << 20), 0) == b"a" * 10_000 + b"c" * (8 << 20) + b"\0"


@needs_kernel
async def test_two_files_in_turn_do_not_mix_their_blocks(tmp_path, flusher) -> None:
    files = [RealDisk().open(str(tmp_path / name), create=True) for name in "ab"]
    expected = [b"", b""]
    for file in files:
        file.write_zeros(1 << 20, 0)
    for n in range(60):
        data = os.urandom(n * 97 % 5003 + 1)
        await flusher.flush(files[n % 2], [data], len(expected[n % 2]))
        expected[n % 2] += data
    assert [file.pread(len(data), 0) for file, data in zip(files, expected, strict=True)] == expected
    for file in files:
        file.close()


@needs_kernel
async def test_what_goes_beyond_the_end_of_the_file_is_written_as_ever(file, flusher) -> None:
    file.write_zeros(8192, 0)
    await flusher.flush(file, [b"a" * 5000], 0)
    await flusher.flush(file, [b"b" * 5000], 5000)
    assert file.pread(20_000, 0) == b"a" * 5000 + b"b" * 5000


@needs_kernel
async def test_a_failure_is_an_os_error_and_counts_nothing(file, flusher) -> None:
    # The limit on the size of files, which the next write meets half-way: what fits is written, the rest is refused.
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError) as raised:
            await flusher.flush(file, [b"x" * 600, b"y" * 600], 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert raised.value.errno == errno.EFBIG
    assert (flusher.writes.count, flusher.written_bytes) == (0, 0)
    await flusher.flush(file, [b"z"], 0)  # the thread lives on: whether to go on is the caller's decision
    assert file.pread(2, 0) == b"zx"


@needs_kernel
async def test_a_closed_file_is_an_os_error(file, tmp_path, flusher) -> None:
    await flusher.flush(file, [b"x"], 0)  # now the thread has its own files, and none of them gets the closed number
    file = RealDisk().open(str(tmp_path / "closed"), create=True)
    file.close()
    with pytest.raises(OSError) as raised:
        await flusher.flush(file, [b"x"], 0)
    assert raised.value.errno == errno.EBADF


@needs_kernel
async def test_what_is_no_file_is_an_os_error() -> None:
    read, write = os.pipe()
    thread = native_flusher._kernel.FlushThread()
    thread.submit(write, [b"x"], 0)
    await _readable(thread.done_fd)
    with pytest.raises(OSError) as raised:
        thread.result()
    assert raised.value.errno == errno.ESPIPE
    thread.stop()
    os.close(read)
    os.close(write)


@needs_kernel
async def test_what_is_no_buffer_is_refused_and_holds_nothing(file, flusher) -> None:
    kept = bytearray(b"ab")
    with pytest.raises(TypeError):
        await flusher.flush(file, [kept, 7], 0)
    kept.append(1)  # a held buffer could not grow
    await flusher.flush(file, [kept], 0)
    kept.append(2)
    assert file.pread(9, 0) == b"ab\x01"


@needs_kernel
async def test_a_cancelled_flush_keeps_its_place(file, flusher) -> None:
    first = asyncio.ensure_future(flusher.flush(file, [b"aaaa"], 0))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await flusher.flush(file, [b"bb"], 1)
    assert file.pread(9, 0) == b"abba"


@needs_kernel
async def test_close_waits_for_the_job_and_ends_thread_and_files(file) -> None:
    before = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
    file.write_zeros(4 << 20, 0)
    flusher = NativeFlusher(NoExecutor(), SystemClock())
    await flusher.flush(file, [b"x"], 0)
    await flusher.flush(file, [b"x" * (3 << 20)], 0)
    is_direct = flusher._thread.direct_writes > 0
    assert len(os.listdir("/proc/self/task")) == before[1] + 1
    assert threading.active_count() <= before[1]  # Python does not know this thread
    last = asyncio.ensure_future(flusher.flush(file, [b"yy"], 0))
    await asyncio.sleep(0)
    await flusher.close()
    await last
    assert file.pread(3, 0) == b"yy" + (b"\0" if is_direct else b"x")
    assert (len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))) == before
    await flusher.close()


@needs_kernel
def test_one_job_at_a_time_and_none_after_the_end(file) -> None:
    thread = native_flusher._kernel.FlushThread()
    assert thread.result() is None
    thread.submit(file.fileno(), [b"x"], 0)
    with pytest.raises(RuntimeError):
        thread.submit(file.fileno(), [b"y"], 0)
    thread.stop()
    thread.stop()
    with pytest.raises(RuntimeError):
        thread.submit(file.fileno(), [b"y"], 0)


async def test_files_of_the_simulation_go_to_the_twin() -> None:
    disk = SimDisk()
    file = disk.open("/a", create=True)
    flusher = NativeFlusher(InlineExecutor(), SystemClock())
    await flusher.flush(file, [b"ab"], 0)
    assert file.pread(9, 0) == b"ab"
    assert flusher.writes.count == 1
    await flusher.close()


async def test_without_a_kernel_the_twin_does_it(file, monkeypatch) -> None:
    monkeypatch.setattr(native_flusher, "_kernel", None)
    flusher = NativeFlusher(InlineExecutor(), SystemClock())
    await flusher.flush(file, [b"ab"], 0)
    assert file.pread(9, 0) == b"ab"


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(fd, lambda: ready.done() or ready.set_result(None))
    await ready
    loop.remove_reader(fd)
