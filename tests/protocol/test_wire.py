import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlake.protocol.wire import Malformed, read_varint, skip_tags, varint


@given(st.integers(0, 2**35 - 1), st.binary(max_size=3))
def test_varint_round_trip(number: int, before: bytes) -> None:
    written = varint(number)
    assert read_varint(before + written + b"\xff", len(before)) == (number, len(before) + len(written))


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (2**32 - 1, "ffffffff0f")]
)
def test_varint_bytes(number: int, expected: str) -> None:
    assert varint(number).hex() == expected


def test_a_varint_ends_after_five_bytes() -> None:
    with pytest.raises(Malformed):
        read_varint(b"\xff" * 5 + b"\x01", 0)
    with pytest.raises(IndexError):
        read_varint(b"\xff\xff", 0)


def test_skip_tags_goes_to_the_end_of_the_section() -> None:
    section = b"\x02" + b"\x00\x03abc" + b"\x63\x00"
    assert skip_tags(b"__" + section + b"rest", 2) == 2 + len(section)
    with pytest.raises(IndexError):
        skip_tags(b"\x02\x00\x01a", 0)


def test_skip_tags_does_not_walk_through_millions() -> None:
    assert skip_tags(b"\x64" + bytes(200), 0) == 201
    with pytest.raises(Malformed, match="a header has more elements"):
        skip_tags(b"\x65" + bytes(202), 0)
