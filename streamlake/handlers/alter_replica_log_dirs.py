"""AlterReplicaLogDirs (34): there is one directory, and every partition is in it already.

Behavior: to move a partition to the directory that DescribeLogDirs shows is no change; any other does not exist
(LOG_DIR_NOT_FOUND). A partition that stands in several directories is answered for the last one, as in Kafka.
"""

from streamlake.handlers.context import Context, Exchange, find_partition, find_topic
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.alter_replica_log_dirs import (
    AlterReplicaLogDirPartitionResult,
    AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse,
    AlterReplicaLogDirTopicResult,
)


async def handle(ctx: Context, exchange: Exchange) -> AlterReplicaLogDirsResponse:
    request: AlterReplicaLogDirsRequest = exchange.body
    here = str(ctx.broker_configs.value("log.dirs"))
    codes: dict[str, dict[int, ErrorCode]] = {}
    for directory in request.dirs:
        for topic in directory.topics:
            found = find_topic(ctx, topic.name, None)
            of_topic = codes.setdefault(topic.name, {})
            for index in topic.partitions:
                of_topic[index] = (
                    find_partition(ctx, found, index).code if directory.path == here else ErrorCode.LOG_DIR_NOT_FOUND
                )
    return AlterReplicaLogDirsResponse(
        results=tuple(
            AlterReplicaLogDirTopicResult(
                name, tuple(AlterReplicaLogDirPartitionResult(index, code) for index, code in of_topic.items())
            )
            for name, of_topic in codes.items()
        )
    )
