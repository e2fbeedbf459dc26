import struct

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from streamlake.cluster.store.object_ranges import decode, encode, given_offsets, rows
from streamlake.core.errors import Corrupt
from streamlake.s3stream.metadata import StreamRange

int64 = st.integers(-(2**63), 2**63 - 1)
ranges = st.lists(st.builds(StreamRange, int64, int64, int64, int64), max_size=20)

GOLDEN = (
    "534c52470100000002000000bd470ee8"  # SLRG, 1, 0, 2 ranges, CRC-32C
    "01000000000000000300000000000000"  # stream ids
    "00000000000000000700000000000000"  # stream epochs
    "64000000000000000000000000000000"  # start offsets
    "c800000000000000ffffffffffffff7f"  # end offsets
)


GOLDEN_GIVEN = (
    "534c52470200000001000000a7d622d6"  # SLRG, 2, 0, 1 range, CRC-32C
    "2c01000000000000"  # 300 offsets given away
    "0100000000000000"  # stream id
    "0000000000000000"  # stream epoch
    "6400000000000000"  # start offset
    "c800000000000000"  # end offset
)


def test_golden_bytes() -> None:
    facts = (StreamRange(1, 0, 100, 200), StreamRange(3, 7, 0, 2**63 - 1))
    assert encode(facts).hex() == GOLDEN
    assert decode(bytes.fromhex(GOLDEN)) == facts
    assert encode(facts[:1], 300).hex() == GOLDEN_GIVEN
    assert (decode(bytes.fromhex(GOLDEN_GIVEN)), given_offsets(bytes.fromhex(GOLDEN_GIVEN))) == (facts[:1], 300)


@given(ranges, st.integers(0, 2**64 - 1))
def test_what_was_encoded_comes_back(facts, given) -> None:
    blob = encode(facts, given)
    assert (decode(blob), given_offsets(blob)) == (tuple(facts), given)
    assert [StreamRange(*row) for row in rows(blob)] == facts


@given(ranges.filter(bool), st.integers(1, 2**64 - 1), st.data())
def test_the_length_tells_that_ranges_were_given_away(facts, given, data) -> None:
    """gc rests on it (dead_objects.py)."""
    left = data.draw(st.lists(st.sampled_from(facts), max_size=len(facts) - 1))
    assert len(encode(left, given)) != len(encode(facts))
    assert len(encode(left, given)) != len(encode(facts, given))


def test_a_blob_of_which_nothing_was_given_away_has_version_one() -> None:
    body = bytes(8)
    head = struct.pack("<4sHHII", b"SLRG", 2, 0, 0, crc32c(body))
    with pytest.raises(Corrupt, match="none was given away"):
        decode(head + body)


@given(st.binary(max_size=100))
def test_foreign_bytes_are_corrupt(blob) -> None:
    with pytest.raises(Corrupt):
        decode(blob)


@given(ranges, st.sampled_from([0, 300]), st.data())
def test_every_changed_byte_is_noticed(facts, given, data) -> None:
    blob = bytearray(encode(facts, given))
    at = data.draw(st.integers(0, len(blob) - 1))
    blob[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Corrupt):
        decode(bytes(blob))


def test_another_version_says_so() -> None:
    blob = bytearray(encode(()))
    blob[4] = 3
    with pytest.raises(Corrupt, match="version 3"):
        decode(bytes(blob))
