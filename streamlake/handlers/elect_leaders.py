"""ElectLeaders (43): there is never anything to elect.

Behavior: a partition has one replica here, and its broker leads it, so the preferred leader leads. Of partitions that
are named each is answered with ELECTION_NOT_NEEDED; of all, those are left out, as Kafka leaves them out.
"""

from streamlake.handlers.context import Context, Exchange
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersResponse,
    PartitionResult,
    ReplicaElectionResult,
)

PREFERRED, UNCLEAN = 0, 1


async def handle(ctx: Context, exchange: Exchange) -> ElectLeadersResponse:
    request: ElectLeadersRequest = exchange.body
    if request.election_type not in (PREFERRED, UNCLEAN):
        return ElectLeadersResponse(error_code=ErrorCode.INVALID_REQUEST)
    return ElectLeadersResponse(
        replica_election_results=tuple(
            ReplicaElectionResult(asked.topic, tuple(_result(ctx, asked.topic, index) for index in asked.partitions))
            for asked in request.topic_partitions or ()
        )
    )


def _result(ctx: Context, name: str, index: int) -> PartitionResult:
    topic = ctx.topics.get(name)
    if topic is None:
        return PartitionResult(index, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"No such topic as {name}")
    if not 0 <= index < len(topic.partitions):
        return PartitionResult(index, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"No such partition as {name}-{index}")
    return PartitionResult(index, ErrorCode.ELECTION_NOT_NEEDED, ErrorCode.ELECTION_NOT_NEEDED.message)
