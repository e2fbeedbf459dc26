"""OffsetFetch (9): what a group has committed.

Behavior: any broker answers for any group, because offsets are read from where they are durable; Kafka's answer for the
groups that they coordinate. A partition without a committed offset is answered with -1, which is no error; one that is
asked for twice is answered twice. Who wants stable offsets (`require_stable`, KIP-447) is told UNSTABLE_OFFSET_COMMIT
for a partition of which a transaction that is open is to commit an offset. A member of a consumer group that says who
it is (from version 9) must ask the coordinator, in its epoch.
Version notes: one group until version 7, a batch of groups from 8; null topics mean all (from 2). Version 1 has no
error but those of partitions.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from streamlake.cluster.store.groups import OffsetRow
from streamlake.coordinator.classic.api import GroupError
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import group_code
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
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


class Row(NamedTuple):
    offset: OffsetRow
    code: ErrorCode = ErrorCode.NONE


Found = list[tuple[str, list[Row]]]


async def handle(ctx: Context, exchange: Exchange) -> OffsetFetchResponse:
    request: OffsetFetchRequest = exchange.body
    if exchange.version >= 8:
        stable = request.require_stable
        groups = [await _group(ctx, group, stable) for group in request.groups]
        return OffsetFetchResponse(groups=tuple(groups))
    found = await _fetch(ctx, request.group_id, request.topics, request.require_stable)
    if isinstance(found, GroupError):
        return _failed(exchange.version, request.topics or (), group_code(found))
    return OffsetFetchResponse(
        topics=tuple(
            OffsetFetchResponseTopic(
                name=name,
                partitions=tuple(
                    OffsetFetchResponsePartition(
                        partition_index=row.offset.partition,
                        committed_offset=row.offset.offset,
                        committed_leader_epoch=row.offset.leader_epoch,
                        metadata=row.offset.metadata,
                        error_code=row.code,
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


async def _group(ctx: Context, group: OffsetFetchRequestGroup, stable: bool) -> OffsetFetchResponseGroup:
    group_id = group.group_id
    if group.member_id is not None or group.member_epoch >= 0:
        error = ctx.groups.check_fetch(group_id, group.member_id or "", group.member_epoch)
        if error is not GroupError.NONE:
            return OffsetFetchResponseGroup(group_id=group_id, error_code=group_code(error))
    found = await _fetch(ctx, group_id, group.topics, stable)
    if isinstance(found, GroupError):
        return OffsetFetchResponseGroup(group_id=group_id, error_code=group_code(found))
    return OffsetFetchResponseGroup(
        group_id=group_id,
        topics=tuple(
            OffsetFetchResponseTopics(
                name=name,
                partitions=tuple(
                    OffsetFetchResponsePartitions(
                        partition_index=row.offset.partition,
                        committed_offset=row.offset.offset,
                        committed_leader_epoch=row.offset.leader_epoch,
                        metadata=row.offset.metadata,
                        error_code=row.code,
                    )
                    for row in rows
                ),
            )
            for name, rows in found
        ),
    )


async def _fetch(ctx: Context, group_id: str, topics: Topics | None, stable: bool) -> Found | GroupError:
    """By topic; every partition that was asked for is there, with -1 if nothing is committed."""
    wanted = None if topics is None else [(t.name, index) for t in topics for index in t.partition_indexes]
    found = await (ctx.offsets.fetch_stable(group_id, wanted) if stable else ctx.offsets.fetch(group_id, wanted))
    if isinstance(found, GroupError):
        return found
    offsets, pending = found if isinstance(found, tuple) else (found, set[tuple[str, int]]())
    known = {(offset.topic, offset.partition): Row(offset) for offset in offsets}
    known |= {place: Row(_none(*place), ErrorCode.UNSTABLE_OFFSET_COMMIT) for place in pending}
    if topics is None:
        places = groupby(sorted(known), key=lambda place: place[0])
        return [(name, [known[place] for place in each]) for name, each in places]
    return [
        (t.name, [known.get((t.name, index)) or Row(_none(t.name, index)) for index in t.partition_indexes])
        for t in topics
    ]


def _none(topic: str, partition: int) -> OffsetRow:
    return OffsetRow(topic, partition, -1, -1, "", -1)
