"""Two servers in memory that are sent the same: one begins Produce requests together, the other one by one.

Whatever a client sends, both must answer the same bytes, store the same bytes and count the same.
"""

import asyncio
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from support.deliver import deliver
from support.fake_stream import FakeStream
from support.log_bench import NOW_MS, TOPIC, Bench
from support.raw_kafka import signed
from support.transactions import KnownTransactions
from support.two_brokers import NO_HANDOVERS, OWN, two_brokers
from support.wire import Topic, encoded, newest, produce_request
from support.wire_stub import FakeTransport

from streamlake.cluster.store.topic_rows import PartitionInfo, TopicInfo
from streamlake.core.budget import Budget
from streamlake.core.deadlines import Deadlines
from streamlake.core.tasks import InlineExecutor
from streamlake.handlers import produce_runs
from streamlake.handlers.apis import HANDLERS
from streamlake.log.partition import Partition
from streamlake.protocol.messages import ApiKey, heartbeat
from streamlake.protocol.requests import api, encode_request
from streamlake.protocol.wire import varint
from streamlake.record.batch import CHECKED_AT
from streamlake.record.compression import Compression
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch
from streamlake.server.connection import Connection, Counters
from streamlake.server.memory import ConnectionMemory

ROOM_BYTES = 1 << 20
PARTITIONS = 2
FRAME_BYTES_MAX = 1 << 16
TOPIC_NAMED, LONG_NAME = Topic("orders", TOPIC), Topic("orders" * 40, TOPIC)
HOUR_MS = 3_600_000
LAST_OFFSET_DELTA_AT, COUNT_AT = 23, 57  # in a batch


class Streams:
    """The room for records, as s3stream's Streams gives it."""

    def __init__(self) -> None:
        self.room = Budget(ROOM_BYTES)

    def try_reserve(self, size_bytes: int) -> bool:
        return self.room.try_take("log", size_bytes)

    async def reserve(self, size_bytes: int, timeout_s: float) -> None:
        await self.room.take("log", size_bytes, timeout_s)

    def release(self, size_bytes: int) -> None:
        self.room.give("log", size_bytes)


@dataclass
class Server:
    connection: Connection
    transport: FakeTransport
    counters: Counters
    bench: Bench
    partitions: list[Partition]
    streams: list[FakeStream]
    room: Budget
    began: list[int]  # how many requests each run had

    def facts(self) -> dict[str, Any]:
        """All that must not depend on how the requests were begun. A client whose connection was closed knows nothing
        of what was under way."""
        counted = self.bench.counters
        answered = {} if self.transport.closed else {"sent": bytes(self.transport.sent)}
        return answered | {
            "closed": self.transport.closed,
            "logs": [b"".join(chunk.data for chunk in stream._chunks) for stream in self.streams],
            "ends": [stream.next_offset for stream in self.streams],
            "producers": [list(partition.producer_states()) for partition in self.partitions],
            "room": self.room.used_bytes,
            "requests": self.counters.requests,
            "failures": (self.counters.failures, self.counters.malformed),
            "counted": (counted.batches_in, counted.records_in, counted.bytes_in, counted.duplicates),
        }


async def server(together: bool, frame_bytes_max: int = FRAME_BYTES_MAX, **settings: Any) -> Server:
    bench, began = Bench(), list[int]()
    streams = [FakeStream(stream_id=n) for n in range(PARTITIONS)]
    partitions = [await bench.open(stream, **settings) for stream in streams]
    room = Streams()
    ctx: Any = SimpleNamespace(
        brokers=two_brokers(),
        topics=SimpleNamespace(
            by_id={TOPIC: _INFO}.get, get=dict.fromkeys((TOPIC_NAMED.name, LONG_NAME.name), _INFO).get
        ),
        logs=SimpleNamespace(get=lambda _, n: partitions[n] if 0 <= n < PARTITIONS else None),
        handovers=NO_HANDOVERS,
        streams=room,
        deadlines=Deadlines(asyncio.get_running_loop()),
        checks=InlineExecutor(),
        transactions_port=KnownTransactions(),
    )

    class Watched(produce_runs.Runs):
        def begin(self, received: bytes | memoryview, at: int, end: int) -> produce_runs.PendingReply | None:
            begun = super().begin(received, at, end)
            if begun is not None:
                began.append(begun.count)
            return begun

    served = {h.api.key: h for h in HANDLERS if h.api.key == ApiKey.PRODUCE}
    served = {key: replace(h, runs=Watched if together else None) for key, h in served.items()}
    transport, counters = FakeTransport(), Counters()
    transport.abort = lambda: None  # type: ignore[method-assign]
    connection = Connection(ctx, served, frame_bytes_max, counters, {}, ConnectionMemory(1 << 30))
    connection.connection_made(transport)
    return Server(connection, transport, counters, bench, partitions, streams, room.room, began)


_INFO = TopicInfo(TOPIC_NAMED.name, TOPIC, {}, tuple(PartitionInfo(n, n, OWN.node) for n in range(PARTITIONS)))


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def serve(one: Server, pieces: Sequence[bytes]) -> None:
    """All pieces come; what was appended becomes durable now and then."""
    for n, piece in enumerate(pieces):
        if one.transport.closed:
            break
        deliver(one.connection, piece)
        if n % 3 == 2:
            await settle()
            durable(one)
    for _ in range(3):
        await settle()
        durable(one)
    await settle()
    one.connection.connection_lost(None)


def durable(one: Server) -> None:
    for stream in one.streams:
        stream.make_durable()


async def same(pieces: Sequence[bytes], **settings: Any) -> Server:
    """The server that begins requests together, after it was found to have done as the other one did."""
    together, one_by_one = await server(True, **settings), await server(False, **settings)
    for each in (together, one_by_one):
        await serve(each, pieces)
    assert together.facts() == one_by_one.facts()
    return together


class Requests:
    """Requests as `rng` has it: mostly many with the same head, with all that may interrupt a run."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._number = 0
        self._sequences: dict[int, int] = {}  # by producer id
        self._head: tuple[Any, ...] = ()

    def draw(self, count: int) -> list[bytes]:
        return [self._request() for _ in range(count)]

    def _request(self) -> bytes:
        rng = self._rng
        self._number += 1
        if not self._head or rng.random() < 0.15:
            self._head = (
                rng.choice([3, 7, 8, 9, 11, 12, 13, newest(ApiKey.PRODUCE)]),
                rng.choice([-1, -1, -1, 1, 0, 7]),
                rng.choice([0, 0, 1, 1, PARTITIONS, -1]),
                rng.choice([TOPIC_NAMED, TOPIC_NAMED, TOPIC_NAMED, LONG_NAME, Topic("nowhere", UUID(int=5))]),
                rng.choice([None, "", "client", "ä" * 40]),
                rng.choice([None, None, None, "t"]),
            )
        version, acks, index, topic, client, transactional_id = self._head
        if rng.random() < 0.02:
            return encoded(ApiKey.HEARTBEAT, 4, heartbeat.HeartbeatRequest(), self._number)  # is not served here
        transactional = transactional_id is not None and rng.random() < 0.9
        batches: dict[int, bytes | None] = {index: self._batch(transactional)}
        if rng.random() < 0.05:
            batches[1 - index] = self._batch(transactional)
        if rng.random() < 0.03:
            batches[index] = rng.choice([None, b"", self._batch() + self._batch()])
        request = produce_request(topic, batches, acks=acks, transactional_id=transactional_id)
        whole = b"".join(encode_request(api(ApiKey.PRODUCE), version, self._number, client, request))
        if version >= 9 and rng.random() < 0.05:  # tagged fields that nobody knows, at one of the three ends
            at = len(whole) - rng.randrange(1, 4)
            whole = whole[:at] + b"\1\5\1x" + whole[at + 1 :]
            whole = (len(whole) - 4).to_bytes(4, "big") + whole[4:]
        batch = batches[index]
        if version >= 9 and batch and rng.random() < 0.03:  # a length in more bytes than it needs, or than may be
            length = varint(len(batch) + 1)
            longer = bytes(each | 0x80 for each in length.ljust(rng.choice([3, 4, 5]), b"\0")) + b"\0"
            whole = whole.replace(length + batch, longer + batch)
            whole = (len(whole) - 4).to_bytes(4, "big") + whole[4:]
        return whole

    def _batch(self, transactional: bool = False) -> bytes:
        rng = self._rng
        count = rng.choice([1, 1, 1, 2, 5])
        at_ms = NOW_MS + rng.choice([0, 0, 0, 0, 0, -5, -HOUR_MS, 20 * HOUR_MS, 100 * HOUR_MS, -1 - NOW_MS])
        records = [
            Record(n, at_ms + rng.randrange(3), rng.choice([None, b"key"]), rng.randbytes(rng.randrange(40)))
            for n in range(count)
        ]
        kind: dict[str, Any] = {}
        if transactional or rng.random() < 0.6:
            producer_id = rng.choice([1, 1, 1, 2]) + (10 if transactional and rng.random() < 0.95 else 0)
            sequence = self._sequences.get(producer_id, 0)
            kind = {"producer_id": producer_id, "producer_epoch": 0, "base_sequence": sequence}
            kind["transactional"] = transactional
            if rng.random() < 0.07:  # again, or a gap
                kind["base_sequence"] = max(0, sequence + rng.choice([-count, 1]))
            else:
                self._sequences[producer_id] = sequence + count
        if rng.random() < 0.2:
            kind["compression"] = rng.choice(list(Compression))
        batch = encode_batch(records, **kind)
        if rng.random() < 0.05:  # log append time, transactional, control
            marked = bytearray(batch)
            marked[CHECKED_AT + 1] |= rng.choice([0x08, 0x10, 0x20])
            batch = signed(marked)
        if kind.get("compression") and rng.random() < 0.1:
            claims = bytearray(batch)
            struct.pack_into(">i", claims, LAST_OFFSET_DELTA_AT, 2**31 - 2)
            struct.pack_into(">i", claims, COUNT_AT, 2**31 - 1)
            batch = signed(claims)
        if rng.random() < 0.06:
            damaged = bytearray(batch)
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            batch = signed(bytes(damaged)) if rng.random() < 0.7 else bytes(damaged)
        return batch


def cut(data: bytes, rng: random.Random) -> list[bytes]:
    """In pieces, as they may come from a socket."""
    pieces, at = [], 0
    while at < len(data):
        size = rng.choice([1, 10, 100, 1000, 10_000, 100_000])
        pieces.append(data[at : at + size])
        at += size
    return pieces
