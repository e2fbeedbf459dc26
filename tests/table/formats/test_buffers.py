import pyarrow as pa

from streamlake.table.formats.buffers import int64_bytes, int64s


def test_numbers_go_both_ways() -> None:
    numbers = pa.array([5, -1, 2**62, 7])
    assert int64s(int64_bytes(numbers)).equals(numbers)
    assert int64s(int64_bytes(numbers.slice(1, 2))).to_pylist() == [-1, 2**62]
    assert int64s(b"").to_pylist() == []
