"""A granted reservation can always be appended, whatever was reserved and in whatever order it is appended."""

import asyncio
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlake.core.errors import Closed, Full, Invalid
from streamlake.s3stream.wal.file.space import WalSpace

ROOM = 1000
HEADER = 10


def space(spares: int, active_free_bytes: int = 0) -> WalSpace:
    made = WalSpace(ROOM, HEADER)
    made.active_free_bytes = active_free_bytes
    for _ in range(spares):
        made.add_spare()
    return made


@given(st.integers(0, 6), st.integers(0, ROOM), st.lists(st.integers(0, ROOM - HEADER), max_size=60), st.randoms())
def test_what_is_granted_fits_in_any_order(spares: int, active: int, sizes: list[int], random: Random) -> None:
    wal = space(spares, active)
    granted: list[int] = []
    for size in sizes:
        if wal.try_reserve(size):
            granted.append(size)
        if random.random() < 0.3 and granted:
            taken = granted.pop(random.randrange(len(granted)))
            if random.random() < 0.2:
                wal.release(taken)
            else:
                wal.use(taken)
    random.shuffle(granted)
    for size in granted:
        wal.use(size)
    assert wal.reserved_bytes == 0
    assert wal.spare_segments >= min(spares, 1), "the slack is still there"


@given(st.lists(st.integers(1, ROOM // 2), min_size=1, max_size=60), st.randoms())
def test_a_reservation_may_be_for_several_records(sizes: list[int], random: Random) -> None:
    """The headers that a reservation did not pay for come out of the slack; its data is counted to the byte."""
    wal = space(5)
    outstanding: list[int] = []
    for size in sizes:
        if wal.try_reserve(size):
            parts = random.randint(1, min(3, size))
            outstanding += [size // parts] * (parts - 1) + [size - size // parts * (parts - 1)]
        while len(outstanding) > random.randint(0, 8):
            wal.use(outstanding.pop(random.randrange(len(outstanding))))
        assert wal.reserved_bytes == sum(outstanding)
    for size in outstanding:
        wal.use(size)


def test_a_reservation_may_be_used_in_part() -> None:
    wal = space(3)
    assert wal.try_reserve(100)
    assert wal.try_reserve(500)
    wal.use(60)
    wal.release(40)
    assert wal.reserved_bytes == 500
    wal.use(500)
    assert wal.reserved_bytes == 0


def test_the_room_is_not_wasted_on_caution() -> None:
    wal = space(10)
    granted = 0
    while wal.try_reserve(90):
        wal.use(90)
        granted += 1
    assert granted >= 9 * 9, "nine of ten segments, each nearly full"


def test_too_large_for_a_segment_is_invalid() -> None:
    with pytest.raises(Invalid, match="segment"):
        space(5).try_reserve(ROOM - HEADER + 1)
    assert space(5).try_reserve(ROOM - HEADER)


def test_appending_what_was_never_reserved_is_refused_at_the_very_end() -> None:
    wal = space(1, active_free_bytes=100)
    assert not wal.use(90)
    assert wal.use(90)
    with pytest.raises(Full):
        wal.use(ROOM - HEADER)


async def test_waiters_are_served_in_order() -> None:
    wal = space(2)
    assert wal.try_reserve(900)
    order: list[int] = []

    async def wait(size: int) -> None:
        await wal.reserve(size, 60, "full")
        order.append(size)

    tasks = [asyncio.create_task(wait(size)) for size in (800, 1)]
    await asyncio.sleep(0)
    assert wal.wanted
    assert not wal.try_reserve(1), "it would fit, but others wait"
    wal.use(900)
    await asyncio.sleep(0)
    assert order == []
    wal.add_spare()
    await asyncio.gather(*tasks)
    assert order == [800, 1]


async def test_use_wakes_a_waiter_that_only_the_worst_packing_kept_out() -> None:
    wal = space(3)
    assert wal.try_reserve(600)
    waiter = asyncio.create_task(wal.reserve(950, 60, "full"))
    await asyncio.sleep(0)
    assert wal.wanted
    wal.use(600)
    await waiter


async def test_a_waiter_times_out_leaves_and_is_forgotten() -> None:
    wal = space(2)
    assert wal.try_reserve(900)
    with pytest.raises(Full, match="no room, says the test"):
        await wal.reserve(900, 0, "no room, says the test")
    waiter = asyncio.create_task(wal.reserve(900, 60, "full"))
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert not wal.wanted
    wal.release(900)
    assert wal.reserved_bytes == 0


async def test_failure_reaches_who_waits_and_who_comes() -> None:
    wal = space(2)
    assert wal.try_reserve(900)
    waiter = asyncio.create_task(wal.reserve(900, 60, "full"))
    await asyncio.sleep(0)
    wal.fail(Closed("gone"))
    with pytest.raises(Closed):
        await waiter
    with pytest.raises(Closed):
        wal.try_reserve(1)
