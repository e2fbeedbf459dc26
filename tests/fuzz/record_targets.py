"""Record batches: what a producer sends, and what the log gives back.

The first byte of an input says what is put right after the damage (lengths, CRCs), so that the inside is reached.
kafka-python reads what we accept, and must find the same records in it.
"""

import functools
import itertools
import random
import struct

from crc32c import crc32c
from fuzz.target import MIB, Target
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch

from streamlake.record import validate
from streamlake.record.arrow import decode_fetched
from streamlake.record.batch import (
    CHECKED_AT,
    COMPRESSION_MASK,
    CONTROL_BIT,
    CRC_AT,
    FRAME_BYTES,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    MAGIC_AT,
    CorruptBatch,
    InvalidRecord,
    RecordTooLarge,
    UnsupportedFormat,
    assign,
    check_crc,
    frames,
    scan_batches,
)
from streamlake.record.compression import XERIAL_HEADER, Compression, check_form, compress, decompress
from streamlake.record.decode import Record, decode_batch, parse_records
from streamlake.record.encode import encode_batch

DECOMPRESSED_MAX = 1 * MIB
BATCH_BYTES_MAX = 1 * MIB
RECORDS_MANY = 5_000
REFUSED = (CorruptBatch, InvalidRecord, RecordTooLarge, UnsupportedFormat)
FIX_CRC, FIX_LENGTH = 1, 2
CODECS, PACKED = [codec for codec in Compression if codec], 0x40
ATTRIBUTES_AT = CHECKED_AT + 1  # the low byte of them


def mended(data: bytes) -> bytes:
    """The batches after the first byte, with what that byte says put right."""
    how, out = data[0] if data else 0, bytearray(data[1:])
    at = 0
    if how & FIX_LENGTH and len(out) > FRAME_BYTES:  # one batch, whatever became of its length
        struct.pack_into(">i", out, 8, len(out) - FRAME_BYTES)
    while how & FIX_CRC and at + HEADER_BYTES <= len(out):
        end = at + FRAME_BYTES + int.from_bytes(out[at + 8 : at + 12], "big", signed=True)
        if end > len(out) or end < at + HEADER_BYTES:
            break
        out[at + MAGIC_AT] = MAGIC
        struct.pack_into(">I", out, at + CRC_AT, crc32c(bytes(out[at + CHECKED_AT : end])))
        at = end
    return bytes(out)


@functools.cache
def batches() -> list[bytes]:
    rng, made = random.Random(4), []
    for codec in Compression:
        made += [encode_batch(_records(rng, count), compression=codec) for count in (1, 3, 40)]
        made.append(
            encode_batch(
                _records(rng, 2), compression=codec, producer_id=5, producer_epoch=1, base_sequence=0, append_time_ms=77
            )
        )
    marker = Record(0, 1000, b"\0\0\0\0", b"\0\0\0\0\0\0")
    made.append(encode_batch([marker], producer_id=5, producer_epoch=1, transactional=True, control=True))
    made.append(encode_batch(_records(rng, 3), producer_id=5, producer_epoch=1, base_sequence=0, transactional=True))
    return made


def _records(rng: random.Random, count: int) -> list[Record]:
    def some() -> bytes | None:
        return rng.choice([None, b"", b"k", rng.randbytes(9), bytes(200)])

    return [
        Record(
            i,
            1000 + rng.randrange(-500, 500),
            some(),
            some(),
            tuple((f"h{n}", some()) for n in range(rng.choice([0, 0, 1, 3]))),
        )
        for i in range(count)
    ]


def _bombs() -> list[bytes]:
    """Few bytes that come out as many, or as many records."""
    records = b"".join(b"\x10\x00\x00" + _delta(i) + b"\x01\x01\x00" for i in range(RECORDS_MANY))
    return [
        *(_batch(codec, compress(codec, bytes(16 * MIB)), 1) for codec in Compression if codec != Compression.NONE),
        _batch(Compression.ZSTD, compress(Compression.ZSTD, records), RECORDS_MANY),
        _batch(Compression.SNAPPY, XERIAL_HEADER + bytes(8) + b"\xff\xff\xff\xff", 1),
        _batch(Compression.SNAPPY, b"\xff\xff\xff\xff\x0f\0", 1),
    ]


def _delta(offset: int) -> bytes:
    zigzag = offset << 1
    return bytes([zigzag & 0x7F | 0x80, zigzag >> 7 & 0x7F | 0x80, zigzag >> 14])


def _batch(codec: int, payload: bytes, count: int, last_delta: int = 2**31 - 1) -> bytes:
    length = HEADER_BYTES - FRAME_BYTES + len(payload)
    return HEADER.pack(0, length, 0, MAGIC, 0, codec, last_delta, 1000, 1000, -1, -1, -1, count) + payload


def seeds() -> list[bytes]:
    each = [bytes([how]) + batch for batch in (*batches(), *_bombs()) for how in (FIX_CRC, FIX_CRC | FIX_LENGTH)]
    return [*each, *(b"\x00" + batch for batch in batches()[:6]), b"\x01" + b"".join(batches()[:3])]


def check_what_is_produced(data: bytes) -> None:
    records = mended(data)
    try:
        found = validate.check_batch(memoryview(records), BATCH_BYTES_MAX, DECOMPRESSED_MAX)
    except REFUSED:
        return
    assert found.min_timestamp <= found.max_timestamp
    assert found.records > 0 and found.size_bytes == len(records)
    stored = bytearray(len(records))
    found.placed(1000, 3, data[0] * 1000 or None).copy_to(stored, 0)
    (again,) = scan_batches(stored, BATCH_BYTES_MAX)
    assert (again.base_offset, again.leader_epoch, again.count) == (1000, 3, found.records)
    assert again.max_timestamp == (data[0] * 1000 or found.max_timestamp)
    if not found.is_transactional:
        _check_readable(bytes(stored), 1000, found.records)


def _check_readable(stored: bytes, base_offset: int, count: int) -> None:
    """What was accepted gives every reader so many records."""
    read = decode_fetched(stored, base_offset, (), DECOMPRESSED_MAX)
    assert not read.bad_batches
    assert read.table["offset"].to_pylist() == list(range(base_offset, base_offset + count))


def compressed_batch_seeds() -> list[bytes]:
    """A codec and whether the rest is compressed yet, a count, and the payload of a batch."""
    made = []
    for count in (1, 3, 40):
        plain = encode_batch(_records(random.Random(6), count))[HEADER_BYTES:]
        for codec in CODECS:
            made.append(bytes([codec - 1, count]) + plain)
            made.append(bytes([codec - 1 | PACKED, count]) + compress(codec, plain))
        blocks = b"".join(
            struct.pack(">I", len(b)) + b
            for b in (compress(Compression.SNAPPY, half) for half in (plain[:9], plain[9:]))
        )
        made.append(bytes([Compression.SNAPPY - 1 | PACKED, count]) + XERIAL_HEADER + struct.pack(">ii", 1, 1) + blocks)
        members = compress(Compression.GZIP, plain[:9]) + compress(Compression.GZIP, plain[9:])
        made.append(bytes([Compression.GZIP - 1 | PACKED, count]) + members)
    return made


def check_compressed_batch(data: bytes) -> None:
    """A header that is right but for its count, around a payload that may be damaged before or after it is packed:
    accepted exactly if the twin reads it too, and then readable."""
    how, count, payload = (data[0], data[1], data[2:]) if len(data) > 2 else (1, 1, b"")
    codec = CODECS[how % 4]
    packed = payload if how & PACKED else compress(codec, payload)
    records = mended(bytes([FIX_CRC]) + _batch(codec, packed, count, count - 1))
    try:
        found = validate.check_batch(memoryview(records), BATCH_BYTES_MAX, DECOMPRESSED_MAX)
    except InvalidRecord:
        found = None
    assert bool(validate.check_at_once(memoryview(records), BATCH_BYTES_MAX, DECOMPRESSED_MAX)) == bool(found)
    try:
        check_form(codec, packed)
        header = next(frames(records))[0]
        times = [record[1] for record in parse_records(header, decompress(codec, packed, DECOMPRESSED_MAX))]
    except InvalidRecord:
        times = []
    assert bool(times) == (found is not None)
    if found is not None:
        assert (found.min_timestamp, found.max_timestamp) == (min(times), max(times))
        _check_readable(records, 0, count)


def check_batch(data: bytes) -> None:
    records = mended(data)
    try:
        found = [(header, batch) for header, batch in frames(records) if check_crc(header, batch) is None]
    except REFUSED:
        return
    for header, batch in found:
        try:
            ours = decode_batch(header, batch, DECOMPRESSED_MAX)
        except InvalidRecord:
            continue
        # Uncompressed, because another reader's codecs have no limits.
        payload = decompress(header.compression, batch[HEADER_BYTES:], DECOMPRESSED_MAX)
        plain = bytearray(batch[:HEADER_BYTES]) + _without_attributes(payload)
        plain[ATTRIBUTES_AT] &= ~(COMPRESSION_MASK | CONTROL_BIT)
        try:
            theirs = [(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in DefaultRecordBatch(plain)]
        except CorruptRecordError as error:
            if "UnicodeDecodeError" in str(error):
                continue  # the key of a header, which we replace and do not refuse
            raise
        assert [tuple(record) for record in ours] == theirs


def _without_attributes(payload: bytes) -> bytes:
    """Zero in the unused first byte of each record, which kafka-python takes for a varint."""
    out, at = bytearray(payload), 0
    while at < len(out):
        length = shift = 0
        while True:
            byte, at = out[at], at + 1
            length, shift = length | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                break
        out[at] = 0
        at += length >> 1
    return bytes(out)


def fetch_seeds() -> list[bytes]:
    """Batches one after the other, as the log has them. The second byte: where the reader wants to begin."""
    rng, made = random.Random(5), []
    for start in (0, 1, 5, 50):
        log, offset = b"", 0
        for batch in rng.sample(batches(), 6):
            ((header, view),) = frames(batch)
            log += b"".join(assign(header, view, offset, 1, header.max_timestamp))
            offset += header.last_offset_delta + 1 + rng.choice([0, 0, 3])
        made.append(bytes([FIX_CRC, start]) + log)
    return made + [bytes([FIX_CRC, 0]) + bomb for bomb in _bombs()]


def check_fetched(data: bytes) -> None:
    """Every position ends as exactly one of: a row, a skip, a part of a bad batch."""
    start, log = data[1] if len(data) > 1 else 0, mended(data[:1] + data[2:])
    try:
        found = decode_fetched(log, start, [(5, 2), (-1, 0)], DECOMPRESSED_MAX)
    except REFUSED:
        return
    offsets = found.table["offset"].to_pylist()
    assert all(a < b for a, b in itertools.pairwise(offsets))
    assert not offsets or start <= offsets[0] <= offsets[-1] < found.next_offset
    bad = sum(b.last_offset + 1 - max(b.base_offset, start) for b in found.bad_batches)
    assert len(offsets) + sum(found.skipped.values()) + bad == found.next_offset - start
    assert all(count >= 0 for count in found.skipped.values())


def compressed_seeds() -> list[bytes]:
    texts = (b"hello world, hello world" * 20, b"", bytes(3 * MIB), bytes(range(256)) * 100)
    made = [bytes([codec]) + compress(codec, text) for codec in Compression for text in texts]
    blocks = b"".join(struct.pack(">I", len(b)) + b for b in [compress(Compression.SNAPPY, b"block" * 50)] * 3)
    return [*made, b"\x02" + XERIAL_HEADER + bytes(8) + blocks, b"\x05x", *(2 * m for m in made[:8])]


def check_decompress(data: bytes) -> None:
    codec = data[0] % 8 if data else 0
    try:
        found = decompress(codec, memoryview(data)[1:], DECOMPRESSED_MAX)
    except InvalidRecord:
        return
    assert len(found) <= DECOMPRESSED_MAX or codec == Compression.NONE


TARGETS = [
    Target("produced", seeds, check_what_is_produced),
    Target("compressed batch", compressed_batch_seeds, check_compressed_batch, examples=200),
    Target("batch", seeds, check_batch, memory_bytes=32 * MIB),
    Target("fetched", fetch_seeds, check_fetched, memory_bytes=64 * MIB),
    Target("decompress", compressed_seeds, check_decompress),
]
