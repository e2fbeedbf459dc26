import gc

import pytest

from streamlake.catalogs.files.upload import Upload


def test_the_parts_are_stored_once_as_a_whole() -> None:
    stored: list[bytes] = []
    stream = Upload(stored.append)
    part = bytearray(b"ab")
    stream.write(part)
    part[0] = ord("x")  # the writer may use its buffer again
    stream.write(b"cd")
    assert stored == []
    stream.close()
    stream.close()
    assert stored == [b"abcd"]


def test_one_part_is_stored_without_a_copy() -> None:
    stored: list[bytes] = []
    data = b"x" * 100
    with Upload(stored.append) as stream:
        stream.write(data)
    assert stored[0] is data


def test_a_stream_that_nobody_closes_stores_nothing() -> None:
    stored: list[bytes] = []
    stream = Upload(stored.append)
    stream.write(b"half")
    del stream
    gc.collect()
    assert stored == []


def test_what_storing_raises_is_raised_by_close_and_it_is_closed() -> None:
    def refuse(_: bytes) -> None:
        raise OSError("full")

    stream = Upload(refuse)
    with pytest.raises(OSError, match="full"):
        stream.close()
    assert stream.closed
    stream.close()
