import gzip
import struct
import subprocess
import sys
import threading

import aiokafka.codec
import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.wait import DEADLINE_S

from streamlake.record.batch import InvalidRecord
from streamlake.record.compression import XERIAL_HEADER, Compression, check_form, compress, decompress, unpacked

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
def test_a_bomb_costs_no_more_memory_than_the_limit(codec, tmp_path):
    """Measured in a process of its own, whose peak is nobody else's."""
    packed = compress(codec, bytes(200 * MIB)) if codec != Compression.SNAPPY else snappy_bomb()
    (tmp_path / "bomb").write_bytes(packed)
    code = """if True:
        import pathlib, re, sys
        from streamlake.record.batch import InvalidRecord
        from streamlake.record.compression import decompress
        codec, packed = int(sys.argv[1]), pathlib.Path(sys.argv[2]).read_bytes()
        peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
        before = peak()
        try:
            decompress(codec, packed, 4 << 20)
        except InvalidRecord:
            print(peak() - before)
    """
    command = [sys.executable, "-c", code, str(int(codec)), str(tmp_path / "bomb")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert 2 * 1024 < int(done.stdout) < 20 * 1024, done.stderr  # KiB: the limit, and what the library keeps


@pytest.mark.parametrize("codec", [c for c in CODECS if c])
def test_memory_is_used_again_by_the_same_thread_only(codec):
    first = unpacked(codec, compress(codec, b"a" * 1000), MIB)
    found = []
    thread = threading.Thread(target=lambda: found.append(decompress(codec, compress(codec, b"b" * 1000), MIB)))
    thread.start()
    thread.join()
    assert bytes(first) == b"a" * 1000 and found == [b"b" * 1000]
    again = unpacked(codec, compress(codec, b"c" * 1000), MIB)
    assert bytes(first) == bytes(again) == b"c" * 1000


def test_gzip_of_several_members_is_read_whole():
    assert decompress(1, gzip.compress(b"one") + gzip.compress(b"two"), MIB) == b"onetwo"


@pytest.mark.parametrize("codec", CODECS)
@given(data=st.binary(max_size=3000))
def test_what_we_and_other_libraries_write_has_the_form_that_all_read(codec, data):
    check_form(codec, compress(codec, data))
    if codec == Compression.LZ4:
        check_form(codec, aiokafka.codec.lz4_encode(data))
        for checksum in (True, False):
            packer = cramjam.lz4.Compressor(content_checksum=checksum, block_linked=False)
            packer.compress(data)
            check_form(codec, bytes(packer.finish()))
    if codec == Compression.SNAPPY:
        check_form(codec, aiokafka.codec.snappy_encode(data, xerial_compatible=True))


def linked() -> bytes:
    packer = cramjam.lz4.Compressor(block_linked=True)
    packer.compress(b"linked" * 99)
    return bytes(packer.finish())


LZ4 = compress(Compression.LZ4, b"one frame" * 99)


@pytest.mark.parametrize(
    ("codec", "data", "says"),
    [
        (3, linked(), "depend on each other"),
        (3, LZ4 + LZ4, "send one frame"),
        (3, LZ4 + b"x", "send one frame"),
        (3, LZ4[:-1], "send one frame"),
        (3, LZ4[:6], "does not start"),
        (3, b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + LZ4, "does not start"),  # a frame to skip
        (2, XERIAL_HEADER + struct.pack(">ii", 0, 0), "version 0"),
        (2, XERIAL_HEADER + struct.pack(">ii", -1, 1), "version -1"),
    ],
)
def test_forms_that_java_clients_do_not_read(codec, data, says):
    with pytest.raises(InvalidRecord, match=says):
        check_form(codec, data)


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
