"""DeleteRecords: the log start moves forward, never back, never above what is there."""

import pytest
from support.raw_kafka import batch
from support.wire import Client, Topic, ends, newest

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsPartitionResult,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
)


def delete(
    client: Client, name: str, offset: int, version: int | None = None, index: int = 0
) -> DeleteRecordsPartitionResult:
    request = DeleteRecordsRequest((DeleteRecordsTopic(name, (DeleteRecordsPartition(index, offset),)),))
    version = newest(ApiKey.DELETE_RECORDS) if version is None else version
    (topic,) = client.ask(ApiKey.DELETE_RECORDS, version, request).topics
    (result,) = topic.partitions
    return result


@pytest.mark.parametrize("version", ends(ApiKey.DELETE_RECORDS))
def test_the_start_moves_forward_only(client: Client, topic: Topic, version: int) -> None:
    client.append(topic, batch([b"v"] * 5), batch([b"v"] * 5))
    for offset, low_watermark in ((3, 3), (1, 3), (0, 3), (-1, 10), (10, 10)):
        result = delete(client, topic.name, offset, version)
        assert (result.error_code, result.low_watermark) == (0, low_watermark)
    assert client.append(topic, batch([b"v"])) == [10]


def test_what_is_refused(client: Client, topic: Topic) -> None:
    client.append(topic, batch([b"v"]))
    for offset in (2, -2):
        result = delete(client, topic.name, offset)
        assert (result.error_code, result.low_watermark) == (ErrorCode.OFFSET_OUT_OF_RANGE, -1)
    assert delete(client, "nowhere", 0).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert delete(client, topic.name, 0, index=4).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_a_tables_hold_does_not_stop_it(client: Client) -> None:
    """It is what a user asked for; the table counts what it never saw."""
    topic = client.create_topic(streamlake_table_enable="true")
    client.append(topic, batch([b"v"] * 5))
    assert delete(client, topic.name, 4).low_watermark == 4
