import asyncio
import struct

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from support.log_bench import Bench, append

from streamlake.log.timestamps import first_at_or_after, max_timestamp
from streamlake.record.batch import assign, frames
from streamlake.record.compression import Compression
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch


async def filled(bench, *batches: list[int], compression: Compression = Compression.NONE):
    """A durable log of one batch per list of timestamps."""
    partition = await bench.open()
    partition.stream.auto_durable = True
    for times in batches:
        append(partition, encode_batch([Record(i, t, None, b"") for i, t in enumerate(times)], compression=compression))
    return partition


async def test_first_record_at_or_after(bench):
    partition = await filled(bench, [10, 20], [30, 25], [5, 40, 40], compression=Compression.ZSTD)
    answers = {0: (10, 0), 10: (10, 0), 11: (20, 1), 21: (30, 2), 31: (40, 5), 40: (40, 5), 41: (-1, -1)}
    for timestamp, answer in answers.items():
        assert await first_at_or_after(partition, timestamp) == answer


async def test_greatest_timestamp(bench):
    assert await max_timestamp(await filled(bench)) == (-1, -1)
    assert await max_timestamp(await filled(bench, [10, 20], [30, 70, 70], [5, 40], [70])) == (70, 3)


async def test_records_below_the_log_start_do_not_count(bench):
    partition = await filled(bench, [90, 10, 80], [20], [30], [85, 5], [1])
    await partition.move_start(1)
    assert await first_at_or_after(partition, 90) == (-1, -1)
    assert await first_at_or_after(partition, 75) == (80, 2)
    assert await max_timestamp(partition) == (85, 5)
    await partition.move_start(3)
    assert await first_at_or_after(partition, 25) == (30, 4)


@pytest.mark.parametrize(
    ("search", "answer"), [(lambda p: first_at_or_after(p, 25), (40, 3)), (max_timestamp, (50, 4))], ids=["time", "max"]
)
async def test_retention_that_removes_what_is_searched(bench, search, answer):
    """The search begins again at the new start of the log."""
    partition = await filled(bench, [60, 10], [30], [40], [50])

    trim = partition.stream.trim(3)
    partition.stream.before_answer = lambda: _finish(trim)
    assert await search(partition) == answer


def _finish(coroutine):
    """Run it to its end, which it reaches without waiting; a second time nothing happens."""
    if coroutine.cr_frame is not None:
        with pytest.raises(StopIteration):
            coroutine.send(None)


async def test_only_durable_records(bench):
    partition = await filled(bench, [10])
    partition.stream.auto_durable = False
    append(partition, encode_batch([Record(0, 99, None, b"")]))
    assert await first_at_or_after(partition, 50) == (-1, -1)
    assert await max_timestamp(partition) == (10, 0)


async def test_log_append_time_is_that_of_the_batch(bench):
    partition = await bench.open(message_timestamp_type="LogAppendTime")
    partition.stream.auto_durable = True
    append(partition, bench.batch(2, at_ms=5))
    bench.clock.ms += 10
    append(partition, bench.batch(2, at_ms=4))
    assert await first_at_or_after(partition, bench.clock.ms - 10) == (bench.clock.ms - 10, 0)
    assert await first_at_or_after(partition, bench.clock.ms - 9) == (bench.clock.ms, 2)
    assert await max_timestamp(partition) == (bench.clock.ms, 2)


@pytest.mark.parametrize("damage", ["max timestamp", "count"])
async def test_a_lying_batch_is_answered_by_its_first_offset(bench, damage):
    """Produce takes none any more, but older versions did."""
    partition = await filled(bench, [1])
    batch = bytearray(encode_batch([Record(i, 10, None, b"") for i in range(2)], compression=Compression.LZ4))
    struct.pack_into(">q", batch, 35, 50)
    if damage == "count":
        struct.pack_into(">ii", batch, 53, -1, 3)
        struct.pack_into(">i", batch, 23, 2)
    struct.pack_into(">I", batch, 17, crc32c(batch[21:]))
    ((header, _),) = frames(batch)
    head, payload = assign(header, bytes(batch), 1, 1, header.max_timestamp)
    partition.stream.append(1, header.count, header.max_timestamp, head + bytes(payload))
    assert await first_at_or_after(partition, 50) == (50, 1)
    assert await max_timestamp(partition) == ((50, 1) if damage == "count" else (10, 1))


async def test_records_without_a_timestamp(bench):
    partition = await filled(bench, [-1, -1], [10], [-1])
    assert await first_at_or_after(partition, 0) == (10, 2)
    assert await max_timestamp(partition) == (10, 2)


@given(
    st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=4), max_size=8),
    st.integers(0, 31),
    st.integers(0, 10),
    st.sampled_from([Compression.NONE, Compression.GZIP]),
)
@settings(max_examples=200)
def test_as_a_scan_would_answer(batches, timestamp, start, codec):
    async def check() -> None:
        partition = await filled(Bench(), *batches, compression=codec)
        await partition.move_start(min(start, partition.high_watermark))
        log = [(t, o) for o, t in enumerate(t for times in batches for t in times) if o >= partition.log_start_offset]
        first = next((found for found in log if found[0] >= timestamp), (-1, -1))
        greatest = max(log, key=lambda found: (found[0], -found[1]), default=(-1, -1))
        assert await first_at_or_after(partition, timestamp) == first
        assert await max_timestamp(partition) == greatest

    asyncio.run(check())
