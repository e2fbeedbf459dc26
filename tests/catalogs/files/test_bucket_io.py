"""The whole of it is in test_file_io.py, on a real store; here is how pieces of a file are read."""

from collections.abc import Iterator
from random import Random

import pytest
from support.fault_proxy import FaultProxy
from support.seaweedfs import SeaweedFS

from streamlake.catalogs.files.bucket_io import FIRST_BYTES, BucketFileIO, Pieces


@pytest.fixture
def proxy(seaweedfs: SeaweedFS) -> Iterator[FaultProxy]:
    with FaultProxy(seaweedfs.s3_endpoint, "") as proxy:
        yield proxy


@pytest.mark.parametrize("size_bytes", [0, 1, FIRST_BYTES, FIRST_BYTES + 1])
def test_a_small_file_is_one_request_however_it_is_read(
    seaweedfs: SeaweedFS, proxy: FaultProxy, size_bytes: int
) -> None:
    properties = {
        "s3.endpoint": proxy.endpoint, "s3.region": seaweedfs.region, "s3.access-key-id": seaweedfs.access_key,
        "s3.secret-access-key": seaweedfs.secret_key,
    }  # fmt: skip
    files, location = BucketFileIO(properties), f"s3://{seaweedfs.folder()}/f"
    with files.new_output(location).create(overwrite=True) as stream:
        stream.write(bytes(size_bytes))
    with files.new_input(location).open() as stream:
        assert stream.read() == bytes(size_bytes)
    assert proxy.requests["put"] == 1
    assert proxy.requests["get"] + proxy.requests["get_range"] == 1 + (size_bytes > FIRST_BYTES)


def test_pieces_are_as_of_a_file_that_is_here() -> None:
    data = Random(1).randbytes(1000)
    asked: list[tuple[int, int]] = []

    def get(start: int, end: int) -> bytes:
        assert 100 <= start < end <= len(data)
        asked.append((start, end))
        return data[start:end]

    pieces = Pieces(get, data[:100], len(data))
    assert pieces.readable() and pieces.seekable() and not pieces.writable()
    draw = Random(2)
    for _ in range(200):
        at, size = draw.randrange(1100), draw.randrange(1, 300)
        assert pieces.seek(at) == pieces.tell() == at
        found = bytearray(size)
        count = pieces.readinto(found)
        assert found[:count] == data[at : at + count]
        assert count > 0 or at >= len(data)
    assert asked
    pieces.seek(50)
    assert pieces.read() == data[50:]
    assert pieces.seek(-10, 2) == 990 and pieces.seek(5, 1) == 995 and pieces.read() == data[995:]
    with pytest.raises(ValueError, match="before the file"):
        pieces.seek(-1)
