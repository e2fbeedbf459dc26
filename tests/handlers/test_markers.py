import asyncio

import pytest
from support.transactional_broker import TransactionalBroker, slow

from streamlake.core.errors import Fenced
from streamlake.handlers import markers
from streamlake.handlers.context import Located
from streamlake.handlers.markers import end_transactions
from streamlake.log.transactions import TransactionEnd
from streamlake.protocol.errors import ErrorCode
from streamlake.record.control import MARKER_BYTES

COMMIT = TransactionEnd(producer_id=1, producer_epoch=0, coordinator_epoch=0, commit=True)


@pytest.fixture
async def broker() -> TransactionalBroker:
    """With a transaction in both partitions."""
    broker = await TransactionalBroker().start()
    await broker.begin()
    return broker


def here(broker: TransactionalBroker, *ends: TransactionEnd) -> list[tuple[Located, TransactionEnd]]:
    return [(Located(ErrorCode.NONE, partition), end) for partition in broker.partitions for end in ends]


async def test_it_answers_when_all_markers_are_durable(broker) -> None:
    with slow(broker):
        ending = asyncio.create_task(end_transactions(broker.room, here(broker, COMMIT)))
        for stream in broker.streams:
            await asyncio.sleep(0)
            assert not ending.done()
            stream.make_durable()
    assert await ending == [ErrorCode.NONE] * 2
    assert [p.last_stable_offset for p in broker.partitions] == [2, 2]


async def test_each_has_its_own_answer_and_unused_room_is_given_back(broker) -> None:
    used = broker.room.room.used_bytes
    stale = COMMIT._replace(coordinator_epoch=-2)
    elsewhere = (Located(ErrorCode.NOT_LEADER_OR_FOLLOWER, None), COMMIT)
    wanted = [elsewhere, *here(broker, COMMIT, COMMIT, stale)]
    codes = await end_transactions(broker.room, wanted)
    each = [ErrorCode.NONE, ErrorCode.NONE, ErrorCode.TRANSACTION_COORDINATOR_FENCED]
    assert codes == [ErrorCode.NOT_LEADER_OR_FOLLOWER, *each, *each]
    assert broker.room.room.used_bytes == used + 2 * MARKER_BYTES


async def test_what_does_not_become_durable_in_time_is_asked_for_again(broker, monkeypatch) -> None:
    monkeypatch.setattr(markers, "MARKER_WAIT_S", 0.01)
    with slow(broker):
        assert await end_transactions(broker.room, here(broker, COMMIT)) == [ErrorCode.REQUEST_TIMED_OUT] * 2
    assert await end_transactions(broker.room, here(broker, COMMIT)) == [ErrorCode.NONE] * 2
    assert [stream.next_offset for stream in broker.streams] == [2, 2]


async def test_a_marker_that_is_lost_is_no_success(broker) -> None:
    with slow(broker):
        ending = asyncio.create_task(end_transactions(broker.room, here(broker, COMMIT)))
        await asyncio.sleep(0)
        broker.streams[0].fail(Fenced("another broker has taken over"))
        broker.streams[0].make_durable = lambda: None  # type: ignore[method-assign]
    assert await ending == [ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.NONE]
