"""The log as the table worker reads it: by topic id, committed data only, and never another topic of the same name."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from msgspec import Struct

from streamlake.core.errors import Corrupt, NotFound, Unavailable
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey, fetch, list_offsets, metadata
from streamlake.table.task.log_reader import Fetched, PartitionPositions
from streamlake.worker.log_reader import KafkaLogReader

ID, OTHER_ID = UUID(int=1), UUID(int=2)
NODE = 7
OTHERS: "dict[tuple[str, int], Peer]" = {}
READ_COMMITTED, LATEST = 1, -1


class Peer:
    """A server with one topic, `t`: partition → (log start, end). Facts can change between two calls."""

    def __init__(self) -> None:
        self.topic_id = ID
        self.positions = {0: (3, 10), 1: (0, 4)}
        self.fetched: fetch.PartitionData | None = fetch.PartitionData(records=b"data")
        self.error = 0
        self.calls: list[Struct] = []
        self.on_list_offsets = lambda: None
        self.leaders = {0: NODE, 1: NODE}
        self.brokers: dict[int, tuple[str, int]] = {}

    async def call(self, key: ApiKey, request: Any, max_version: int) -> Any:
        self.calls.append(request)
        await asyncio.sleep(0)
        match key:
            case ApiKey.METADATA:
                (asked,) = request.topics
                assert asked.name is None and not request.allow_auto_topic_creation and max_version >= 10
                code = 0 if asked.topic_id == self.topic_id else ErrorCode.UNKNOWN_TOPIC_ID
                led = [
                    metadata.MetadataResponsePartition(partition_index=p, leader_id=n) for p, n in self.leaders.items()
                ]
                brokers = [metadata.MetadataResponseBroker(n, host, port) for n, (host, port) in self.brokers.items()]
                topic = metadata.MetadataResponseTopic(error_code=code, partitions=tuple(led) if not code else ())
                return metadata.MetadataResponse(brokers=tuple(brokers), topics=(topic,))
            case ApiKey.LIST_OFFSETS:
                assert request.isolation_level == READ_COMMITTED
                self.on_list_offsets()
                (topic,) = request.topics
                found = tuple(map(self._offset, topic.partitions))
                answered = list_offsets.ListOffsetsTopicResponse(name=topic.name, partitions=found)
                return list_offsets.ListOffsetsResponse(topics=(answered,))
            case ApiKey.FETCH:
                assert request.isolation_level == READ_COMMITTED and max_version >= 13
                partitions = () if self.fetched is None else (self.fetched,)
                answered = fetch.FetchableTopicResponse(topic_id=ID, partitions=partitions)
                return fetch.FetchResponse(error_code=self.error, responses=(answered,))

    def _offset(self, asked: list_offsets.ListOffsetsPartition) -> list_offsets.ListOffsetsPartitionResponse:
        index = asked.partition_index
        if index not in self.positions:
            code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            return list_offsets.ListOffsetsPartitionResponse(partition_index=index, error_code=code)
        offset = self.positions[index][asked.timestamp == LATEST]
        return list_offsets.ListOffsetsPartitionResponse(partition_index=index, offset=offset)


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
def reader(peer: Peer) -> KafkaLogReader:
    return KafkaLogReader(peer, NODE, lambda host, port: OTHERS[host, port])


async def test_positions_of_the_partitions_there_are(reader: KafkaLogReader) -> None:
    assert await reader.positions("t", ID, [0, 1, 2]) == {0: PartitionPositions(3, 10), 1: PartitionPositions(0, 4)}


async def test_positions_of_a_topic_that_was_made_again(peer: Peer, reader: KafkaLogReader) -> None:
    peer.topic_id = OTHER_ID
    with pytest.raises(NotFound, match="deleted and made again"):
        await reader.positions("t", ID, [0])


async def test_positions_are_never_those_of_another_topic(peer: Peer, reader: KafkaLogReader) -> None:
    """It is replaced while we ask, by name as ListOffsets wants it: the answer is of the new one."""

    def replace() -> None:
        peer.topic_id, peer.positions = OTHER_ID, {0: (0, 1)}

    peer.on_list_offsets = replace
    with pytest.raises(NotFound):
        await reader.positions("t", ID, [0])


async def test_fetch(peer: Peer, reader: KafkaLogReader) -> None:
    aborted = (fetch.AbortedTransaction(producer_id=5, first_offset=6),)
    peer.fetched = fetch.PartitionData(
        records=b"data", last_stable_offset=9, log_start_offset=3, aborted_transactions=aborted
    )
    assert await reader.fetch("t", ID, 1, 7, 1000) == Fetched(b"data", 9, 3, ((5, 6),))
    request = peer.calls[-1]
    assert (request.max_bytes, request.max_wait_ms, request.min_bytes, request.session_epoch) == (1000, 0, 1, -1)
    (topic,) = request.topics
    (partition,) = topic.partitions
    assert (topic.topic_id, partition.partition, partition.fetch_offset) == (ID, 1, 7)
    assert partition.partition_max_bytes == 1000


async def test_nothing_new(peer: Peer, reader: KafkaLogReader) -> None:
    peer.fetched = fetch.PartitionData(
        records=None, last_stable_offset=7, log_start_offset=0, aborted_transactions=None
    )
    assert await reader.fetch("t", ID, 0, 7, 1000) == Fetched(b"", 7, 0)


async def test_an_offset_that_is_gone_tells_where_the_log_is(peer: Peer, reader: KafkaLogReader) -> None:
    peer.fetched = fetch.PartitionData(error_code=ErrorCode.OFFSET_OUT_OF_RANGE)
    assert await reader.fetch("t", ID, 0, 1, 1000) == Fetched(b"", 10, 3)
    peer.positions = {}
    with pytest.raises(Unavailable, match=r"t\[0\] has no readable leader"):
        await reader.fetch("t", ID, 0, 1, 1000)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (ErrorCode.UNKNOWN_TOPIC_ID, NotFound),
        (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, NotFound),
        (ErrorCode.NOT_LEADER_OR_FOLLOWER, Unavailable),
        (ErrorCode.KAFKA_STORAGE_ERROR, Unavailable),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
async def test_errors(peer: Peer, reader: KafkaLogReader, code: ErrorCode, error: type[Exception], whole: bool) -> None:
    if whole:
        peer.error = code
    else:
        peer.fetched = fetch.PartitionData(error_code=code)
    with pytest.raises(error):
        await reader.fetch("t", ID, 0, 1, 1000)


async def test_an_answer_to_something_else(peer: Peer, reader: KafkaLogReader) -> None:
    peer.fetched = None
    with pytest.raises(Corrupt, match="was answered with 0"):
        await reader.fetch("t", ID, 0, 1, 1000)


async def test_each_partition_is_read_from_its_leader(peer: Peer, reader: KafkaLogReader) -> None:
    other = OTHERS["b", 2] = Peer()
    other.positions = {1: (5, 50)}
    peer.positions, peer.leaders, peer.brokers = {0: (3, 10)}, {0: NODE, 1: 8}, {NODE: ("a", 1), 8: ("b", 2)}
    assert await reader.positions("t", ID, [0, 1]) == {0: PartitionPositions(3, 10), 1: PartitionPositions(5, 50)}
    other.fetched = fetch.PartitionData(records=b"theirs", last_stable_offset=50, log_start_offset=5)
    assert (await reader.fetch("t", ID, 1, 5, 1000)).data == b"theirs"


async def test_a_partition_whose_leader_is_away_waits_and_holds_up_no_other(peer: Peer, reader: KafkaLogReader) -> None:
    class Silent(Peer):
        async def call(self, key: ApiKey, request: Any, max_version: int) -> Any:
            raise Unavailable("no answer")

    OTHERS["c", 3] = Silent()
    peer.leaders, peer.brokers = {0: NODE, 1: 9, 2: -1}, {9: ("c", 3)}
    assert await reader.positions("t", ID, [0, 1, 2]) == {0: PartitionPositions(3, 10)}
    for partition in (1, 2):
        with pytest.raises(Unavailable):
            await reader.fetch("t", ID, partition, 0, 1000)


async def test_a_partition_that_moved_is_asked_for_at_its_new_leader(peer: Peer, reader: KafkaLogReader) -> None:
    other = OTHERS["d", 4] = Peer()
    assert (await reader.fetch("t", ID, 0, 3, 1000)).data == b"data"
    peer.leaders, peer.brokers = {0: 4}, {4: ("d", 4)}
    peer.fetched = fetch.PartitionData(error_code=ErrorCode.NOT_LEADER_OR_FOLLOWER)
    other.fetched = fetch.PartitionData(records=b"moved")
    with pytest.raises(Unavailable):
        await reader.fetch("t", ID, 0, 3, 1000)
    assert (await reader.fetch("t", ID, 0, 3, 1000)).data == b"moved"
