"""ElectLeaders (43): there is never anything to elect.

Behavior: a partition has one replica here, and its broker leads it, so the preferred leader leads. Of partitions that
are named each is answered with ELECTION_NOT_NEEDED; of all, topics come without partitions, as from Kafka.
"""

from streamlake.handlers.context import Context, Exchange
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersResponse,
    PartitionResult,
    ReplicaElectionResult,
    TopicPartitions,
)

PREFERRED, UNCLEAN = 0, 1


async def handle(ctx: Context, exchange: Exchange) -> ElectLeadersResponse:
    request: ElectLeadersRequest = exchange.body
    asked = request.topic_partitions
    if asked is None:
        asked = tuple(TopicPartitions(topic.name) for topic in ctx.topics.all())
    known = request.election_type in (PREFERRED, UNCLEAN)
    return ElectLeadersResponse(
        error_code=ErrorCode.NONE if known else ErrorCode.INVALID_REQUEST,
        replica_election_results=tuple(
            ReplicaElectionResult(
                topic.topic,
                tuple(
                    _result(ctx, topic.topic, index) if known else PartitionResult(index, ErrorCode.INVALID_REQUEST)
                    for index in topic.partitions
                ),
            )
            for topic in asked
        ),
    )


def _result(ctx: Context, name: str, index: int) -> PartitionResult:
    topic = ctx.topics.get(name)
    if topic is None:
        return PartitionResult(index, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"No such topic as {name}")
    if not 0 <= index < len(topic.partitions):
        return PartitionResult(index, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"No such partition as {name}-{index}")
    return PartitionResult(index, ErrorCode.ELECTION_NOT_NEEDED, ErrorCode.ELECTION_NOT_NEEDED.message)
