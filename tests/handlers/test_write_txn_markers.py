import pytest
from support.produce_pair import TOPIC_NAMED
from support.transactional_broker import TransactionalBroker

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerTopic,
    WriteTxnMarkersRequest,
)


@pytest.fixture
async def broker() -> TransactionalBroker:
    broker = await TransactionalBroker().start()
    assert (await broker.produce(broker.batch(epoch=3))).error_code == 0
    return broker


async def write(broker, version: int = 1, name: str = TOPIC_NAMED.name, index: int = 0, **fields) -> int:
    topic = WritableTxnMarkerTopic(name, (index,))
    kind = {"producer_id": 1, "producer_epoch": 3, "transaction_result": False, "coordinator_epoch": 0} | fields
    request = WriteTxnMarkersRequest((WritableTxnMarker(topics=(topic,), **kind),))
    (answer,) = (await broker.ask(ApiKey.WRITE_TXN_MARKERS, request, version)).markers
    assert (answer.producer_id, answer.topics[0].name) == (kind["producer_id"], name)
    code: int = answer.topics[0].partitions[0].error_code
    return code


async def test_an_administrator_ends_what_is_open(broker) -> None:
    assert await write(broker) == 0
    assert (await broker.fetch(0)).last_stable_offset == 2
    assert [(a.producer_id, a.first_offset) for a in (await broker.fetch(0)).aborted_transactions] == [(1, 0)]
    assert await write(broker) == 0
    assert broker.streams[0].next_offset == 2, "nothing is written if nothing is open"


async def test_refusals(broker) -> None:
    assert await write(broker, producer_epoch=2) == ErrorCode.INVALID_PRODUCER_EPOCH
    assert await write(broker, 2, transaction_version=2) == ErrorCode.INVALID_PRODUCER_EPOCH
    assert await write(broker, coordinator_epoch=-2) == ErrorCode.TRANSACTION_COORDINATOR_FENCED
    assert await write(broker, index=7) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert await write(broker, name="none") == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert broker.streams[0].next_offset == 1
    assert await write(broker, 2, transaction_version=2, producer_epoch=4) == 0
