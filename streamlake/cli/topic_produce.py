r"""`streamlake topic produce NAME`: each line of stdin is a record's value.

Lines go out as they come, so a person may type them and a pipe is sent in large batches. A record is counted when all
replicas that must have it do (acks=all). What gets no answer may or may not be in the topic: it is not sent again.
"""

import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import typer

from streamlake.cli.addresses import DEFAULT_BOOTSTRAP, Bootstrap
from streamlake.cli.console import Usage, note
from streamlake.cli.kafka import Cluster, check
from streamlake.cli.partitioner import partition_of
from streamlake.cli.record_format import unescape
from streamlake.core.clock import SystemClock
from streamlake.core.errors import Invalid, StreamLakeError, Unavailable
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from streamlake.record.decode import Headers, Record
from streamlake.record.encode import encode_batch

READ_BYTES = 1 << 20
LINE_BYTES_MAX = 64 << 20
BATCH_BYTES = 512 << 10  # half of what brokers take by default
RECORD_BYTES = 32  # what a record takes beside its key, value and headers, at most about
RETRY_S, RETRY_PAUSE_S = 30.0, 0.2
ACK_TIMEOUT_MS = 20_000
PRODUCE_VERSION = 12  # the newest that names topics by name
ACKS_ALL = -1
# With these answers nothing was written, and a leader will be found soon.
_IN_DOUBT = (ErrorCode.REQUEST_TIMED_OUT, ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND)
_NOT_YET = frozenset({
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.LEADER_NOT_AVAILABLE, ErrorCode.NOT_LEADER_OR_FOLLOWER,
    ErrorCode.NOT_ENOUGH_REPLICAS, ErrorCode.THROTTLING_QUOTA_EXCEEDED,
})  # fmt: skip


class _Line(NamedTuple):
    number: int  # from 1
    key: bytes | None
    value: bytes | None

    @property
    def size_bytes(self) -> int:
        return len(self.key or b"") + len(self.value or b"") + RECORD_BYTES


def produce(
    name: Annotated[str, typer.Argument(help="The topic's name.")],
    key_separator: Annotated[
        str | None,
        typer.Option("--key-separator", "-K", help=r"A line is KEY, this text, VALUE; it may have \t and the like."),
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="KEY=VALUE for every record, any number of times.")
    ] = None,
    partition: Annotated[
        int | None,
        typer.Option("--partition", "-p", help="Where all records go. By default keys tell, as with Java's client."),
    ] = None,
    tombstone: Annotated[
        bool, typer.Option("--tombstone", "-Z", help="An empty value is null, which deletes its key.")
    ] = False,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> None:
    """Produce the lines of stdin, one record each, until it ends (Ctrl-D)."""
    headers = tuple(_header(text) for text in header or ())
    separator = None if key_separator is None else unescape(key_separator)
    if separator == b"":
        raise Usage("--key-separator must not be empty")
    with asyncio.Runner() as runner:
        cluster = Cluster(bootstrap)
        runner.run(cluster.__aenter__())
        sender = _Sender(cluster, name, headers, partition)
        try:
            runner.run(sender.open())
            if sys.stdin.isatty():
                note("One record a line; Ctrl-D ends.")
            number = 0
            for lines in read_lines(sys.stdin.fileno()):
                first, number = number + 1, number + len(lines)
                parsed = [_parse(first + n, line, separator, tombstone) for n, line in enumerate(lines)]
                runner.run(sender.send(parsed))
        finally:
            runner.run(cluster.close())
            if sender.opened:
                note(f"{sender.acked:,} record{'s' * (sender.acked != 1)} acknowledged by topic {name}")


def read_lines(stdin: int) -> Iterator[list[bytes]]:
    """The lines that are there, and wait for more; Invalid if one is too long. The last one needs no line end."""
    pending = bytearray()
    while data := os.read(stdin, READ_BYTES):
        end = data.rfind(b"\n") + 1
        pending += data[:end] if end else data
        if len(pending) > LINE_BYTES_MAX + READ_BYTES:
            raise Invalid(f"a line is longer than {LINE_BYTES_MAX} bytes: a record may not be so large")
        if end:
            yield bytes(pending).split(b"\n")[:-1]
            pending = bytearray(data[end:])
    if pending:
        yield [bytes(pending)]


def _header(text: str) -> tuple[str, bytes | None]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise Usage(f"--header must be KEY=VALUE, not {text!r}")
    return key, os.fsencode(value)


def _parse(number: int, line: bytes, separator: bytes | None, tombstone: bool) -> _Line:
    key: bytes | None = None
    if separator is not None:
        key, found, line = line.partition(separator)
        if not found:
            shown = separator.decode(errors="backslashreplace")
            raise Invalid(f"line {number} has no key: {shown!r}, the separator, is not in it")
    return _Line(number, key, None if tombstone and not line else line)


class _Sender:
    """Sends lines to their partitions: those of one partition in order, partitions beside each other."""

    def __init__(self, cluster: Cluster, topic: str, headers: Headers, partition: int | None) -> None:
        self.acked = 0
        self.opened = False
        self._cluster = cluster
        self._topic = topic
        self._headers = headers
        self._headers_bytes = sum(len(k.encode()) + len(v or b"") + 10 for k, v in headers)
        self._partition = partition
        self._turn = 0
        self._clock = SystemClock()

    async def open(self) -> None:
        self._leaders = await self._cluster.leaders(self._topic)
        if self._partition is not None and self._partition not in self._leaders:
            raise Invalid(
                f"topic {self._topic} has no partition {self._partition}: it has 0 to {len(self._leaders) - 1}"
            )
        self.opened = True

    async def send(self, lines: Sequence[_Line]) -> None:
        for _ in range(3):  # a broker that went away while we read is noticed, and its connection made anew
            await asyncio.sleep(0)
        self._turn += 1
        parted: dict[int, list[_Line]] = {}
        for line in lines:
            parted.setdefault(self._place(line), []).append(line)
        failures = await asyncio.gather(*(self._send_all(*p) for p in parted.items()), return_exceptions=True)
        for failure in failures:
            if failure is not None:
                raise failure

    def _place(self, line: _Line) -> int:
        if self._partition is not None:
            return self._partition
        if line.key is not None:
            return partition_of(line.key, len(self._leaders))
        return self._turn % len(self._leaders)  # what was read at once stays together, as batches do

    async def _send_all(self, partition: int, lines: list[_Line]) -> None:
        batch: list[_Line] = []
        size_bytes = 0
        for line in lines:
            bytes_more = line.size_bytes + self._headers_bytes
            if batch and size_bytes + bytes_more > BATCH_BYTES:
                await self._send_batch(partition, batch)
                batch, size_bytes = [], 0
            batch.append(line)
            size_bytes += bytes_more
        await self._send_batch(partition, batch)

    async def _send_batch(self, partition: int, lines: list[_Line]) -> None:
        answer = await self._answered(partition, lines)
        if answer.error_code == ErrorCode.MESSAGE_TOO_LARGE and len(lines) > 1:  # the topic's limit is a smaller one
            half = len(lines) // 2
            await self._send_batch(partition, lines[:half])
            await self._send_batch(partition, lines[half:])
            return
        if answer.error_code in _IN_DOUBT:
            raise Unavailable(f"topic {self._topic} gave no answer in time; {_lines(lines)} may or may not be in it")
        message = answer.error_message or next((e.batch_index_error_message for e in answer.record_errors), None)
        try:
            check(f"topic {self._topic}", answer.error_code, message)
        except StreamLakeError as error:
            raise type(error)(f"{_lines(lines)}: {error}") from None
        self.acked += len(lines)

    async def _answered(self, partition: int, lines: list[_Line]) -> Any:
        """The answer for the batch, asked again while the partition has no leader."""
        request = self._request(partition, lines)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + RETRY_S
        while True:
            peer = self._leaders.get(partition)
            answer = None
            if peer is not None:
                try:
                    (topic,) = (await peer.call(ApiKey.PRODUCE, request, PRODUCE_VERSION)).responses
                except Unavailable as error:
                    raise Unavailable(f"{error}; {_lines(lines)} may or may not be in the topic") from None
                (answer,) = topic.partition_responses
                if answer.error_code not in _NOT_YET:
                    return answer
            if loop.time() > deadline:
                if answer is not None:
                    return answer
                raise Unavailable(f"topic {self._topic}: partition {partition} has no leader at the moment: try again")
            await asyncio.sleep(RETRY_PAUSE_S)
            self._leaders = await self._cluster.leaders(self._topic)

    def _request(self, partition: int, lines: list[_Line]) -> ProduceRequest:
        now_ms = self._clock.now_ms()
        records = [Record(n, now_ms, line.key, line.value, self._headers) for n, line in enumerate(lines)]
        data = PartitionProduceData(index=partition, records=encode_batch(records))
        topic = TopicProduceData(name=self._topic, partition_data=(data,))
        return ProduceRequest(acks=ACKS_ALL, timeout_ms=ACK_TIMEOUT_MS, topic_data=(topic,))


def _lines(lines: list[_Line]) -> str:
    first, last = lines[0].number, lines[-1].number
    return f"line {first}" if first == last else f"lines {first} to {last}"
