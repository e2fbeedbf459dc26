"""Produce to topics that have a codec of their own: `compression.type`."""

import pytest
from support.raw_kafka import batch, with_payload
from support.txn_client import TxnClient
from support.wire import Client, Topic, fetch_partition, fetch_topic, newest, produce_request

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey, fetch, produce
from streamlake.record.batch import frames
from streamlake.record.compression import Compression
from streamlake.record.decode import Record, decode_batch
from streamlake.record.encode import encode_batch

NEWEST = newest(ApiKey.PRODUCE)


def only(answer: produce.ProduceResponse) -> produce.PartitionProduceResponse:
    (topic,) = answer.responses
    (partition,) = topic.partition_responses
    return partition


def stored(client: Client, topic: Topic) -> list[tuple[int, list[bytes | None]]]:
    """The codec and the values of each batch."""
    wanted = fetch.FetchRequest(max_wait_ms=0, topics=(fetch_topic(topic, fetch_partition()),))
    (partition,) = client.ask(ApiKey.FETCH, 13, wanted).responses[0].partitions
    return [
        (header.compression, [record.value for record in decode_batch(header, data, 1 << 24)])
        for header, data in frames(partition.records)
    ]


@pytest.mark.parametrize("target", ["uncompressed", "gzip", "snappy", "lz4", "zstd"])
def test_a_topic_has_its_batches_compressed_its_way(client: Client, target: str) -> None:
    """Sequence numbers prove that batches which a thread works on keep their place; a duplicate is one all the same."""
    topic = client.create_topic(compression_type=target)
    want = Compression["NONE" if target == "uncompressed" else target.upper()]
    values = [b"%d" % at * 1_000 for at in range(10)]
    sent = [
        encode_batch([Record(0, -1, None, value)], compression=Compression(at % 5), producer_id=79_000,
                     producer_epoch=0, base_sequence=at)
        for at, value in enumerate(values)
    ]  # fmt: skip
    for number, data in enumerate([*sent, sent[-1]]):
        client.post(ApiKey.PRODUCE, NEWEST, produce_request(topic, {0: data}), correlation_id=number)
    answers = [only(client.answer(ApiKey.PRODUCE, NEWEST, correlation_id=number)) for number in range(11)]
    assert [(a.error_code, a.base_offset) for a in answers] == [(0, at) for at in [*range(10), 9]]
    assert stored(client, topic) == [(want, [value]) for value in values]


def test_a_transaction_stays_one(client: Client, txn: TxnClient) -> None:
    topic = client.create_topic(compression_type="zstd")
    assert txn.add(topic, 0) == [0]
    of_txn = {"producer_id": txn.id, "producer_epoch": txn.epoch, "base_sequence": 0, "transactional": True}
    data = encode_batch([Record(0, -1, None, b"v")], compression=Compression.GZIP, **of_txn)
    request = produce_request(topic, {0: data}, transactional_id=txn.key)
    assert only(client.newest(ApiKey.PRODUCE, request)).error_code == 0
    assert txn.end() == 0
    assert stored(client, topic)[0] == (Compression.ZSTD, [b"v"])


def test_partitions_of_several_topics_in_one_request(client: Client) -> None:
    zstd, free = client.create_topic(compression_type="zstd"), client.create_topic()
    data = [
        produce.TopicProduceData(t.name, t.id, (produce.PartitionProduceData(0, batch([b"v"])),)) for t in (zstd, free)
    ]
    answer = client.newest(ApiKey.PRODUCE, produce.ProduceRequest(acks=-1, timeout_ms=20_000, topic_data=tuple(data)))
    assert [topic.partition_responses[0].error_code for topic in answer.responses] == [0, 0]
    assert [stored(client, topic) for topic in (zstd, free)] == [[(4, [b"v"])], [(0, [b"v"])]]


def test_a_batch_that_becomes_too_large_is_refused_alone(client: Client) -> None:
    topic = client.create_topic(compression_type="uncompressed", max_message_bytes="10000", partitions=2)
    bomb = encode_batch([Record(0, -1, None, bytes(60 << 20))], compression=Compression.ZSTD)
    assert len(bomb) < 10_000
    request = produce_request(topic, {0: bomb, 1: batch([b"v"])})
    (answer,) = client.newest(ApiKey.PRODUCE, request).responses
    assert [p.error_code for p in answer.partition_responses] == [ErrorCode.MESSAGE_TOO_LARGE, 0]
    assert stored(client, topic) == []


def test_a_bad_batch_is_refused_as_ever(client: Client) -> None:
    topic = client.create_topic(compression_type="lz4")
    bad = with_payload(Compression.GZIP, b"no gzip")
    for data, code in ((bad, 87), (batch([b"v"])[:-1], 87), (b"", 87)):
        assert only(client.newest(ApiKey.PRODUCE, produce_request(topic, {0: data}))).error_code == code
    assert stored(client, topic) == []
