"""The consumer group protocol (KIP-848) with librdkafka: `group.protocol=consumer` and else default settings."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import pytest
from confluent_kafka import Consumer, ConsumerGroupState, ConsumerGroupType, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, ResourceType
from support.server import Server, serve
from support.wait import DEADLINE_S, wait_until

CONFIG = """
[tables]
enabled = false

[groups]
consumer_session_timeout_ms = 6000
consumer_heartbeat_interval_ms = 300
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One whose members are missed soon."""
    yield from serve(Server(tmp_path_factory.mktemp("groups"), CONFIG))


class Member:
    """A consumer that polls on a thread of its own. `owns` are the partitions that it may read now."""

    def __init__(self, server: Server, group: str, topics: list[str], **config: object) -> None:
        self.owns: set[tuple[str, int]] = set()
        self.values: list[str] = []
        self.errors: list[KafkaError] = []
        self.consumer = Consumer(
            {
                "bootstrap.servers": server.bootstrap,
                "group.id": group,
                "group.protocol": "consumer",
                "auto.offset.reset": "earliest",
                "topic.metadata.refresh.interval.ms": 1000,
                **config,
            }
        )
        self._is_over = threading.Event()
        self.consumer.subscribe(topics, on_assign=self._gains, on_revoke=self._loses, on_lost=self._loses)
        self._thread = threading.Thread(target=self._poll)
        self._thread.start()

    def _gains(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.owns |= {(each.topic, each.partition) for each in partitions}

    def _loses(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.owns -= {(each.topic, each.partition) for each in partitions}

    def _poll(self) -> None:
        while not self._is_over.is_set():
            message = self.consumer.poll(0.1)
            if message is None:
                continue
            if message.error() is None:
                self.values.append(message.value().decode())
            elif message.error().code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                self.errors.append(message.error())

    def end(self) -> None:
        """It stops polling; `close` is the rest."""
        self._is_over.set()
        self._thread.join(DEADLINE_S)

    def close(self) -> None:
        self.end()
        self.consumer.close()


@contextmanager
def members(server: Server, group: str, topics: list[str], *configs: dict[str, object]) -> Iterator[list[Member]]:
    made: list[Member] = []
    try:
        made += [Member(server, group, topics, **config) for config in configs]
        yield made
    finally:
        for member in made:
            member.close()


def create(server: Server, topic: str, partitions: int) -> str:
    admin(server).create_topics([NewTopic(topic, partitions, 1)])[topic].result(DEADLINE_S)
    return topic


def produce(server: Server, topic: str, *values: str) -> None:
    producer = Producer({"bootstrap.servers": server.bootstrap})
    for number, value in enumerate(values):
        producer.produce(topic, value.encode(), key=str(number))
    assert producer.flush(DEADLINE_S) == 0


@cache
def admin(server: Server) -> AdminClient:
    """One for all: a client that is collected takes its requests with it."""
    return AdminClient({"bootstrap.servers": server.bootstrap})


def described(server: Server, group: str):
    client = AdminClient({"bootstrap.servers": server.bootstrap})  # one that knew the server before it was killed waits
    return client.describe_consumer_groups([group])[group].result(DEADLINE_S)


def share(some: list[Member], places: set[tuple[str, int]]) -> bool:
    """Whether each place has one owner among them."""
    owned = [place for member in some for place in member.owns]
    return len(owned) == len(places) and set(owned) == places


def places(topic: str, count: int) -> set[tuple[str, int]]:
    return {(topic, index) for index in range(count)}


def shared_out(some: list[Member], wanted: set[tuple[str, int]]) -> None:
    wait_until(lambda: share(some, wanted), lambda: [member.owns for member in some])


def failed(member: Member) -> KafkaError:
    wait_until(lambda: member.errors)
    return member.errors[0]


def test_members_share_partitions_as_they_come_and_go(server: Server, topic: Callable[[], str]) -> None:
    name = create(server, topic(), 6)
    produce(server, name, *map(str, range(60)))
    with members(server, f"g-{name}", [name], {}) as some:
        shared_out(some, places(name, 6))
        some.append(Member(server, f"g-{name}", [name]))
        some.append(Member(server, f"g-{name}", [name]))
        wait_until(lambda: share(some, places(name, 6)) and all(len(m.owns) == 2 for m in some))
        found = described(server, f"g-{name}")
        assert (found.state, found.type) == (ConsumerGroupState.STABLE, ConsumerGroupType.CONSUMER)
        assert found.partition_assignor == "uniform"
        assert sorted(len(member.assignment.topic_partitions) for member in found.members) == [2, 2, 2]
        some.pop(0).close()
        shared_out(some, places(name, 6))
        assert not [error for member in some for error in member.errors]
    assert described(server, f"g-{name}").state is ConsumerGroupState.EMPTY


def test_every_record_once_and_offsets_are_kept(server: Server, topic: Callable[[], str]) -> None:
    name = create(server, topic(), 4)
    produce(server, name, *map(str, range(40)))
    with members(server, f"g-{name}", [name], {}, {}) as some:
        wait_until(lambda: len([value for member in some for value in member.values]) == 40)
        shared_out(some, places(name, 4))
    assert sorted(int(value) for member in some for value in member.values) == list(range(40))
    produce(server, name, "more")
    with members(server, f"g-{name}", [name], {}) as (again,):
        wait_until(lambda: again.values)
    assert again.values == ["more"], "closing has committed what was read"


def test_commits_of_another_epoch_are_refused(server: Server, topic: Callable[[], str]) -> None:
    name = create(server, topic(), 1)
    produce(server, name, "one")
    with members(server, f"g-{name}", [name], {"enable.auto.commit": False}) as (member,):
        wait_until(lambda: member.values)
        member.end()
        member.consumer.commit(offsets=[TopicPartition(name, 0, 1)], asynchronous=False)
        (kept,) = member.consumer.committed([TopicPartition(name, 0)], DEADLINE_S)
        assert kept.offset == 1
        stranger = Consumer({"bootstrap.servers": server.bootstrap, "group.id": f"g-{name}"})
        with pytest.raises(Exception, match=r"UNKNOWN_MEMBER_ID|Unknown member"):
            stranger.commit(offsets=[TopicPartition(name, 0, 0)], asynchronous=False)
        stranger.close()


KILLED = """
import sys
from confluent_kafka import Consumer

bootstrap, group, topic = sys.argv[1:]
consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "group.protocol": "consumer"})
consumer.subscribe([topic], on_assign=lambda *_: print("joined", flush=True))
while True:
    consumer.poll(0.1)
"""


def test_a_member_that_says_nothing_is_replaced(server: Server, topic: Callable[[], str]) -> None:
    name = create(server, topic(), 2)
    with members(server, f"g-{name}", [name], {}) as (member,):
        command = [sys.executable, "-c", KILLED, server.bootstrap, f"g-{name}", name]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"joined\n"
            wait_until(lambda: len(member.owns) == 1)
            other.kill()
        wait_until(lambda: member.owns == places(name, 2))
    assert "sent no heartbeat" in server.log


def test_a_static_member_returns_to_what_it_had(server: Server, topic: Callable[[], str]) -> None:
    name = create(server, topic(), 4)
    group = f"g-{name}"
    with members(server, group, [name], {"group.instance.id": "a"}, {"group.instance.id": "b"}) as some:
        wait_until(lambda: share(some, places(name, 4)) and all(len(m.owns) == 2 for m in some))
        had, others = some[0].owns, set(some[1].owns)
        some.pop(0).close()
        some.insert(0, Member(server, group, [name], **{"group.instance.id": "a"}))
        wait_until(lambda: len(some[0].owns) == 2)
        assert share(some, places(name, 4))
        assert some[1].owns == others, "the other one has kept its partitions"
        assert had != others
        twice = Member(server, group, [name], **{"group.instance.id": "a"})
        wait_until(lambda: twice.errors)
        assert twice.errors[0].code() == KafkaError._FATAL
        assert "instance ID is still used" in twice.errors[0].str()
        twice.close()


def test_a_pattern_takes_topics_as_they_come(server: Server, topic: Callable[[], str]) -> None:
    base = topic()
    create(server, f"{base}-one", 1)
    create(server, f"other-{base}-one", 1)
    with members(server, f"g-{base}", [f"^{base}-[a-z]+"], {}) as (member,):
        wait_until(lambda: member.owns == places(f"{base}-one", 1), lambda: member.owns)
        create(server, f"{base}-two", 2)
        wait_until(lambda: member.owns == places(f"{base}-one", 1) | places(f"{base}-two", 2), lambda: member.owns)
        admin(server).delete_topics([f"{base}-one"])[f"{base}-one"].result(DEADLINE_S)
        wait_until(lambda: member.owns == places(f"{base}-two", 2), lambda: member.owns)
        admin(server).create_partitions([NewPartitions(f"{base}-two", 5)])[f"{base}-two"].result(DEADLINE_S)
        wait_until(lambda: member.owns == places(f"{base}-two", 5), lambda: member.owns)


def test_a_pattern_that_is_none_is_an_error(server: Server, topic: Callable[[], str]) -> None:
    with members(server, f"g-{topic()}", [r"^(a)\1"], {}) as (member,):
        wait_until(lambda: member.errors)
        assert member.errors[0].code() == KafkaError._FATAL
        assert "regular expression" in member.errors[0].str().lower()


def test_a_server_that_is_killed_goes_on_with_its_members(server: Server, topic: Callable[[], str]) -> None:
    name = create(server, topic(), 4)
    with members(server, f"g-{name}", [name], {}, {}) as some:
        wait_until(lambda: share(some, places(name, 4)) and all(len(m.owns) == 2 for m in some))
        before = described(server, f"g-{name}")
        epochs, owned = sorted(m.member_id for m in before.members), [set(m.owns) for m in some]
        server.kill()
        server.start()
        produce(server, name, *map(str, range(40)))
        wait_until(lambda: len([value for member in some for value in member.values]) == 40)
        assert [m.owns for m in some] == owned, "nothing moved"
        after = described(server, f"g-{name}")
        assert sorted(m.member_id for m in after.members) == epochs
    assert sorted(int(value) for member in some for value in member.values) == list(range(40))


def test_an_empty_group_takes_members_of_the_other_protocol(server: Server, topic: Callable[[], str]) -> None:
    name = create(server, topic(), 1)
    group = f"g-{name}"
    for protocol in ("classic", "consumer", "classic"):
        produce(server, name, protocol)
        with members(server, group, [name], {"group.protocol": protocol}) as (member,):
            wait_until(lambda: member.values, lambda: member.errors)
            assert member.values == [protocol], "offsets are the group's, of whatever kind"
            listed = admin(server).list_consumer_groups().result(DEADLINE_S).valid
            assert next(g.type for g in listed if g.group_id == group).name.lower() == protocol


def test_members_of_the_other_protocol_are_refused(server: Server, topic: Callable[[], str]) -> None:
    name = create(server, topic(), 1)
    for has, refused in (("classic", "consumer"), ("consumer", "classic")):
        with members(server, f"g-{name}-{has}", [name], {"group.protocol": has}) as (member,):
            wait_until(lambda: member.owns)
            other = Member(server, f"g-{name}-{has}", [name], **{"group.protocol": refused})
            failed(other)
            other.close()
            assert member.owns == places(name, 1)


def test_groups_are_deleted(server: Server, topic: Callable[[], str]) -> None:
    name = create(server, topic(), 1)
    with members(server, f"g-{name}", [name], {}) as (member,):
        wait_until(lambda: member.owns)
        with pytest.raises(Exception, match=r"NON_EMPTY_GROUP|not empty"):
            admin(server).delete_consumer_groups([f"g-{name}"])[f"g-{name}"].result(DEADLINE_S)
    admin(server).delete_consumer_groups([f"g-{name}"])[f"g-{name}"].result(DEADLINE_S)
    listed = admin(server).list_consumer_groups().result(DEADLINE_S).valid
    assert f"g-{name}" not in {group.group_id for group in listed}


def test_brokers_say_what_they_do(server: Server) -> None:
    resource = ConfigResource(ResourceType.BROKER, "0")
    entries = admin(server).describe_configs([resource])[resource].result(DEADLINE_S)
    assert entries["group.consumer.session.timeout.ms"].value == "6000"
    assert entries["group.consumer.assignors"].value == "uniform,range"
