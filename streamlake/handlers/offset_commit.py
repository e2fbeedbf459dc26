"""OffsetCommit (8): how far a group has come; answered when it is durable.

Behavior: member and generation are checked before anything is awaited, so a LeaveGroup behind it on the connection
cannot make it fail. A partition that does not exist fails alone.
Version notes: versions 2-4 carry a retention time, which counts for nothing: offsets live as long as their group is in
use and offsets.retention.minutes after. Static members from 7. That a member's group does not exist is
GROUP_ID_NOT_FOUND from 9, and ILLEGAL_GENERATION before; that a member of a consumer group has another epoch is
STALE_MEMBER_EPOCH from 9, and UNSUPPORTED_VERSION before.
"""

from streamlake.coordinator.classic.api import GroupError
from streamlake.coordinator.offsets import CommitRequest
from streamlake.handlers.committed_offsets import commit_known, rows_of
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import group_code
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)

BEFORE_9 = {
    GroupError.GROUP_ID_NOT_FOUND: ErrorCode.ILLEGAL_GENERATION,
    GroupError.STALE_MEMBER_EPOCH: ErrorCode.UNSUPPORTED_VERSION,
}


async def handle(ctx: Context, exchange: Exchange) -> OffsetCommitResponse:
    request: OffsetCommitRequest = exchange.body
    generation = request.generation_id_or_member_epoch
    commit = CommitRequest(
        request.group_id, request.member_id, request.group_instance_id, generation, rows_of(request.topics)
    )
    errors = await commit_known(ctx, commit, ctx.offsets.commit)
    results = iter([_code(exchange.version, error) for error in errors])
    return OffsetCommitResponse(
        topics=tuple(
            OffsetCommitResponseTopic(
                name=topic.name,
                partitions=tuple(
                    OffsetCommitResponsePartition(partition_index=partition.partition_index, error_code=next(results))
                    for partition in topic.partitions
                ),
            )
            for topic in request.topics
        )
    )


def _code(version: int, error: GroupError) -> ErrorCode:
    return BEFORE_9.get(error) or group_code(error) if version < 9 else group_code(error)
