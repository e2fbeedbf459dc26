"""Requests made once and sent over and over: a load that costs next to nothing, so that only the broker is measured.

A client library spends more on a request with one record than a broker should. Here each connection sends Produce
requests from a ring of ready bytes, as many at once as may be in flight, and looks in each answer only at its length,
correlation id and error code. A fetching connection looks only at batch headers.

One connection per partition, to the partition's leader. The batches are as a producer without idempotence sends them.
"""

import selectors
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import NoReturn

from streamlake.bench.librdkafka import require_client
from streamlake.bench.load import ACK_TIMEOUT_S, FIRST_S, Progress, Throughput, own_cpu_s, values
from streamlake.bench.process import Tell
from streamlake.core.clock import SystemClock
from streamlake.core.errors import Corrupt, Invalid, Unavailable
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey, fetch, produce
from streamlake.protocol.requests import api, decode_response, encode_request
from streamlake.record.batch import frames
from streamlake.record.compression import Compression
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch

CLIENT_ID = "streamlake-bench"
PRODUCE_VERSION = 9
FETCH_VERSION = 12
IN_FLIGHT_BYTES_MAX = 64 << 20  # of one connection; one request always may be
RECEIVE_BYTES = 1 << 20
_HEAD = struct.Struct(">ii")  # an answer's length and correlation id
_LENGTH = struct.Struct(">i")
_CODE = struct.Struct(">h")
_SELECT_S = 0.1
_PARTITION_BYTES = 1 << 20  # as consumers ask by default
_ANSWER_BYTES = 50 << 20
_ANSWER_WAIT_MS = 500


@dataclass(frozen=True, slots=True)
class Target:
    """A partition and where its leader is."""

    topic: str
    partition: int
    host: str
    port: int

    def connect(self) -> socket.socket:
        try:
            found = socket.create_connection((self.host, self.port), timeout=ACK_TIMEOUT_S)
        except OSError as error:
            raise Unavailable(f"cannot connect to {self.host}:{self.port}: {error}") from None
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return found


def targets(bootstrap: str, topic: str) -> list[Target]:
    require_client()
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    try:
        cluster = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}).list_topics(topic, ACK_TIMEOUT_S)
    except KafkaException as error:
        raise Unavailable(f"{bootstrap} does not tell the leaders of {topic}: {error.args[0].str()}") from None
    found = []
    for number, partition in sorted(cluster.topics[topic].partitions.items()):
        leader = cluster.brokers.get(partition.leader)
        if leader is None:
            raise Unavailable(f"{topic}-{number} has no leader yet: try again")
        found.append(Target(topic, number, str(leader.host), int(leader.port)))
    if not found:
        raise Unavailable(f"{bootstrap} knows no topic {topic} yet: try again")
    return found


def produce_requests(
    bootstrap: str,
    topic: str,
    *,
    batch_records: int,
    record_bytes: int,
    seconds: float,
    in_flight: int,
    records: int | None = None,
    acks: int = -1,
    ring: Sequence[bytes] | None = None,
    compression: Compression = Compression.NONE,
    tell: Tell,
) -> Throughput:
    """One connection per partition, each with up to `in_flight` requests of one batch without an answer, until
    `seconds` are over or `records` were sent. `ring`: values that are taken in turn, else chance has made them."""
    if acks == 0:
        raise Invalid("requests without an answer cannot be counted: give --acks 1 or all")
    now_ms = SystemClock().now_ms()
    sent_values = values(record_bytes, batch_records) if ring is None else islice(cycle(ring), batch_records)
    records_sent = [Record(n, now_ms, None, value) for n, value in enumerate(sent_values)]
    batch = encode_batch(records_sent, compression=compression)
    requests_max = sys.maxsize if records is None else max(1, records // batch_records)
    connections = [_Pipelined(target, batch, in_flight, acks) for target in targets(bootstrap, topic)]
    selector = selectors.DefaultSelector()
    for connection in connections:
        connection.exchange_one()
        selector.register(connection.socket, selectors.EVENT_READ, connection)
    cpu_s, started = own_cpu_s(), time.perf_counter()
    for connection in connections:
        connection.allow(in_flight, selector)
    done = done_first = 0
    progress, quiet_since, stopped = Progress(tell), started, False
    while not stopped or any(connection.waiting for connection in connections):
        events = selector.select(_SELECT_S)
        now = time.perf_counter()
        quiet_since = now if events else quiet_since
        if now - quiet_since > ACK_TIMEOUT_S:
            raise Unavailable(f"{bootstrap} did not answer for {ACK_TIMEOUT_S} s")
        stopped = stopped or now >= started + seconds or done >= requests_max
        for key, mask in events:
            answered = key.data.receive() if mask & selectors.EVENT_READ else 0
            done += answered
            if mask & selectors.EVENT_WRITE or (answered and not stopped):
                key.data.allow(0 if stopped else answered, selector)
        if now < started + FIRST_S:
            done_first = done
        progress.at(done * batch_records, now)
    ended, cpu_s = time.perf_counter(), own_cpu_s() - cpu_s
    for connection in connections:
        connection.socket.close()
    sent = done * batch_records
    first_bytes = done_first * batch_records * record_bytes
    return Throughput(sent, sent * record_bytes, done, ended - started, cpu_s, first_bytes)


class _NotLed(Unavailable):
    """The broker does not lead the partition, or does not know it yet."""


class _Pipelined:
    """One connection. Correlation ids are places in the ring; answers must come in their order."""

    def __init__(self, target: Target, batch: bytes, in_flight: int, acks: int) -> None:
        self.socket = target.connect()
        self.waiting = 0  # requests that were allowed and are not answered
        data = produce.PartitionProduceData(index=target.partition, records=batch)
        topic = produce.TopicProduceData(name=target.topic, partition_data=(data,))
        request = produce.ProduceRequest(acks=acks, timeout_ms=ACK_TIMEOUT_S * 1000, topic_data=(topic,))
        found, ring = api(ApiKey.PRODUCE), bytearray()
        self._slots = max(1, min(in_flight, IN_FLIGHT_BYTES_MAX // len(batch)))
        for n in range(self._slots):
            ring += b"".join(bytes(p) for p in encode_request(found, PRODUCE_VERSION, n, CLIENT_ID, request))
        self._ring, self._request_bytes = memoryview(bytes(ring)), len(ring) // self._slots
        self._at = self._unsent_bytes = 0  # in the ring
        self._expected = 0
        self._received = bytearray()
        self._buffer = bytearray(RECEIVE_BYTES)
        # length, correlation id, tags, one topic, its name, one partition, its index: then its error code
        self._code_at = 4 + 4 + 1 + 1 + 1 + len(target.topic.encode()) + 1 + 4
        self._target = target

    def exchange_one(self) -> None:
        """A first request, so that the broker has opened the partition before the clock starts. Apache Kafka names the
        leader of a new partition before that one knows of it: until it does the request is sent again."""
        deadline = time.perf_counter() + ACK_TIMEOUT_S
        while not self._is_led():
            if time.perf_counter() > deadline:
                self._refused(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        self.socket.setblocking(False)

    def _is_led(self) -> bool:
        self._unsent_bytes += self._request_bytes
        self.waiting += 1
        self._send()
        try:
            while not self.receive():
                pass
        except _NotLed:
            return False
        return True

    def allow(self, requests: int, selector: selectors.BaseSelector) -> None:
        """Send so many more, and what could not be sent before; the rest when the socket takes it."""
        requests = min(requests, self._slots - self.waiting)
        self.waiting += requests
        self._unsent_bytes += requests * self._request_bytes
        self._send()
        both = selectors.EVENT_READ | selectors.EVENT_WRITE
        wanted = both if self._unsent_bytes else selectors.EVENT_READ
        if selector.get_key(self.socket).events != wanted:
            selector.modify(self.socket, wanted, self)

    def _send(self) -> None:
        try:
            while self._unsent_bytes:
                end = min(self._at + self._unsent_bytes, len(self._ring))
                sent = self.socket.send(self._ring[self._at : end])
                self._at = (self._at + sent) % len(self._ring)
                self._unsent_bytes -= sent
        except BlockingIOError:
            return

    def receive(self) -> int:
        """How many answers came."""
        try:
            count = self.socket.recv_into(self._buffer)
        except BlockingIOError:
            return 0
        except TimeoutError:
            raise Unavailable(f"the broker did not answer for {ACK_TIMEOUT_S} s") from None
        if not count:
            raise Unavailable(f"{self._target.host}:{self._target.port} closed the connection")
        self._received += memoryview(self._buffer)[:count]
        data, at, end, answers, code = self._received, 0, len(self._received), 0, 0
        while end - at >= _HEAD.size:
            length, correlation_id = _HEAD.unpack_from(data, at)
            if end - at < _LENGTH.size + length:
                break
            code = _CODE.unpack_from(data, at + self._code_at)[0]
            if correlation_id != self._expected:
                raise Corrupt(f"request {self._expected} was answered as request {correlation_id}")
            self._expected = (correlation_id + 1) % self._slots
            at += _LENGTH.size + length
            answers += 1
            if code:
                break
        del data[:at]
        self.waiting -= answers
        if code:
            self._refused(code)
        return answers

    def _refused(self, code: int) -> NoReturn:
        kind = _NotLed if code == ErrorCode.NOT_LEADER_OR_FOLLOWER else Unavailable
        raise kind(f"{self._target.topic}-{self._target.partition}: produce failed: {ErrorCode(code).name}")


def fetch_requests(bootstrap: str, topic: str, *, records: int, at_least_s: float = 0, tell: Tell) -> Throughput:
    """`records` records from the start of the topic, and again until `at_least_s` have passed. One request asks for all
    partitions of a broker, as consumers do; `bytes` are those of the batches."""
    by_leader: dict[tuple[str, int], list[Target]] = {}
    for target in targets(bootstrap, topic):
        by_leader.setdefault((target.host, target.port), []).append(target)
    if len(by_leader) > 1:
        raise Invalid("the raw client fetches from one broker only: use --client librdkafka")
    ((_, found),) = by_leader.items()
    done = read_bytes = requests = 0
    progress, cpu_s, started = Progress(tell), own_cpu_s(), time.perf_counter()
    with found[0].connect() as connection:
        while not done or time.perf_counter() < started + at_least_s:
            positions, read = {target.partition: 0 for target in found}, 0
            while read < records:
                read_now, bytes_now = _fetch(connection, topic, positions)
                read += read_now
                read_bytes += bytes_now
                requests += 1
                progress.at(done + read, time.perf_counter())
            done += read
    return Throughput(done, read_bytes, requests, time.perf_counter() - started, own_cpu_s() - cpu_s)


def _fetch(connection: socket.socket, topic: str, positions: dict[int, int]) -> tuple[int, int]:
    """One request; moves the positions. -> (records, bytes)"""
    partitions = tuple(
        fetch.FetchPartition(partition=p, fetch_offset=offset, partition_max_bytes=_PARTITION_BYTES)
        for p, offset in positions.items()
    )
    request = fetch.FetchRequest(
        max_wait_ms=_ANSWER_WAIT_MS,
        min_bytes=1,
        max_bytes=_ANSWER_BYTES,
        topics=(fetch.FetchTopic(topic=topic, partitions=partitions),),
    )
    found = api(ApiKey.FETCH)
    connection.sendall(b"".join(bytes(p) for p in encode_request(found, FETCH_VERSION, 0, CLIENT_ID, request)))
    (length,) = _LENGTH.unpack(_read(connection, _LENGTH.size))
    answer = decode_response(found, FETCH_VERSION, _read(connection, length))
    records = size_bytes = 0
    for part in (p for t in answer.responses for p in t.partitions):
        if part.error_code:
            raise Unavailable(f"{topic}-{part.partition_index}: fetch failed: {ErrorCode(part.error_code).name}")
        for header, batch in frames(part.records or b""):
            records += header.next_offset - positions[part.partition_index]
            positions[part.partition_index] = header.next_offset
            size_bytes += len(batch)
    return records, size_bytes


def _read(connection: socket.socket, size: int) -> memoryview:
    data = memoryview(bytearray(size))
    at = 0
    while at < size:
        try:
            count = connection.recv_into(data[at:])
        except TimeoutError:
            raise Unavailable(f"the broker sent nothing for {ACK_TIMEOUT_S} s") from None
        if not count:
            raise Unavailable("the broker closed the connection")
        at += count
    return data
