from random import Random

import pytest

from streamlake.core.buffers import LOOKS_MAX, POOLED_BYTES_MIN, STEP_BYTES, Buffers, has_views

MIB = 1 << 20


def test_one_that_nobody_looks_at_is_used_again() -> None:
    buffers = Buffers(4 * MIB)
    buffer = buffers.take(MIB)
    buffers.give(buffer)
    assert buffers.take(MIB - 1000) is buffer
    assert buffers.take(MIB) is not buffer


def test_one_with_views_is_left_alone_until_they_are_gone() -> None:
    buffers = Buffers(4 * MIB)
    buffer = buffers.take(MIB)
    buffer[:4] = b"kept"
    view = memoryview(buffer).toreadonly()[:4]
    buffers.give(buffer)
    other = buffers.take(MIB)
    other[:4] = b"gone"
    assert other is not buffer and view == b"kept"
    del view
    assert buffers.take(MIB) is buffer


@pytest.mark.parametrize("size_bytes", [1, POOLED_BYTES_MIN - 1, POOLED_BYTES_MIN, MIB + 1])
def test_sizes(size_bytes: int) -> None:
    buffer = Buffers(MIB).take(size_bytes)
    assert size_bytes <= len(buffer) < size_bytes + STEP_BYTES


def test_one_that_is_much_larger_is_not_wasted_on_a_small_need() -> None:
    buffers = Buffers(16 * MIB)
    buffers.give(bytearray(8 * MIB))
    assert len(buffers.take(MIB)) == MIB
    assert len(buffers.take(7 * MIB)) == 8 * MIB


def test_what_lies_unused_is_bounded() -> None:
    buffers = Buffers(2 * MIB)
    given = [bytearray(MIB) for _ in range(3)]
    for buffer in given:
        buffers.give(buffer)
    buffers.give(bytearray(3 * MIB))  # never fits
    buffers.give(bytearray(10))  # not worth it
    assert [buffers.take(MIB), buffers.take(MIB)] == given[1:]
    assert buffers._spare_bytes == 0 and not buffers._spare


def test_few_looks() -> None:
    buffers = Buffers(64 * MIB)
    views = []
    for _ in range(LOOKS_MAX):
        buffer = bytearray(MIB)
        views.append(memoryview(buffer))
        buffers.give(buffer)
    free = bytearray(MIB)
    buffers.give(free)
    assert buffers.take(MIB) is not free  # it was not looked for so long
    assert buffers.take(MIB) is free


def test_a_look_changes_nothing() -> None:
    buffer = bytearray(Random(1).randbytes(100_000))
    before = bytes(buffer)
    assert not has_views(buffer) and buffer == before
    view = memoryview(buffer)
    assert has_views(buffer) and view == before
