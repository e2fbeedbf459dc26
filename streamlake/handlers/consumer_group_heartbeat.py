"""ConsumerGroupHeartbeat (68, KIP-848): joins a consumer group, stays in it, leaves it, and has the assignment.

Behavior: the epoch says what it is: 0 joins, -1 leaves, -2 leaves for a while (static members). Answered when what it
tells is durable. Groups with members of the classic protocol cannot be joined (GROUP_ID_NOT_FOUND), as in Kafka with
group.consumer.migration.policy=disabled.
Version notes: patterns come with version 1, from which clients choose their member ids.
"""

from uuid import UUID

from streamlake.coordinator.consumer.api import JOIN_EPOCH, LEAVE_EPOCH, STATIC_LEAVE_EPOCH, Places, by_topic
from streamlake.coordinator.consumer.api import HeartbeatRequest as Heartbeat
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import group_code
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.consumer_group_heartbeat import (
    Assignment,
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
    TopicPartitions,
)

OWNED_MAX = 100_000  # partitions of all topics of a cluster
NO_TOPIC = UUID(int=0)


async def handle(ctx: Context, exchange: Exchange) -> ConsumerGroupHeartbeatResponse:
    request: ConsumerGroupHeartbeatRequest = exchange.body
    if wrong := _wrong(request, exchange.version):
        return ConsumerGroupHeartbeatResponse(error_code=ErrorCode.INVALID_REQUEST, error_message=wrong)
    answer = await ctx.consumer_members.heartbeat(
        Heartbeat(
            group_id=request.group_id,
            member_id=request.member_id,
            epoch=request.member_epoch,
            instance_id=request.instance_id,
            rack_id=request.rack_id,
            client_id=exchange.client_id or "",
            client_host=exchange.client_host,
            rebalance_timeout_ms=None if request.rebalance_timeout_ms == -1 else max(request.rebalance_timeout_ms, 0),
            topics=request.subscribed_topic_names,
            regex=request.subscribed_topic_regex,
            assignor=request.server_assignor,
            owned=None if request.topic_partitions is None else _places(request.topic_partitions),
        )
    )
    return ConsumerGroupHeartbeatResponse(
        error_code=group_code(answer.error),
        error_message=answer.message,
        member_id=answer.member_id,
        member_epoch=answer.epoch,
        heartbeat_interval_ms=answer.heartbeat_interval_ms,
        assignment=None if answer.assignment is None else Assignment(_topic_partitions(answer.assignment)),
    )


def _wrong(request: ConsumerGroupHeartbeatRequest, version: int) -> str | None:
    """What makes no sense in the request."""
    epoch = request.member_epoch
    if not request.member_id and (version >= 1 or epoch > JOIN_EPOCH or epoch == LEAVE_EPOCH):
        return "member_id is empty: choose one, a UUID for example"
    for name in ("group_id", "instance_id", "rack_id"):
        if getattr(request, name) == "":
            return f"{name} is empty"
    if sum(len(topic.partitions) for topic in request.topic_partitions or ()) > OWNED_MAX:
        return f"topic_partitions has more than {OWNED_MAX} partitions, which no member can have"
    if epoch == JOIN_EPOCH:
        if request.rebalance_timeout_ms == -1:
            return "who joins must send rebalance_timeout_ms"
        if request.topic_partitions is None or request.topic_partitions:
            return "who joins must send topic_partitions, and have none"
        if request.subscribed_topic_names is None and request.subscribed_topic_regex is None:
            return "who joins must send subscribed_topic_names or subscribed_topic_regex"
    if epoch == STATIC_LEAVE_EPOCH and request.instance_id is None:
        return f"member_epoch {STATIC_LEAVE_EPOCH} is for members with an instance_id"
    return f"member_epoch is {epoch}, less than {STATIC_LEAVE_EPOCH}" if epoch < STATIC_LEAVE_EPOCH else None


def _places(topics: tuple[TopicPartitions, ...]) -> Places:
    return frozenset(
        ((topic.topic_id or NO_TOPIC).bytes, partition) for topic in topics for partition in topic.partitions
    )


def _topic_partitions(places: Places) -> tuple[TopicPartitions, ...]:
    return tuple(
        TopicPartitions(topic_id=UUID(bytes=topic_id), partitions=tuple(partitions))
        for topic_id, partitions in by_topic(places).items()
    )
