"""confluent-kafka (librdkafka) with default settings."""

import random
import threading

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)
from support.wait import DEADLINE_S, wait_until


def produce(server, topic, n, **config):
    errors = []
    producer = Producer({"bootstrap.servers": server.bootstrap, **config})
    for i in range(n):
        producer.produce(
            topic,
            f"value-{i}".encode(),
            key=str(i),
            headers={"i": str(i)},
            on_delivery=lambda e, m: e and errors.append(e),
        )
        producer.poll(0)
    assert producer.flush(DEADLINE_S) == 0
    assert not errors, errors


def consume(server, topic, n, **config):
    consumer = Consumer(
        {"bootstrap.servers": server.bootstrap, "group.id": f"g-{topic}", "auto.offset.reset": "earliest", **config}
    )
    consumer.subscribe([topic])
    got = []
    try:
        while len(got) < n:
            message = consumer.poll(DEADLINE_S)
            assert message is not None, f"only {len(got)} of {n} messages"
            assert message.error() is None, message.error()
            got.append(message)
        consumer.commit(asynchronous=False)
    finally:
        consumer.close()
    return got


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("idempotent", [False, True])
def test_produce_and_consume(server, topic, compression, idempotent):
    name = topic()
    produce(server, name, 500, **{"compression.type": compression, "enable.idempotence": idempotent})
    got = consume(server, name, 500)
    assert sorted(m.value() for m in got) == sorted(f"value-{i}".encode() for i in range(500))
    assert all(m.headers() == [("i", m.key())] for m in got)
    assert [m.offset() for m in got] == list(range(500))


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("idempotent", [False, True])
def test_large_compressed_batches_come_in_order(server, topic, compression, idempotent):
    """Several in flight, each checked in a thread of the broker."""
    name, rng, errors = topic(), random.Random(1), []
    values = [rng.randbytes(500).hex().encode() for _ in range(3000)]
    producer = Producer(
        {
            "bootstrap.servers": server.bootstrap,
            "compression.type": compression,
            "enable.idempotence": idempotent,
            "linger.ms": 50,
            "batch.size": 1_000_000,
        }
    )
    for value in values:
        producer.produce(name, value, on_delivery=lambda e, m: e and errors.append(e))
        producer.poll(0)
    assert producer.flush(DEADLINE_S) == 0
    assert not errors, errors
    got = consume(server, name, len(values))
    assert [m.value() for m in got] == values
    assert [m.offset() for m in got] == list(range(len(values)))


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_acks(server, topic, acks):
    name = topic()
    produce(server, name, 100, acks=acks)
    assert len(consume(server, name, 100)) == 100


def test_auto_created_topic_has_a_partition_and_a_large_message_passes(server, topic):
    name = topic()
    value = bytes(900_000)
    producer = Producer({"bootstrap.servers": server.bootstrap})
    producer.produce(name, value)
    assert producer.flush(DEADLINE_S) == 0
    (message,) = consume(server, name, 1)
    assert message.value() == value


def test_group_of_three_shares_partitions_and_rebalances(server, topic):
    name = topic()
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    admin.create_topics([NewTopic(name, 6)])[name].result(DEADLINE_S)
    seen, lock, stop = [], threading.Lock(), threading.Event()
    leave_early = threading.Event()

    def member(early):
        consumer = Consumer(
            {"bootstrap.servers": server.bootstrap, "group.id": f"g-{name}", "auto.offset.reset": "earliest"}
        )
        consumer.subscribe([name])
        while not stop.is_set() and not (early and leave_early.is_set()):
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                with lock:
                    seen.append((message.partition(), message.offset()))
        consumer.close()

    threads = [threading.Thread(target=member, args=(i == 0,)) for i in range(3)]
    for thread in threads:
        thread.start()
    try:
        for half in range(2):
            producer = Producer({"bootstrap.servers": server.bootstrap})
            for i in range(600):
                producer.produce(name, str(i), partition=i % 6)
            assert producer.flush(DEADLINE_S) == 0
            wait_until(lambda: len(set(seen)) == 600 * (half + 1), lambda: len(set(seen)))  # noqa: B023
            leave_early.set()  # one member leaves: the others take its partitions over
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert len(seen) == len(set(seen)), "a record was delivered twice although every member closed cleanly"


def test_committed_offsets_are_where_a_group_goes_on(server, topic):
    name = topic()
    produce(server, name, 50)
    assert len(consume(server, name, 50)) == 50
    produce(server, name, 25)
    assert [m.offset() for m in consume(server, name, 25)] == list(range(50, 75))


def test_assign_seek_and_offsets_for_times(server, topic):
    name = topic()
    producer = Producer({"bootstrap.servers": server.bootstrap})
    for i in range(100):
        producer.produce(name, str(i), timestamp=1_000_000 + i * 1000)
    producer.flush(DEADLINE_S)
    consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": "none", "enable.auto.commit": False})
    assert consumer.get_watermark_offsets(TopicPartition(name, 0), DEADLINE_S) == (0, 100)
    (found,) = consumer.offsets_for_times([TopicPartition(name, 0, 1_000_000 + 41_500)], DEADLINE_S)
    assert found.offset == 42
    consumer.assign([TopicPartition(name, 0, OFFSET_BEGINNING)])
    assert consumer.poll(DEADLINE_S).offset() == 0
    consumer.seek(TopicPartition(name, 0, 77))
    message = consumer.poll(DEADLINE_S)
    while message is not None and message.offset() < 77:
        message = consumer.poll(DEADLINE_S)
    assert message.offset() == 77
    consumer.close()


def test_admin(server, topic):
    name = topic()
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    admin.create_topics([NewTopic(name, 2, replication_factor=3, config={"retention.ms": "3600000"})])[name].result(
        DEADLINE_S
    )
    with pytest.raises(KafkaException) as error:
        admin.create_topics([NewTopic(name, 2)])[name].result(DEADLINE_S)
    assert error.value.args[0].name() == "TOPIC_ALREADY_EXISTS"
    admin.create_partitions([NewPartitions(name, 5)])[name].result(DEADLINE_S)
    described = admin.list_topics(name, timeout=DEADLINE_S).topics[name]
    assert len(described.partitions) == 5
    resource = ConfigResource(ResourceType.TOPIC, name)
    configs = admin.describe_configs([resource])[resource].result(DEADLINE_S)
    assert configs["retention.ms"].value == "3600000"
    change = ConfigResource(
        ResourceType.TOPIC,
        name,
        incremental_configs=[ConfigEntry("retention.ms", "7200000", incremental_operation=AlterConfigOpType.SET)],
    )
    admin.incremental_alter_configs([change])[change].result(DEADLINE_S)
    assert admin.describe_configs([resource])[resource].result(DEADLINE_S)["retention.ms"].value == "7200000"
    cluster = admin.describe_cluster().result(DEADLINE_S)
    assert [node.id for node in cluster.nodes] == [0]
    produce(server, name, 10)
    ends = admin.list_offsets({TopicPartition(name, p): OffsetSpec.latest() for p in range(5)})
    assert sum(f.result(DEADLINE_S).offset for f in ends.values()) == 10
    admin.delete_topics([name])[name].result(DEADLINE_S)
    assert name not in admin.list_topics(timeout=DEADLINE_S).topics


def test_admin_refuses_nonsense(server, topic):
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    for bad, says in (
        (NewTopic("no/slash", 1), "TOPIC_EXCEPTION"),
        (NewTopic(topic(), 0), "INVALID_PARTITIONS"),
        (NewTopic(topic(), 1, config={"retention.msx": "1"}), "INVALID_CONFIG"),
    ):
        with pytest.raises(KafkaException) as error:
            admin.create_topics([bad])[bad.topic].result(DEADLINE_S)
        assert says in error.value.args[0].name(), error.value


def test_groups_admin(server, topic):
    name = topic()
    produce(server, name, 5)
    consume(server, name, 5)
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    assert f"g-{name}" in {g.group_id for g in admin.list_consumer_groups().result(DEADLINE_S).valid}
    described = admin.describe_consumer_groups([f"g-{name}"])[f"g-{name}"].result(DEADLINE_S)
    assert described.state.name == "EMPTY"
    admin.delete_consumer_groups([f"g-{name}"])[f"g-{name}"].result(DEADLINE_S)
    assert f"g-{name}" not in {g.group_id for g in admin.list_consumer_groups().result(DEADLINE_S).valid}


def test_a_consumer_whose_records_are_gone_goes_on_where_the_log_begins(server, topic):
    name = topic()
    produce(server, name, 10)
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    moved = TopicPartition(name, 0, 5)
    admin.delete_records([moved])[moved].result(DEADLINE_S)
    consumer = Consumer(
        {"bootstrap.servers": server.bootstrap, "group.id": f"g-{name}", "auto.offset.reset": "earliest"}
    )
    consumer.assign([TopicPartition(name, 0, 0)])
    try:
        message = consumer.poll(DEADLINE_S)
        assert message is not None and message.error() is None
        assert message.offset() >= 5
    finally:
        consumer.close()


def test_configs_of_a_broker(server):
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    broker = ConfigResource(ResourceType.BROKER, "0")

    def described(resource):
        return admin.describe_configs([resource])[resource].result(DEADLINE_S)

    def alter(key, value, operation=AlterConfigOpType.SET):
        entry = ConfigEntry(key, value, incremental_operation=operation)
        change = ConfigResource(ResourceType.BROKER, "0", incremental_configs=[entry])
        admin.incremental_alter_configs([change])[change].result(DEADLINE_S)

    configs = described(broker)
    assert len(configs) >= 340
    assert (configs["node.id"].value, configs["node.id"].is_read_only) == ("0", True)
    assert configs["advertised.listeners"].value == f"PLAINTEXT://127.0.0.1:{server.port}"
    assert (configs["num.io.threads"].value, configs["num.io.threads"].is_default) == ("8", True)
    alter("num.io.threads", "9")
    assert described(broker)["num.io.threads"].value == "9"
    alter("num.io.threads", None, AlterConfigOpType.DELETE)
    assert described(broker)["num.io.threads"].value == "8"
    with pytest.raises(KafkaException, match=r"kafka\.num\.partitions in the configuration file"):
        alter("num.partitions", "9")


@pytest.mark.parametrize("codec", ["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"])
def test_a_topic_of_any_compression(server, topic, codec):
    """Batches are kept as the producer compressed them, whatever the topic says."""
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    name = topic()
    admin.create_topics([NewTopic(name, 1, config={"compression.type": codec})])[name].result(DEADLINE_S)
    produce(server, name, 20, **{"compression.type": "gzip"})
    assert len(consume(server, name, 20)) == 20
