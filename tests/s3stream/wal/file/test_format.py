"""The bytes of the WAL never change unseen, and no bytes, however hostile, raise anything but Corrupt."""

import struct

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from streamlake.core.errors import Corrupt
from streamlake.s3stream.wal.file.format import (
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    decode_record,
    decode_record_header,
    decode_segment_header,
    encode_record_header,
    encode_segment_header,
    find_record_headers,
    peek_position,
)
from streamlake.s3stream.wal.port import WalRecord

SEGMENT = SegmentHeader(generation=7, segment_bytes=1 << 20, salt=0xA1B2C3D4)
RECORD = WalRecord(
    stream_id=42, stream_epoch=3, base_offset=1000, count=10, max_timestamp=1_700_000_000_000, data=b"batch"
)


def encoded(
    record: WalRecord = RECORD, segment: SegmentHeader = SEGMENT, position: int = 99, flushed: int = 97
) -> bytes:
    return encode_record_header(segment, record, broker_epoch=5, position=position, flushed_position=flushed) + bytes(
        record.data
    )


def test_golden_segment_header() -> None:
    block = encode_segment_header(SEGMENT)
    assert len(block) == SEGMENT_HEADER_BYTES
    assert block.rstrip(b"\0").hex(" ", -4) == GOLDEN_SEGMENT
    assert decode_segment_header(block) == SEGMENT


def test_golden_record() -> None:
    assert len(encoded()) == RECORD_HEADER_BYTES + 5
    assert encoded().hex(" ", -4) == GOLDEN_RECORD
    header, record = decode_record(SEGMENT, encoded())
    assert record == RECORD
    assert (header.broker_epoch, header.generation, header.position, header.flushed_position) == (
        5, 7, 99, 97,
    )  # fmt: skip
    assert header.record_bytes == len(encoded())


records = st.builds(
    WalRecord,
    stream_id=st.integers(0, 2**64 - 1),
    stream_epoch=st.integers(-(2**31), 2**31 - 1),
    base_offset=st.integers(0, 2**64 - 1),
    count=st.integers(0, 2**32 - 1),
    max_timestamp=st.integers(-(2**63), 2**63 - 1),
    data=st.binary(max_size=300),
)
segments = st.builds(SegmentHeader, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))


@given(records, segments, st.integers(0, 2**64 - 1), st.binary(max_size=9))
def test_records_come_back(record: WalRecord, segment: SegmentHeader, position: int, before: bytes) -> None:
    data = before + encoded(record, segment, position)
    header, back = decode_record(segment, data + b"more", len(before))
    assert (header.position, back) == (position, record)
    assert decode_segment_header(encode_segment_header(segment)) == segment


@given(st.integers(0, len(encoded()) - 1), st.integers(1, 255))
def test_any_flipped_byte_is_noticed(at: int, mask: int) -> None:
    data = bytearray(encoded())
    data[at] ^= mask
    with pytest.raises(Corrupt):
        decode_record(SEGMENT, bytes(data))


@given(st.integers(0, len(encoded()) - 1))
def test_any_cut_is_noticed(size: int) -> None:
    with pytest.raises(Corrupt):
        decode_record(SEGMENT, encoded()[:size])


@given(st.binary(max_size=400), st.integers(0, 500))
def test_foreign_bytes_raise_only_corrupt(data: bytes, at: int) -> None:
    for decode in (decode_record, decode_record_header):
        with pytest.raises(Corrupt):
            decode(SEGMENT, data, at)
    assert list(find_record_headers(SEGMENT, data, at)) == []
    assert decode_segment_header(data) is None
    peek_position(data)


@given(st.data())
def test_forged_fields_raise_only_corrupt(data: st.DataObject) -> None:
    """Header fields of any value under a right checksum: a body length beyond the data must not be believed."""
    header = bytearray(encoded()[: RECORD_HEADER_BYTES - 4])
    at = data.draw(st.integers(4, len(header) - 1))
    header[at] ^= data.draw(st.integers(1, 255))
    forged = bytes(header) + struct.pack(">I", crc32c(bytes(header), SEGMENT.salt)) + b"batch"
    try:
        decode_record(SEGMENT, forged)
    except Corrupt:
        pass


def test_a_record_of_another_use_of_the_segment_is_none() -> None:
    with pytest.raises(Corrupt):
        decode_record_header(SegmentHeader(8, 1 << 20, SEGMENT.salt), encoded())


def test_a_record_made_without_the_salt_is_none() -> None:
    """What a client puts into a batch cannot pass for a record: it does not know the salt."""
    with pytest.raises(Corrupt):
        decode_record_header(SEGMENT, encoded(segment=SegmentHeader(7, 1 << 20, 0)))


def test_another_version_is_refused_not_discarded() -> None:
    fields = struct.pack(">4sHHQQI", b"SLWS", 2, 0, 7, 1 << 20, 1)
    with pytest.raises(Corrupt, match="format 2"):
        decode_segment_header(fields + struct.pack(">I", crc32c(fields)))


def test_headers_are_found_wherever_they_are() -> None:
    stale = encoded(segment=SegmentHeader(6, 1 << 20, SEGMENT.salt))
    data = b"junkSLWRjunk" + encoded(position=1) + stale + b"SLW" + encoded(position=2)[:-1]
    assert [(at, h.position) for at, h in find_record_headers(SEGMENT, data)] == [(12, 1), (12 + 89 + 89 + 3, 2)]
    assert peek_position(data[12:]) == 1
    assert peek_position(data) is None


GOLDEN_SEGMENT = "534c5753 00010000 00000000 00000007 00000000 00100000 a1b2c3d4 762aea91"
GOLDEN_RECORD = (
    "534c5752 01010000 00000000 00000005 00000000 00000007 00000000 00000063 "
    "00000000 00000061 00000000 0000002a 00000003 0000000a 00000000 000003e8 "
    "0000018b cfe56800 00000005 2f56732f cdd3447a 62617463 68"
)
