"""ListOffsets: every special timestamp, look-up by time, and who may ask for what in which version."""

import pytest
from support.log_bench import NOW_MS
from support.produce_pair import TOPIC_NAMED
from support.raw_kafka import batch
from support.transactional_broker import TransactionalBroker
from support.transactions import end
from support.wire import Client, Topic, ends, newest

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey, delete_records
from streamlake.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsTopic,
)
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch

VERSIONS = ends(ApiKey.LIST_OFFSETS)
NEWEST = newest(ApiKey.LIST_OFFSETS)
LATEST, EARLIEST, MAX_TIMESTAMP, EARLIEST_LOCAL, LATEST_TIERED, EARLIEST_PENDING_UPLOAD = -1, -2, -3, -4, -5, -6
THEN_MS = 1_700_000_000_000


def ask(
    client: Client,
    topic: str,
    timestamp: int,
    version: int = NEWEST,
    index: int = 0,
    epoch: int = -1,
    isolation: int = 0,
) -> ListOffsetsPartitionResponse:
    partition = ListOffsetsPartition(partition_index=index, timestamp=timestamp, current_leader_epoch=epoch)
    topics = (ListOffsetsTopic(name=topic, partitions=(partition,)),)
    answer = client.ask(ApiKey.LIST_OFFSETS, version, ListOffsetsRequest(topics=topics, isolation_level=isolation))
    (answered,) = answer.topics
    assert answered.name == topic
    (found,) = answered.partitions
    return found


def stamped(*timestamps: int) -> bytes:
    return encode_batch([Record(at, THEN_MS + ms, None, b"v") for at, ms in enumerate(timestamps)])


@pytest.fixture
def filled(client: Client) -> Topic:
    """Offsets 0 to 5; 0 and 1 are deleted; 4 is the newest by time."""
    topic = client.create_topic(retention_ms="-1")
    client.append(topic, stamped(0, 10), stamped(20, 30), stamped(50, 40))
    moved = delete_records.DeleteRecordsTopic(topic.name, (delete_records.DeleteRecordsPartition(0, 2),))
    client.newest(ApiKey.DELETE_RECORDS, delete_records.DeleteRecordsRequest(topics=(moved,)))
    return topic


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("timestamp", "offset"), [(LATEST, 6), (EARLIEST, 2)])
def test_both_ends(client: Client, filled: Topic, version: int, timestamp: int, offset: int) -> None:
    found = ask(client, filled.name, timestamp, version)
    assert (found.error_code, found.offset, found.timestamp) == (0, offset, -1)
    assert found.leader_epoch == (0 if version >= 4 else -1)


def test_latest_for_read_committed(client: Client, filled: Topic) -> None:
    assert ask(client, filled.name, LATEST, isolation=1).offset == 6


@pytest.mark.parametrize("version", VERSIONS)
def test_by_time(client: Client, filled: Topic, version: int) -> None:
    for ms, expected in ((0, (2, 20)), (20, (2, 20)), (21, (3, 30)), (31, (4, 50)), (50, (4, 50))):
        found = ask(client, filled.name, THEN_MS + ms, version)
        assert (found.offset, found.timestamp - THEN_MS) == expected
    after_all = ask(client, filled.name, THEN_MS + 51, version)
    assert (after_all.error_code, after_all.offset, after_all.timestamp) == (0, -1, -1)


def test_the_newest_by_time(client: Client, filled: Topic) -> None:
    found = ask(client, filled.name, MAX_TIMESTAMP)
    assert (found.offset, found.timestamp) == (4, THEN_MS + 50)


def test_an_empty_log(client: Client, topic: Topic) -> None:
    for timestamp, offset in ((LATEST, 0), (EARLIEST, 0), (EARLIEST_LOCAL, 0), (MAX_TIMESTAMP, -1), (0, -1)):
        assert ask(client, topic.name, timestamp).offset == offset


def test_earliest_local_is_the_log_start(client: Client, filled: Topic) -> None:
    assert ask(client, filled.name, EARLIEST_LOCAL).offset == 2


def test_there_is_no_tier(client: Client, filled: Topic) -> None:
    for timestamp in (LATEST_TIERED, EARLIEST_PENDING_UPLOAD):
        found = ask(client, filled.name, timestamp)
        assert (found.error_code, found.offset, found.timestamp, found.leader_epoch) == (0, -1, -1, -1)


@pytest.mark.parametrize(
    ("timestamp", "since"),
    [(MAX_TIMESTAMP, 7), (EARLIEST_LOCAL, 8), (LATEST_TIERED, 9), (EARLIEST_PENDING_UPLOAD, 11)],
)
def test_special_timestamps_have_a_first_version(client: Client, filled: Topic, timestamp: int, since: int) -> None:
    assert ask(client, filled.name, timestamp, since).error_code == 0
    refused = ask(client, filled.name, timestamp, since - 1)
    assert (refused.error_code, refused.offset) == (ErrorCode.UNSUPPORTED_VERSION, -1)


@pytest.mark.parametrize("timestamp", [-7, -1000])
def test_unknown_special_timestamps(client: Client, filled: Topic, timestamp: int) -> None:
    assert ask(client, filled.name, timestamp).error_code == ErrorCode.UNSUPPORTED_VERSION


@pytest.mark.parametrize("version", VERSIONS)
def test_unknown_topics_and_partitions(client: Client, topic: Topic, version: int) -> None:
    assert ask(client, "nowhere", LATEST, version).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert ask(client, topic.name, LATEST, version, index=1).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_leader_epochs_are_checked(client: Client, topic: Topic) -> None:
    assert ask(client, topic.name, LATEST, epoch=0).error_code == 0
    assert ask(client, topic.name, LATEST, epoch=1).error_code == ErrorCode.UNKNOWN_LEADER_EPOCH


def test_a_record_that_is_produced_is_seen_at_once(client: Client, topic: Topic) -> None:
    for expected in (1, 2):
        client.append(topic, batch([b"v"]))
        assert ask(client, topic.name, LATEST).offset == expected


@pytest.mark.parametrize("version", VERSIONS)
def test_a_partition_twice_is_refused_once(client: Client, filled: Topic, version: int) -> None:
    rows = tuple(
        ListOffsetsPartition(partition_index=i, timestamp=t) for i, t in ((0, LATEST), (0, EARLIEST), (9, LATEST))
    )
    request = ListOffsetsRequest(topics=(ListOffsetsTopic(name=filled.name, partitions=rows),))
    (topic,) = client.ask(ApiKey.LIST_OFFSETS, version, request).topics
    assert [(p.partition_index, p.error_code, p.offset) for p in topic.partitions] == [
        (0, ErrorCode.INVALID_REQUEST, -1),
        (9, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1),
    ]


async def test_readers_of_committed_records_find_nothing_at_or_above_the_last_stable_offset() -> None:
    broker = await TransactionalBroker().start()
    await broker.produce(broker.bench.batch(2), transactional_id=None)
    broker.bench.clock.ms += 10
    await broker.produce(broker.batch())

    async def find(timestamp: int, isolation_level: int = 1) -> int:
        partition = ListOffsetsPartition(partition_index=0, timestamp=timestamp)
        topics = (ListOffsetsTopic(name=TOPIC_NAMED.name, partitions=(partition,)),)
        request = ListOffsetsRequest(isolation_level=isolation_level, topics=topics)
        answer = await broker.ask(ApiKey.LIST_OFFSETS, request, NEWEST)
        return answer.topics[0].partitions[0].offset

    asked = (LATEST, EARLIEST, EARLIEST_LOCAL, MAX_TIMESTAMP, NOW_MS, NOW_MS + 1)
    assert [await find(at) for at in asked] == [2, 0, 0, -1, 0, -1]
    assert [await find(at, 0) for at in asked] == [3, 0, 0, 2, 0, 2]
    broker.bench.clock.ms -= 10
    end(broker.partitions[0], commit=True)
    assert [await find(at) for at in asked] == [4, 0, 0, 2, 0, 2]
