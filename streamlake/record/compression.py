"""The compression codecs of record batches, with a hard limit on what comes out.

A few bytes can claim gigabytes, so decompression always writes into a buffer of a size that we chose: it starts at
a guess and grows up to the caller's limit. Snappy comes in two forms, raw (librdkafka) and in the blocks of the
Java library ("xerial"); lz4 is the frame format with independent blocks, which is all that Java clients read.
"""

import struct
import threading
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import cramjam

from streamlake.record.batch import Buffer, InvalidRecord

XERIAL_HEADER = b"\x82SNAPPY\x00"
XERIAL_HEADER_BYTES = 16  # the header, then two versions that nobody reads
SCRATCH_BYTES = 1 << 20
GROWTH = 8

_thread = threading.local()


class Compression(IntEnum):
    """Numbers as in the attributes of a batch (KIP-98, KIP-110)."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


_DECOMPRESS_INTO: dict[int, Callable[[Any, Any], int]] = {
    Compression.GZIP: cramjam.gzip.decompress_into,
    Compression.LZ4: cramjam.lz4.decompress_into,
    Compression.ZSTD: cramjam.zstd.decompress_into,
}


def compress(codec: Compression, data: bytes) -> bytes:
    """The payload of a batch, compressed at the codec's default level."""
    match codec:
        case Compression.NONE:
            return data
        case Compression.GZIP:
            return bytes(cramjam.gzip.compress(data))
        case Compression.SNAPPY:
            return bytes(cramjam.snappy.compress_raw(data))
        case Compression.LZ4:
            compressor = cramjam.lz4.Compressor(content_checksum=False, block_linked=False)
            compressor.compress(data)
            return bytes(compressor.finish())
        case Compression.ZSTD:
            return bytes(cramjam.zstd.compress(data))


def decompress(codec: int, data: Buffer, max_bytes: int) -> bytes:
    """The payload as records. InvalidRecord if the codec is unknown, the data is damaged, or more than `max_bytes`
    would come out; never allocates more than that."""
    if codec == Compression.NONE:
        return bytes(data)
    if codec == Compression.SNAPPY:
        return _decompress_snappy(memoryview(data), max_bytes)
    if codec not in _DECOMPRESS_INTO:
        raise InvalidRecord(f"compression codec {codec} does not exist: use none, gzip, snappy, lz4 or zstd")
    return _decompress_growing(Compression(codec), data, max_bytes)


def _decompress_growing(codec: Compression, data: Buffer, max_bytes: int) -> bytes:
    decompress_into = _DECOMPRESS_INTO[codec]
    size_bytes = min(max_bytes, max(SCRATCH_BYTES, 4 * len(data)))
    while True:
        output = _output(size_bytes)
        try:
            written = decompress_into(data, output)
        except cramjam.DecompressionError as error:
            # The library does not tell a full buffer from damaged data, so both get more room until there is none.
            if size_bytes >= max_bytes:
                raise InvalidRecord(
                    f"{codec.name.lower()} data is damaged or over {max_bytes} bytes: {error}"
                ) from None
            size_bytes = min(max_bytes, size_bytes * GROWTH)
        else:
            return bytes(output[:written])


def _output(size_bytes: int) -> memoryview:
    """Memory to write to until the next call in this thread. New memory would be cleared first, page by page; most
    batches fit what the last one has left."""
    if size_bytes > SCRATCH_BYTES:
        return memoryview(bytearray(size_bytes))
    if not hasattr(_thread, "scratch"):
        _thread.scratch = memoryview(bytearray(SCRATCH_BYTES))
    scratch: memoryview = _thread.scratch
    return scratch[:size_bytes]


def _decompress_snappy(data: memoryview, max_bytes: int) -> bytes:
    if bytes(data[: len(XERIAL_HEADER)]) != XERIAL_HEADER:
        return _decompress_snappy_block(data, max_bytes)
    blocks = []
    position, room_bytes = XERIAL_HEADER_BYTES, max_bytes
    while position < len(data):
        if position + 4 > len(data):
            raise InvalidRecord("snappy data ends within the length of a block")
        (length,) = struct.unpack_from(">I", data, position)
        position += 4
        if length > len(data) - position:
            raise InvalidRecord(f"a snappy block claims {length} bytes, {len(data) - position} are left")
        block = _decompress_snappy_block(data[position : position + length], room_bytes)
        room_bytes -= len(block)
        blocks.append(block)
        position += length
    return b"".join(blocks)


def _decompress_snappy_block(block: memoryview, max_bytes: int) -> bytes:
    try:
        size_bytes = cramjam.snappy.decompress_raw_len(block)
        if size_bytes > max_bytes:
            raise InvalidRecord(f"snappy data claims {size_bytes} bytes, over the limit of {max_bytes}")
        output = _output(size_bytes)
        written = cramjam.snappy.decompress_raw_into(block, output)
    except cramjam.DecompressionError as error:
        raise InvalidRecord(f"snappy data is damaged: {error}") from None
    return bytes(output[:written])
