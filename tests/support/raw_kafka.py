"""Kafka's wire by hand, for what no client library would send: wrong frames, wrong batches, silence."""

import socket
import struct
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import cramjam
from crc32c import crc32c
from support.wait import DEADLINE_S

from streamlake.protocol.messages import ApiKey, produce
from streamlake.protocol.requests import api, decode_response, encode_request
from streamlake.record.batch import CHECKED_AT, CRC_AT, HEADER, HEADER_BYTES
from streamlake.record.compression import Compression
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch


def frame(key: int, version: int, body: bytes, client_id: bytes | None = b"raw", correlation_id: int = 7) -> bytes:
    """A request with header version 1; flexible versions want the header's tagged fields at the start of `body`."""
    head = struct.pack(">hhih", key, version, correlation_id, -1 if client_id is None else len(client_id))
    payload = head + (client_id or b"") + body
    return struct.pack(">i", len(payload)) + payload


class RawClient:
    """One connection. `close` it, or use it as a context."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read_answer(self) -> bytes | None:
        """The next frame without its length; None if the server closed the connection."""
        head = self._read(4)
        return None if head is None else self._read(struct.unpack(">i", head)[0])

    def _read(self, size: int) -> bytes | None:
        data = b""
        while len(data) < size:
            try:
                part = self.socket.recv(size - len(data))
            except ConnectionResetError:
                return None
            if not part:
                return None
            data += part
        return data

    def is_closed_by_server(self) -> bool:
        """Waits for it; False if an answer came instead."""
        return self.read_answer() is None

    def call(self, key: ApiKey, version: int, request: Any) -> Any:
        """A well-formed request and its answer."""
        found = api(key)
        self.send(b"".join(bytes(part) for part in encode_request(found, version, 1, "raw", request)))
        answer = self.read_answer()
        if answer is None:
            raise ConnectionError("the server closed the connection")
        return decode_response(found, version, answer)

    def produce(self, topic: str, records: bytes, partition: int = 0, timeout_ms: int = 20_000) -> Any:
        """The answer for one partition: error_code, base_offset, error_message."""
        return self.produce_all(topic, {partition: records}, timeout_ms)[0]

    def produce_all(self, topic: str, records: Mapping[int, bytes], timeout_ms: int = 20_000) -> Any:
        """One request for several partitions; their answers."""
        parts = tuple(produce.PartitionProduceData(index=n, records=data) for n, data in records.items())
        topics = (produce.TopicProduceData(name=topic, partition_data=parts),)
        request = produce.ProduceRequest(acks=-1, timeout_ms=timeout_ms, topic_data=topics)
        return self.call(ApiKey.PRODUCE, 9, request).responses[0].partition_responses


def batch(values: Sequence[bytes | None], compression: Compression = Compression.NONE) -> bytes:
    """A batch as a producer sends it, stamped now: older records might be gone by retention."""
    now_ms = time.time_ns() // 1_000_000
    records = [Record(at, now_ms, None, value) for at, value in enumerate(values)]
    return encode_batch(records, compression=compression)


def signed(batch: bytes | bytearray) -> bytes:
    """With the CRC that its bytes have now: for batches that lie without being damaged."""
    changed = bytearray(batch)
    struct.pack_into(">I", changed, CRC_AT, crc32c(memoryview(changed)[CHECKED_AT:]))
    return bytes(changed)


def with_payload(compression: Compression, payload: bytes, count: int = 1) -> bytes:
    """A batch with a right header and CRC around any payload."""
    template = batch([b""] * count, compression)
    fields = list(HEADER.unpack_from(template))
    fields[1] = HEADER_BYTES - 12 + len(payload)
    return signed(HEADER.pack(*fields) + payload)


def bomb(compression: Compression, size_bytes: int) -> bytes:
    """`size_bytes` zero bytes, compressed as a producer's library does."""
    zeros = bytes(min(size_bytes, 16 << 20))
    times = size_bytes // len(zeros)
    if compression is Compression.GZIP:
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        return b"".join(packer.compress(zeros) for _ in range(times)) + packer.flush()
    if compression is Compression.SNAPPY:
        return bytes(cramjam.snappy.compress_raw(bytes(size_bytes)))
    zstd = compression is Compression.ZSTD
    compressor = cramjam.zstd.Compressor() if zstd else cramjam.lz4.Compressor(block_linked=False)
    for _ in range(times):
        compressor.compress(zeros)
    return bytes(compressor.finish())
