"""InitProducerId: ids that nobody had before."""

import pytest
from support.wire import Client, ends, newest

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
def test_transactional_ids_are_refused(client: Client, version: int) -> None:
    answer = client.ask(ApiKey.INIT_PRODUCER_ID, version, InitProducerIdRequest("t", 60_000))
    assert (answer.error_code, answer.producer_id) == (ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, -1)
    assert answer.producer_epoch == -1
    empty = client.ask(ApiKey.INIT_PRODUCER_ID, version, InitProducerIdRequest("", 60_000))
    assert (empty.error_code, empty.producer_id, empty.producer_epoch) == (ErrorCode.INVALID_REQUEST, -1, -1)


def test_the_newest_version_is_the_one_before_two_phase_commit() -> None:
    assert newest(ApiKey.INIT_PRODUCER_ID) == 4
