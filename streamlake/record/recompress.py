"""A batch with the same records, compressed in another way: what `compression.type` of a topic asks of its broker."""

import struct
from typing import NamedTuple

from crc32c import crc32c

from streamlake.record.batch import (
    ATTRIBUTES_LOW_AT,
    CHECKED_AT,
    COMPRESSION_MASK,
    CRC_AT,
    FRAME_BYTES,
    HEADER_BYTES,
    Buffer,
    RecordTooLarge,
)
from streamlake.record.compression import DECOMPRESSED_BYTES_MAX, Compression, compress, unpacked

_LENGTH = struct.Struct(">i")
_LENGTH_AT = 8
_CRC = struct.Struct(">I")


class Codec(NamedTuple):
    compression: Compression
    level: int | None = None  # None: the codec's default


def codec_of(records: Buffer) -> int:
    """The codec number of a batch whose header is whole."""
    return records[ATTRIBUTES_LOW_AT] & COMPRESSION_MASK


def recompressed_bytes_max(size_bytes: int, unpacked_bytes: int) -> int:
    """At most as many bytes become of a batch, whatever the codec: snappy grows the most where nothing is saved."""
    payload_bytes = max(unpacked_bytes, size_bytes - HEADER_BYTES)
    return HEADER_BYTES + payload_bytes + payload_bytes // 6 + 1_024


def recompressed(records: Buffer, codec: Codec, bytes_max: int) -> bytes:
    """The whole batch, which was checked before (validate.py). All but length, CRC and codec stays as it was signed.
    RecordTooLarge if more than `bytes_max` would come out."""
    batch = memoryview(records)
    payload = unpacked(codec_of(batch), batch[HEADER_BYTES:], DECOMPRESSED_BYTES_MAX)
    data = compress(codec.compression, payload, codec.level)
    if HEADER_BYTES + len(data) > bytes_max:
        raise RecordTooLarge(
            f"a batch of {len(batch)} bytes has {HEADER_BYTES + len(data)} with the compression.type of its topic, over"
            f" the limit of {bytes_max} (max.message.bytes)"
        )
    out = bytearray(batch[:HEADER_BYTES])
    out += data
    out[ATTRIBUTES_LOW_AT] = out[ATTRIBUTES_LOW_AT] & ~COMPRESSION_MASK | codec.compression
    _LENGTH.pack_into(out, _LENGTH_AT, len(out) - FRAME_BYTES)
    _CRC.pack_into(out, CRC_AT, crc32c(memoryview(out)[CHECKED_AT:]))
    return bytes(out)
