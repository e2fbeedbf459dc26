"""InitProducerId: ids that nobody had before, and those of transactional ids."""

import pytest
from support.txn_client import TxnClient
from support.wait import wait_until
from support.wire import Client, Topic, ends, newest

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.init_producer_id import InitProducerIdRequest


@pytest.mark.parametrize("version", ends(ApiKey.INIT_PRODUCER_ID))
def test_every_producer_gets_its_own(client: Client, version: int) -> None:
    answers = [client.ask(ApiKey.INIT_PRODUCER_ID, version, InitProducerIdRequest(None)) for _ in range(5)]
    assert {(a.error_code, a.producer_epoch) for a in answers} == {(0, 0)}
    assert len({a.producer_id for a in answers}) == 5


def test_a_producer_that_had_one_gets_a_new_one(client: Client) -> None:
    first = client.newest(ApiKey.INIT_PRODUCER_ID, InitProducerIdRequest(None))
    again = InitProducerIdRequest(None, producer_id=first.producer_id, producer_epoch=first.producer_epoch)
    second = client.newest(ApiKey.INIT_PRODUCER_ID, again)
    assert (second.error_code, second.producer_epoch) == (0, 0)
    assert second.producer_id != first.producer_id


@pytest.mark.parametrize("fields", [{"producer_id": 5}, {"producer_epoch": 5}])
def test_an_id_without_an_epoch(client: Client, fields: dict[str, int]) -> None:
    answer = client.newest(ApiKey.INIT_PRODUCER_ID, InitProducerIdRequest(None, **fields))
    assert (answer.error_code, answer.producer_id, answer.producer_epoch) == (ErrorCode.INVALID_REQUEST, -1, -1)


@pytest.mark.parametrize("version", ends(ApiKey.INIT_PRODUCER_ID))
def test_a_transactional_id_keeps_its_producer_id(client: Client, version: int) -> None:
    txn = TxnClient(client)
    assert (txn.init(version), txn.epoch) == (0, 0)
    first = txn.id
    assert (txn.init(version), txn.id, txn.epoch) == (0, first, 1)
    other = TxnClient(client)
    assert (other.init(version), other.epoch) == (0, 0)
    assert other.id != first


def test_a_producer_goes_on_after_an_error(client: Client) -> None:
    txn = TxnClient(client)
    txn.init()
    had = {"producer_id": txn.id, "producer_epoch": txn.epoch}
    assert (txn.init(**had), txn.epoch) == (0, 1)
    assert (txn.init(**had), txn.epoch) == (0, 1), "it did not hear the answer"
    assert txn.init() == 0
    assert txn.init(**had) == ErrorCode.PRODUCER_FENCED
    assert txn.init(version=3, **had) == ErrorCode.INVALID_PRODUCER_EPOCH


@pytest.mark.parametrize("timeout_ms", [0, -1, 900_001])
def test_a_timeout_that_cannot_be(client: Client, timeout_ms: int) -> None:
    txn = TxnClient(client)
    assert txn.init(timeout_ms=timeout_ms) == ErrorCode.INVALID_TRANSACTION_TIMEOUT
    assert txn.init(timeout_ms=900_000) == 0


def test_an_open_transaction_is_aborted(client: Client, topic: Topic) -> None:
    zombie = TxnClient(client)
    zombie.init()
    assert zombie.add(topic, 0) == [0]
    txn = TxnClient(client, zombie.key)
    wait_until(lambda: txn.init() == 0)
    assert (txn.id, txn.epoch) == (zombie.id, 2)
    assert zombie.end() == ErrorCode.PRODUCER_FENCED
    assert zombie.add(topic, 0) == [ErrorCode.PRODUCER_FENCED]


@pytest.mark.parametrize("version", ends(ApiKey.INIT_PRODUCER_ID))
def test_an_empty_transactional_id(client: Client, version: int) -> None:
    empty = client.ask(ApiKey.INIT_PRODUCER_ID, version, InitProducerIdRequest("", 60_000))
    assert (empty.error_code, empty.producer_id, empty.producer_epoch) == (ErrorCode.INVALID_REQUEST, -1, -1)


def test_the_newest_version_is_the_one_before_two_phase_commit() -> None:
    assert newest(ApiKey.INIT_PRODUCER_ID) == 5
