"""kafka-python with default settings."""

import threading
import time

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from support.wait import DEADLINE_S


@pytest.mark.parametrize("compression", [None, "gzip", "snappy", "lz4", "zstd"])
def test_produce_and_consume(server, topic, compression):
    name = topic()
    producer = KafkaProducer(bootstrap_servers=server.bootstrap, compression_type=compression)
    futures = [producer.send(name, f"v{i}".encode(), key=b"k") for i in range(300)]
    producer.flush(DEADLINE_S)
    assert [f.get(DEADLINE_S).offset for f in futures] == list(range(300))
    producer.close()
    consumer = KafkaConsumer(
        name, bootstrap_servers=server.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=1000 * DEADLINE_S
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
            consumer_timeout_ms=1000 * DEADLINE_S,
        )
        for _ in range(20):
            got.append(next(consumer).offset)
        consumer.commit()
        consumer.close()
    assert got == list(range(40))


@pytest.mark.parametrize("idempotent", [False, True])
def test_idempotent_and_not(server, topic, idempotent):
    name = topic()
    producer = KafkaProducer(bootstrap_servers=server.bootstrap, enable_idempotence=idempotent)
    futures = [producer.send(name, b"v") for _ in range(100)]
    producer.flush(DEADLINE_S)
    assert [f.get(DEADLINE_S).offset for f in futures] == list(range(100))
    producer.close()


def test_two_members_rebalance(server, topic):
    name = topic()
    admin = KafkaAdminClient(bootstrap_servers=server.bootstrap)
    admin.create_topics([NewTopic(name, 4, 1)])
    admin.close()

    def consumer():
        return KafkaConsumer(name, bootstrap_servers=server.bootstrap, group_id=f"g-{name}")

    def poll_until(consumers, counts):
        """Each in a thread, and until all are there: a rebalance waits for every member, and another may follow."""
        deadline = time.monotonic() + DEADLINE_S

        def poll(one):
            while [len(c.assignment()) for c in consumers] != counts and time.monotonic() < deadline:
                one.poll(100)

        threads = [threading.Thread(target=poll, args=(c,)) for c in consumers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [len(c.assignment()) for c in consumers] == counts

    first = consumer()
    poll_until([first], [4])
    second = consumer()
    poll_until([first, second], [2, 2])
    assert not first.assignment() & second.assignment()
    second.close()
    poll_until([first], [4])
    first.close()


def test_configs_of_topics_and_brokers(server, topic):
    """This client asks for the configs that may be changed before it changes one."""
    name = topic()
    admin = KafkaAdminClient(bootstrap_servers=server.bootstrap)
    admin.create_topics([NewTopic(name, 1, 1, topic_configs={"compression.type": "zstd"})])
    of_topic, of_broker = (ConfigResourceType.TOPIC, name), (ConfigResourceType.BROKER, "0")

    def described(what, which, filter_="all"):
        return next(iter(admin.describe_configs([ConfigResource(what, which)], config_filter=filter_).values()))[which]

    assert described(*of_topic)["compression.type"]["value"] == "zstd"
    broker = described(*of_broker)
    assert (broker["node.id"]["value"], broker["node.id"]["read_only"]) == ("0", True)
    assert broker["advertised.listeners"]["value"] == f"PLAINTEXT://127.0.0.1:{server.port}"
    assert len(broker) >= 340
    admin.alter_configs([ConfigResource(*of_topic, configs={"retention.ms": 7_200_000})])
    admin.alter_configs([ConfigResource(*of_broker, configs={"background.threads": 12})])
    assert described(*of_topic, "modified")["retention.ms"]["value"] == "7200000"
    assert described(*of_broker)["background.threads"]["value"] == "12"
    with pytest.raises(ValueError, match=r"num\.partitions"):
        admin.alter_configs([ConfigResource(*of_broker, configs={"num.partitions": 9})])
    admin.alter_configs([ConfigResource(*of_broker, configs={"background.threads": ("DELETE", None)})])
    assert described(*of_broker)["background.threads"]["value"] == "10"
    admin.close()
