"""Producers and a group of consumers at a steady pace, and what they saw: gaps, errors, and whether all is in order.

Partition p of a topic has one producer, which is idempotent and sends `topic-p-0`, `topic-p-1`, …: in a log without a
loss or a repeat, and in order, the record at offset n is number n. So every acknowledgement and every record that is read
is judged as it comes. Clients are confluent-kafka's with the defaults that users have.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from random import Random

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from support.wait import DEADLINE_S, wait_until

QUIET = {"log_level": 0, "reconnect.backoff.max.ms": 500}  # librdkafka tells of every connection that we kill
PADDING = "." * 200
BULK_BYTES = 10_000  # a record of a bulk load
UNACKED_MAX = 2_000  # of a partition: then its producer waits
COMMIT_INTERVAL_S = 0.5
GROUP = "readers"
Partition = tuple[str, int]


def value_of(partition: Partition, number: int) -> bytes:
    return f"{partition[0]}-{partition[1]}-{number}{PADDING}".encode()


def number_in(message: Message) -> int:
    return int(message.value().rstrip(b".").rpartition(b"-")[2])


class Gaps:
    """The longest time between two signs of life, by partition, since `begin`."""

    def __init__(self, partitions: Iterable[Partition]) -> None:
        self._last = dict.fromkeys(partitions, time.monotonic())
        self._longest = dict.fromkeys(self._last, 0.0)

    def begin(self) -> None:
        self._longest = dict.fromkeys(self._last, 0.0)

    def sign(self, partition: Partition) -> None:
        now = time.monotonic()
        self._longest[partition] = max(self._longest[partition], now - self._last[partition])
        self._last[partition] = now

    def longest(self) -> dict[Partition, float]:
        return dict(self._longest)


class SteadyProducer:
    """`rate` records a second to each partition of a topic, until `stop`."""

    def __init__(self, bootstrap: str, topic: str, partitions: int, rate: float) -> None:
        self._parts = [(topic, index) for index in range(partitions)]
        self._pause_s = 1 / rate
        self.sent = dict.fromkeys(self._parts, 0)
        self.acked = dict.fromkeys(self._parts, 0)  # in order, so all below are
        self.gaps = Gaps(self._parts)
        self.errors: Counter[str] = Counter()  # none of which the client tries again by itself
        self.wrong: list[str] = []
        self._producer = Producer(
            {
                **QUIET,
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "message.timeout.ms": 0,
                "linger.ms": 5,
            }
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"producer of {topic}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns when all is acknowledged."""
        self._ended.set()
        self._thread.join()
        left = self._producer.flush(DEADLINE_S)
        assert left == 0, f"{left} records are not acknowledged {DEADLINE_S} s after the last trouble"

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ended.is_set():
            for partition in self._parts:
                number = self.sent[partition]
                if number - self.acked[partition] < UNACKED_MAX:
                    value = value_of(partition, number)
                    self._producer.produce(partition[0], value, partition=partition[1], on_delivery=self._delivered)
                    self.sent[partition] += 1
            due = max(due + self._pause_s, time.monotonic())
            while (left := due - time.monotonic()) > 0:
                self._producer.poll(left)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.errors[error.name()] += 1
            return
        partition, number = (message.topic(), message.partition()), number_in(message)
        if message.offset() != number or self.acked[partition] != number:
            self.wrong.append(f"record {number} of {partition} was acknowledged at offset {message.offset()}")
        self.acked[partition] = number + 1
        self.gaps.sign(partition)


class BulkLoad:
    """So many megabytes in so many seconds, by an idempotent producer. An error of a record, or one that is never
    acknowledged, is an AssertionError at the end of `with`."""

    def __init__(self, bootstrap: str, topic: str, partitions: int, seconds: float, megabytes: float) -> None:
        self.sent = {(topic, index): 0 for index in range(partitions)}
        self.errors: Counter[str] = Counter()
        self._noise = Random(1).randbytes(BULK_BYTES)
        self._records = int(megabytes * 1e6 / BULK_BYTES)
        self._pause_s = seconds / self._records
        self._producer = Producer(
            {
                **QUIET,
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "message.timeout.ms": 1000 * DEADLINE_S,
                "linger.ms": 20,
            }
        )
        self._thread = threading.Thread(target=self._run, name="bulk load", daemon=True)

    def __enter__(self) -> "BulkLoad":
        """Its first records are acknowledged: it knows all leaders, and has a producer id."""
        for partition in self.sent:
            self._send(partition)
        assert self._producer.flush(DEADLINE_S) == 0 and not self.errors, self.errors
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._thread.join()
            assert not self.errors, f"errors of records: {self.errors}"

    def start(self) -> None:
        self._thread.start()

    def is_over(self) -> bool:
        """All is acknowledged, or given up."""
        return not self._thread.is_alive()

    def value(self, partition: Partition, number: int) -> bytes:
        return b"%d-%d-" % (partition[1], number) + self._noise

    def _run(self) -> None:
        started, partitions = time.monotonic(), list(self.sent)
        for number in range(self._records):
            self._send(partitions[number % len(partitions)])
            self._producer.poll(max(0.0, started + number * self._pause_s - time.monotonic()))
        if left := self._producer.flush(DEADLINE_S):
            self.errors["not acknowledged"] += left

    def _send(self, partition: Partition) -> None:
        value = self.value(partition, self.sent[partition])
        while True:
            try:
                self._producer.produce(partition[0], value, partition=partition[1], on_delivery=self._delivered)
                break
            except BufferError:  # its queue is full
                self._producer.poll(0.1)
        self.sent[partition] += 1

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self.errors[error.name()] += 1


class GroupReading:
    """`members` consumers in one group; together they must see every record, and each of them no older one twice but
    after a rebalance."""

    def __init__(self, bootstrap: str, partitions: Iterable[Partition], members: int) -> None:
        self._bootstrap = bootstrap
        self._lock = threading.Lock()  # of what the members tell
        self.seen = dict.fromkeys(partitions, 0)  # all offsets below
        self.gaps = Gaps(self.seen)
        self.errors: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._committed = dict.fromkeys(self.seen, 0)
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, name="reader", daemon=True) for _ in range(members)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        consumer = Consumer(
            {
                **QUIET,
                "bootstrap.servers": self._bootstrap,
                "group.id": GROUP,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "on_commit": self._commit_answered,
            }
        )
        consumer.subscribe(sorted({topic for topic, _ in self.seen}))
        commit_at = time.monotonic()
        try:
            while not self._ended.is_set():
                for message in consumer.consume(500, 0.05):
                    self._saw(message)
                if time.monotonic() >= commit_at:
                    commit_at = time.monotonic() + COMMIT_INTERVAL_S
                    self._commit(consumer)
        finally:
            consumer.close()

    def _saw(self, message: Message) -> None:
        with self._lock:
            if (error := message.error()) is not None:
                self.errors[f"fetch: {error.name()}"] += 1
                return
            partition, offset = (message.topic(), message.partition()), message.offset()
            if number_in(message) != offset:
                self.wrong.append(f"{partition} has record {number_in(message)} at offset {offset}")
            if offset > self.seen[partition]:
                self.wrong.append(f"readers of {partition} went from {self.seen[partition]} to {offset}")
            self.seen[partition] = max(self.seen[partition], offset + 1)
            self.gaps.sign(partition)

    def _commit(self, consumer: Consumer) -> None:
        try:
            consumer.commit(asynchronous=True)
        except KafkaException as error:
            if error.args[0].code() != KafkaError._NO_OFFSET:
                with self._lock:
                    self.errors[f"commit: {error.args[0].name()}"] += 1

    def _commit_answered(self, error: KafkaError | None, _offsets: list[TopicPartition]) -> None:
        if error is not None and error.code() != KafkaError._NO_OFFSET:
            with self._lock:
                self.errors[f"commit: {error.name()}"] += 1

    def check_committed(self) -> dict[Partition, int]:
        """What is committed now; AssertionError if it went back."""
        asked = [TopicPartition(*partition) for partition in self.seen]

        def committed() -> dict[Partition, int]:
            consumer = Consumer({**QUIET, "bootstrap.servers": self._bootstrap, "group.id": GROUP})
            try:
                answer = consumer.committed(asked, 10)
            except KafkaException:
                return {}
            finally:
                consumer.close()
            return {(p.topic, p.partition): max(p.offset, 0) for p in answer if p.error is None}

        now = wait_until(
            lambda: found if len(found := committed()) == len(asked) else {}, lambda: "no committed offsets"
        )
        for partition, offset in now.items():
            before = self._committed[partition]
            assert offset >= before, f"the committed offset of {partition} went back from {before} to {offset}"
            assert offset <= self.seen[partition], f"{offset} of {partition} is committed, and nobody has read that far"
        self._committed = now
        return now


class LogReader:
    """Reads what came to the log since the last time, from its very beginning, and judges it."""

    def __init__(
        self,
        bootstrap: str,
        partitions: Iterable[Partition],
        value: Callable[[Partition, int], bytes] = value_of,
    ) -> None:
        self._bootstrap = bootstrap
        self._value = value
        self.ends = dict.fromkeys(partitions, 0)

    def check(self, acked: dict[Partition, int]) -> int:
        """How many records were new. `acked`: how many records each partition must have at least."""
        wanted = {partition: count for partition, count in acked.items() if count > self.ends[partition]}
        if not wanted:
            return 0
        before = sum(self.ends.values())
        consumer = Consumer(
            {**QUIET, "bootstrap.servers": self._bootstrap, "group.id": "log-reader", "enable.auto.commit": False,
             "auto.offset.reset": "error"}
        )  # fmt: skip
        try:
            consumer.assign([TopicPartition(*partition, self.ends[partition]) for partition in wanted])
            deadline = time.monotonic() + DEADLINE_S
            while wanted:
                missing = {partition: (self.ends[partition], count) for partition, count in wanted.items()}
                assert time.monotonic() < deadline, f"acknowledged, and not in the log (it ends at, of): {missing}"
                for message in consumer.consume(2000, 0.2):
                    self._take(message)
                wanted = {partition: count for partition, count in wanted.items() if self.ends[partition] < count}
        finally:
            consumer.close()
        return sum(self.ends.values()) - before

    def _take(self, message: Message) -> None:
        if (error := message.error()) is not None:
            assert error.retriable() or error.code() == KafkaError._TRANSPORT, f"the log cannot be read: {error}"
            return
        partition, offset = (message.topic(), message.partition()), message.offset()
        assert offset == self.ends[partition], f"{partition} continues at {offset} after {self.ends[partition] - 1}"
        expected = self._value(partition, offset)
        assert message.value() == expected, f"{partition} has {message.value()[:60]!r} at offset {offset}"
        self.ends[partition] = offset + 1
