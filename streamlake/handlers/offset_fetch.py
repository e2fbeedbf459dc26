"""OffsetFetch (9): what a group has committed.

Behavior: any broker answers for any group, because offsets are read from where they are durable; Kafka's answer for the
groups that they coordinate. A partition without a committed offset is answered with -1, which is no error; one that is
asked for twice is answered twice. `require_stable` changes nothing while there are no transactions.
Version notes: one group until version 7, a batch of groups from 8; null topics mean all (from 2). Version 1 has no
error but those of partitions.
"""

from collections.abc import Sequence
from itertools import groupby

from streamlake.cluster.store.groups import OffsetRow
from streamlake.coordinator.classic.api import GroupError
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import group_code
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
)

Topics = Sequence[OffsetFetchRequestTopic | OffsetFetchRequestTopics]
Found = list[tuple[str, list[OffsetRow]]]


async def handle(ctx: Context, exchange: Exchange) -> OffsetFetchResponse:
    request: OffsetFetchRequest = exchange.body
    if exchange.version >= 8:
        groups = [await _group(ctx, group.group_id, group.topics) for group in request.groups]
        return OffsetFetchResponse(groups=tuple(groups))
    found = await _fetch(ctx, request.group_id, request.topics)
    if isinstance(found, GroupError):
        return _failed(exchange.version, request.topics or (), group_code(found))
    return OffsetFetchResponse(
        topics=tuple(
            OffsetFetchResponseTopic(
                name=name,
                partitions=tuple(
                    OffsetFetchResponsePartition(
                        partition_index=row.partition,
                        committed_offset=row.offset,
                        committed_leader_epoch=row.leader_epoch,
                        metadata=row.metadata,
                    )
                    for row in rows
                ),
            )
            for name, rows in found
        )
    )


def _failed(version: int, topics: Sequence[OffsetFetchRequestTopic], code: ErrorCode) -> OffsetFetchResponse:
    if version >= 2:
        return OffsetFetchResponse(error_code=code)
    return OffsetFetchResponse(
        topics=tuple(
            OffsetFetchResponseTopic(
                name=topic.name,
                partitions=tuple(
                    OffsetFetchResponsePartition(partition_index=index, committed_offset=-1, error_code=code)
                    for index in topic.partition_indexes
                ),
            )
            for topic in topics
        )
    )


async def _group(ctx: Context, group_id: str, topics: Topics | None) -> OffsetFetchResponseGroup:
    found = await _fetch(ctx, group_id, topics)
    if isinstance(found, GroupError):
        return OffsetFetchResponseGroup(group_id=group_id, error_code=group_code(found))
    return OffsetFetchResponseGroup(
        group_id=group_id,
        topics=tuple(
            OffsetFetchResponseTopics(
                name=name,
                partitions=tuple(
                    OffsetFetchResponsePartitions(
                        partition_index=row.partition,
                        committed_offset=row.offset,
                        committed_leader_epoch=row.leader_epoch,
                        metadata=row.metadata,
                    )
                    for row in rows
                ),
            )
            for name, rows in found
        ),
    )


async def _fetch(ctx: Context, group_id: str, topics: Topics | None) -> Found | GroupError:
    """By topic; every partition that was asked for is there, with -1 if nothing is committed."""
    wanted = None if topics is None else [(t.name, index) for t in topics for index in t.partition_indexes]
    rows = await ctx.offsets.fetch(group_id, wanted)
    if isinstance(rows, GroupError):
        return rows
    if topics is None:
        return [(name, list(each)) for name, each in groupby(rows, key=lambda row: row.topic)]  # in order of topics
    known = {(row.topic, row.partition): row for row in rows}
    return [
        (t.name, [known.get((t.name, p)) or OffsetRow(t.name, p, -1, -1, "", -1) for p in t.partition_indexes])
        for t in topics
    ]
