from random import Random

import pytest

from streamlake.s3stream.log_cache import ACCOUNT, SLAB_MAX_BYTES, SLAB_MIN_BYTES, LogCache, StreamLog
from streamlake.s3stream.metadata import StreamState


def new_log(stream_id: int = 1, end: int = 0) -> StreamLog:
    return StreamLog(StreamState(stream_id, 1, 0, end, b"", 0, ()))


class Writer:
    def __init__(self, limit: int = 1 << 24, *, wal_readable: bool = True) -> None:
        self.cache = LogCache(limit, wal_readable=wal_readable)
        self.position = 0

    def append(self, log: StreamLog, data: bytes, count: int = 1, timestamp: int = 0) -> memoryview:
        assert self.cache.capacity.try_take(ACCOUNT, len(data))
        view = self.cache.copy_in(log, data)
        self.position += 1
        self.cache.add(log, count, timestamp, self.position, len(data))
        return view


def read(log: StreamLog, start: int, end: int, max_bytes: int = 1 << 30) -> bytes:
    out = b""
    while start < end and (extent := log.extent(start, end, max_bytes - len(out), at_least_one=not out)):
        assert extent.view is not None
        out += extent.view
        start = extent.end_offset
    return out


def test_chunks_lie_together_and_come_back_whole() -> None:
    writer, log = Writer(), new_log(end=100)
    for data in (b"aa", b"bbb", b"c"):
        writer.append(log, data, count=10, timestamp=len(data))
    extent = log.extent(115, 130, 100, at_least_one=True)
    assert extent is not None and extent.view == b"bbbc"
    assert (extent.start_offset, extent.end_offset) == (110, 130)
    assert (list(extent.bases), list(extent.timestamps), list(extent.positions)) == ([110, 120], [3, 1], [2, 3])
    assert read(log, 100, 111) == b"aabbb"
    assert read(log, 100, 130, 4) == b"aa"
    assert read(log, 110, 130, 1) == b"bbb"
    assert log.extent(110, 130, 2, at_least_one=False) is None


def test_slabs_begin_small_and_grow_to_their_limit() -> None:
    writer, log = Writer(), new_log()
    for _ in range(3000):
        writer.append(log, bytes(1000))
    capacities = [slab.capacity for slab in log.slabs]
    assert capacities[0] == SLAB_MIN_BYTES
    assert capacities == sorted(capacities)
    assert capacities[-1] == SLAB_MAX_BYTES
    assert sum(capacities) <= 2 * 3_000_000 + SLAB_MIN_BYTES
    assert writer.append(log, bytes(3 << 20)).nbytes == 3 << 20


def test_views_stay_whole_after_eviction_and_deletion() -> None:
    writer, log, other = Writer(limit=10_000), new_log(), new_log(2)
    view = writer.append(log, b"x" * 6000)
    writer.cache.uploaded(log, 1)
    writer.cache.evict(6000, 0)
    for _ in range(2):
        writer.append(other, b"y" * 5000)
    assert view == b"x" * 6000 and view.readonly
    writer.cache.evict_stream(other)
    assert writer.cache.capacity.used_bytes == 0


def test_slabs_are_used_again_when_nobody_looks_at_them() -> None:
    writer, log = Writer(1 << 20), new_log()
    data = [bytes([n]) * 500_000 for n in range(6)]
    views = [writer.append(log, data[0])]
    first, slabs = log.slabs[0].target, []
    for chunk in data[1:]:
        writer.cache.uploaded(log, log.next_offset)
        writer.cache.evict(len(chunk), writer.position)
        writer.append(log, chunk)
        slabs.append(log.slabs[-1].target)
        assert views[0] == data[0] if views else True
        if len(slabs) == 3:
            assert not any(slab is first for slab in slabs)
            del views[0]
    assert any(slab is first for slab in slabs)
    assert read(log, log.first_offset, log.next_offset) == b"".join(data[log.first_offset :])


def test_uploaded_slabs_leave_first_and_only_when_room_is_needed() -> None:
    writer, logs = Writer(limit=20_000), [new_log(i) for i in range(4)]
    for log in logs:
        writer.append(log, bytes(5000))
    for log in logs[1:3]:
        writer.cache.uploaded(log, 1)
        assert read(log, 0, 1) == bytes(5000)
    writer.cache.evict(5000, durable_position=4)
    assert [log.first_offset for log in logs] == [0, 1, 0, 0]


def test_durable_chunks_spill_to_the_wal_oldest_first() -> None:
    writer, log = Writer(limit=20_000), new_log()
    for n in range(4):
        writer.append(log, bytes([n]) * 5000)
    writer.cache.evict(10_000, durable_position=3)
    extent = log.extent(0, 4, 1 << 20, at_least_one=True)
    assert extent is not None and extent.view is None
    assert (list(extent.positions), extent.end_offset, extent.size_bytes) == ([1, 2], 2, 10_000)
    assert read(log, 2, 4) == b"\2" * 5000 + b"\3" * 5000
    writer.cache.uploaded(log, 1)  # a spilled chunk that is uploaded is forgotten
    assert log.first_offset == 1
    assert log.unuploaded_bytes == 15_000


def test_an_uploaded_chunk_is_forgotten_when_its_half_uploaded_slab_spills() -> None:
    """The WAL was trimmed after the upload: to look for the chunk there would fail."""
    writer, log = Writer(limit=4000), new_log()
    for _ in range(4):
        writer.append(log, bytes(1000))
    writer.cache.uploaded(log, 2)
    assert log.first_offset == 0
    writer.cache.evict(1000, durable_position=4)
    assert log.first_offset == 2


def test_what_is_not_durable_or_not_readable_stays() -> None:
    writer, log = Writer(limit=10_000), new_log()
    for _ in range(2):
        writer.append(log, bytes(5000))
    writer.cache.evict(1, durable_position=0)
    assert writer.cache.capacity.free_bytes == 0
    blind = Writer(limit=10_000, wal_readable=False)
    blind.append(new_log(), bytes(10_000))
    blind.cache.evict(1, durable_position=9)
    assert blind.cache.capacity.free_bytes == 0


def test_an_old_slab_that_is_still_filled_does_not_hold_up_the_others() -> None:
    writer, slow, fast = Writer(limit=40_000), new_log(1), new_log(2)
    writer.append(slow, bytes(100))
    for _ in range(6):
        writer.append(fast, bytes(5000))
    writer.append(slow, bytes(100))  # in the oldest slab, not durable
    writer.cache.evict(20_000, durable_position=7)
    assert writer.cache.capacity.free_bytes >= 20_000
    assert read(slow, 0, 2) == bytes(200)


@pytest.mark.parametrize("seed", range(20))
def test_against_a_list(seed: int) -> None:
    random = Random(seed)
    writer, logs = Writer(limit=60_000), [new_log(i) for i in range(3)]
    model: dict[int, list[tuple[int, int, bytes, int]]] = {0: [], 1: [], 2: []}
    durable = 0
    for _ in range(600):
        log = random.choice(logs)
        chunks = model[log.stream_id]
        action = random.random()
        if action < 0.6:
            data = random.randbytes(random.choice((1, 50, 700, 9000)))
            writer.cache.evict(len(data), durable)
            if writer.cache.capacity.free_bytes >= len(data):
                base, count = log.next_offset, random.randint(1, 5)
                writer.append(log, data, count)
                chunks.append((base, base + count, data, writer.position))
        elif action < 0.8:
            durable = random.randint(durable, writer.position)
        elif chunks:
            done = [c for c in chunks if c[3] <= durable]
            if done and (target := random.choice(done)[1]) > log.uploaded_offset:
                writer.cache.uploaded(log, target)
        assert log.first_offset <= log.uploaded_offset or not log.bases or log.first_offset == chunks[0][0]
        assert log.unuploaded_bytes == sum(len(c[2]) for c in chunks if c[0] >= log.uploaded_offset)
        known = [c for c in chunks if c[0] >= log.first_offset]
        for base, end, data, position in known:
            extent = log.extent(base, end, 1, at_least_one=True)
            assert extent is not None and (extent.start_offset, extent.end_offset) == (base, end)
            assert list(extent.positions) == [position]
            if extent.view is None:
                assert base >= log.uploaded_offset, "only what the WAL still has is looked for there"
                assert position <= durable, "what is not durable must not leave memory"
            else:
                assert extent.view == data
        unuploaded = {i: [c for c in chunks if c[0] >= logs[i].uploaded_offset] for i, chunks in model.items()}
        in_wal = {
            i
            for i, chunks in unuploaded.items()
            if chunks and logs[i].extent(*chunks[0][:2], 1, at_least_one=True).view is None
        }
        assert writer.cache.spilled == in_wal
        for every in logs:
            at = random.randint(0, writer.position + 1)
            done = [c[1] for c in model[every.stream_id] if c[1] > every.first_offset and c[3] <= at]
            assert every.end_at(at) == max(done, default=every.first_offset)
        held = sum(slab.end - slab.begin for every in logs for slab in every.slabs)
        assert writer.cache.capacity.used_bytes == held <= 60_000
