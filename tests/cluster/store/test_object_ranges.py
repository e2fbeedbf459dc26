import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlake.cluster.store.object_ranges import decode, encode, rows
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


def test_golden_bytes() -> None:
    facts = (StreamRange(1, 0, 100, 200), StreamRange(3, 7, 0, 2**63 - 1))
    assert encode(facts).hex() == GOLDEN
    assert decode(bytes.fromhex(GOLDEN)) == facts


@given(ranges)
def test_what_was_encoded_comes_back(facts) -> None:
    assert decode(encode(facts)) == tuple(facts)
    assert [StreamRange(*row) for row in rows(encode(facts))] == facts


@given(st.binary(max_size=100))
def test_foreign_bytes_are_corrupt(blob) -> None:
    with pytest.raises(Corrupt):
        decode(blob)


@given(ranges, st.data())
def test_every_changed_byte_is_noticed(facts, data) -> None:
    blob = bytearray(encode(facts))
    at = data.draw(st.integers(0, len(blob) - 1))
    blob[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Corrupt):
        decode(bytes(blob))


def test_another_version_says_so() -> None:
    blob = bytearray(encode(()))
    blob[4] = 2
    with pytest.raises(Corrupt, match="version 2"):
        decode(bytes(blob))
