import random
import struct

import pytest
from crc32c import crc32c
from hypothesis import given
from support.hostile import some_batch
from support.records import batches_of_records

from streamlake.record import validate
from streamlake.record.batch import CorruptBatch, InvalidRecord, RecordTooLarge
from streamlake.record.compression import Compression
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch
from streamlake.record.validate import check_produced, twin_of_check

MIB = 1024 * 1024
RECORDS = [Record(0, 1000, b"k", b"v"), Record(1, 990, None, b"w"), Record(2, 1010, None, b"")]


def lie(data: bytes, fmt: str, at: int, value: int) -> bytes:
    """Change a header field and sign it."""
    changed = bytearray(data)
    struct.pack_into(fmt, changed, at, value)
    struct.pack_into(">I", changed, 17, crc32c(changed[21:]))
    return bytes(changed)


@given(batches_of_records(gaps=False))
def test_honest_batches_pass(records):
    data = encode_batch(records)
    produced = check_produced(memoryview(data), 64 * MIB)
    times = [r.timestamp for r in records]
    assert (produced.min_timestamp, produced.max_timestamp) == (min(times), max(times))


def test_compressed_is_taken_at_its_word():
    produced = check_produced(encode_batch(RECORDS, compression=Compression.ZSTD), MIB)
    assert (produced.min_timestamp, produced.max_timestamp) == (1000, 1010)


def test_the_true_max_timestamp_is_found():
    assert check_produced(lie(encode_batch(RECORDS), ">q", 35, 77), MIB).max_timestamp == 1010


@pytest.mark.parametrize("batches", [0, 2])
def test_exactly_one_batch(batches):
    with pytest.raises(InvalidRecord, match="one batch"):
        check_produced(encode_batch(RECORDS) * batches, MIB)


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
        check_produced(lie(encode_batch(RECORDS, compression=codec), fmt, at, value), MIB)


def test_count_and_delta_lie_together():
    data = lie(lie(encode_batch(RECORDS), ">i", 57, 2), ">i", 23, 1)
    with pytest.raises(InvalidRecord):
        check_produced(data, MIB)


def test_gaps_are_for_compaction_only():
    with pytest.raises(InvalidRecord):
        check_produced(encode_batch([Record(0, 1, b"", b""), Record(2, 1, b"", b"")]), MIB)


@pytest.mark.parametrize(("epoch", "sequence"), [(-1, 0), (0, -1), (-1, -1)])
def test_half_an_idempotent_producer(epoch, sequence):
    with pytest.raises(InvalidRecord, match="producer id 5"):
        check_produced(encode_batch(RECORDS, producer_id=5, producer_epoch=epoch, base_sequence=sequence), MIB)


def test_frame_errors_pass_through():
    data = encode_batch(RECORDS)
    with pytest.raises(CorruptBatch):
        check_produced(data[:-1], MIB)
    with pytest.raises(RecordTooLarge):
        check_produced(data, len(data) - 1)


@pytest.mark.skipif(validate._kernel is None, reason="no C compiler")
@pytest.mark.parametrize("seed", range(4))
def test_kernel_equals_twin(seed):
    rng = random.Random(seed)
    taken = refused = 0
    for _ in range(3_000):
        header, payload, _ = some_batch(rng)
        if header.count <= 0:  # check_produced looks at that first
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
        monkeypatch.setattr(validate, "_kernel", None)
    big = [Record(i, 1000 - i, b"k", b"v" * 1000) for i in range(400)]  # a payload checked without the GIL
    produced = check_produced(encode_batch(big), MIB)
    assert (produced.min_timestamp, produced.max_timestamp) == (601, 1000)
    with pytest.raises(InvalidRecord, match="bytes follow the 399 records"):
        check_produced(lie(lie(encode_batch(big), ">i", 57, 399), ">i", 23, 398), MIB)
