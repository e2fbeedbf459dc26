"""AddOffsetsToTxn: a group whose offsets a transaction is to commit."""

import pytest
from support.txn_client import TxnClient
from support.wire import Client, ends

from streamlake.cluster.store.slots import slot_of
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey


@pytest.mark.parametrize("version", ends(ApiKey.ADD_OFFSETS_TO_TXN))
def test_it_begins_a_transaction(client: Client, group: str, version: int) -> None:
    txn = TxnClient(client)
    txn.init()
    assert txn.add_offsets(group, version) == txn.add_offsets(group, version) == 0
    state = txn.described()
    assert state.transaction_state == "Ongoing"
    assert [(t.topic, t.partitions) for t in state.topics] == [("__consumer_offsets", (slot_of(group),))]


def test_who_may_not(client: Client, group: str) -> None:
    txn = TxnClient(client)
    assert txn.add_offsets(group) == ErrorCode.INVALID_PRODUCER_ID_MAPPING
    txn.init()
    txn.epoch = 3
    assert txn.add_offsets(group) == ErrorCode.PRODUCER_FENCED
    assert txn.add_offsets(group, 1) == ErrorCode.INVALID_PRODUCER_EPOCH
    txn.key = ""
    assert txn.add_offsets(group) == ErrorCode.INVALID_REQUEST
