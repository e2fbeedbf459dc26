"""Transactions, with real clients: what readers of committed records see of them, whatever happens in between."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from kafka import KafkaConsumer, KafkaProducer
from kafka import TopicPartition as KafkaTopicPartition
from kafka.structs import OffsetAndMetadata
from support.server import Server
from support.wait import DEADLINE_S, wait_until

from streamlake.lake.cluster import LocalCluster

COMMITTED, UNCOMMITTED = "read_committed", "read_uncommitted"


def producer_of(bootstrap: str, key: str, **config: object) -> Producer:
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": key, **config})
    producer.init_transactions(DEADLINE_S)
    return producer


def create(bootstrap: str, topic: str, partitions: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(DEADLINE_S)


def transact(producer: Producer, topic: str, *values: str, commit: bool = True, partitions: int = 1) -> None:
    producer.begin_transaction()
    for number, value in enumerate(values):
        producer.produce(topic, value.encode(), partition=number % partitions)
    if commit:
        producer.commit_transaction(DEADLINE_S)
    else:
        assert producer.flush(DEADLINE_S) == 0
        producer.abort_transaction(DEADLINE_S)


def everything(bootstrap: str, topic: str, isolation: str = COMMITTED) -> list[str]:
    """All values up to the end that readers of this isolation level see now, by partition and offset."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"reader of {topic}",
            "isolation.level": isolation,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    partitions = sorted(consumer.list_topics(topic, DEADLINE_S).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, index, 0) for index in partitions])
    found: list[tuple[int, int, str]] = []
    left = set(partitions)
    while left:
        message = consumer.poll(DEADLINE_S)
        assert message is not None, f"no end of {left} of {topic}"
        if message.error() is None:
            found.append((message.partition(), message.offset(), message.value().decode()))
        elif message.error().code() == KafkaError._PARTITION_EOF:
            left.discard(message.partition())
    consumer.close()
    return [value for _, _, value in sorted(found)]


def sees(bootstrap: str, topic: str, *values: str) -> None:
    """In the end: markers are written after a transaction is decided."""
    wanted = sorted(values)
    wait_until(lambda: sorted(everything(bootstrap, topic)) == wanted, lambda: everything(bootstrap, topic))


def is_fenced(error: KafkaException) -> bool:
    found = error.args[0]
    return found.fatal() and found.code() in (KafkaError._FENCED, KafkaError.PRODUCER_FENCED)


# -- confluent-kafka ---------------------------------------------------------------------------------------------------


def test_only_what_is_committed_is_seen(server, topic) -> None:
    name = topic()
    create(server.bootstrap, name, 3)
    producer = producer_of(server.bootstrap, name)
    transact(producer, name, "a", "b", "c", "d", partitions=3)
    transact(producer, name, "x", "y", "z", commit=False, partitions=3)
    transact(producer, name, "e", "f", partitions=3)
    sees(server.bootstrap, name, "a", "b", "c", "d", "e", "f")
    assert sorted(everything(server.bootstrap, name, UNCOMMITTED)) == sorted("abcdefxyz")


def test_nothing_is_seen_beyond_an_open_transaction(server, topic) -> None:
    name = topic()
    create(server.bootstrap, name)
    producer = producer_of(server.bootstrap, name)
    producer.begin_transaction()
    producer.produce(name, b"open")
    assert producer.flush(DEADLINE_S) == 0
    plain = Producer({"bootstrap.servers": server.bootstrap})
    plain.produce(name, b"after")
    assert plain.flush(DEADLINE_S) == 0
    assert everything(server.bootstrap, name) == []
    assert everything(server.bootstrap, name, UNCOMMITTED) == ["open", "after"]
    producer.commit_transaction(DEADLINE_S)
    sees(server.bootstrap, name, "open", "after")


def test_a_zombie_is_fenced(server, topic) -> None:
    name = topic()
    create(server.bootstrap, name)
    zombie = producer_of(server.bootstrap, name)
    zombie.begin_transaction()
    zombie.produce(name, b"of the zombie")
    assert zombie.flush(DEADLINE_S) == 0
    producer = producer_of(server.bootstrap, name)
    transact(producer, name, "ours")
    with pytest.raises(KafkaException) as error:
        zombie.commit_transaction(DEADLINE_S)
    assert is_fenced(error.value)
    sees(server.bootstrap, name, "ours")


def consumer_of(bootstrap: str, topic: str, group: str) -> Consumer:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "isolation.level": COMMITTED,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([topic])
    return consumer


def step(consumer: Consumer, producer: Producer, to: str, count: int, commit: bool = True) -> None:
    """Consume, process, produce: the positions of the consumer are a part of the transaction."""
    producer.begin_transaction()
    for _ in range(count):
        message = consumer.poll(DEADLINE_S)
        assert message is not None
        assert message.error() is None, message.error()
        producer.produce(to, message.value().upper())
    positions = consumer.position(consumer.assignment())
    producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata(), DEADLINE_S)
    if commit:
        producer.commit_transaction(DEADLINE_S)
    else:
        producer.abort_transaction(DEADLINE_S)


def test_offsets_are_committed_with_what_was_made_of_them(server, topic) -> None:
    source, target = topic(), topic()
    create(server.bootstrap, source)
    create(server.bootstrap, target)
    transact(producer_of(server.bootstrap, source), source, *"abcdefgh")
    producer = producer_of(server.bootstrap, target)
    for count, commit in ((3, True), (2, False), (5, True)):
        consumer = consumer_of(server.bootstrap, source, f"g-{source}")
        step(consumer, producer, target, count, commit)
        consumer.close()
    sees(server.bootstrap, target, *"ABCDEFGH")


def test_a_transaction_that_takes_too_long_is_aborted(server, topic) -> None:
    name = topic()
    create(server.bootstrap, name)
    slow = producer_of(server.bootstrap, name, **{"transaction.timeout.ms": 1_500, "message.timeout.ms": 1_500})
    slow.begin_transaction()
    slow.produce(name, b"slow")
    assert slow.flush(DEADLINE_S) == 0
    plain = Producer({"bootstrap.servers": server.bootstrap})
    plain.produce(name, b"after")
    assert plain.flush(DEADLINE_S) == 0
    sees(server.bootstrap, name, "after")
    with pytest.raises(KafkaException):
        slow.commit_transaction(DEADLINE_S)
    sees(server.bootstrap, name, "after")
    transact(producer_of(server.bootstrap, name), name, "next")
    sees(server.bootstrap, name, "after", "next")


# -- kafka-python ------------------------------------------------------------------------------------------------------


def test_kafka_python_has_transactions(server, topic) -> None:
    source, target = topic(), topic()
    create(server.bootstrap, source)
    create(server.bootstrap, target)
    group, partition = f"g-{source}", KafkaTopicPartition(source, 0)
    producer = KafkaProducer(bootstrap_servers=server.bootstrap, transactional_id=f"t-{source}")
    producer.init_transactions()
    for number, commit in enumerate((True, False, True)):
        producer.begin_transaction()
        producer.send(target, f"v{number}".encode()).get(DEADLINE_S)
        producer.send_offsets_to_transaction({partition: OffsetAndMetadata(number + 1, "", -1)}, group)
        (producer.commit_transaction if commit else producer.abort_transaction)()
    sees(server.bootstrap, target, "v0", "v2")
    consumer = KafkaConsumer(bootstrap_servers=server.bootstrap, group_id=group, isolation_level=COMMITTED)
    assert consumer.committed(partition) == 3
    consumer.close()
    producer.close()


# -- kill -9 -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "data", "[tables]\nenabled = false\n").start()
    yield server
    server.kill()


@pytest.mark.parametrize("commit", [True, False])
def test_a_transaction_survives_kill_9_of_its_broker(own_server: Server, commit: bool) -> None:
    create(own_server.bootstrap, "t", 2)
    producer = producer_of(own_server.bootstrap, "id")
    transact(producer, "t", "first", "second", partitions=2)
    producer.begin_transaction()
    producer.produce("t", b"before", partition=0)
    assert producer.flush(DEADLINE_S) == 0
    own_server.kill()
    own_server.start()
    producer.produce("t", b"after", partition=1)
    if commit:
        producer.commit_transaction(DEADLINE_S)
    else:
        producer.abort_transaction(DEADLINE_S)
    sees(own_server.bootstrap, "t", "first", "second", *(["before", "after"] if commit else []))


def test_a_decision_survives_kill_9_of_its_broker(own_server: Server) -> None:
    """Whether its markers were written or not."""
    create(own_server.bootstrap, "t", 5)
    values: list[str] = []
    for number in range(4):
        producer = producer_of(own_server.bootstrap, f"id-{number % 2}")
        some = [f"{number}-{index}" for index in range(5)]
        transact(producer, "t", *some, partitions=5, commit=number % 3 != 2)
        values += some if number % 3 != 2 else []
        own_server.kill()
        own_server.start()
    sees(own_server.bootstrap, "t", *values)


def test_what_a_dead_producer_left_is_aborted_by_the_next_one(own_server: Server) -> None:
    create(own_server.bootstrap, "t")
    dead = producer_of(own_server.bootstrap, "id")
    dead.begin_transaction()
    dead.produce("t", b"dead")
    assert dead.flush(DEADLINE_S) == 0
    own_server.kill()
    own_server.start()
    transact(producer_of(own_server.bootstrap, "id"), "t", "alive")
    sees(own_server.bootstrap, "t", "alive")


# -- several brokers ---------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with tempfile.TemporaryDirectory(prefix="transactions-") as name:
        Path(name).chmod(0o755)  # PostgreSQL runs as `nobody` for root
        cluster = LocalCluster(Path(name) / "data", 2)
        cluster.start()
        yield cluster
        cluster.stop()


@pytest.mark.slow
def test_transactions_of_two_brokers(cluster: LocalCluster) -> None:
    """Partitions, and coordinators of ids and groups, lie on both."""
    bootstrap = cluster.bootstrap
    create(bootstrap, "source", 4)
    create(bootstrap, "target", 4)
    values = [f"v{number}" for number in range(40)]
    for number in range(4):
        producer = producer_of(bootstrap, f"source-{number}")
        transact(producer, "source", *values[number * 10 : number * 10 + 10], partitions=4)
        transact(producer, "source", "lost", "lost", "lost", "lost", partitions=4, commit=False)
    sees(bootstrap, "source", *values)
    for number in range(4):
        consumer, producer = consumer_of(bootstrap, "source", "g"), producer_of(bootstrap, f"target-{number}")
        if number == 1:
            step(consumer, producer, "target", 10, commit=False)
            consumer.close()
            consumer = consumer_of(bootstrap, "source", "g")
        step(consumer, producer, "target", 10)
        consumer.close()
    sees(bootstrap, "target", *(value.upper() for value in values))


def test_producers_of_transactions_go_on_at_any_time(server, topic: Callable[[], str]) -> None:
    """Many short transactions of several ids into the same partitions."""
    name = topic()
    create(server.bootstrap, name, 4)
    producers = [producer_of(server.bootstrap, f"{name}-{number}") for number in range(3)]
    values: list[str] = []
    for number in range(60):
        commit = number % 5 != 4
        some = [f"{number}-{index}" for index in range(4)]
        transact(producers[number % 3], name, *some, partitions=4, commit=commit)
        values += some if commit else []
    sees(server.bootstrap, name, *values)
