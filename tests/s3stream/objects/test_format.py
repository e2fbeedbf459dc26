from array import array
from itertools import pairwise

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from streamlake.core.errors import Corrupt
from streamlake.s3stream.objects.format import (
    FOOTER,
    Block,
    ObjectEncoder,
    ObjectIndex,
    decode_block,
    decode_footer,
    decode_index,
    object_key,
)

Chunk = tuple[int, int, bytes]  # count, max timestamp, data
chunks = st.lists(
    st.tuples(st.integers(1, 1 << 31), st.integers(-(1 << 63), (1 << 63) - 1), st.binary(min_size=1, max_size=40)),
    min_size=1,
    max_size=6,
)
objects = st.dictionaries(
    st.integers(0, 1 << 40),
    st.tuples(st.integers(0, 1 << 50), st.lists(chunks, min_size=1, max_size=4)),
    min_size=1,
    max_size=4,
)


def add(encoder: ObjectEncoder, stream_id: int, start: int, block: list[Chunk]) -> int:
    bases, timestamps, ends, at, size = array("q"), array("q"), array("I"), start, 0
    for count, timestamp, data in block:
        bases.append(at)
        timestamps.append(timestamp)
        at += count
        size += len(data)
        ends.append(size)
    encoder.add_block(stream_id, at, bases, timestamps, ends, [memoryview(c[2]) for c in block])
    return at


def encode(content: dict[int, tuple[int, list[list[Chunk]]]]) -> bytes:
    encoder = ObjectEncoder()
    for stream_id in sorted(content):
        at, blocks = content[stream_id]
        for block in blocks:
            at = add(encoder, stream_id, at, block)
    data = b"".join(encoder.finish())
    assert len(data) == encoder.size_bytes
    return data


def decode(data: bytes) -> tuple[ObjectIndex, list[Block]]:
    footer = decode_footer(data[-64:], len(data))
    index = decode_index(data[footer.index_position : footer.index_position + footer.index_size], footer)
    blocks = [
        decode_block(data[at : at + size], index, row)
        for row, (at, size) in enumerate(zip(index.positions, index.sizes, strict=True))
    ]
    return index, blocks


@given(objects)
def test_what_was_encoded_is_decoded(content: dict[int, tuple[int, list[list[Chunk]]]]) -> None:
    index, blocks = decode(encode(content))
    for stream_id, (at, written) in content.items():
        rows = index.blocks_of(stream_id)
        assert len(rows) == len(written)
        for row, expected in zip(rows, written, strict=True):
            block = blocks[row]
            assert index.block_at(stream_id, at) == row
            assert index.max_timestamps[row] == max(c[1] for c in expected)
            assert block.start_offset == at
            for number, (count, timestamp, data) in enumerate(expected):
                assert block.chunk_range(number) == (at, at + count)
                assert block.timestamps[number] == timestamp
                assert block.cut(at + count - 1, at + count, 1, at_least_one=True) == (data, at + count)
                at += count
            assert block.end_offset == at
        with pytest.raises(Corrupt):
            index.block_at(stream_id, at)


@given(objects, st.data())
def test_a_flipped_bit_or_a_cut_is_noticed(
    content: dict[int, tuple[int, list[list[Chunk]]]], data: st.DataObject
) -> None:
    good = encode(content)
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(good) * 8 - 1))
        bad = bytearray(good)
        bad[at // 8] ^= 1 << at % 8
    else:
        bad = bytearray(good[: data.draw(st.integers(0, len(good) - 1))])
    with pytest.raises(Corrupt):
        decode(bytes(bad))


@given(st.binary(max_size=200), st.integers(0, 3))
def test_foreign_bytes_raise_nothing_but_corrupt(junk: bytes, blocks: int) -> None:
    """Even if all CRCs are right: index and blocks are checked for what they say."""
    index = junk[: blocks * 52].ljust(blocks * 52, b"\1")
    head = FOOTER.pack(len(junk), len(index), blocks, crc32c(index), 1, 0, 0, b"SLSTRSET")[:24]
    data = junk + index + head + crc32c(head).to_bytes(4, "little") + b"SLSTRSET"
    try:
        decode(data)
    except Corrupt:
        pass


@given(chunks, st.lists(st.integers(0, (1 << 64) - 1), min_size=24, max_size=24), st.integers(0, 23))
def test_a_lying_table_with_a_right_crc_is_corrupt_or_harmless(block: list[Chunk], numbers: list[int], at: int) -> None:
    encoder = ObjectEncoder()
    add(encoder, 5, 100, block)
    parts = encoder.finish()
    data = bytearray(b"".join(parts[:-4]))
    words = len(data) // 8 or 1
    place = at % words * 8
    data[place : place + 8] = numbers[at].to_bytes(8, "little")[: len(data) - place]
    index = decode(b"".join(parts))[0]
    index.crcs[0] = crc32c(bytes(data))
    try:
        got = decode_block(bytes(data), index, 0)
    except Corrupt:
        return
    assert all(a < b for a, b in pairwise(got.bases))
    assert got.ends[-1] == len(got.data)


def test_a_newer_version_is_refused_by_name() -> None:
    head = FOOTER.pack(0, 0, 0, 0, 2, 0, 0, b"SLSTRSET")[:24]
    footer = head + crc32c(head).to_bytes(4, "little") + b"SLSTRSET"
    with pytest.raises(Corrupt, match="version 2"):
        decode_footer(footer, len(footer))


def test_golden_bytes() -> None:
    """The format outlives this code: see docs/formats/stream-set-object.md."""
    data = encode({3: (10, [[(2, 1000, b"ab"), (1, 999, b"c")]]), 9: (0, [[(5, -1, b"xyz")]])})
    assert data.hex() == GOLDEN


def test_cut_takes_whole_chunks_up_to_a_size() -> None:
    encoder = ObjectEncoder()
    add(encoder, 1, 0, [(10, 0, b"aaaa"), (10, 0, b"bbbb"), (10, 0, b"cccc")])
    block = decode(b"".join(encoder.finish()))[1][0]
    assert block.cut(0, 30, 8, at_least_one=True) == (b"aaaabbbb", 20)
    assert block.cut(5, 11, 100, at_least_one=True) == (b"aaaabbbb", 20)
    assert block.cut(15, 30, 3, at_least_one=True) == (b"bbbb", 20)
    assert block.cut(15, 30, 3, at_least_one=False) is None


def test_keys_of_neighbours_do_not_share_a_prefix() -> None:
    assert object_key(258) == "objects/02/258"
    assert object_key(259) == "objects/03/259"


GOLDEN = (
    # block of stream 3: bases, timestamps, ends, data
    "0a000000000000000c00000000000000e803000000000000e7030000000000000200000003000000616263"
    # block of stream 9
    "0000000000000000ffffffffffffffff0300000078797a"
    # index: stream, start, end, max timestamp, position; size, chunks, CRC
    "030000000000000009000000000000000a0000000000000000000000000000000d000000000000000500000000000000e803000000000000ffffffffffffffff00000000000000002b000000000000002b00000017000000020000000100000049c9c55faa659e43"
    # footer
    "42000000000000006800000002000000a3b6928701000000795efaa8534c535452534554"
)
