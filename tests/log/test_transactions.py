"""Transactions in a partition: which batches are taken, how they end, what readers of committed records see, and what
the next owner of the partition finds."""

import asyncio

import pytest
from support.fake_stream import FakeStream
from support.log_bench import append
from support.transactions import begin, end

from streamlake.core.errors import Closed, Full, Unavailable
from streamlake.log.errors import (
    CoordinatorFenced,
    InvalidProducerEpoch,
    InvalidRecord,
    InvalidTransactionState,
    NotVerified,
    OutOfOrderSequence,
)
from streamlake.log.partition import Partition
from streamlake.log.retention import apply_retention
from streamlake.record.batch import frames
from streamlake.record.control import MARKER_BYTES, Marker, decode_marker

MIB = 1 << 20


@pytest.fixture
def write(bench):
    def write(partition: Partition, sequence: int = 0, count: int = 1, producer: int = 1, epoch: int = 0) -> int:
        """A transactional batch; where it begins."""
        kind = {"producer_id": producer, "producer_epoch": epoch, "base_sequence": sequence, "transactional": True}
        return append(partition, bench.batch(count, **kind)).base_offset

    return write


def durable_stream() -> FakeStream:
    stream = FakeStream()
    stream.auto_durable = True
    return stream


async def reopened(bench, partition: Partition) -> Partition:
    return await bench.open(partition.stream.reopen())


async def committed(partition: Partition, offset: int = 0) -> list[int]:
    """The offsets of the records that a consumer of committed records is given, as Kafka's consumer leaves them out."""
    result = await partition.read(offset, MIB, committed=True)
    aborts = sorted((first, producer) for producer, first in result.aborted)
    aborting, found = set(), []
    for chunk in result.chunks:
        for header, batch in frames(chunk):
            while aborts and aborts[0][0] <= header.last_offset:
                aborting.add(aborts.pop(0)[1])
            if header.is_control:
                if not decode_marker(header, batch, MIB).commit:
                    aborting.discard(header.producer_id)
            elif not (header.is_transactional and header.producer_id in aborting):
                found += range(header.base_offset, header.next_offset)
    return found


async def test_a_transaction_is_read_once_it_is_committed(bench, write):
    partition = await bench.open(durable_stream())
    begin(partition)
    assert (write(partition, 0, 2), write(partition, 2)) == (0, 2)
    append(partition, bench.batch(1))
    assert (partition.last_stable_offset, partition.high_watermark) == (0, 4)
    assert await committed(partition) == []
    assert bench.offsets((await partition.read(0, MIB)).chunks) == [0, 1, 2, 3], "others read all"
    ended = end(partition, commit=True, coordinator_epoch=5)
    assert (ended.appended_bytes, partition.last_stable_offset) == (MARKER_BYTES, 5)
    assert await committed(partition) == [0, 1, 2, 3]
    *_, (header, batch) = [frame for c in (await partition.read(0, MIB)).chunks for frame in frames(c)]
    assert decode_marker(header, batch, MIB) == Marker(True, 5)
    assert (header.base_offset, header.leader_epoch, header.producer_id) == (4, 1, 1)


async def test_an_aborted_one_is_told_to_readers_of_committed_records_alone(bench, write):
    partition = await bench.open(durable_stream())
    begin(partition)
    write(partition, 0, 2)
    append(partition, bench.batch(1))
    end(partition, commit=False)
    assert await committed(partition) == [2]
    result = await partition.read(1, MIB, committed=True)
    assert result.aborted == [(1, 0)]
    assert (await partition.read(0, MIB)).aborted == []
    assert (await partition.read(4, MIB, committed=True)).aborted == []


async def test_readers_of_committed_records_get_no_byte_beyond_the_last_stable_offset(bench, write):
    partition = await bench.open(durable_stream())
    append(partition, bench.batch(2))
    begin(partition)
    write(partition)
    append(partition, bench.batch(1))
    result = await partition.read(0, MIB, committed=True)
    assert bench.offsets(result.chunks) == [0, 1]
    assert (result.last_stable_offset, result.high_watermark) == (2, 4)
    assert (await partition.read(2, MIB, committed=True)).chunks == []
    assert (await partition.read(3, MIB, committed=True)).chunks == [], "above the stable offset, and within the log"


async def test_the_last_stable_offset_waits_for_the_marker_to_be_durable(bench, write):
    """`lso-before-durable`: were the marker lost with its leader, it would go back."""
    partition = await bench.open()
    begin(partition)
    write(partition)
    partition.stream.make_durable()
    ended = end(partition, commit=True)
    assert (partition.last_stable_offset, ended.durable.done()) == (0, False)
    append(partition, bench.batch(1))
    assert partition.last_stable_offset == 0
    lost = await reopened(bench, partition)
    assert lost.last_stable_offset == 0
    woken = asyncio.get_running_loop().create_future()
    partition.waiters.add(woken)
    partition.stream.make_durable(2)
    assert (partition.last_stable_offset, ended.durable.done(), woken.done()) == (2, True, True)


async def test_a_repeated_marker_waits_for_the_first_one(bench, write):
    """KAFKA-19999: nothing open is success, and nothing is written. But not before the first marker is durable."""
    partition = await bench.open()
    begin(partition)
    write(partition)
    first, again = end(partition, commit=True), end(partition, commit=True)
    assert (again.appended_bytes, again.durable, partition.stream.next_offset) == (0, first.durable, 2)
    partition.stream.make_durable()
    assert end(partition, commit=True) == (0, None)
    assert end(partition, producer=77, commit=False) == (0, None)


async def test_a_batch_is_taken_only_if_its_transaction_is_known_to_be_open(bench, write):
    partition = await bench.open(durable_stream())
    assert partition.transactions.must_ask(1, 0)
    with pytest.raises(NotVerified):
        write(partition)
    guard = partition.transactions.guards.take(1, 0, 0)
    with pytest.raises(NotVerified):
        write(partition)
    partition.transactions.guards.confirm(guard, 1)
    assert not partition.transactions.must_ask(1, 0)
    assert (write(partition), write(partition, 1)) == (0, 1)
    end(partition, commit=True)
    with pytest.raises(NotVerified):
        write(partition, 2)
    assert partition.stream.next_offset == 3


@pytest.mark.parametrize("epoch", [0, 1])
async def test_a_marker_breaks_what_was_verified_before_it(bench, write, epoch):
    """`late-write`: the batch would open a transaction that nobody ends."""
    partition = await bench.open(durable_stream())
    guard = partition.transactions.guards.take(1, 0, 0)
    assert end(partition, commit=False, epoch=epoch) == (0, None)
    partition.transactions.guards.confirm(guard, 1)
    with pytest.raises(NotVerified):
        write(partition)
    begin(partition)
    end(partition, commit=False, epoch=epoch)
    with pytest.raises(NotVerified):
        write(partition)


async def test_a_transaction_of_a_later_epoch_is_asked_about(bench, write):
    partition = await bench.open(durable_stream())
    begin(partition)
    write(partition)
    assert partition.transactions.must_ask(1, 1)
    begin(partition, epoch=1, number=2)
    with pytest.raises(NotVerified):
        write(partition, epoch=1)
    end(partition, commit=False, epoch=1, number=1)
    begin(partition, epoch=1, number=2)
    assert write(partition, epoch=1) == 2
    with pytest.raises(InvalidProducerEpoch):
        write(partition, 1)


async def test_only_batches_of_the_transaction_are_taken_while_it_is_open(bench, write):
    partition = await bench.open(durable_stream())
    begin(partition)
    write(partition)
    with pytest.raises(InvalidTransactionState):
        append(partition, bench.idempotent(1))
    with pytest.raises(InvalidRecord, match="no producer id"):
        append(partition, bench.batch(1, transactional=True))
    end(partition, commit=True)
    assert append(partition, bench.idempotent(1)).base_offset == 2


async def test_duplicates_of_a_transaction_are_known_again(bench, write):
    partition = await bench.open(durable_stream())
    begin(partition)
    assert (write(partition), write(partition)) == (0, 0)
    end(partition, commit=True)
    assert write(partition) == 0, "the answer was lost: nobody is asked about a batch that is there"


async def test_the_first_batch_that_came_is_the_first_that_is_taken(bench, write):
    """Of an unknown producer: if the first one was refused for a while, the second must not overtake it."""
    partition = await bench.open(durable_stream())
    partition.transactions.guards.take(1, 0, 0)
    begin(partition)
    with pytest.raises(OutOfOrderSequence):
        write(partition, 3)
    assert write(partition, 0, 3) == 0
    assert write(partition, 3) == 3


async def test_sequences_go_on_after_a_marker_and_begin_anew_with_its_epoch(bench, write):
    partition = await bench.open(durable_stream())
    begin(partition)
    write(partition)
    end(partition, commit=True)
    begin(partition, number=2)
    write(partition, 1)
    end(partition, commit=True, epoch=1)
    begin(partition, epoch=1, number=3)
    with pytest.raises(OutOfOrderSequence):
        write(partition, 2, epoch=1)
    assert write(partition, 0, epoch=1) == 4
    with pytest.raises(InvalidProducerEpoch):
        write(partition, 2)


async def test_markers_of_the_wrong_epoch_are_refused(bench, write):
    partition = await bench.open(durable_stream())
    begin(partition, epoch=4)
    write(partition, epoch=4)
    with pytest.raises(InvalidProducerEpoch):
        end(partition, commit=True, epoch=3)
    with pytest.raises(InvalidProducerEpoch):
        end(partition, commit=True, epoch=4, version=2)
    assert end(partition, commit=True, epoch=5, version=2).appended_bytes
    begin(partition, epoch=5)
    write(partition, epoch=5)
    assert end(partition, commit=False, epoch=6).appended_bytes, "fenced by a newer producer"


async def test_a_late_marker_does_not_end_the_next_transaction(bench, write):
    """`marker-of-older-transaction`: of the same epoch, as version 1 of transactions has it."""
    partition = await bench.open(durable_stream())
    begin(partition, number=1)
    write(partition)
    assert end(partition, commit=True, number=1).appended_bytes
    begin(partition, number=2)
    write(partition, 1)
    assert end(partition, commit=True, number=1) == (0, None)
    assert partition.last_stable_offset == 2
    assert end(partition, commit=False, number=2).appended_bytes
    assert await committed(partition) == [0]


async def test_what_is_left_of_an_earlier_transaction_is_never_committed_with_a_later_one(bench, write):
    partition = await bench.open(durable_stream())
    begin(partition, number=1)
    write(partition)
    assert end(partition, commit=True, number=2).appended_bytes
    assert await committed(partition) == []


async def test_markers_of_a_coordinator_that_was_replaced_are_refused(bench, write):
    partition = await bench.open(durable_stream())
    for number, epoch in ((1, 7), (2, 7), (3, 8)):
        begin(partition, number=number)
        write(partition, number - 1)
        assert end(partition, commit=True, coordinator_epoch=epoch).appended_bytes
    begin(partition, number=4)
    write(partition, 3)
    with pytest.raises(CoordinatorFenced):
        end(partition, commit=True, coordinator_epoch=7)
    assert end(partition, commit=True, coordinator_epoch=7, number=4).appended_bytes, "the number decides"
    begin(partition, number=5)
    write(partition, 4)
    assert end(partition, commit=True, coordinator_epoch=8).appended_bytes
    assert (await reopened(bench, partition)).coordinator_epoch(1) == 8


async def test_one_that_begins_elsewhere_is_not_ended(bench, write):
    partition = await bench.open(durable_stream())
    begin(partition)
    write(partition)
    assert end(partition, commit=False, first_offset=3) == (0, None)
    assert end(partition, commit=False, first_offset=0).appended_bytes


async def test_a_closed_partition_takes_no_marker(bench, write):
    partition = await bench.open(durable_stream())
    begin(partition)
    write(partition)
    partition.close()
    with pytest.raises(Closed):
        end(partition, commit=True)


async def test_markers_are_counted(bench, write):
    partition = await bench.open(durable_stream())
    for number, commit in enumerate([False, True, True]):
        begin(partition, number=number)
        write(partition, number)
        end(partition, commit=commit)
        end(partition, commit=commit)
    assert (bench.counters.committed, bench.counters.aborted) == (2, 1)


async def test_a_dead_stream_ends_nothing(bench, write):
    partition = await bench.open()
    begin(partition)
    write(partition)
    partition.stream.make_durable()
    partition.stream.fail(Unavailable("the WAL is gone"))
    with pytest.raises(Closed):
        end(partition, commit=True)
    assert 1 in partition.transactions.open


@pytest.mark.parametrize("uploaded", ["never", "after the batch", "at the end"])
async def test_the_next_owner_finds_open_and_aborted_transactions(bench, write, uploaded):
    partition = await bench.open(durable_stream())
    for producer in (1, 2, 3):
        begin(partition, producer)
        write(partition, producer=producer)
    if uploaded == "after the batch":
        partition.stream.upload()
    end(partition, 1, commit=False)
    end(partition, 2, commit=True)
    append(partition, bench.batch(1))
    if uploaded == "at the end":
        partition.stream.upload()
    again = await reopened(bench, partition)
    assert (again.last_stable_offset, again.high_watermark) == (2, 6)
    assert [producer for producer, _ in again.transactions.open.items()] == [3]
    assert again.transactions.open.get(3).number == (-1 if uploaded == "never" else 1)
    assert await committed(again) == [1]
    assert not again.transactions.must_ask(3, 0), "the open transaction goes on"
    assert write(again, 1, producer=3) == 6
    assert end(again, 3, commit=True).appended_bytes
    again.stream.make_durable()
    assert await committed(again) == [1, 2, 5, 6]
    last = await reopened(bench, again)
    assert await committed(last) == [1, 2, 5, 6]


async def test_a_marker_waits_until_the_number_of_the_transaction_is_known(bench, write):
    """Else one that comes late could end the next transaction of the same epoch."""
    partition = await bench.open(durable_stream())
    begin(partition, number=3)
    write(partition)
    again = await reopened(bench, partition)
    with pytest.raises(Unavailable):
        end(again, commit=True, number=3)
    again.transactions.open.number_told(1, 0, 3)
    assert end(again, commit=True, number=2) == (0, None)
    assert end(again, commit=True, number=3).appended_bytes


async def test_who_has_a_transaction_open_is_not_forgotten(bench, write):
    partition = await bench.open(durable_stream(), producers_max=4, producer_id_expiration_ms=100)
    for producer in (1, 2):
        begin(partition, producer)
        write(partition, producer=producer)
    begin(partition, 3)
    with pytest.raises(Full):
        write(partition, producer=3)
    for producer in range(10, 20):
        append(partition, bench.idempotent(0, producer=producer))
    bench.clock.ms += 1000
    assert partition.producers_silent_since_ms is not None
    assert partition.expire_producers() == 2
    assert partition.producers_silent_since_ms is None
    assert [producer for producer, _, _ in partition.producer_states()] == [1, 2]
    with pytest.raises(OutOfOrderSequence):
        write(partition, 2)
    assert write(partition, 1, producer=2) == 12


async def test_retention_stops_at_an_open_transaction(bench, write):
    partition = await bench.open(durable_stream(), retention_ms=1000)
    for _ in range(4):
        append(partition, bench.batch(1))
    begin(partition)
    write(partition)
    append(partition, bench.batch(1))
    bench.clock.ms += 10_000
    assert await apply_retention(partition, bench.clock.ms) == 4
    assert partition.log_start_offset == 4
    end(partition, commit=False)
    bench.clock.ms += 10_000
    await apply_retention(partition, bench.clock.ms)
    assert (partition.log_start_offset, len(partition.transactions.aborted)) == (7, 0)


async def test_a_user_may_delete_records_of_an_open_transaction(bench, write):
    partition = await bench.open(durable_stream())
    begin(partition)
    write(partition, 0, 3)
    append(partition, bench.batch(2))
    assert await partition.move_start(-1) == 5
    assert (partition.last_stable_offset, partition.high_watermark) == (5, 5), "as Kafka: never below the start"
    append(partition, bench.batch(1))
    assert partition.last_stable_offset == 5
    again = await reopened(bench, partition)
    assert again.last_stable_offset == 5
    assert end(again, commit=False).appended_bytes
    again.stream.make_durable()
    assert again.last_stable_offset == 7
    assert await again.move_start(7) == 7
    assert len(again.transactions.aborted) == 0


async def test_aborted_transactions_of_one_producer_are_told_apart(bench, write):
    partition = await bench.open(durable_stream())
    for number, commit in enumerate([False, True, False, True]):
        begin(partition, number=number)
        write(partition, number)
        end(partition, commit=commit)
    assert await committed(partition) == [2, 6]
    partition.stream.upload()
    again = await reopened(bench, partition)
    assert [await committed(again, offset) for offset in (0, 2, 4, 5)] == [[2, 6], [2, 6], [6], [6]]
