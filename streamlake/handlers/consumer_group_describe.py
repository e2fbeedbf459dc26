"""ConsumerGroupDescribe (69, KIP-848): epochs and members of consumer groups, with what each has and is to have.

Behavior: a classic group is GROUP_ID_NOT_FOUND: clients ask DescribeGroups then. A topic that was deleted is left out.
Version notes: the type of members comes with version 1.
"""

from collections.abc import Iterator
from uuid import UUID

from streamlake.coordinator.classic.api import GroupError
from streamlake.coordinator.consumer.api import ConsumerMemberDescription, Places, by_topic
from streamlake.handlers import operations
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import group_code
from streamlake.protocol.messages.consumer_group_describe import (
    Assignment,
    ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse,
    DescribedGroup,
    Member,
    TopicPartitions,
)

CONSUMER_MEMBER = 1  # 0: one of the classic protocol


async def handle(ctx: Context, exchange: Exchange) -> ConsumerGroupDescribeResponse:
    request: ConsumerGroupDescribeRequest = exchange.body
    allowed = operations.GROUP if request.include_authorized_operations else operations.NOT_ASKED
    return ConsumerGroupDescribeResponse(groups=tuple(_describe(ctx, each, allowed) for each in request.group_ids))


def _describe(ctx: Context, group_id: str, allowed: int) -> DescribedGroup:
    if not group_id:
        return DescribedGroup(group_id=group_id, error_code=group_code(GroupError.INVALID_GROUP_ID))
    group = ctx.groups.describe_consumer(group_id)
    if isinstance(group, GroupError):
        unknown = group is GroupError.GROUP_ID_NOT_FOUND
        text = f"there is no consumer group {group_id}" if unknown else None
        return DescribedGroup(group_id=group_id, error_code=group_code(group), error_message=text)
    return DescribedGroup(
        group_id=group_id,
        group_state=group.state,
        group_epoch=group.epoch,
        assignment_epoch=group.assignment_epoch,
        assignor_name=group.assignor,
        members=tuple(_member(ctx, member) for member in group.members),
        authorized_operations=allowed,
    )


def _member(ctx: Context, member: ConsumerMemberDescription) -> Member:
    return Member(
        member_id=member.member_id,
        instance_id=member.instance_id,
        rack_id=member.rack_id,
        member_epoch=member.epoch,
        client_id=member.client_id,
        client_host=f"/{member.client_host}",  # so Kafka writes addresses, and so its tools show them
        subscribed_topic_names=member.topics,
        subscribed_topic_regex=member.regex or "",
        assignment=Assignment(tuple(_topics(ctx, member.assigned))),
        target_assignment=Assignment(tuple(_topics(ctx, member.target))),
        member_type=CONSUMER_MEMBER,
    )


def _topics(ctx: Context, places: Places) -> Iterator[TopicPartitions]:
    for topic_id, partitions in by_topic(places).items():
        topic = ctx.topics.by_id(UUID(bytes=topic_id))
        if topic is not None:
            yield TopicPartitions(topic_id=topic.id, topic_name=topic.name, partitions=tuple(partitions))
