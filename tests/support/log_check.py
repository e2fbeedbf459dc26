"""Records that a producer remembers, and the judgement: what was acknowledged is in the log where it was acknowledged."""

import time
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from support.server import Server
from support.wait import DEADLINE_S


class Ledger:
    """A producer of values; `acked` says where each lies, `failed` why others do not."""

    def __init__(self, server: Server, topic: str, partitions: int = 1, **config: Any) -> None:
        self.topic = topic
        self.partitions = partitions
        self.acked: dict[bytes, tuple[int, int]] = {}
        self.failed: list[Any] = []
        self._sent = 0
        self._producer = Producer({"bootstrap.servers": server.bootstrap, "linger.ms": 2, "log_level": 0, **config})

    def produce(self, count: int, padding: bytes = b"") -> None:
        """Hand over `count` records; blocks while the producer's queue is full."""
        for _ in range(count):
            value = b"%s-%d" % (self.topic.encode(), self._sent) + padding
            while True:
                try:
                    partition = self._sent % self.partitions
                    self._producer.produce(self.topic, value, partition=partition, on_delivery=self._delivered)
                    break
                except BufferError:
                    self._producer.poll(0.1)
            self._sent += 1
            self._producer.poll(0)

    def flush(self, timeout_s: float = DEADLINE_S) -> int:
        """How many are still without an answer after that time."""
        return int(self._producer.flush(timeout_s))

    def settle(self) -> None:
        """Everything is acknowledged."""
        assert self.flush() == 0, "some records have no answer"
        assert not self.failed, self.failed[0]

    def _delivered(self, error: Any, message: Message) -> None:
        if error is not None:
            self.failed.append(error)
        else:
            self.acked[message.value()] = message.partition(), message.offset()

    def check(self, server: Server) -> dict[tuple[int, int], bytes]:
        """The log as a consumer reads it, without gap or repeat; AssertionError if it lacks what was acknowledged."""
        log = read_log(server, self.topic, self.partitions)
        lost = {value[:40]: at for value, at in self.acked.items() if log.get(at) != value}
        assert not lost, f"acknowledged and not there: {lost}"
        return log


def watermarks(server: Server, topic: str, partition: int) -> tuple[int, int]:
    """A client of its own for each try: librdkafka keeps in mind that a partition had no leader, and gives up at once.
    After a start the store may have to answer before it has one."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": "log-check"})
        try:
            return consumer.get_watermark_offsets(TopicPartition(topic, partition), DEADLINE_S)
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        finally:
            consumer.close()


def read_log(server: Server, topic: str, partitions: int = 1) -> dict[tuple[int, int], bytes]:
    """(partition, offset) → value."""
    log: dict[tuple[int, int], bytes] = {}
    consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": "log-check", "enable.auto.commit": False})
    try:
        for partition in range(partitions):
            low, high = watermarks(server, topic, partition)
            consumer.assign([TopicPartition(topic, partition, low)])
            for expected in range(low, high):
                message = consumer.poll(DEADLINE_S)
                assert message is not None, f"{topic}[{partition}] gives no offset {expected} of {high}"
                assert message.error() is None, message.error()
                assert message.offset() == expected, f"gap or repeat at {topic}[{partition}]@{expected}"
                log[partition, expected] = message.value()
    finally:
        consumer.close()
    return log
