"""Who waits for credits: in which order they come, and that nobody keeps or loses any by giving up."""

import asyncio

import pytest

from streamlake.core.admission import Admission
from streamlake.core.errors import Closed


class Credits(Admission[int]):
    def __init__(self, free: int) -> None:
        super().__init__()
        self.free = free

    def give(self, size: int) -> None:
        self.free += size
        self._wake()

    async def take(self, size: int, timeout_s: float = 60) -> bool:
        return await self._wait(size, timeout_s)

    def _fits(self, request: int) -> bool:
        return request <= self.free

    def _grant(self, request: int) -> None:
        self.free -= request

    def _revoke(self, request: int) -> None:
        self.free += request


async def started(*sizes: int, credits: Credits) -> list["asyncio.Task[bool]"]:
    tasks = [asyncio.create_task(credits.take(size)) for size in sizes]
    await asyncio.sleep(0)
    return tasks


async def test_first_come_first_served() -> None:
    credits = Credits(0)
    large, small, last = await started(90, 5, 6, credits=credits)
    credits.give(89)
    await asyncio.sleep(0)
    assert not (large.done() or small.done()), "the small one does not overtake the large one"
    credits.give(6)
    assert await large and await small
    assert not last.done() and credits.free == 0
    credits.give(6)
    assert await last and credits.free == 0


async def test_too_late() -> None:
    credits = Credits(4)
    assert not await credits.take(5, timeout_s=0)
    credits.give(1)
    assert credits.free == 5, "who gave up is not waited for"


async def test_a_waiter_that_leaves_lets_the_next_one_in() -> None:
    credits = Credits(5)
    large, small = await started(10, 5, credits=credits)
    large.cancel()
    assert await small and credits.free == 0


async def test_what_is_granted_to_one_just_cancelled_goes_to_the_next() -> None:
    credits = Credits(0)
    first, second = await started(10, 10, credits=credits)
    credits.give(10)  # grants
    first.cancel()  # in the same tick
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await second and credits.free == 0


async def test_a_failure_reaches_all_who_wait() -> None:
    credits = Credits(0)
    one, two = await started(1, 2, credits=credits)
    two.cancel()
    credits.fail(Closed("gone"))
    with pytest.raises(Closed):
        await one
    with pytest.raises(asyncio.CancelledError):
        await two
    credits.give(3)
    assert credits.free == 3, "nothing is granted any more"
