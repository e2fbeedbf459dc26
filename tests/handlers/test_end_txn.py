"""EndTxn: decided durably, then carried out."""

import pytest
from support.txn_client import TxnClient
from support.wait import wait_until
from support.wire import Topic

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.end_txn import EndTxnRequest

E = ErrorCode


@pytest.mark.parametrize(("commit", "state"), [(True, "CompleteCommit"), (False, "CompleteAbort")])
@pytest.mark.parametrize("version", [0, 4])
def test_the_epoch_stays(txn: TxnClient, topic: Topic, commit: bool, state: str, version: int) -> None:
    assert txn.add(topic, 0) == [0]
    assert txn.end(commit, version) == 0
    wait_until(lambda: txn.described().transaction_state == state)
    assert txn.end(commit, version) == 0, "a retry"
    assert txn.end(not commit, version) == E.INVALID_TXN_STATE
    assert (txn.described().producer_epoch, txn.add(topic, 0)) == (0, [0])


@pytest.mark.parametrize("commit", [True, False])
def test_from_version_5_the_epoch_grows(txn: TxnClient, topic: Topic, commit: bool) -> None:
    assert txn.add(topic, 0) == [0]
    producer_id = txn.id
    assert (txn.end(commit, 5), txn.id, txn.epoch) == (0, producer_id, 1)
    txn.epoch = 0
    assert txn.add(topic, 0) == [E.PRODUCER_FENCED]
    assert (txn.end(commit, 5), txn.epoch) == (0, 1), "a retry"
    assert txn.add(topic, 0) == [0]


def test_what_has_not_begun(txn: TxnClient) -> None:
    assert txn.end(True) == txn.end(False) == E.INVALID_TXN_STATE
    assert txn.end(True, 5) == E.INVALID_TXN_STATE
    assert (txn.end(False, 5), txn.epoch) == (0, 1)


def test_who_may_not(txn: TxnClient, topic: Topic) -> None:
    assert txn.add(topic, 0) == [0]
    txn.epoch = 5
    assert txn.end(version=4) == txn.end(version=5) == E.PRODUCER_FENCED
    assert txn.end(version=1) == E.INVALID_PRODUCER_EPOCH
    txn.id += 1_000_000
    assert txn.end() == E.INVALID_PRODUCER_ID_MAPPING
    assert TxnClient(txn.client).end() == E.INVALID_PRODUCER_ID_MAPPING
    answer = txn.client.newest(ApiKey.END_TXN, EndTxnRequest("", 1, 0, True))
    assert (answer.error_code, answer.producer_id, answer.producer_epoch) == (E.INVALID_REQUEST, -1, -1)
