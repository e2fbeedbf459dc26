import struct

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from streamlake.core.errors import Corrupt, Invalid, StreamLakeError
from streamlake.record.batch import (
    CorruptBatch,
    InvalidRecord,
    RecordTooLarge,
    UnsupportedFormat,
    assign,
    check_crc,
    frames,
    scan_batches,
)
from streamlake.record.decode import Record, decode_batch
from streamlake.record.encode import encode_batch

MIB = 1024 * 1024
BATCH = encode_batch(
    [Record(0, 1000, b"k", b"v"), Record(1, 1005, None, b"w")], producer_id=7, producer_epoch=1, base_sequence=5
)


def only(data: bytes):
    ((header, _),) = frames(data)
    return header


def test_header_fields():
    header = only(BATCH)
    assert (header.base_offset, header.last_offset, header.next_offset, header.count) == (0, 1, 2, 2)
    assert (header.base_timestamp, header.max_timestamp) == (1000, 1005)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 1, 5)
    assert header.size_bytes == len(BATCH)
    assert (header.compression, header.is_log_append_time, header.is_transactional, header.is_control) == (
        0,
        False,
        False,
        False,
    )


def test_scan_walks_all_batches():
    assert [h.size_bytes for h in scan_batches(BATCH * 3, MIB)] == [len(BATCH)] * 3
    assert scan_batches(b"", MIB) == []


@pytest.mark.parametrize("magic", [0, 1])
def test_old_formats_are_named(magic):
    message = bytearray(34)  # a v0 message is shorter than a v2 header
    message[16] = magic
    with pytest.raises(UnsupportedFormat, match=f"v{magic}"):
        scan_batches(message, MIB)


def test_other_magic_is_corrupt():
    data = bytearray(BATCH)
    data[16] = 3
    with pytest.raises(CorruptBatch, match="magic 3"):
        scan_batches(data, MIB)


@pytest.mark.parametrize("length", [-1, 0, 48, -(2**31)])
def test_length_below_a_header_is_corrupt(length):
    data = bytearray(BATCH)
    struct.pack_into(">i", data, 8, length)
    with pytest.raises(CorruptBatch, match="less than its own header"):
        scan_batches(data, MIB)


@pytest.mark.parametrize("cut", [1, 12, 17, 60, 61, len(BATCH) - 1])
def test_torn_batch(cut):
    with pytest.raises(InvalidRecord, match="not a whole batch"):
        scan_batches(BATCH + BATCH[:cut], MIB)
    assert len(list(frames(BATCH + BATCH[:cut]))) == 1


def test_size_limit_is_checked_before_the_crc():
    assert scan_batches(BATCH, len(BATCH))
    with pytest.raises(RecordTooLarge, match=r"max\.message\.bytes"):
        scan_batches(BATCH[:-1] + b"?", len(BATCH) - 1)


@given(st.integers(21, len(BATCH) - 1), st.integers(1, 255))
def test_any_changed_byte_under_the_crc_is_found(at, change):
    data = bytearray(BATCH)
    data[at] ^= change
    with pytest.raises(CorruptBatch, match="CRC"):
        scan_batches(data, MIB)


@given(
    st.binary(max_size=200) | st.builds(lambda n, junk: BATCH * n + junk, st.integers(0, 2), st.binary(max_size=100))
)
def test_foreign_bytes_raise_only_our_errors(data):
    try:
        headers = scan_batches(data, MIB)
    except StreamLakeError as error:
        assert isinstance(error, Corrupt | Invalid)
    else:
        assert sum(h.size_bytes for h in headers) == len(data)


def test_assign_patches_what_the_crc_does_not_cover():
    stored = b"".join(assign(only(BATCH), memoryview(BATCH), 2**40, 9, 1005))
    assert stored[12:16] == b"\0\0\0\x09"
    assert stored[16:] == BATCH[16:]
    header = only(stored)
    check_crc(header, stored)
    assert (header.base_offset, header.leader_epoch, header.next_offset) == (2**40, 9, 2**40 + 2)


def test_assign_log_append_time():
    stored = b"".join(assign(only(BATCH), BATCH, 10, 0, 1005, append_time_ms=5000))
    header = only(stored)
    check_crc(header, stored)
    assert header.is_log_append_time
    assert [(r.offset, r.timestamp) for r in decode_batch(header, stored, MIB)] == [(10, 5000), (11, 5000)]


def test_assign_puts_a_wrong_max_timestamp_right():
    stored = b"".join(assign(only(BATCH), BATCH, 10, 0, 1007))
    header = only(stored)
    check_crc(header, stored)
    assert header.max_timestamp == 1007
    assert not header.is_log_append_time
    assert header.crc == crc32c(stored[21:])
