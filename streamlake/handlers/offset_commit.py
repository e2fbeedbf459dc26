"""OffsetCommit (8): how far a group has come; answered when it is durable.

Behavior: member and generation are checked before anything is awaited, so a LeaveGroup behind it on the connection
cannot make it fail. A partition that does not exist fails alone.
Version notes: versions 2-4 carry a retention time, which counts for nothing: offsets live as long as their group is in
use and offsets.retention.minutes after. Static members from 7. That a member's group does not exist is
GROUP_ID_NOT_FOUND from 9, and ILLEGAL_GENERATION before.
"""

from dataclasses import replace

from streamlake.cluster.store.groups import OffsetRow
from streamlake.coordinator.classic.api import GroupError
from streamlake.coordinator.offsets import CommitRequest
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import group_code
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)


async def handle(ctx: Context, exchange: Exchange) -> OffsetCommitResponse:
    request: OffsetCommitRequest = exchange.body
    rows = [
        OffsetRow(
            topic=topic.name,
            partition=partition.partition_index,
            offset=partition.committed_offset,
            leader_epoch=partition.committed_leader_epoch,
            metadata=partition.committed_metadata or "",
            commit_ms=-1,
        )
        for topic in request.topics
        for partition in topic.partitions
    ]
    generation = request.generation_id_or_member_epoch
    commit = CommitRequest(request.group_id, request.member_id, request.group_instance_id, generation, rows)
    results = iter([_code(exchange.version, error) for error in await _commit(ctx, commit)])
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


async def _commit(ctx: Context, commit: CommitRequest) -> list[GroupError]:
    """One result per offset. That a partition does not exist clients take for final: it is said only if no other broker
    has made it a moment ago."""
    unknown, seen = GroupError.UNKNOWN_TOPIC_OR_PARTITION, ctx.topics.revision
    results = await ctx.offsets.commit(commit)
    if unknown not in results:
        return results
    if not await ctx.catch_up():
        return [GroupError.COORDINATOR_NOT_AVAILABLE if result is unknown else result for result in results]
    if ctx.topics.revision == seen:
        return results
    offsets = [offset for offset, result in zip(commit.offsets, results, strict=True) if result is unknown]
    again = iter(await ctx.offsets.commit(replace(commit, offsets=offsets)))
    return [next(again) if result is unknown else result for result in results]


def _code(version: int, error: GroupError) -> ErrorCode:
    unknown_to_client = error is GroupError.GROUP_ID_NOT_FOUND and version < 9
    return ErrorCode.ILLEGAL_GENERATION if unknown_to_client else group_code(error)
