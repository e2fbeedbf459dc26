"""kafka-python with default settings."""

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic


@pytest.mark.parametrize("compression", [None, "gzip", "snappy", "lz4", "zstd"])
def test_produce_and_consume(server, topic, compression):
    name = topic()
    producer = KafkaProducer(bootstrap_servers=server.bootstrap, compression_type=compression)
    futures = [producer.send(name, f"v{i}".encode(), key=b"k") for i in range(300)]
    producer.flush(30)
    assert [f.get(10).offset for f in futures] == list(range(300))
    producer.close()
    consumer = KafkaConsumer(
        name, bootstrap_servers=server.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=20_000
    )
    got = [next(consumer).value for _ in range(300)]
    consumer.close()
    assert got == [f"v{i}".encode() for i in range(300)]


def test_group_commits_and_goes_on(server, topic):
    name = topic()
    admin = KafkaAdminClient(bootstrap_servers=server.bootstrap)
    admin.create_topics([NewTopic(name, 1, 1)])
    admin.close()
    producer = KafkaProducer(bootstrap_servers=server.bootstrap)
    for i in range(40):
        producer.send(name, str(i).encode())
    producer.close()
    got = []
    for _ in range(2):
        consumer = KafkaConsumer(
            name,
            bootstrap_servers=server.bootstrap,
            group_id=f"g-{name}",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_poll_records=10,
            consumer_timeout_ms=20_000,
        )
        for _ in range(20):
            got.append(next(consumer).offset)
        consumer.commit()
        consumer.close()
    assert got == list(range(40))
