import pytest
from support.log_bench import TOPIC
from support.transactional_broker import TransactionalBroker

from streamlake.cluster.secret import Life
from streamlake.protocol.broker_messages import BrokerKey
from streamlake.protocol.broker_messages.write_markers import Marker, MarkerTopic, WriteMarkersRequest
from streamlake.protocol.errors import ErrorCode

PEER = Life(2, 1)


@pytest.fixture
async def broker() -> TransactionalBroker:
    broker = await TransactionalBroker().start()
    await broker.begin()
    return broker


async def write(broker, *markers: Marker, peer: Life | None = PEER) -> list[list[tuple[int, int]]]:
    """(partition, code) of each marker."""
    answer = await broker.ask(BrokerKey.WRITE_MARKERS, WriteMarkersRequest(markers), 0, peer)
    return [[(p.index, p.error_code) for t in marker.topics for p in t.partitions] for marker in answer.markers]


def marker(partitions=(0, 1), **fields) -> Marker:
    topics = (MarkerTopic(TOPIC, partitions),)
    return Marker(**({"producer_id": 1, "producer_epoch": 0, "number": 1, "commit": True, "topics": topics} | fields))


async def test_markers_end_transactions_and_repeats_do_no_harm(broker) -> None:
    for _ in range(2):
        assert await write(broker, marker()) == [[(0, 0), (1, 0)]]
    assert [p.last_stable_offset for p in broker.partitions] == [2, 2]


async def test_one_request_ends_several_transactions(broker) -> None:
    assert (await broker.produce(broker.batch(producer=5))).error_code == 0
    found = await write(broker, marker((1,)), marker((0, 9), producer_id=5, commit=False))
    assert found == [[(1, 0)], [(0, 0), (9, ErrorCode.NOT_LEADER_OR_FOLLOWER)]]
    assert [len(p.transactions.open) for p in broker.partitions] == [1, 0]
    assert len(broker.partitions[0].transactions.aborted) == 1


async def test_the_number_tells_a_late_marker(broker) -> None:
    assert await write(broker, marker(number=0)) == [[(0, 0), (1, 0)]]
    assert [len(p.transactions.open) for p in broker.partitions] == [1, 1]


async def test_only_brokers_of_the_cluster_may_end_transactions(broker) -> None:
    refused = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
    assert await write(broker, marker(), peer=None) == [[(0, refused), (1, refused)]]
    assert [len(p.transactions.open) for p in broker.partitions] == [1, 1]
