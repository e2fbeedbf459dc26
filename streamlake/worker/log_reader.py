"""The log as the table worker reads it: Kafka's Fetch by topic id, read_committed, from the leader of each partition.

The id tells a topic that was deleted and created again from the old one. The server that started the worker is asked
for the leaders, and is one of them. A partition whose leader does not answer is left out: its rows wait.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
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

Call = Callable[[ApiKey, Struct, int], Awaitable[Any]]


class KafkaLogReader:
    """Implements LogReader."""

    def __init__(self, own: KafkaPeer, node: int, connect: Callable[[str, int], KafkaPeer]) -> None:
        """`own`: the server with that node id, at an address that works from here, whatever it tells clients."""
        self._own = own
        self._node = node
        self._connect = connect
        self._others: dict[tuple[str, int], KafkaPeer] = {}
        self._leaders: dict[UUID, dict[int, KafkaPeer]] = {}
        self._permits = asyncio.Semaphore(CALLS_MAX)

    async def positions(self, topic: str, topic_id: UUID, partitions: Sequence[int]) -> dict[int, PartitionPositions]:
        leaders = self._leaders.get(topic_id) or await self._look_up(topic, topic_id)
        starts = await self._offsets(topic, leaders, partitions, EARLIEST)
        ends = await self._offsets(topic, leaders, partitions, LATEST)
        # ListOffsets knows names only. The id is checked after it: if the topic is there now, it was there all along.
        await self._look_up(topic, topic_id)
        return {p: PartitionPositions(starts[p], ends[p]) for p in partitions if p in starts and p in ends}

    async def _look_up(self, topic: str, topic_id: UUID) -> dict[int, KafkaPeer]:
        """The leaders of those partitions that have one now. NotFound; Unavailable."""
        wanted = (MetadataRequestTopic(topic_id=topic_id, name=None),)
        request = MetadataRequest(topics=wanted, allow_auto_topic_creation=False)
        answer = await self._call(self._own, ApiKey.METADATA, request, METADATA_VERSION)
        (described,) = answer.topics
        self._leaders.pop(topic_id, None)
        _check(described.error_code, topic)
        addresses = {broker.node_id: (broker.host, broker.port) for broker in answer.brokers}
        found = {}
        for partition in described.partitions:
            if partition.leader_id == self._node:
                found[partition.partition_index] = self._own
            elif (address := addresses.get(partition.leader_id)) is not None:
                found[partition.partition_index] = self._peer(*address)
        self._leaders[topic_id] = found
        return found

    def _peer(self, host: str, port: int) -> KafkaPeer:
        if (host, port) not in self._others:
            self._others[host, port] = self._connect(host, port)
        return self._others[host, port]

    async def _call(self, peer: KafkaPeer, key: ApiKey, request: Struct, max_version: int) -> Any:
        """Tables wait for each other here: hundreds of calls at once are more than a connection accepts."""
        async with self._permits:
            return await peer.call(key, request, max_version)

    async def _offsets(
        self, topic: str, leaders: dict[int, KafkaPeer], partitions: Iterable[int], timestamp: int
    ) -> dict[int, int]:
        by_leader: dict[KafkaPeer, list[int]] = {}
        for p in partitions:
            if p in leaders:
                by_leader.setdefault(leaders[p], []).append(p)

        async def of(peer: KafkaPeer, own: list[int]) -> dict[int, int]:
            def call(key: ApiKey, request: Struct, max_version: int) -> Awaitable[Any]:
                return self._call(peer, key, request, max_version)

            try:
                found = await list_offsets(call, topic, own, timestamp)
            except Unavailable:
                if peer is self._own:
                    raise
                return {}
            return {p.partition_index: p.offset for p in found if not p.error_code}

        answers = await asyncio.gather(*(of(peer, own) for peer, own in by_leader.items()))
        return {p: offset for answer in answers for p, offset in answer.items()}

    async def fetch(self, topic: str, topic_id: UUID, partition: int, offset: int, max_bytes: int) -> Fetched:
        leaders = self._leaders.get(topic_id) or await self._look_up(topic, topic_id)
        if (leader := leaders.get(partition)) is None:
            raise Unavailable(f"{topic}[{partition}] has no leader now")
        asked = FetchPartition(partition=partition, fetch_offset=offset, partition_max_bytes=max_bytes)
        request = FetchRequest(
            max_wait_ms=0,
            min_bytes=1,
            max_bytes=max_bytes,
            isolation_level=READ_COMMITTED,
            topics=(FetchTopic(topic_id=topic_id, partitions=(asked,)),),
        )
        answer = await self._call(leader, ApiKey.FETCH, request, FETCH_VERSION)
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
        if data.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER:
            self._leaders.pop(topic_id, None)  # it has moved: ask for the leaders again
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
