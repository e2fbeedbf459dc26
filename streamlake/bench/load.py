"""Load on a Kafka-compatible address by librdkafka: how much can be produced and fetched, and how long an ack takes.

Each load is a plain function with a plain result; it runs in a process of its own (process.py), because it is to
be no part of what it measures. Settings are librdkafka's own keys.

Latency is open loop: a record is due when the rate says so, whether or not the ones before it are acknowledged, and its
latency counts from then. So a broker that stalls is not spared the records that it kept from being sent.
"""

import gc
import hashlib
import math
import resource
import sys
import threading
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from streamlake.bench.librdkafka import NativeConsumer, NativeProducer, Settings, require_client
from streamlake.bench.process import Tell
from streamlake.core.errors import Invalid, Unavailable
from streamlake.core.ids import Ids

PREFIX = "streamlake-bench-"
VALUES = 1000  # different ones, sent in a ring
CONNECT_TIMEOUT_S = 5
TOPIC_TIMEOUT_S = 30
ACK_TIMEOUT_S = 60
FIRST_S = 1.0  # a server that has just started is slower
TELL_INTERVAL_S = 0.2
TICK_S = 0.001  # records that are due within a tick arrive together
QUEUE_FULL_WAIT_MS = 5
SWITCH_INTERVAL_S = 0.0005
NO_SETTINGS: Settings = {}


@dataclass(frozen=True, slots=True)
class Throughput:
    """`cpu_s` is the load's own CPU time; `first_bytes` those of the first second, where that was measured apart."""

    records: int
    bytes: int
    requests: int
    seconds: float
    cpu_s: float
    first_bytes: int | None = None

    @property
    def mb_per_s(self) -> float:
        return self.bytes / self.seconds / 1e6

    @property
    def later_mb_per_s(self) -> float | None:
        """After the first second."""
        if self.first_bytes is None or self.seconds <= FIRST_S:
            return None
        return (self.bytes - self.first_bytes) / (self.seconds - FIRST_S) / 1e6

    @property
    def records_per_s(self) -> float:
        return self.records / self.seconds

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.seconds


@dataclass(frozen=True, slots=True)
class Latencies:
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Latencies":
        if not seconds:
            raise Invalid("nothing was measured: let it run longer than the warm-up")
        ordered = sorted(seconds)

        def at(share: float) -> float:
            return ordered[math.ceil(share * len(ordered)) - 1] * 1000

        return cls(at(0.5), at(0.99), at(0.999), ordered[-1] * 1000, len(ordered))


def values(record_bytes: int, count: int = VALUES) -> list[bytes]:
    """Hex digits: a compressor saves half, and no more by finding repeats within a value. The same in every run."""
    if record_bytes < 1:
        raise Invalid(f"a record has at least one byte, not {record_bytes}")
    made = (hashlib.shake_256(b"%d" % n).hexdigest((record_bytes + 1) // 2) for n in range(count))
    return [text[:record_bytes].encode() for text in made]


@contextmanager
def temporary_topic(bootstrap: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> Iterator[str]:
    """A new topic of a random name, deleted at the end."""
    require_client()
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    name = f"{PREFIX}{Ids().uuid().hex[:12]}"
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    try:
        admin.list_topics(timeout=CONNECT_TIMEOUT_S)
    except KafkaException as error:
        reason = error.args[0].str()
        raise Unavailable(
            f"no Kafka broker answers at {bootstrap} ({reason}): start `streamlake server`, or give --bootstrap"
        ) from None
    try:
        admin.create_topics([NewTopic(name, partitions, config=dict(config or {}))])[name].result(TOPIC_TIMEOUT_S)
    except (KafkaException, FutureTimeout) as error:
        reason = error.args[0].str() if isinstance(error, KafkaException) else f"no answer in {TOPIC_TIMEOUT_S} s"
        raise Unavailable(f"{bootstrap} made no topic of {partitions} partitions: {reason}") from None
    try:
        yield name
    finally:
        with suppress(FutureTimeout):  # what is left says by its name whose it is
            admin.delete_topics([name])[name].exception(timeout=TOPIC_TIMEOUT_S)


class Progress:
    """Tells at most every TELL_INTERVAL_S."""

    def __init__(self, tell: Tell) -> None:
        self._tell, self._next = tell, 0.0

    def at(self, done: int, now: float) -> None:
        if now >= self._next:
            self._next = now + TELL_INTERVAL_S
            self._tell(done)


def own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def produce_throughput(
    bootstrap: str,
    topic: str,
    *,
    ring: Sequence[bytes],
    seconds: float,
    records: int | None = None,
    settings: Settings = NO_SETTINGS,
    tell: Tell,
) -> Throughput:
    """As many records as go through, for `seconds` or until there were `records`, with the values of `ring`. The clock
    starts when a first record, which is not counted, was acknowledged, and stops when all are."""
    most, done = records or sys.maxsize, 0
    with NativeProducer(topic, ring, {"bootstrap.servers": bootstrap, **settings}) as producer:
        producer.produce(1)
        _flush(producer, bootstrap)
        progress, cpu_s, started = Progress(tell), own_cpu_s(), time.perf_counter()
        while done < most and (now := time.perf_counter()) < started + seconds:
            taken = producer.produce(most - done)
            done += taken
            producer.poll(0 if taken else QUEUE_FULL_WAIT_MS)
            progress.at(done, now)
        _flush(producer, bootstrap)
        ended, cpu_s = time.perf_counter(), own_cpu_s() - cpu_s
        requests = _requests(producer, "Produce") - 1
    return Throughput(done, done * sum(map(len, ring)) // len(ring), requests, ended - started, cpu_s)


def _flush(producer: NativeProducer, bootstrap: str) -> None:
    deadline = time.perf_counter() + ACK_TIMEOUT_S
    while not producer.flush(100):
        if time.perf_counter() > deadline:
            raise Unavailable(f"{bootstrap} did not acknowledge {producer.waiting} records within {ACK_TIMEOUT_S} s")


def _requests(client: NativeProducer | NativeConsumer, api: str) -> int:
    """From statistics that are newer than now."""
    client.statistics = {}
    deadline = time.perf_counter() + ACK_TIMEOUT_S
    while not client.statistics and time.perf_counter() < deadline:
        client.poll(100)
    return client.requests_of(api)


def fetch_throughput(
    bootstrap: str,
    topic: str,
    *,
    partitions: int,
    records: int,
    record_bytes: int,
    at_least_s: float = 0,
    settings: Settings = NO_SETTINGS,
    tell: Tell,
) -> Throughput:
    """`records` records from the topic's start, and again from the start until `at_least_s` have passed. The clock runs
    from a reading's first records, which are not counted, to its last."""
    done = requests = 0
    busy_s, cpu_s, began, progress = 0.0, own_cpu_s(), time.perf_counter(), Progress(tell)
    while not done or time.perf_counter() < began + at_least_s:
        with NativeConsumer(topic, partitions, {"bootstrap.servers": bootstrap, **settings}) as consumer:
            first = got = _consume(consumer, bootstrap)
            started = time.perf_counter()
            while got < records:
                got += _consume(consumer, bootstrap)
                progress.at(done + got, time.perf_counter())
            busy_s += time.perf_counter() - started
            done += got - first
            requests += _requests(consumer, "Fetch")
    return Throughput(done, done * record_bytes, requests, busy_s, own_cpu_s() - cpu_s)


def _consume(consumer: NativeConsumer, bootstrap: str) -> int:
    deadline = time.perf_counter() + ACK_TIMEOUT_S
    while True:
        consumer.poll(0)
        if count := consumer.consume(100):
            return count
        if time.perf_counter() > deadline:
            raise Unavailable(f"{bootstrap} sent no record for {ACK_TIMEOUT_S} s")


def arrivals(rate_per_s: float, seconds: float) -> Iterator[tuple[float, int]]:
    """(when after the start, how many records are due), in ticks of a millisecond or the rate's own."""
    tick_s, sent = max(TICK_S, 1 / rate_per_s), 0
    for tick in range(int(seconds / tick_s)):
        due = int((tick + 1) * tick_s * rate_per_s + 1e-6)
        if due > sent:
            yield tick * tick_s, due - sent
            sent = due


def produce_latency(
    bootstrap: str,
    topic: str,
    *,
    rate: float,
    record_bytes: int,
    seconds: float,
    warm_up_s: float = 1.0,
    settings: Settings = NO_SETTINGS,
    tell: Tell,
) -> Latencies:
    """From when a record is due, at `rate` records a second, to its acknowledgement. A warm-up comes before."""
    if rate <= 0:
        raise Invalid(f"--rate must be more than 0 records a second, not {rate:g}")
    from confluent_kafka import Producer

    # Two threads take turns for microseconds each; the collector would stop both.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.disable()
    producer = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 0, "socket.nagle.disable": True, "log_level": 0, **settings}
    )
    taken_s, refused, ended = array("d"), [], threading.Event()

    def acknowledged(due: float, error: Any, _message: Any) -> None:
        if error is not None:
            refused.append(str(error))
        elif due >= measured_from:
            taken_s.append(time.perf_counter() - due)

    def serve() -> None:
        while not ended.is_set():
            producer.poll(0.1)

    producer.list_topics(topic, ACK_TIMEOUT_S)  # connects
    server = threading.Thread(target=serve, daemon=True)
    progress, ring, pause = Progress(tell), values(record_bytes), threading.Event()
    started = time.perf_counter()
    measured_from = started + warm_up_s
    server.start()
    try:
        for after_s, count in arrivals(rate, warm_up_s + seconds):
            due = started + after_s
            if (now := time.perf_counter()) < due:
                pause.wait(due - now)
            on_delivery = partial(acknowledged, due)
            for n in range(count):
                _enqueue(producer, topic, ring[n % VALUES], on_delivery, pause)
            progress.at(len(taken_s), now)
        left = producer.flush(ACK_TIMEOUT_S)
    finally:
        ended.set()
        server.join()
    if left or refused:
        raise Unavailable(f"{bootstrap}: {left + len(refused)} records were not acknowledged: {refused[:1]}")
    return Latencies.of(taken_s)


def _enqueue(producer: Any, topic: str, value: bytes, on_delivery: Any, pause: threading.Event) -> None:
    deadline = time.perf_counter() + ACK_TIMEOUT_S
    while True:
        try:
            producer.produce(topic, value, on_delivery=on_delivery)
            return
        except BufferError:  # the client's queue is full: the time until there is room counts
            if time.perf_counter() > deadline:
                raise Unavailable(f"the producer's queue stayed full for {ACK_TIMEOUT_S} s") from None
            pause.wait(TICK_S)
