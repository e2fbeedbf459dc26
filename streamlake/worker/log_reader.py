"""The log as the table worker reads it: Kafka's Fetch by topic id, read_committed, on one connection.

The id tells a topic that was deleted and created again from the old one.
"""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from msgspec import Struct

from streamlake.core.errors import Corrupt, NotFound, Unavailable
from streamlake.peers.kafka import KafkaPeer
from streamlake.peers.offsets import EARLIEST, LATEST, READ_COMMITTED, list_offsets
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic, PartitionData
from streamlake.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from streamlake.table.task.log_reader import Fetched, PartitionPositions

CALLS_MAX = 32
FETCH_VERSION, METADATA_VERSION = 13, 12


class KafkaLogReader:
    """Implements LogReader."""

    def __init__(self, peer: KafkaPeer) -> None:
        self._peer = peer
        self._permits = asyncio.Semaphore(CALLS_MAX)

    async def positions(self, topic: str, topic_id: UUID, partitions: Sequence[int]) -> dict[int, PartitionPositions]:
        starts = await self._offsets(topic, partitions, EARLIEST)
        ends = await self._offsets(topic, partitions, LATEST)
        # ListOffsets knows names only. The id is checked after it: if the topic is there now, it was there all along.
        wanted = (MetadataRequestTopic(topic_id=topic_id, name=None),)
        request = MetadataRequest(topics=wanted, allow_auto_topic_creation=False)
        answer = await self._call(ApiKey.METADATA, request, METADATA_VERSION)
        (described,) = answer.topics
        _check(described.error_code, topic)
        return {p: PartitionPositions(starts[p], ends[p]) for p in partitions if p in starts and p in ends}

    async def _call(self, key: ApiKey, request: Struct, max_version: int) -> Any:
        """Tables wait for each other here: hundreds of calls at once are more than a connection accepts."""
        async with self._permits:
            return await self._peer.call(key, request, max_version)

    async def _offsets(self, topic: str, partitions: Sequence[int], timestamp: int) -> dict[int, int]:
        found = await list_offsets(self._call, topic, partitions, timestamp)
        return {p.partition_index: p.offset for p in found if not p.error_code}

    async def fetch(self, topic: str, topic_id: UUID, partition: int, offset: int, max_bytes: int) -> Fetched:
        asked = FetchPartition(partition=partition, fetch_offset=offset, partition_max_bytes=max_bytes)
        request = FetchRequest(
            max_wait_ms=0,
            min_bytes=1,
            max_bytes=max_bytes,
            isolation_level=READ_COMMITTED,
            topics=(FetchTopic(topic_id=topic_id, partitions=(asked,)),),
        )
        answer = await self._call(ApiKey.FETCH, request, FETCH_VERSION)
        _check(answer.error_code, topic)
        found: list[PartitionData] = [p for t in answer.responses for p in t.partitions]
        if len(found) != 1:
            raise Corrupt(f"a fetch of one partition of {topic} was answered with {len(found)}")
        (data,) = found
        if data.error_code == ErrorCode.OFFSET_OUT_OF_RANGE:
            positions = await self.positions(topic, topic_id, [partition])
            if partition not in positions:
                raise Unavailable(f"{topic}[{partition}] has no readable leader now")
            return Fetched(b"", positions[partition].last_stable_offset, positions[partition].log_start_offset)
        _check(data.error_code, topic)
        return Fetched(
            data=data.records or b"",
            last_stable_offset=data.last_stable_offset,
            log_start_offset=data.log_start_offset,
            aborted=tuple((a.producer_id, a.first_offset) for a in data.aborted_transactions or ()),
        )


def _check(code: int, topic: str) -> None:
    if code in (ErrorCode.UNKNOWN_TOPIC_ID, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION):
        raise NotFound(f"topic {topic} is gone, or was deleted and made again")
    if code:
        raise Unavailable(f"topic {topic} cannot be read now: {ErrorCode(code).name}")
