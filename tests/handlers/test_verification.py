"""Produce of transactional batches: what is asked, what is answered, and what a late answer may not do."""

import pytest
from support.deliver import deliver
from support.log_bench import Bench
from support.produce_pair import TOPIC_NAMED, server, settle
from support.transactional_broker import TransactionalBroker
from support.transactions import end
from support.wire import encoded, produce_request

from streamlake.log.transactions_port import Verdict, Verified
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.record.compression import Compression


@pytest.fixture
async def broker() -> TransactionalBroker:
    return await TransactionalBroker().start()


async def test_a_coordinator_is_asked_once_for_each_transaction_and_partition(broker) -> None:
    for sequence in range(3):
        assert (await broker.produce(broker.batch(sequence))).base_offset == sequence
    assert (await broker.produce(broker.batch(0), 1)).base_offset == 0
    assert broker.transactions.asked == [("t", 1, 0, 0, False), ("t", 1, 0, 1, False)]
    for partition in broker.partitions:
        end(partition, commit=True)
    assert (await broker.produce(broker.batch(3), version=12)).base_offset == 4
    assert broker.transactions.asked[2:] == [("t", 1, 0, 0, True)]


async def test_a_producer_without_transactions_asks_nobody(broker) -> None:
    assert (await broker.produce(broker.bench.idempotent(0), transactional_id=None)).error_code == 0
    assert (await broker.produce(broker.bench.batch(1))).error_code == 0
    assert broker.transactions.asked == []


@pytest.mark.parametrize(
    ("verdict", "old", "new"),
    [
        (Verdict.NOT_OPEN, ErrorCode.INVALID_TXN_STATE, ErrorCode.TRANSACTION_ABORTABLE),
        (Verdict.ENDING, ErrorCode.NOT_ENOUGH_REPLICAS, ErrorCode.CONCURRENT_TRANSACTIONS),
        (Verdict.FENCED, ErrorCode.INVALID_PRODUCER_EPOCH, ErrorCode.INVALID_PRODUCER_EPOCH),
        (Verdict.UNKNOWN_PRODUCER, ErrorCode.INVALID_PRODUCER_ID_MAPPING, ErrorCode.INVALID_PRODUCER_ID_MAPPING),
        (Verdict.UNAVAILABLE, ErrorCode.NOT_ENOUGH_REPLICAS, ErrorCode.NOT_ENOUGH_REPLICAS),
    ],
)
async def test_what_is_not_open_is_refused_with_a_code_that_the_client_knows(broker, verdict, old, new) -> None:
    broker.transactions.verified = Verified(verdict)
    for version, code in ((9, old), (12, new)):
        answer = await broker.produce(broker.batch(), version=version)
        assert (answer.error_code, answer.base_offset, bool(answer.error_message)) == (code, -1, True)
    assert broker.streams[0].next_offset == 0
    broker.transactions.verified = Verified(Verdict.OPEN, 1)
    assert (await broker.produce(broker.batch())).base_offset == 0
    assert len(broker.transactions.asked) == 3


async def test_an_answer_that_is_older_than_a_marker_does_not_count(broker) -> None:
    """`late-write`: the transaction is aborted between the question and the batch."""
    broker.transactions.before_answer = lambda: end(broker.partitions[0], commit=False)
    assert (await broker.produce(broker.batch())).error_code == ErrorCode.NOT_ENOUGH_REPLICAS
    assert broker.streams[0].next_offset == 0
    broker.transactions.before_answer = lambda: None
    assert (await broker.produce(broker.batch())).base_offset == 0
    assert len(broker.transactions.asked) == 2


async def test_a_batch_of_a_transaction_needs_the_id_of_its_producer(broker) -> None:
    answer = await broker.produce(broker.batch(), transactional_id=None)
    assert answer.error_code == ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    assert broker.transactions.asked == []


async def test_nobody_is_asked_about_damaged_data(broker) -> None:
    damaged = bytearray(broker.batch())
    damaged[-1] ^= 1
    assert (await broker.produce(bytes(damaged))).error_code == ErrorCode.CORRUPT_MESSAGE
    assert (await broker.produce(broker.batch()[:40])).error_code != 0
    assert broker.transactions.asked == []


async def test_several_batches_of_a_transaction_are_begun_together() -> None:
    """Once their transaction is open. The first one waits for its coordinator, and no other one overtakes it."""
    bench = Bench()

    def requests(sequences, transactional_id: str | None = "t") -> bytes:
        kind = {"producer_id": 1, "producer_epoch": 0, "transactional": True}
        batches = (bench.batch(1, base_sequence=sequence, **kind) for sequence in sequences)
        each = (produce_request(TOPIC_NAMED, {0: batch}, transactional_id=transactional_id) for batch in batches)
        return b"".join(encoded(ApiKey.PRODUCE, 12, request, 1) for request in each)

    one = await server(True)
    deliver(one.connection, requests(range(4)))
    await settle()
    assert one.streams[0].next_offset == 4
    deliver(one.connection, requests(range(4, 9)))
    assert one.began[-1] == 5
    stranger = len(one.began)
    deliver(one.connection, requests([9], None))
    await settle()
    assert (one.streams[0].next_offset, len(one.began)) == (9, stranger)


async def test_compressed_batches_are_asked_about_too(broker) -> None:
    kind = {"producer_id": 1, "producer_epoch": 0, "base_sequence": 0, "transactional": True}
    batch = broker.bench.batch(1000, size=1000, compression=Compression.ZSTD, **kind)
    assert (await broker.produce(batch)).base_offset == 0
    assert len(broker.transactions.asked) == 1


async def test_nothing_is_kept_of_the_room_for_what_was_refused(broker) -> None:
    broker.transactions.verified = Verified(Verdict.FENCED)
    await broker.produce(broker.batch())
    assert broker.room.room.used_bytes == 0
