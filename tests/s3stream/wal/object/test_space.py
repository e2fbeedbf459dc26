"""Room in the object WAL: its two limits, who comes first, and what is said when there is none."""

import asyncio

import pytest

from streamlake.core.errors import Closed, Full, Invalid
from streamlake.s3stream.wal.object.space import ObjectWalSpace


async def test_both_limits_hold() -> None:
    space = ObjectWalSpace(100, 250)
    assert space.try_reserve(100)
    assert not space.try_reserve(1)
    space.use(100, 110)
    assert (space.unflushed_bytes, space.used_bytes) == (110, 110), "the overhead counts, and may go over the limit"
    space.flushed(110)
    assert (space.unflushed_bytes, space.used_bytes) == (0, 110)
    assert space.try_reserve(100)
    space.use(100, 110)
    space.flushed(110)
    assert not space.try_reserve(31)
    assert space.try_reserve(30)
    space.release(30)
    space.trimmed(110)
    assert space.try_reserve(100)


async def test_overhead_counts_until_the_trim_only() -> None:
    space = ObjectWalSpace(100, 250)
    assert space.try_reserve(10)
    space.use(10, 12, 200)
    assert (space.unflushed_bytes, space.used_bytes) == (12, 212)
    assert not space.try_reserve(50)


async def test_the_message_names_the_limit_that_is_reached() -> None:
    space = ObjectWalSpace(100, 250)
    assert space.try_reserve(100)
    with pytest.raises(Full, match="see to the store"):
        await space.reserve(1, 0)
    space.use(100, 240)
    space.flushed(240)
    with pytest.raises(Full, match="raise its capacity"):
        await space.reserve(50, 0)


async def test_what_can_never_fit_is_invalid() -> None:
    with pytest.raises(Invalid, match="never fit"):
        ObjectWalSpace(100, 250).try_reserve(101)


async def test_who_gives_up_lets_the_next_one_pass_and_keeps_nothing() -> None:
    space = ObjectWalSpace(100, 1000)
    assert space.try_reserve(50)
    large, small = asyncio.create_task(space.reserve(60, 60)), asyncio.create_task(space.reserve(10, 60))
    await asyncio.sleep(0)
    large.cancel()
    await small
    assert space.reserved_bytes == 60
    late = asyncio.create_task(space.reserve(60, 60))
    await asyncio.sleep(0)
    space.release(60)
    late.cancel()  # granted in this very tick
    await asyncio.gather(late, return_exceptions=True)
    assert space.reserved_bytes == 0


async def test_the_end_reaches_all_who_wait() -> None:
    space = ObjectWalSpace(100, 1000)
    assert space.try_reserve(100)
    waiting = asyncio.create_task(space.reserve(1, 60))
    await asyncio.sleep(0)
    space.fail(Closed("over"))
    with pytest.raises(Closed):
        await waiting
    with pytest.raises(Closed):
        space.try_reserve(1)
