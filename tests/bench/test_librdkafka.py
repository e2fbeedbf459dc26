"""librdkafka by ctypes: settings, errors, and records that arrive as they were given."""

import time

import pytest
from confluent_kafka import Consumer, TopicPartition
from support.wait import DEADLINE_S

from streamlake.bench.librdkafka import BATCH_RECORDS, NativeConsumer, NativeProducer, library
from streamlake.bench.load import temporary_topic
from streamlake.core.errors import Invalid, Unavailable


def consumed(lake, topic, count):
    consumer = Consumer({"bootstrap.servers": lake.bootstrap, "group.id": "native", "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    try:
        return [message.value() for message in consumer.consume(count, timeout=DEADLINE_S)]
    finally:
        consumer.close()


def test_the_wheel_has_the_library():
    assert library() is library()


def test_values_go_round_and_arrive(lake):
    with temporary_topic(lake.bootstrap) as topic:
        with NativeProducer(topic, [b"a", b"", b"ccc"], {"bootstrap.servers": lake.bootstrap}) as producer:
            assert producer.produce(5) == 5
            assert producer.waiting
            assert producer.flush(1000 * DEADLINE_S)
            assert not producer.waiting
        assert consumed(lake, topic, 5) == [b"a", b"", b"ccc", b"a", b""]


def test_a_call_takes_at_most_a_batch_and_what_the_queue_has_room_for(lake):
    with temporary_topic(lake.bootstrap) as topic:
        settings = {"bootstrap.servers": lake.bootstrap, "queue.buffering.max.messages": BATCH_RECORDS + 10}
        with NativeProducer(topic, [b"x"], settings | {"linger.ms": 60_000}) as producer:
            assert producer.produce(10 * BATCH_RECORDS) == BATCH_RECORDS
            assert producer.produce(BATCH_RECORDS) == 10
            assert producer.flush(1000 * DEADLINE_S)


def test_requests_are_counted(lake):
    with temporary_topic(lake.bootstrap) as topic:
        settings = {"bootstrap.servers": lake.bootstrap, "batch.num.messages": 1}
        with NativeProducer(topic, [b"x"], settings) as producer:
            producer.produce(7)
            assert producer.flush(1000 * DEADLINE_S)
            deadline = time.perf_counter() + DEADLINE_S
            while producer.requests_of("Produce") < 7:
                producer.poll(100)
                assert time.perf_counter() < deadline
            assert producer.requests_of("Produce") == 7


def test_consumes_all_partitions_from_their_start(lake):
    with temporary_topic(lake.bootstrap, 3) as topic:
        settings = {"bootstrap.servers": lake.bootstrap}
        with NativeProducer(topic, [b"x" * 100], settings) as producer:
            sent = producer.produce(3000)
            assert producer.flush(1000 * DEADLINE_S)
        with NativeConsumer(topic, 3, settings) as consumer:
            got, deadline = 0, time.perf_counter() + DEADLINE_S
            while got < sent:
                got += consumer.consume(100)
                assert time.perf_counter() < deadline
            assert got == sent
            assert consumer.consume(50) == 0


def test_a_wrong_setting_and_no_broker_are_told():
    with pytest.raises(Invalid, match=r"no\.such\.setting"):
        NativeProducer("t", [b"x"], {"no.such.setting": 1})
    with pytest.raises(Invalid, match="compression"):
        NativeProducer("t", [b"x"], {"compression.codec": "brotli"})
    with (
        NativeProducer("t", [b"x"], {"bootstrap.servers": "127.0.0.1:1"}) as producer,
        pytest.raises(Unavailable, match="no broker"),
    ):
        deadline = time.perf_counter() + DEADLINE_S
        while time.perf_counter() < deadline:
            producer.poll(100)
