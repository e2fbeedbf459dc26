"""DescribeLogDirs (35): how much each partition holds that this broker has open.

Behavior: one directory, the `log.dirs` that DescribeConfigs shows; the records themselves are in the object store, so
it has no limit of its own (-1). Sizes are of the batches as they are stored. kafka-reassign-partitions asks before it
moves.
"""

import asyncio

from streamlake.handlers.context import Context, Exchange
from streamlake.protocol.messages.describe_log_dirs import (
    DescribeLogDirsPartition,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
    DescribeLogDirsResult,
    DescribeLogDirsTopic,
)

PARTITIONS_PER_SLICE = 100  # before others may run: a size is a sum over the objects of a partition


async def handle(ctx: Context, exchange: Exchange) -> DescribeLogDirsResponse:
    request: DescribeLogDirsRequest = exchange.body
    asked = None if request.topics is None else {t.topic: set(t.partitions) for t in request.topics}
    found: dict[str, list[DescribeLogDirsPartition]] = {}
    for number, partition in enumerate(list(ctx.logs)):
        if number % PARTITIONS_PER_SLICE == PARTITIONS_PER_SLICE - 1:
            await asyncio.sleep(0)
        topic = ctx.topics.by_id(partition.topic_id)
        if topic is None or (asked is not None and partition.index not in asked.get(topic.name, ())):
            continue
        sized = DescribeLogDirsPartition(partition.index, partition.size_bytes)
        found.setdefault(topic.name, []).append(sized)
    topics = tuple(
        DescribeLogDirsTopic(name, tuple(sorted(rows, key=lambda row: row.partition_index)))
        for name, rows in sorted(found.items())
    )
    directory = DescribeLogDirsResult(log_dir=str(ctx.broker_configs.value("log.dirs")), topics=topics)
    return DescribeLogDirsResponse(results=(directory,))
