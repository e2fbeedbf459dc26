import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlake.record.batch import InvalidRecord, check_crc, frames
from streamlake.record.control import MARKER_BYTES, Marker, decode_marker, encode_marker
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch

MIB = 1 << 20

# What MemoryRecords.withEndTransactionMarker of kafka-clients 4.3.1 writes.
ABORT = bytes.fromhex(
    "000000000000000000000042ffffffff02dba1f4440030000000000000018bcfe568000000018bcfe568000000000000000001"
    "0000ffffffff000000012000000008000000000c00000000000000"
)
COMMIT = bytes.fromhex(
    "0000011f71fb04cb000000420000000702b60a44e30030000000000000018bcfe568010000018bcfe5680100000000ee6b2800"
    "7fffffffffff000000012000000008000000010c00000000010200"
)


def decoded(data: bytes) -> Marker | None:
    ((header, batch),) = frames(data)
    check_crc(header, batch)
    return decode_marker(header, batch, MIB)


def control(key: bytes | None, value: bytes | None) -> bytes:
    return encode_batch([Record(0, 1, key, value)], producer_id=1, producer_epoch=0, control=True, transactional=True)


def test_the_bytes_are_kafkas():
    assert encode_marker(Marker(False, 0), 1, 0, 0, -1, 1_700_000_000_000).hex() == ABORT.hex()
    commit = encode_marker(Marker(True, 258), 4_000_000_000, 32767, 1_234_567_890_123, 7, 1_700_000_000_001)
    assert commit.hex() == COMMIT.hex()
    assert len(ABORT) == len(COMMIT) == MARKER_BYTES
    assert (decoded(ABORT), decoded(COMMIT)) == (Marker(False, 0), Marker(True, 258))


@given(
    st.booleans(),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(0, 2**62),
    st.integers(0, 2**15 - 1),
    st.integers(0, 2**62),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**60),
)
def test_round_trip(commit, coordinator_epoch, producer_id, epoch, offset, leader_epoch, timestamp):
    marker = Marker(commit, coordinator_epoch)
    data = encode_marker(marker, producer_id, epoch, offset, leader_epoch, timestamp)
    assert (len(data), decoded(data)) == (MARKER_BYTES, marker)
    ((header, _),) = frames(data)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (producer_id, epoch, -1)
    assert (header.base_offset, header.leader_epoch, header.max_timestamp) == (offset, leader_epoch, timestamp)
    assert header.is_control and header.is_transactional


def test_other_control_records_are_no_markers():
    assert decoded(control(b"\0\0\0\2", b"x")) is None  # LeaderChange
    assert decoded(control(b"\0\0\0\1", None)) == Marker(True, -1)
    for key in (None, b"", b"\0\0\0"):
        with pytest.raises(InvalidRecord, match="control record"):
            decoded(control(key, b""))
