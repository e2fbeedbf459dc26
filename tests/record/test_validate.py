import random
import struct

import pytest
from crc32c import crc32c
from hypothesis import given
from support.hostile import some_batch
from support.raw_kafka import bomb, with_payload
from support.records import batches_of_records

from streamlake.record import validate
from streamlake.record.arrow import decode_fetched
from streamlake.record.batch import HEADER_BYTES, CorruptBatch, InvalidRecord, RecordTooLarge
from streamlake.record.compression import DECOMPRESSED_BYTES_MAX, Compression, compress
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch
from streamlake.record.validate import (
    AT_ONCE_BATCH_BYTES,
    AT_ONCE_BYTES,
    check_at_once,
    check_batch,
    is_compressed,
    twin_of_check,
)

MIB = 1024 * 1024
RECORDS = [Record(0, 1000, b"k", b"v"), Record(1, 990, None, b"w"), Record(2, 1010, None, b"")]


def without_kernels(monkeypatch):
    monkeypatch.setattr(validate, "_kernel", None)
    monkeypatch.setattr(validate, "_run_kernel", None)


def lie(data: bytes, fmt: str, at: int, value: int) -> bytes:
    """Change a header field and sign it."""
    changed = bytearray(data)
    struct.pack_into(fmt, changed, at, value)
    struct.pack_into(">I", changed, 17, crc32c(changed[21:]))
    return bytes(changed)


@given(batches_of_records(gaps=False))
def test_honest_batches_pass(records):
    data = encode_batch(records)
    produced = check_batch(memoryview(data), 64 * MIB)
    times = [r.timestamp for r in records]
    assert (produced.min_timestamp, produced.max_timestamp) == (min(times), max(times))


@pytest.mark.parametrize("codec", Compression)
def test_the_true_timestamps_and_sizes_are_found(codec):
    produced = check_batch(lie(encode_batch(RECORDS, compression=codec), ">q", 35, 77), MIB)
    assert (produced.min_timestamp, produced.max_timestamp) == (990, 1010)
    assert produced.unpacked_bytes == (len(encode_batch(RECORDS)) - HEADER_BYTES if codec else 0)


@pytest.mark.parametrize("batches", [0, 2])
def test_exactly_one_batch(batches):
    with pytest.raises(InvalidRecord, match="one batch"):
        check_batch(encode_batch(RECORDS) * batches, MIB)


@pytest.mark.parametrize("codec", [Compression.NONE, Compression.LZ4])
@pytest.mark.parametrize(
    ("fmt", "at", "value"),
    [
        (">i", 57, 0),  # count
        (">i", 57, -1),
        (">i", 57, 4),
        (">i", 57, 2**31 - 1),
        (">i", 23, 3),  # last offset delta
        (">i", 23, -1),
        (">h", 21, 0x20),  # control
        (">h", 21, 5),  # codec
        (">q", 43, 1),  # producer id without epoch and sequence
        (">q", 43, -2),
    ],
)
def test_lies_in_the_header(codec, fmt, at, value):
    with pytest.raises(InvalidRecord):
        check_batch(lie(encode_batch(RECORDS, compression=codec), fmt, at, value), MIB)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("codec", Compression)
@pytest.mark.parametrize("count", [1, 2, 4, 2**31 - 1])
def test_count_and_delta_lie_together(monkeypatch, native, codec, count):
    if not native:
        without_kernels(monkeypatch)
    data = lie(lie(encode_batch(RECORDS, compression=codec), ">i", 57, count), ">i", 23, count - 1)
    with pytest.raises(InvalidRecord, match=r"follow|not within|ends before"):
        check_batch(data, MIB)


@pytest.mark.parametrize("codec", Compression)
def test_gaps_are_for_compaction_only(codec):
    gap = [Record(0, 1, b"", b""), Record(2, 1, b"", b"")]
    with pytest.raises(InvalidRecord, match="last offset delta"):
        check_batch(encode_batch(gap, compression=codec), MIB)
    with pytest.raises(InvalidRecord, match=r"ends before|not within"):
        check_batch(lie(encode_batch(gap, compression=codec), ">i", 23, 1), MIB)


@pytest.mark.parametrize("codec", Compression)
def test_the_broker_gives_base_offsets(codec):
    with pytest.raises(InvalidRecord, match="base offset 5"):
        check_batch(encode_batch([Record(5, 1, b"", b"")], compression=codec), MIB)


PAYLOAD = encode_batch(RECORDS)[HEADER_BYTES:]
BAD_PAYLOADS = {
    "a record's length beyond the end": b"\x7e" + PAYLOAD[1:],
    "a negative length": b"\x01" + PAYLOAD[1:],
    "bytes after the records": PAYLOAD + b"\0",
    "the last record is cut off": PAYLOAD[:-1],
    "a key beyond its record": PAYLOAD[:4] + b"\x7e" + PAYLOAD[5:],
    "a key of length -2": PAYLOAD[:4] + b"\x03" + PAYLOAD[5:],
    "no records": b"",
    "a header without a key": b"\x10\0\0\0\1\1\2\1\1" + PAYLOAD[9:],
    "not records": b"\xff" * 300,
}


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("codec", Compression)
@pytest.mark.parametrize("what", BAD_PAYLOADS)
def test_payloads_that_are_no_records(monkeypatch, native, codec, what):
    if not native:
        without_kernels(monkeypatch)
    assert check_batch(with_payload(codec, compress(codec, PAYLOAD), 3), MIB).records == 3
    with pytest.raises(InvalidRecord):
        check_batch(with_payload(codec, compress(codec, BAD_PAYLOADS[what]), 3), MIB)


@pytest.mark.parametrize("codec", [codec for codec in Compression if codec])
@pytest.mark.parametrize("damage", ["raw", "empty", "cut", "junk behind", "zeros behind", "another codec"])
def test_payloads_that_do_not_decompress(codec, damage):
    good = compress(codec, PAYLOAD)
    bad = {
        "raw": PAYLOAD,
        "empty": b"",
        "cut": good[:-1],
        "junk behind": good + b"junk",
        "zeros behind": good + bytes(8),
        "another codec": compress(Compression.GZIP if codec != Compression.GZIP else Compression.ZSTD, PAYLOAD),
    }[damage]
    with pytest.raises(InvalidRecord, match=r"damaged|lz4"):
        check_batch(with_payload(codec, bad, 3), MIB)


@pytest.mark.parametrize("codec", [codec for codec in Compression if codec])
def test_a_bomb_is_refused(codec):
    with pytest.raises(InvalidRecord, match=f"over.* {DECOMPRESSED_BYTES_MAX}"):
        check_batch(with_payload(codec, bomb(codec, DECOMPRESSED_BYTES_MAX + 16 * MIB)), 64 * MIB)


def test_what_is_accepted_is_what_tables_can_read():
    """One limit for both sides, to the byte."""
    head = len(encode_batch([Record(0, 1, None, bytes(9 * MIB))])) - HEADER_BYTES - 9 * MIB  # as large as below
    for size_bytes, fits in ((DECOMPRESSED_BYTES_MAX, True), (DECOMPRESSED_BYTES_MAX + 1, False)):
        data = encode_batch([Record(0, 1, None, bytes(size_bytes - head))], compression=Compression.ZSTD)
        bad = decode_fetched(data, 0, (), DECOMPRESSED_BYTES_MAX).bad_batches
        if fits:
            assert check_batch(data, MIB).unpacked_bytes == DECOMPRESSED_BYTES_MAX and not bad
        else:
            assert len(bad) == 1
            with pytest.raises(InvalidRecord, match="over"):
                check_batch(data, MIB)


@pytest.mark.parametrize("codec", [codec for codec in Compression if codec])
def test_at_once_or_by_a_thread(codec):
    few = encode_batch([Record(0, 1, None, b"v" * 1000)], compression=codec)
    found = check_at_once(few, MIB, AT_ONCE_BYTES)
    assert found and found.unpacked_bytes == check_batch(few, MIB).unpacked_bytes > 1000
    assert check_at_once(few, MIB, 1000) is None  # the room is for all of a request
    much = encode_batch([Record(0, 1, None, bytes(AT_ONCE_BYTES))], compression=codec)
    assert check_at_once(much, MIB, AT_ONCE_BYTES) is None
    large = encode_batch([Record(0, 1, None, random.Random(1).randbytes(AT_ONCE_BATCH_BYTES))], compression=codec)
    assert check_at_once(large, MIB, 2 * AT_ONCE_BYTES) is None and check_batch(large, MIB)
    assert check_at_once(with_payload(codec, b"damaged"), MIB, AT_ONCE_BYTES) is None
    with pytest.raises(CorruptBatch):
        check_at_once(few[:-1] + b"?", MIB, AT_ONCE_BYTES)


def test_is_compressed():
    assert not is_compressed(None) and not is_compressed(b"") and not is_compressed(encode_batch(RECORDS))
    assert all(is_compressed(memoryview(encode_batch(RECORDS, compression=codec))) for codec in Compression if codec)


@pytest.mark.parametrize(("epoch", "sequence"), [(-1, 0), (0, -1), (-1, -1)])
def test_half_an_idempotent_producer(epoch, sequence):
    with pytest.raises(InvalidRecord, match="producer id 5"):
        check_batch(encode_batch(RECORDS, producer_id=5, producer_epoch=epoch, base_sequence=sequence), MIB)


def test_frame_errors_pass_through():
    data = encode_batch(RECORDS)
    with pytest.raises(InvalidRecord, match="whole batch"):
        check_batch(data[:-1], MIB)
    with pytest.raises(CorruptBatch):
        check_batch(data[:-1] + b"?", MIB)
    with pytest.raises(RecordTooLarge):
        check_batch(data, len(data) - 1)


@pytest.mark.skipif(validate._kernel is None, reason="no C compiler")
@pytest.mark.parametrize("seed", range(4))
def test_kernel_equals_twin(seed):
    rng = random.Random(seed)
    taken = refused = 0
    for _ in range(3_000):
        header, payload, _ = some_batch(rng)
        if header.count <= 0:  # check_batch looks at that first
            assert validate._kernel.check(header, payload) is None
            continue
        try:
            twin = twin_of_check(header, payload)
            taken += 1
        except InvalidRecord:
            twin = None
            refused += 1
        assert validate._kernel.check(header, payload) == twin, (header, payload)
    assert min(taken, refused) > 500


@pytest.mark.parametrize("native", [True, False])
def test_with_and_without_the_kernel(monkeypatch, native):
    if not native:
        without_kernels(monkeypatch)
    big = [Record(i, 1000 - i, b"k", b"v" * 1000) for i in range(400)]  # a payload checked without the GIL
    produced = check_batch(encode_batch(big), MIB)
    assert (produced.min_timestamp, produced.max_timestamp) == (601, 1000)
    # Python would take a second for each MB to say what is wrong.
    with pytest.raises(InvalidRecord, match="not the 399 that" if native else "bytes follow the 399 records"):
        check_batch(lie(lie(encode_batch(big), ">i", 57, 399), ">i", 23, 398), MIB)
