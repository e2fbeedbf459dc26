"""ListOffsets: where partitions start and end, as readers of committed records see it."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from msgspec import Struct

from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsTopic,
)

LATEST, EARLIEST = -1, -2  # instead of a timestamp
READ_COMMITTED = 1  # isolation level
VERSION = 7


async def list_offsets(
    call: Callable[[ApiKey, Struct, int], Awaitable[Any]], topic: str, partitions: Iterable[int], timestamp: int
) -> list[ListOffsetsPartitionResponse]:
    """The first offset at or after `timestamp` (ms; or LATEST, EARLIEST) of each partition, or the error that it has.
    `call` is KafkaPeer.call."""
    asked = tuple(ListOffsetsPartition(partition_index=p, timestamp=timestamp) for p in partitions)
    request = ListOffsetsRequest(
        replica_id=-1,
        isolation_level=READ_COMMITTED,
        topics=(ListOffsetsTopic(name=topic, partitions=asked),),
    )
    answer = await call(ApiKey.LIST_OFFSETS, request, VERSION)
    return [partition for topic in answer.topics for partition in topic.partitions]
