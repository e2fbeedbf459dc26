"""Ready-made requests: what they add to the log, that answers are looked at, and that offsets are followed."""

import socket
import struct
import threading
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer, TopicPartition
from support.wait import DEADLINE_S

from streamlake.bench.load import temporary_topic
from streamlake.bench.raw import Target, _Pipelined, fetch_requests, produce_requests, targets
from streamlake.core.errors import Corrupt, Invalid, Unavailable
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey, produce
from streamlake.protocol.requests import Call, api, encode_response
from streamlake.record.compression import Compression
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch


def quiet(done):
    pass


def count(lake, topic, partitions):
    consumer = Consumer({"bootstrap.servers": lake.bootstrap, "group.id": "raw"})
    try:
        found = [consumer.get_watermark_offsets(TopicPartition(topic, p), 30) for p in range(partitions)]
    finally:
        consumer.close()
    return sum(high - low for low, high in found)


def load(lake, topic, **changes):
    arguments = {"batch_records": 3, "record_bytes": 20, "seconds": 30, "in_flight": 8, "records": 900}
    return produce_requests(lake.bootstrap, topic, tell=quiet, **(arguments | changes))


@pytest.mark.parametrize("in_flight", [1, 8])
def test_all_that_is_answered_is_in_the_log(lake, in_flight):
    with temporary_topic(lake.bootstrap, 2) as topic:
        sent = load(lake, topic, in_flight=in_flight)
        assert sent.records == sent.requests * 3 >= 900
        assert sent.bytes == sent.records * 20
        assert count(lake, topic, 2) == sent.records + 2 * 3  # each connection's first request is not counted
        got = fetch_requests(lake.bootstrap, topic, records=sent.records, tell=quiet)
        assert got.records >= sent.records
        assert got.bytes > sent.bytes


def test_stops_in_time_and_requests_larger_than_the_socket_takes_go_through(lake):
    with temporary_topic(lake.bootstrap) as topic:
        sent = load(lake, topic, batch_records=500, record_bytes=1000, seconds=0.5, records=None)
        assert sent.seconds > 0.4
        assert count(lake, topic, 1) == sent.records + 500


def test_values_and_codec_may_be_given(lake):
    with temporary_topic(lake.bootstrap) as topic:
        load(lake, topic, records=3, in_flight=1, ring=[b"one", b"two"], compression=Compression.ZSTD)
        consumer = Consumer({"bootstrap.servers": lake.bootstrap, "group.id": "raw"})
        consumer.assign([TopicPartition(topic, 0, 0)])
        assert [message.value() for message in consumer.consume(3, 30)] == [b"one", b"two", b"one"]
        consumer.close()


def test_refused_batches_are_an_error(lake):
    with (
        temporary_topic(lake.bootstrap, config={"max.message.bytes": "1000"}) as topic,
        pytest.raises(Unavailable, match="MESSAGE_TOO_LARGE"),
    ):
        load(lake, topic, record_bytes=5000)


def test_acks_0_has_no_answers_to_count(lake):
    with pytest.raises(Invalid, match="--acks"):
        load(lake, "t", acks=0)


def test_each_partition_has_a_target_at_its_leader(lake):
    with temporary_topic(lake.bootstrap, 3) as topic:
        assert [(t.topic, t.partition, t.port) for t in targets(lake.bootstrap, topic)] == [
            (topic, n, lake.port) for n in range(3)
        ]
    with pytest.raises(Unavailable, match="cannot connect"):
        Target("t", 0, "127.0.0.1", 1).connect()


def answer(correlation_id, code=0):
    call = Call(api(ApiKey.PRODUCE), 9, correlation_id, "x", None)
    partition = produce.PartitionProduceResponse(index=0, error_code=code)
    topic = produce.TopicProduceResponse(name="t", partition_responses=(partition,))
    return b"".join(bytes(p) for p in encode_response(call, produce.ProduceResponse(responses=(topic,))))


@contextmanager
def pipelined(*answers):
    """A connection to a broker that gives these answers, one to each request."""

    def serve():
        connection, _ = server.accept()
        with connection:
            for each in answers:
                head = connection.recv(4, socket.MSG_WAITALL)
                connection.recv(struct.unpack(">i", head)[0], socket.MSG_WAITALL)
                connection.sendall(each)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        batch = encode_batch([Record(0, 0, None, b"x")])
        found = _Pipelined(Target("t", 0, *server.getsockname()), batch, 2, -1)
        yield found
        found.socket.close()
        thread.join(DEADLINE_S)


def test_answers_in_the_wrong_order_are_found():
    with pipelined(answer(5)) as one, pytest.raises(Corrupt, match="request 0 was answered as request 5"):
        one.exchange_one()


def test_a_broker_that_does_not_lead_a_new_partition_yet_is_asked_again(monkeypatch):
    not_led = [answer(n % 2, ErrorCode.NOT_LEADER_OR_FOLLOWER) for n in range(3)]
    with pipelined(*not_led, answer(1)) as one:
        one.exchange_one()
        assert one.waiting == 0
    with pipelined(not_led[0]) as one:
        monkeypatch.setattr("streamlake.bench.raw.ACK_TIMEOUT_S", 0)
        with pytest.raises(Unavailable, match="t-0: produce failed: NOT_LEADER_OR_FOLLOWER"):
            one.exchange_one()
