"""One request for all partitions of a topic, in the version whose meaning we have in mind."""

from typing import Any

from msgspec import Struct

from streamlake.peers.offsets import EARLIEST, READ_COMMITTED, list_offsets
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.list_offsets import (
    ListOffsetsPartitionResponse,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
)


async def test_all_partitions_are_asked_at_once() -> None:
    asked = []
    found = (
        ListOffsetsPartitionResponse(partition_index=0, offset=5),
        ListOffsetsPartitionResponse(partition_index=2, error_code=6),
    )

    async def call(key: ApiKey, request: Struct, max_version: int) -> Any:
        asked.append((key, request, max_version))
        return ListOffsetsResponse(topics=(ListOffsetsTopicResponse(name="t", partitions=found),))

    assert await list_offsets(call, "t", [0, 2], EARLIEST) == list(found)
    ((key, request, version),) = asked
    assert (key, version, request.isolation_level) == (ApiKey.LIST_OFFSETS, 7, READ_COMMITTED)
    (topic,) = request.topics
    assert (topic.name, [(p.partition_index, p.timestamp) for p in topic.partitions]) == ("t", [(0, -2), (2, -2)])
