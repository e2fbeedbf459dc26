from support.log_bench import NOW_MS
from support.produce_pair import TOPIC_NAMED
from support.transactional_broker import TransactionalBroker
from support.transactions import end

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.describe_producers import DescribeProducersRequest, ProducerState, TopicRequest


async def describe(broker, index: int = 0, name: str = TOPIC_NAMED.name):
    request = DescribeProducersRequest((TopicRequest(name, (index,)),))
    answer = await broker.ask(ApiKey.DESCRIBE_PRODUCERS, request, 0)
    assert answer.topics[0].name == name
    return answer.topics[0].partitions[0]


async def test_producers_and_their_open_transactions() -> None:
    broker = await TransactionalBroker().start()
    assert (await describe(broker)).active_producers == ()
    await broker.produce(broker.bench.idempotent(0, 3, producer=9), transactional_id=None)
    await broker.produce(broker.batch(0, 2, epoch=4))
    assert (await describe(broker)).active_producers == (
        ProducerState(9, 0, 2, NOW_MS, -1, -1),
        ProducerState(1, 4, 1, NOW_MS, -1, 3),
    )
    end(broker.partitions[0], commit=True, epoch=5, coordinator_epoch=8)
    assert (await describe(broker)).active_producers[1] == ProducerState(1, 5, -1, NOW_MS, 8, -1)


async def test_partitions_that_are_not_here() -> None:
    broker = await TransactionalBroker().start()
    assert (await describe(broker, 9)).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert (await describe(broker, name="none")).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
