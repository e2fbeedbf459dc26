"""Producers of partitions, and markers of administrators: what can be asked without a transactional producer."""

from differ.producing import numbered, send
from differ.scenario import scenario
from differ.side import Side

from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.describe_producers import DescribeProducersRequest, TopicRequest
from streamlake.protocol.messages.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerTopic,
    WriteTxnMarkersRequest,
)

NOBODY = 9_999  # a producer id that has produced nothing


@scenario
def describe_producers(side: Side) -> None:
    topic = side.topic("with-producers", 2)
    for sequence, count in ((0, 3), (3, 2)):
        send(side, topic, numbered(count, producer_id=4801, producer_epoch=2, base_sequence=sequence))
    send(side, topic, numbered(1))

    def asks(note: str, name: str, *indexes: int) -> None:
        side.newest(note, ApiKey.DESCRIBE_PRODUCERS, DescribeProducersRequest((TopicRequest(name, indexes),)))

    asks("of an idempotent producer", topic.name, 0)
    asks("of none", topic.name, 1)
    asks("of unknown partitions", topic.name, 0, 7)
    asks("of an unknown topic", "never-there", 0)
    side.newest("of no topics", ApiKey.DESCRIBE_PRODUCERS, DescribeProducersRequest(()))


@scenario
def write_txn_markers(side: Side) -> None:
    topic = side.topic("ended", 1)

    def asks(note: str, name: str, *indexes: int, **fields: object) -> None:
        topics = (WritableTxnMarkerTopic(name, indexes),)
        marker = WritableTxnMarker(NOBODY, 0, False, topics, 0)
        side.every(note, ApiKey.WRITE_TXN_MARKERS, WriteTxnMarkersRequest((marker,)))

    asks("nothing open", topic.name, 0)
    asks("of unknown partitions", topic.name, 7)
    asks("of an unknown topic", "never-there", 0)
    side.every("none", ApiKey.WRITE_TXN_MARKERS, WriteTxnMarkersRequest(()))
