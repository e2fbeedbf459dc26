"""What OffsetCommit and TxnOffsetCommit share: the offsets of a request, and partitions that seem not to exist."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from streamlake.cluster.store.groups import OffsetRow
from streamlake.coordinator.classic.api import GroupError
from streamlake.coordinator.offsets import CommitRequest
from streamlake.handlers.context import Context
from streamlake.protocol.messages.offset_commit import OffsetCommitRequestTopic
from streamlake.protocol.messages.txn_offset_commit import TxnOffsetCommitRequestTopic

E = TypeVar("E")


def rows_of(topics: Iterable[OffsetCommitRequestTopic | TxnOffsetCommitRequestTopic]) -> list[OffsetRow]:
    """One for each partition, in order."""
    return [
        OffsetRow(
            topic=topic.name,
            partition=partition.partition_index,
            offset=partition.committed_offset,
            leader_epoch=partition.committed_leader_epoch,
            metadata=partition.committed_metadata or "",
            commit_ms=-1,
        )
        for topic in topics
        for partition in topic.partitions
    ]


async def commit_known(
    ctx: Context, request: CommitRequest, commit: Callable[[CommitRequest], Awaitable[Sequence[E | GroupError]]]
) -> Sequence[E | GroupError]:
    """What `commit` gives, one result per offset. That a partition does not exist clients take for final: it is said
    only if no other broker has made it a moment ago."""
    unknown, seen = GroupError.UNKNOWN_TOPIC_OR_PARTITION, ctx.topics.revision
    results = await commit(request)
    if unknown not in results:
        return results
    if not await ctx.catch_up():
        return [GroupError.COORDINATOR_NOT_AVAILABLE if result is unknown else result for result in results]
    if ctx.topics.revision == seen:
        return results
    offsets = [offset for offset, result in zip(request.offsets, results, strict=True) if result is unknown]
    again = iter(await commit(replace(request, offsets=offsets)))
    return [next(again) if result is unknown else result for result in results]
