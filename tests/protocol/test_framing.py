import struct
import tracemalloc
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlake.core.buffers import Buffers
from streamlake.protocol.framing import FrameReader
from streamlake.protocol.wire import Buffer, Malformed


def framed(*frames: bytes) -> bytes:
    return b"".join(struct.pack(">i", len(f)) + f for f in frames)


def drained(reader: FrameReader) -> list[bytes]:
    out = []
    while (frame := reader.next_frame()) is not None:
        assert isinstance(frame, bytes) or frame.readonly
        out.append(bytes(frame))
    return out


@given(st.lists(st.binary(max_size=40), max_size=12), st.data())
def test_any_split_gives_the_same_frames(frames: list[bytes], data: st.DataObject) -> None:
    stream = framed(*frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=30)))
    reader, got = FrameReader(100), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        reader.feed(stream[start:end])
        if data.draw(st.booleans()):  # the owner need not ask after each chunk
            got += drained(reader)
        assert reader.buffered_bytes == end - len(framed(*got))
    assert got + drained(reader) == frames
    assert reader.buffered_bytes == 0


@pytest.mark.parametrize("seed", range(30))
def test_received_straight_into_the_frame_or_not_gives_the_same_frames(seed: int) -> None:
    random = Random(seed)
    frames = [random.randbytes(random.choice((0, 5, 20_000, 300_000))) for _ in range(6)]
    stream = memoryview(framed(*frames))
    reader, got, at = FrameReader(1 << 20), [], 0
    while at < len(stream):
        part = stream[at : at + random.randrange(1, 100_000)]
        if (room := reader.room()) is not None:
            part = part[: len(room)]
            room[: len(part)] = part
            reader.filled(len(part))
        else:
            reader.feed(bytes(part))
        at += len(part)
        if random.random() < 0.8:
            got += drained(reader)
    assert got + drained(reader) == frames
    assert reader.buffered_bytes == 0 and reader.room() is None


@pytest.mark.parametrize("seed", range(10))
def test_buffers_are_used_again_and_frames_that_are_kept_stay_as_they_were(seed: int) -> None:
    random = Random(seed)
    buffers = Buffers(1 << 20)
    readers = [FrameReader(1 << 20, buffers) for _ in range(2)]
    kept: list[tuple[Buffer, bytes]] = []
    used = set()
    for _ in range(60):
        reader, sent = random.choice(readers), random.randbytes(random.choice((70_000, 100_000, 250_000)))
        reader.feed(framed(sent)[:-10_000])
        reader.feed(sent[-10_000:])
        frame = reader.next_frame()
        assert frame is not None
        used.add(id(frame.obj) if isinstance(frame, memoryview) else 0)
        kept.append((frame, sent))
        if len(kept) > 4:
            del kept[random.randrange(5)]
        assert all(frame == sent for frame, sent in kept)
    assert len(used) < 30


def test_a_large_frame_has_room_for_what_is_missing() -> None:
    reader = FrameReader(1 << 20)
    assert reader.room() is None
    reader.feed(struct.pack(">i", 500_000) + bytes(40_000))
    assert reader.room() is None, "the frame is not known before somebody asked for it"
    assert reader.next_frame() is None
    room = reader.room()
    assert room is not None and len(room) == 460_000
    reader.filled(450_000)
    assert reader.room() is None, "the little that is missing can come with what follows"


@given(st.lists(st.binary(max_size=20), max_size=5), st.sampled_from([-1, -(2**31), 101, 2**31 - 1]), st.data())
def test_a_bad_length_is_malformed_after_the_good_frames(frames: list[bytes], size: int, data: st.DataObject) -> None:
    stream = framed(*frames) + struct.pack(">i", size) + b"junk"
    cut = data.draw(st.integers(0, len(stream)))
    reader, got = FrameReader(100), []
    with pytest.raises(Malformed):
        for part in (stream[:cut], stream[cut:]):
            reader.feed(part)
            while (frame := reader.next_frame()) is not None:
                got.append(bytes(frame))
    assert got == frames
    with pytest.raises(Malformed):  # and stays so
        reader.next_frame()


def test_a_lying_length_costs_nothing() -> None:
    tracemalloc.start()
    try:
        reader = FrameReader(100 << 20)
        reader.feed(struct.pack(">i", 100 << 20) + b"a few bytes")
        assert reader.next_frame() is None
        assert tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()


def test_a_large_frame_is_held_once() -> None:
    """Gathered in place: about its own size, whatever the size of the chunks."""
    size = 4 << 20
    tracemalloc.start()
    try:
        reader = FrameReader(size)
        reader.feed(struct.pack(">i", size))
        for _ in range(0, size, 1 << 10):
            reader.feed(bytes(1 << 10))
            frame = reader.next_frame()
        assert frame is not None and len(frame) == size
        assert tracemalloc.get_traced_memory()[1] < 1.5 * size
    finally:
        tracemalloc.stop()


def test_a_frame_does_not_keep_its_neighbours_alive() -> None:
    reader = FrameReader(1000)
    reader.feed(framed(b"one", b"two"))
    assert reader.next_frame() == b"one"
    assert reader.buffered_bytes == 7
    assert reader.next_frame() == b"two"
    assert reader.next_frame() is None


def test_a_client_that_sends_byte_by_byte_costs_no_more_than_its_bytes() -> None:
    """While the pipeline is busy nobody asks for frames, and each segment of one byte used to be an object of its own."""
    reader = FrameReader(1 << 20)
    data = (b"\0\0\0\x03abc" * 10_000)[:50_000]
    tracemalloc.start()
    try:
        for at in range(len(data)):
            reader.feed(data[at : at + 1])
        assert tracemalloc.get_traced_memory()[0] < 2 * len(data)
    finally:
        tracemalloc.stop()
    assert reader.buffered_bytes == len(data)
    assert bytes(reader.next_frame() or b"") == b"abc"
