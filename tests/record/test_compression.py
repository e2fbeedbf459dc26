import struct
import tracemalloc

import aiokafka.codec
import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlake.record.batch import InvalidRecord
from streamlake.record.compression import XERIAL_HEADER, Compression, compress, decompress

MIB = 1024 * 1024
CODECS = list(Compression)
XERIAL = XERIAL_HEADER + struct.pack(">ii", 1, 1)


@pytest.mark.parametrize("codec", CODECS)
@given(
    data=st.binary(min_size=1, max_size=5000)
    | st.builds(lambda b, n: b * n, st.binary(min_size=1, max_size=9), st.integers(1, 90_000))
)
def test_round_trip(codec, data):
    assert decompress(codec, memoryview(compress(codec, data)), len(data)) == data


@pytest.mark.parametrize(
    ("codec", "decode"),
    [
        (Compression.GZIP, aiokafka.codec.gzip_decode),
        (Compression.SNAPPY, aiokafka.codec.snappy_decode),
        (Compression.LZ4, aiokafka.codec.lz4_decode),
        (Compression.ZSTD, aiokafka.codec.zstd_decode),
    ],
)
def test_a_client_reads_what_we_write(codec, decode):
    data = bytes(range(256)) * 1000
    assert decode(compress(codec, data)) == data


@pytest.mark.parametrize("xerial", [True, False])
def test_both_forms_of_snappy(xerial):
    data = bytes(range(256)) * 1000  # several blocks of 32 KiB
    assert decompress(2, aiokafka.codec.snappy_encode(data, xerial_compatible=xerial), len(data)) == data


@pytest.mark.parametrize("codec", [c for c in CODECS if c])
@pytest.mark.parametrize("max_bytes", [0, 1, 64 * 1024, MIB - 1])
def test_limit_is_exact(codec, max_bytes):
    data = compress(codec, b"x" * MIB)
    assert len(decompress(codec, data, MIB)) == MIB
    with pytest.raises(InvalidRecord):
        decompress(codec, data, max_bytes)


@pytest.mark.parametrize("codec", [c for c in CODECS if c])
def test_a_bomb_costs_no_more_memory_than_the_limit(codec):
    bomb = compress(codec, bytes(200 * MIB)) if codec != Compression.SNAPPY else snappy_bomb()
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRecord):
            decompress(codec, bomb, 4 * MIB)
        assert tracemalloc.get_traced_memory()[1] < 10 * MIB
    finally:
        tracemalloc.stop()


def snappy_bomb() -> bytes:
    """Blocks that each stay below the limit, and together do not."""
    block = bytes(cramjam.snappy.compress_raw(bytes(3 * MIB)))
    return XERIAL + (struct.pack(">I", len(block)) + block) * 60


def test_snappy_that_claims_four_gigabytes():
    with pytest.raises(InvalidRecord, match="4294967295"):
        decompress(2, b"\xff\xff\xff\xff\x0f\0", MIB)


@pytest.mark.parametrize("tail", [b"\0", b"\0\0\0\x09abc", b"\xff\xff\xff\xff"])
def test_torn_xerial(tail):
    with pytest.raises(InvalidRecord):
        decompress(2, XERIAL + tail, MIB)


@pytest.mark.parametrize("codec", [5, 6, 7])
def test_unknown_codec(codec):
    with pytest.raises(InvalidRecord, match=f"codec {codec}"):
        decompress(codec, b"x", MIB)


@pytest.mark.parametrize("codec", [c for c in CODECS if c])
@given(data=st.data())
def test_foreign_bytes_raise_only_invalid_record(codec, data):
    good = compress(codec, b"hello world, hello world" * 20)
    at = data.draw(st.integers(0, len(good) - 1))
    bad = data.draw(
        st.binary(max_size=100)
        | st.just(good[:at])
        | st.just(good[:at] + b"\xa5" + good[at + 1 :])
        | st.just(XERIAL + good)
    )
    try:
        assert len(decompress(codec, bad, MIB)) <= MIB
    except InvalidRecord:
        pass
