"""The bytes of the object WAL: round trips, damage, and the golden bytes that outlive this code."""

import struct

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from streamlake.core.errors import Corrupt
from streamlake.s3stream.wal.object.format import (
    ENTRY_BYTES,
    HEADER_BYTES,
    INDEX_MAX,
    DataEncoder,
    ObjectHeader,
    ObjectKind,
    WalObject,
    discarded_key,
    encode_mark,
    epoch_and_seq,
    index_of,
    object_wal_key,
    position_of,
    seq_of,
)
from streamlake.s3stream.wal.port import WalRecord

NONCE = bytes(range(16))
u64 = st.integers(0, (1 << 64) - 1)
u32 = st.integers(0, (1 << 32) - 1)
wal_records = st.lists(
    st.builds(
        WalRecord,
        u64,
        st.integers(-(1 << 31), (1 << 31) - 1),
        u64,
        u32,
        st.integers(-(1 << 63), (1 << 63) - 1),
        st.binary(max_size=50),
    ),
    min_size=1,
    max_size=6,
)


def encode(records: list[WalRecord], *, node: int = 7, epoch: int = 12, seq: int = 3) -> bytes:
    encoder = DataEncoder()
    for record in records:
        encoder.add(record)
    data = b"".join(encoder.finish(node=node, broker_epoch=epoch, seq=seq, nonce=NONCE))
    assert len(data) == encoder.size_bytes
    return data


def decode(data: bytes) -> list[tuple[int, WalRecord]]:
    return list(WalObject(data).records())


@given(wal_records, u32, u64, st.integers(1, 1 << 38))
def test_what_was_encoded_is_decoded(records: list[WalRecord], node: int, epoch: int, seq: int) -> None:
    data = encode(records, node=node, epoch=epoch, seq=seq)
    found = WalObject(data)
    assert found.header == ObjectHeader(ObjectKind.DATA, node, epoch, seq, epoch, NONCE, len(records))
    assert list(found.records()) == [(position_of(seq, n), each) for n, each in enumerate(records, 1)]
    assert found.record(len(records)) == records[-1]


def test_bodies_are_neither_copied_nor_joined() -> None:
    body = b"a body"
    encoder = DataEncoder()
    encoder.add(WalRecord(1, 2, 3, 4, 5, body))
    assert encoder.finish(node=1, broker_epoch=1, seq=1, nonce=NONCE)[1] is body
    assert memoryview(decode(encode([WalRecord(1, 2, 3, 4, 5, body)]))[0][1].data).readonly


@given(wal_records, st.data())
def test_a_flipped_bit_or_a_cut_is_noticed(records: list[WalRecord], data: st.DataObject) -> None:
    bad = bytearray(encode(records))
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(bad) * 8 - 1))
        bad[at // 8] ^= 1 << at % 8
    else:
        del bad[data.draw(st.integers(0, len(bad) - 1)) :]
    with pytest.raises(Corrupt):
        decode(bytes(bad))


@given(st.sampled_from([ObjectKind.FENCE, ObjectKind.DISCARDED]), st.data())
def test_a_damaged_mark_is_noticed(kind: ObjectKind, data: st.DataObject) -> None:
    good = encode_mark(ObjectHeader(kind, 7, 12, 3, 13, NONCE))
    bad = bytearray(good)
    at = data.draw(st.integers(0, len(bad) * 8 - 1))
    bad[at // 8] ^= 1 << at % 8
    for each in (bytes(bad), good[:-1], good + b"x"):
        with pytest.raises(Corrupt):
            WalObject(each)


@given(st.binary(max_size=200))
def test_foreign_bytes_are_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt):
        WalObject(data)


@given(st.integers(0, 255), u32, st.lists(st.binary(min_size=40, max_size=40), max_size=4), st.binary(max_size=60))
def test_a_lying_header_with_a_right_crc_is_corrupt_or_harmless(
    kind: int, records: int, table: list[bytes], bodies: bytes
) -> None:
    claimed = len(table) if records % 2 else records
    fields = struct.pack(">4sBBHIIQQQ16s", b"SLWO", 1, kind, 0, 7, claimed, 12, 3, 12, NONCE)
    entries = b"".join(table)
    data = fields + crc32c(entries, crc32c(fields)).to_bytes(4, "big") + entries + bodies
    try:
        found = decode(data)
    except Corrupt:
        return
    assert sum(len(record.data) for _, record in found) == len(bodies)


def test_bodies_that_overlap_or_run_backwards_are_corrupt() -> None:
    data = bytearray(encode([WalRecord(1, 1, 1, 1, 1, b"abc"), WalRecord(1, 1, 2, 1, 1, b"def")]))
    end_at = HEADER_BYTES + ENTRY_BYTES - 8
    for end in (7, 1 << 31):
        data[end_at : end_at + 4] = end.to_bytes(4, "big")
        data[HEADER_BYTES - 4 : HEADER_BYTES] = crc32c(
            bytes(data[HEADER_BYTES : HEADER_BYTES + 2 * ENTRY_BYTES]), crc32c(bytes(data[: HEADER_BYTES - 4]))
        ).to_bytes(4, "big")
        with pytest.raises(Corrupt):
            decode(bytes(data))


def test_a_newer_version_is_refused_by_name() -> None:
    data = bytearray(encode([WalRecord(1, 1, 1, 1, 1, b"")]))
    data[4] = 2
    with pytest.raises(Corrupt, match="format 2"):
        WalObject(bytes(data))


def test_a_mark_is_smaller_than_any_data() -> None:
    """The sweep tells them by their size."""
    fence = encode_mark(ObjectHeader(ObjectKind.FENCE, 7, 12, 3, 13, NONCE))
    assert len(fence) == HEADER_BYTES < len(encode([WalRecord(1, 1, 1, 1, 1, b"")]))


@given(st.integers(0, 1 << 38), st.integers(1, INDEX_MAX))
def test_positions_tell_object_and_record(seq: int, index: int) -> None:
    position = position_of(seq, index)
    assert (seq_of(position), index_of(position)) == (seq, index)
    assert 0 <= position < 1 << 63, "a position fits a signed column of SQL"
    assert position < position_of(seq + 1, 1)


def test_keys_sort_as_their_numbers() -> None:
    numbers = [(1, 1), (1, 2), (1, 10), (2, 1), (10, 1), (10, 9), (11, 1)]
    keys = [object_wal_key(3, epoch, seq) for epoch, seq in numbers]
    assert keys == sorted(keys)
    assert keys[0] == "wal/3/0000000000000001/0000000000000001"
    assert [epoch_and_seq(key) for key in keys] == numbers
    for other in (discarded_key(3, 1), "wal/3", "wal/3/1/1", "objects/00/5", "wal/3/000000000000000x/0000000000000001"):
        assert epoch_and_seq(other) is None


def test_golden_bytes() -> None:
    """The format outlives this code: see docs/formats/object-wal.md."""
    data = encode([WalRecord(5, 2, 1000, 3, -1, b"abc"), WalRecord(6, -1, 0, 1, 99, b"")])
    assert data.hex() == GOLDEN_DATA
    assert encode_mark(ObjectHeader(ObjectKind.FENCE, 7, 12, 4, 13, NONCE)).hex() == GOLDEN_FENCE
    assert encode_mark(ObjectHeader(ObjectKind.DISCARDED, 7, 12, 4, 13, NONCE)).hex() == GOLDEN_DISCARDED


GOLDEN_DATA = (
    "534c574f010100000000000700000002000000000000000c0000000000000003000000000000000c0001020304050607"
    "08090a0b0c0d0e0fc4962e930000000000000005000000020000000300000000000003e8ffffffffffffffff00000003"
    "364b3fb70000000000000006ffffffff00000001000000000000000000000000000000630000000300000000616263"
)
GOLDEN_FENCE = (
    "534c574f010200000000000700000000000000000000000c0000000000000004000000000000000d0001020304050607"
    "08090a0b0c0d0e0f99edd44d"
)
GOLDEN_DISCARDED = (
    "534c574f010300000000000700000000000000000000000c0000000000000004000000000000000d0001020304050607"
    "08090a0b0c0d0e0fa0c5eecb"
)
