"""The compression codecs of record batches, with a hard limit on what comes out.

A few bytes can claim gigabytes, so decompression always writes into memory of a size that we chose: each thread has
some of its own, of which only what was ever written to is real. Snappy comes in two forms, raw (librdkafka) and in the
blocks of the Java library ("xerial"); lz4 is one frame of independent blocks, which is all that Java clients read.
"""

import mmap
import struct
import threading
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any

import cramjam

from streamlake.record.batch import Buffer, InvalidRecord

# Of one batch. Produce refuses a larger one, so that no reader meets it; to the table it is a bad batch, and that
# decision must never change.
DECOMPRESSED_BYTES_MAX = 64 << 20
XERIAL_HEADER = b"\x82SNAPPY\x00"
XERIAL_HEADER_BYTES = 16  # the header, then two versions
LZ4_MAGIC = b"\x04\x22\x4d\x18"
LZ4_HEADER_BYTES = 7  # magic, flags, block size, checksum; 8 more if the size of the content is told
LZ4_END_BYTES = 4  # a block of no bytes
LZ4_RAW_BLOCK = 0x80000000  # in the size of a block that is not compressed

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


def compress(codec: Compression, data: Buffer, level: int | None = None) -> Buffer:
    """The payload of a batch, compressed. `level` as the codec counts them, None for its default; snappy has none."""
    match codec:
        case Compression.NONE:
            return data
        case Compression.GZIP:
            return bytes(cramjam.gzip.compress(data, level=level))
        case Compression.SNAPPY:
            return bytes(cramjam.snappy.compress_raw(data))
        case Compression.LZ4:
            compressor = cramjam.lz4.Compressor(level=level, content_checksum=False, block_linked=False)
            compressor.compress(bytes(data))
            return bytes(compressor.finish())
        case Compression.ZSTD:
            return bytes(cramjam.zstd.compress(data, level=level))


def decompress(codec: int, data: Buffer, max_bytes: int) -> bytes:
    """The payload as records. InvalidRecord if the codec is unknown, the data is damaged, or more than `max_bytes`
    would come out; never takes more memory than that."""
    return bytes(unpacked(codec, data, max_bytes))


def unpacked(codec: int, data: Buffer, max_bytes: int) -> memoryview:
    """As `decompress`, without a copy: what comes out lies in memory of this thread, until its next call. The work is
    done without the GIL."""
    if codec == Compression.NONE:
        return memoryview(data)
    if codec == Compression.SNAPPY:
        return _unpacked_snappy(memoryview(data), max_bytes)
    if codec not in _DECOMPRESS_INTO:
        raise InvalidRecord(f"compression codec {codec} does not exist: use none, gzip, snappy, lz4 or zstd")
    output = _output(max_bytes)
    try:
        written = _DECOMPRESS_INTO[codec](data, output)
    except cramjam.DecompressionError as error:  # the library does not tell a full buffer from damaged data
        name = Compression(codec).name.lower()
        raise InvalidRecord(f"{name} data is damaged or over {max_bytes} bytes: {error}") from None
    return output[:written]


def check_form(codec: int, data: Buffer) -> None:
    """InvalidRecord for forms that `decompress` reads and Kafka's Java clients do not: lz4 that is not one frame of
    independent blocks, snappy blocks of a version that does not exist. A broker that let them pass would block every
    Java consumer of the partition."""
    if codec == Compression.LZ4:
        _check_lz4_form(memoryview(data))
    elif codec == Compression.SNAPPY and data[: len(XERIAL_HEADER)] == XERIAL_HEADER:
        version = int.from_bytes(data[len(XERIAL_HEADER) : len(XERIAL_HEADER) + 4], "big", signed=True)
        if version < 1:
            raise InvalidRecord(f"snappy data in blocks of version {version}: versions begin with 1")


def _check_lz4_form(data: memoryview) -> None:
    if len(data) < LZ4_HEADER_BYTES or data[: len(LZ4_MAGIC)] != LZ4_MAGIC:
        raise InvalidRecord("lz4 data does not start with an lz4 frame")
    flags = data[len(LZ4_MAGIC)]
    if not flags & 0x20 or flags & 0x03:
        raise InvalidRecord("lz4 blocks depend on each other or on a dictionary, which Java clients cannot read")
    position = LZ4_HEADER_BYTES + (8 if flags & 0x08 else 0)
    checksum_bytes = 4 if flags & 0x10 else 0  # of each block
    while position + 4 <= len(data):
        size_bytes = int.from_bytes(data[position : position + 4], "little") & ~LZ4_RAW_BLOCK
        position += LZ4_END_BYTES
        if size_bytes == 0:
            break
        position += size_bytes + checksum_bytes
    position += 4 if flags & 0x04 else 0  # checksum of the content
    if position != len(data):
        raise InvalidRecord(f"an lz4 frame ends at byte {position} of {len(data)}: send one frame")


def _output(size_bytes: int) -> memoryview:
    """Memory to write to until the next call in this thread. It is mapped once and never given back: to clear or to
    unmap it each time would hold the GIL for milliseconds where much comes out."""
    output: memoryview | None = getattr(_thread, "output", None)
    if output is None or len(output) < size_bytes:
        room_bytes = max(size_bytes, DECOMPRESSED_BYTES_MAX)
        output = memoryview(mmap.mmap(-1, room_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        _thread.output = output
    return output[:size_bytes]


def _unpacked_snappy(data: memoryview, max_bytes: int) -> memoryview:
    output, written = _output(max_bytes), 0
    for block in _snappy_blocks(data):
        try:
            size_bytes = cramjam.snappy.decompress_raw_len(block)
            if size_bytes > max_bytes - written:
                raise InvalidRecord(f"snappy data claims {written + size_bytes} bytes, over the limit of {max_bytes}")
            written += cramjam.snappy.decompress_raw_into(block, output[written : written + size_bytes])
        except cramjam.DecompressionError as error:
            raise InvalidRecord(f"snappy data is damaged: {error}") from None
    return output[:written]


def _snappy_blocks(data: memoryview) -> Iterator[memoryview]:
    if data[: len(XERIAL_HEADER)] != XERIAL_HEADER:
        yield data
        return
    position = XERIAL_HEADER_BYTES
    while position < len(data):
        if position + 4 > len(data):
            raise InvalidRecord("snappy data ends within the length of a block")
        (length,) = struct.unpack_from(">I", data, position)
        position += 4
        if length > len(data) - position:
            raise InvalidRecord(f"a snappy block claims {length} bytes, {len(data) - position} are left")
        yield data[position : position + length]
        position += length
