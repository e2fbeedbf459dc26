"""AlterPartitionReassignments (45): which broker shall have a partition.

Behavior: a partition has one replica here, at the broker that leads it (the object store keeps the copies), so a
reassignment names one broker. It is accepted at once and carried out by the brokers; what was not carried out yet can
be cancelled (no replicas). A partition stays where it was put as long as that broker is there and not drained.
"""

from collections.abc import Collection
from uuid import UUID

from streamlake.core.errors import StreamLakeError
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import REPLICA_ASSIGNMENT, Failure, failure
from streamlake.handlers.replica_assignment import check_target
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse,
    ReassignablePartition,
    ReassignablePartitionResponse,
    ReassignableTopicResponse,
)

Key = tuple[UUID, int]
DONE = Failure(ErrorCode.NONE, "")
NOTHING_TO_CANCEL = Failure(ErrorCode.NO_REASSIGNMENT_IN_PROGRESS, "this partition is not being moved")


async def handle(ctx: Context, exchange: Exchange) -> AlterPartitionReassignmentsResponse:
    request: AlterPartitionReassignmentsRequest = exchange.body
    targets: dict[int, list[Key]] = {}
    cancelled: list[Key] = []
    outcomes: dict[tuple[str, int], Failure | Key] = {}  # a key is to be looked up in `done`
    for topic in request.topics:
        for partition in topic.partitions:
            at = topic.name, partition.partition_index
            outcomes[at] = found = _checked(ctx, topic.name, partition)
            if not isinstance(found, Failure):
                keys = cancelled if partition.replicas is None else targets.setdefault(partition.replicas[0], [])
                keys.append(found)
    done = await _move(ctx, targets) | await _cancel(ctx, cancelled)
    if targets or cancelled:
        ctx.topics.stale.set()
        await ctx.topics.refresh()
    responses = []
    for topic in request.topics:
        results = []
        for partition in topic.partitions:
            outcome = outcomes[topic.name, partition.partition_index]
            code, message = outcome if isinstance(outcome, Failure) else done[outcome]
            results.append(ReassignablePartitionResponse(partition.partition_index, code, message or None))
        responses.append(ReassignableTopicResponse(topic.name, tuple(results)))
    return AlterPartitionReassignmentsResponse(
        allow_replication_factor_change=request.allow_replication_factor_change, responses=tuple(responses)
    )


def _checked(ctx: Context, name: str, partition: ReassignablePartition) -> Failure | Key:
    topic = ctx.topics.get(name)
    if topic is None or not 0 <= partition.partition_index < len(topic.partitions):
        return Failure(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "this partition does not exist")
    if partition.replicas is not None:
        try:
            check_target(partition.replicas)
        except StreamLakeError as error:
            return failure(error, REPLICA_ASSIGNMENT)
    return topic.id, partition.partition_index


async def _move(ctx: Context, targets: dict[int, list[Key]]) -> dict[Key, Failure]:
    """Those of one broker together: a broker that cannot have them keeps no others from being moved."""
    done: dict[Key, Failure] = {}
    for node, keys in targets.items():
        try:
            await ctx.administration.move(dict.fromkeys(keys, node))
        except StreamLakeError as error:
            done |= dict.fromkeys(keys, failure(error, REPLICA_ASSIGNMENT))
        else:
            done |= dict.fromkeys(keys, DONE)
    return done


async def _cancel(ctx: Context, keys: Collection[Key]) -> dict[Key, Failure]:
    if not keys:
        return {}
    try:
        cancelled = await ctx.administration.cancel(keys)
    except StreamLakeError as error:
        return dict.fromkeys(keys, failure(error, REPLICA_ASSIGNMENT))
    return {key: DONE if key in cancelled else NOTHING_TO_CANCEL for key in keys}
