"""AddPartitionsToTxn: of clients, and of brokers of Kafka."""

import pytest
from support.txn_client import TxnClient
from support.wire import Client, Topic

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTransaction,
)

E = ErrorCode


@pytest.fixture
def wide(client: Client) -> Topic:
    return client.create_topic(3)


@pytest.mark.parametrize("version", [0, 3])
def test_partitions_join(txn: TxnClient, wide: Topic, version: int) -> None:
    assert txn.add(wide, 2, 0, version=version) == [0, 0]
    assert txn.add(wide, 0, version=version) == [0]
    state = txn.described()
    assert (state.transaction_state, state.transaction_timeout_ms) == ("Ongoing", 60_000)
    assert [(t.topic, t.partitions) for t in state.topics] == [(wide.name, (0, 2))]


def test_all_or_none_join(txn: TxnClient, wide: Topic) -> None:
    unknown, others = E.UNKNOWN_TOPIC_OR_PARTITION, E.OPERATION_NOT_ATTEMPTED
    assert txn.add(wide, 0, 3, -1) == [others, unknown, unknown]
    assert txn.add("no-such-topic", 0) == [unknown]
    assert txn.described().transaction_state == "Empty"


def test_who_may_not(txn: TxnClient, wide: Topic) -> None:
    txn.epoch = 2
    assert txn.add(wide, 0) == [E.PRODUCER_FENCED]
    assert txn.add(wide, 0, version=1) == [E.INVALID_PRODUCER_EPOCH]
    txn.id += 1_000_000
    assert txn.add(wide, 0) == [E.INVALID_PRODUCER_ID_MAPPING]
    txn.key = ""
    assert txn.add(wide, 0) == [E.INVALID_REQUEST]


def ask(txn: TxnClient, topic: Topic, partition: int, version: int, verify_only: bool) -> int:
    topics = (AddPartitionsToTxnTopic(name=topic.name, partitions=(partition,)),)
    one = AddPartitionsToTxnTransaction(txn.key, txn.id, txn.epoch, verify_only, topics)
    answer = txn.client.ask(ApiKey.ADD_PARTITIONS_TO_TXN, version, AddPartitionsToTxnRequest(transactions=(one,)))
    (result,) = answer.results_by_transaction
    assert (answer.error_code, result.transactional_id) == (0, txn.key)
    ((found,),) = (each.results_by_partition for each in result.topic_results)
    return found.partition_error_code


def test_brokers_of_kafka_verify_and_add(txn: TxnClient, wide: Topic) -> None:
    assert ask(txn, wide, 1, 4, verify_only=True) == E.INVALID_TXN_STATE
    assert ask(txn, wide, 1, 5, verify_only=True) == E.TRANSACTION_ABORTABLE
    assert ask(txn, wide, 1, 5, verify_only=False) == 0
    assert ask(txn, wide, 1, 5, verify_only=True) == 0
    assert ask(txn, wide, 2, 5, verify_only=True) == E.TRANSACTION_ABORTABLE
