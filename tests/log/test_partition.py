import asyncio
import struct

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fake_stream import FakeStream
from support.log_bench import Bench, append
from support.wait import DEADLINE_S

from streamlake.core.errors import Closed, Corrupt, Fenced
from streamlake.log.errors import (
    InvalidRecord,
    InvalidTimestamp,
    OffsetOutOfRange,
    OutOfOrderSequence,
    RecordTooLarge,
)
from streamlake.record.batch import check_crc, frames
from streamlake.record.compression import Compression
from streamlake.record.decode import decode_batch

MIB = 1024 * 1024


async def drain(partition, start: int = 0) -> list[bytes]:
    """Every chunk from `start` on, as a consumer gets them."""
    chunks = []
    while True:
        result = await partition.read(start, MIB)
        if not result.chunks:
            return chunks
        chunks += [bytes(c) for c in result.chunks]
        ((last, _),) = list(frames(chunks[-1]))[-1:]
        start = last.next_offset


async def test_append_gives_offsets_and_waits_for_durability(bench):
    partition = await bench.open(FakeStream(start_offset=5))
    first, second = append(partition, bench.batch(3)), append(partition, memoryview(bench.batch(2)))
    assert (first.base_offset, second.base_offset, first.log_append_time_ms, first.log_start_offset) == (5, 8, -1, 5)
    assert first.appended_bytes == len(bench.batch(3))
    await asyncio.sleep(0)
    assert not first.durable.done()
    partition.stream.make_durable(8)
    await first.durable
    assert not second.durable.done()
    partition.stream.make_durable()
    await second.durable


async def test_stored_batches_carry_offset_epoch_and_their_crc(bench):
    stream = FakeStream().reopen()
    stream.auto_durable = True
    partition = await bench.open(stream)
    append(partition, bench.batch(3))
    append(partition, bench.compressed(2))
    for chunk in (await partition.read(0, MIB)).chunks:
        ((header, batch),) = frames(chunk)
        check_crc(header, batch)
        assert header.leader_epoch == stream.epoch == 2
    assert bench.offsets((await partition.read(0, MIB)).chunks) == [0, 1, 2, 3, 4]


async def test_readers_see_durable_offsets_only(bench):
    partition = await bench.open()
    append(partition, bench.batch(3))
    append(partition, bench.batch(2))
    assert (await partition.read(0, MIB)).chunks == []
    with pytest.raises(OffsetOutOfRange):
        await partition.read(1, MIB)
    partition.stream.make_durable(3)
    result = await partition.read(0, MIB)
    assert bench.offsets(result.chunks) == [0, 1, 2]
    assert (result.high_watermark, result.last_stable_offset, result.log_start_offset) == (3, 3, 0)
    assert (await partition.read(3, MIB)).chunks == []


async def test_what_becomes_durable_while_reading_stays_unseen(bench):
    """The answer's high watermark and its records belong together."""
    partition = await bench.open()
    append(partition, bench.batch(3))
    partition.stream.make_durable()
    append(partition, bench.batch(2))
    partition.stream.before_answer = partition.stream.make_durable
    result = await partition.read(0, MIB, committed=True)
    assert (bench.offsets(result.chunks), result.high_watermark) == ([0, 1, 2], 3)


# --- Idempotent producers and a write-ahead log that fails


async def test_duplicate_gets_the_original_answer_after_the_original_is_durable(bench):
    partition = await bench.open()
    original = append(partition, bench.idempotent(0, 3))
    append(partition, bench.idempotent(3, 3))
    duplicate = append(partition, bench.idempotent(0, 3))
    assert (duplicate.base_offset, duplicate.appended_bytes, partition.stream.next_offset) == (0, 0, 6)
    await asyncio.sleep(0)
    assert not duplicate.durable.done()
    partition.stream.make_durable(3)
    await original.durable
    await duplicate.durable
    late = append(partition, bench.idempotent(0, 3))
    assert (late.base_offset, late.durable.done()) == (0, True)
    assert bench.counters.duplicates == 2


async def test_failed_wal_fails_the_original_the_follower_and_the_duplicate(bench):
    """Hazard C6: a batch that was never stored must not come back as an acknowledged duplicate."""
    partition = await bench.open()
    appends = [append(partition, bench.idempotent(0, 3)), append(partition, bench.idempotent(3, 3))]
    appends.append(append(partition, bench.idempotent(0, 3)))
    error = Fenced("a newer owner has taken over")
    partition.stream.fail(error)
    appends.append(append(partition, bench.idempotent(0, 3)))  # the retry meets the dead partition
    for appended in appends:
        with pytest.raises(Fenced):
            await appended.durable
    with pytest.raises(Closed):
        append(partition, bench.idempotent(6, 1))

    again = await bench.open(partition.stream.reopen())
    again.stream.auto_durable = True
    retried = append(again, bench.idempotent(0, 3))
    await retried.durable
    assert (retried.appended_bytes > 0, bench.offsets(await drain(again))) == (True, [0, 1, 2])


async def test_an_append_that_the_stream_refuses_leaves_no_sequence_behind(bench):
    partition = await bench.open()
    partition.stream.fail(OSError("disk"))
    for _ in range(2):
        with pytest.raises(Closed):  # and not: a duplicate of something that was never appended
            append(partition, bench.idempotent(0))


async def test_a_client_that_leaves_does_not_cancel_the_duplicate(bench):
    """They wait for the same future, so whoever waits does it with asyncio.wait or a callback, as Produce does."""
    partition = await bench.open()
    original, duplicate = append(partition, bench.idempotent(0)), append(partition, bench.idempotent(0))
    waiting = asyncio.ensure_future(asyncio.wait([original.durable], timeout=DEADLINE_S))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    partition.stream.make_durable()
    await duplicate.durable


async def test_out_of_order_is_refused_and_costs_no_offset(bench):
    partition = await bench.open()
    append(partition, bench.idempotent(0, 3))
    with pytest.raises(OutOfOrderSequence):
        append(partition, bench.idempotent(4))
    assert (partition.stream.next_offset, append(partition, bench.idempotent(3)).base_offset) == (3, 3)


# --- What producers may send


async def test_refused_batches(bench):
    partition = await bench.open(max_message_bytes=500)
    with pytest.raises(RecordTooLarge):
        append(partition, bench.batch(1, size=500))
    with pytest.raises(InvalidRecord):
        append(partition, bench.batch(1)[:-1])
    with pytest.raises(InvalidTimestamp, match="LogAppendTime"):
        append(partition, bench.batch(1, append_time_ms=5))
    assert partition.stream.next_offset == 0


async def test_timestamp_bounds(bench):
    now = bench.clock.ms
    partition = await bench.open(message_timestamp_before_max_ms=1000, message_timestamp_after_max_ms=100)
    for at_ms in (now - 1000, now, now + 100, -1):
        append(partition, bench.batch(1, at_ms=at_ms))
    for batch in (
        bench.batch(1, at_ms=now - 1001),
        bench.batch(1, at_ms=now + 101),
        bench.batch(3, at_ms=now - 2, step_ms=-999),  # the oldest is not the first
        bench.compressed(3, at_ms=now, step_ms=51),
    ):
        with pytest.raises(InvalidTimestamp, match=r"message\.timestamp"):
            append(partition, batch)


async def test_log_append_time(bench):
    partition = await bench.open(message_timestamp_type="LogAppendTime", message_timestamp_after_max_ms=0)
    partition.stream.auto_durable = True
    kind = {"producer_id": 1, "producer_epoch": 0, "base_sequence": 0}
    appended = append(partition, bench.batch(2, at_ms=bench.clock.ms + 10**9, **kind))
    assert appended.log_append_time_ms == bench.clock.ms
    bench.clock.ms += 500
    assert (
        append(partition, bench.batch(2, at_ms=bench.clock.ms + 10**9 - 500, **kind)).log_append_time_ms
        == bench.clock.ms - 500
    )
    ((header, batch),) = frames(b"".join((await partition.read(0, MIB)).chunks))
    check_crc(header, batch)
    assert [r.timestamp for r in decode_batch(header, batch, MIB)] == [bench.clock.ms - 500] * 2


@pytest.mark.parametrize("codec", Compression)
async def test_wrong_max_timestamp_is_put_right(bench, codec):
    partition = await bench.open()
    partition.stream.auto_durable = True
    batch = bytearray(bench.batch(2, step_ms=7, compression=codec))
    struct.pack_into(">q", batch, 35, 5)
    struct.pack_into(">I", batch, 17, crc32c(batch[21:]))
    append(partition, bytes(batch))
    ((header, stored),) = frames(b"".join((await partition.read(0, MIB)).chunks))
    check_crc(header, stored)
    assert header.max_timestamp == bench.clock.ms + 7


# --- Reading


async def three_batches(bench):
    """Offsets 0-2, 3-5, 6-8."""
    partition = await bench.open()
    partition.stream.auto_durable = True
    for _ in range(3):
        append(partition, bench.batch(3))
    return partition, len(bench.batch(3))


async def test_read_begins_with_the_batch_that_holds_the_offset(bench):
    partition, _ = await three_batches(bench)
    assert bench.offsets((await partition.read(4, MIB)).chunks) == [3, 4, 5, 6, 7, 8]


async def test_read_limits(bench):
    partition, size = await three_batches(bench)

    async def read(max_bytes, **kind):
        return sum(map(len, (await partition.read(0, max_bytes, **kind)).chunks)) // size

    assert [await read(n) for n in (0, 1, size, 2 * size - 1, 2 * size, 9 * size)] == [1, 1, 1, 1, 2, 3]
    assert [await read(n, at_least_one=False) for n in (0, 1, size - 1, size)] == [0, 0, 0, 1]
    assert bench.counters.bytes_out == (9 + 1) * size


async def test_chunks_of_several_batches_are_cut_at_batches(bench):
    """A stream may hand out longer chunks than were appended."""
    partition, size = await three_batches(bench)
    whole = b"".join((await partition.read(0, MIB)).chunks)

    async def read_whole(*_):
        return [whole]

    partition.stream.read = read_whole
    assert bench.offsets((await partition.read(4, MIB)).chunks) == [3, 4, 5, 6, 7, 8]
    assert bench.offsets((await partition.read(4, size)).chunks) == [3, 4, 5]
    assert bench.offsets((await partition.read(7, 1)).chunks) == [6, 7, 8]
    assert (await partition.read(4, size - 1, at_least_one=False)).chunks == []


async def test_out_of_range(bench):
    partition, _ = await three_batches(bench)
    await partition.move_start(4)
    assert bench.offsets((await partition.read(4, MIB)).chunks)[0] == 3
    for offset in (-1, 3, 10):
        with pytest.raises(OffsetOutOfRange, match="4 to 9"):
            await partition.read(offset, MIB)


async def test_trimmed_while_reading(bench):
    partition, _ = await three_batches(bench)

    async def read(*_):
        await partition.stream.trim(9)
        raise Corrupt("object is gone")

    partition.stream.read = read
    with pytest.raises(OffsetOutOfRange):
        await partition.read(0, MIB)
    with pytest.raises(OffsetOutOfRange):
        await partition.read(8, MIB)


async def test_waiters_wake_when_the_high_watermark_moves_and_at_close(bench):
    partition = await bench.open()
    woken = asyncio.get_running_loop().create_future()
    partition.waiters.add(woken)
    append(partition, bench.batch(1))
    assert not woken.done()
    partition.stream.make_durable()
    assert woken.done()
    again = asyncio.get_running_loop().create_future()
    partition.waiters.add(again)
    partition.close()
    assert again.done()
    with pytest.raises(Closed):
        append(partition, bench.batch(1))


# --- The start of the log


async def test_move_start(bench):
    partition, _ = await three_batches(bench)
    partition.hold("table", 0)
    assert await partition.move_start(4) == 4
    assert await partition.move_start(2) == 4
    for offset in (10, -2):
        with pytest.raises(OffsetOutOfRange):
            await partition.move_start(offset)
    partition.stream.auto_durable = False
    append(partition, bench.batch(1))
    assert await partition.move_start(-1) == 9


async def test_epochs_follow_the_stream(bench):
    partition, _ = await three_batches(bench)
    again = await bench.open(partition.stream.reopen())
    assert (again.leader_epoch, again.epoch_of(8), again.epoch_of(9)) == (2, 1, 2)
    assert (again.end_of_epoch(1), again.end_of_epoch(2), again.end_of_epoch(3)) == ((1, 9), (2, 9), (-1, -1))


# --- Opening again


async def test_producers_survive_reopening(bench):
    partition = await bench.open()
    append(partition, bench.idempotent(0, 3))
    partition.stream.upload()
    append(partition, bench.idempotent(3, 3))
    partition.stream.make_durable()
    append(partition, bench.idempotent(6, 3))  # lost
    again = await bench.open(partition.stream.reopen())
    assert again.stream.checkpoint_offset == 3
    assert append(again, bench.idempotent(0, 3)).base_offset == 0  # from the checkpoint
    assert append(again, bench.idempotent(3, 3)).base_offset == 3  # replayed
    with pytest.raises(OutOfOrderSequence, match="expected 6"):
        append(again, bench.idempotent(9))
    assert append(again, bench.idempotent(6, 3)).appended_bytes > 0


async def test_opens_after_the_start_moved_beyond_the_checkpoint(bench):
    partition = await bench.open()
    append(partition, bench.idempotent(0, 3))
    append(partition, bench.idempotent(3, 3))
    partition.stream.make_durable()
    await partition.move_start(4)
    again = await bench.open(partition.stream.reopen())
    assert bench.offsets(await drain(again, 4)) == [3, 4, 5]
    assert append(again, bench.idempotent(6)).base_offset == 6


async def test_damaged_checkpoint_is_loud(bench):
    stream = FakeStream()
    stream.checkpoint = b"nonsense"
    with pytest.raises(Corrupt, match="checkpoint"):
        await bench.open(stream)


async def test_silent_producers_are_forgotten(bench):
    partition = await bench.open(producer_id_expiration_ms=1000)
    append(partition, bench.idempotent(0))
    bench.clock.ms += 999
    assert partition.expire_producers() == 0
    bench.clock.ms += 1
    assert partition.expire_producers() == 1


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 3), st.integers(1, 4)),
        st.tuples(st.just("again"), st.integers(1, 3), st.integers(1, 5)),
        st.tuples(st.just("plain"), st.integers(1, 3)),
        st.tuples(st.just("upload")),
        st.tuples(st.just("durable")),
    ),
    max_size=40,
)


@given(STEPS)
@settings(max_examples=150)
def test_checkpoint_and_replay_give_the_state_of_a_full_replay(steps):
    """Wherever uploads and the crash fall, the next owner knows what a reader of the whole log knows."""
    asyncio.run(_crash_and_compare(Bench(), steps))


def _known(partition, producer: int) -> int:
    """How many of its last batches are remembered: none if it was forgotten, and perhaps came back."""
    state = dict(partition._producers.items()).get(producer)
    return 0 if state is None else len(state.batches)


async def _crash_and_compare(bench, steps) -> None:
    limits = {"producers_max": 2}
    partition = await bench.open(**limits)
    sent: dict[int, list[bytes]] = {1: [], 2: [], 3: []}
    sequence = {1: 0, 2: 0, 3: 0}
    for step in steps:
        match step:
            case ("send", producer, count):
                batch = bench.idempotent(sequence[producer], count, producer=producer)
                sequence[producer] += count
                sent[producer].append(batch)
                append(partition, batch)
            case ("again", producer, back) if _known(partition, producer) >= back:
                assert append(partition, sent[producer][-back]).appended_bytes == 0
            case ("plain", count):
                append(partition, bench.batch(count))
            case ("upload",):
                partition.stream.upload()
            case ("durable",):
                partition.stream.make_durable()
    crashed = partition.stream
    opened = await bench.open(crashed.reopen(), **limits)
    scratch = crashed.reopen()
    scratch.checkpoint, scratch.checkpoint_offset = b"", 0
    full = await bench.open(scratch, **limits)
    assert list(opened._producers.items()) == list(full._producers.items())
    assert bench.offsets(await drain(opened)) == list(range(opened.high_watermark))


async def test_a_duplicate_is_known_after_its_original_was_deleted_and_the_broker_died(bench):
    """Found by simulation: retention or DeleteRecords passed the checkpoint, and the next owner knew no producer."""
    partition = await bench.open()
    append(partition, bench.idempotent(0, 3))
    append(partition, bench.idempotent(3, 3))
    partition.stream.make_durable()
    await partition.move_start(-1)
    again = await bench.open(partition.stream.reopen())
    duplicate = append(again, bench.idempotent(3, 3))
    assert (duplicate.base_offset, duplicate.appended_bytes) == (3, 0)
    assert append(again, bench.idempotent(6, 1)).base_offset == 6
