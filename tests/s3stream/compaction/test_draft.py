from array import array

import pytest

from streamlake.s3stream.compaction.draft import Draft, DraftRange
from streamlake.s3stream.objects.format import Block, decode_block, decode_footer, decode_index


def block(start: int, *chunks: tuple[int, int, bytes]) -> Block:
    """Chunks of (offsets, timestamp, bytes)."""
    bases, ends, at, size = array("q"), array("I"), start, 0
    for count, _, data in chunks:
        bases.append(at)
        at, size = at + count, size + len(data)
        ends.append(size)
    timestamps = array("q", [timestamp for _, timestamp, _ in chunks])
    return Block(start, at, bases, timestamps, ends, memoryview(b"".join(data for *_, data in chunks)))


def test_small_blocks_of_a_stream_become_one() -> None:
    draft = Draft(8)
    draft.add(1, block(5, (2, 30, b"aa"), (1, 20, b"b")))
    draft.add(1, block(8, (4, 50, b"ccc")))
    draft.add(1, block(12, (1, 10, b"ddddd")))  # too much for one block
    draft.add(3, block(0, (1, 7, b"e")))
    data = memoryview(b"".join(draft.finish()))
    assert len(data) == draft.size_bytes
    footer = decode_footer(data, len(data))
    index = decode_index(data[footer.index_position :][: footer.index_size], footer)
    blocks = [
        decode_block(data[at : at + size], index, row)
        for row, (at, size) in enumerate(zip(index.positions, index.sizes, strict=True))
    ]
    assert list(index.stream_ids) == [1, 1, 3]
    assert [(b.start_offset, b.end_offset, list(b.bases), list(b.timestamps)) for b in blocks] == [
        (5, 12, [5, 7, 8], [30, 20, 50]),
        (12, 13, [12], [10]),
        (0, 1, [0], [7]),
    ]
    assert [bytes(b.data) for b in blocks] == [b"aabccc", b"ddddd", b"e"]
    assert list(blocks[0].ends) == [2, 3, 6]
    assert draft.ranges == [DraftRange(1, 5, 13, 11, 50), DraftRange(3, 0, 1, 1, 7)]


def test_a_gap_is_a_bug() -> None:
    draft = Draft(8)
    draft.add(1, block(0, (1, 0, b"a")))
    with pytest.raises(AssertionError, match="adjoin"):
        draft.add(1, block(2, (1, 0, b"c")))
