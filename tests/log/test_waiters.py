import asyncio

from streamlake.log.waiters import Waiters


def future():
    return asyncio.get_running_loop().create_future()


async def test_wake_resolves_once_and_forgets():
    waiters, one, two = Waiters(), future(), future()
    waiters.add(one)
    waiters.add(two)
    waiters.discard(two)
    waiters.wake()
    assert (one.done(), two.done(), len(waiters)) == (True, False, 0)
    waiters.discard(one)


async def test_one_future_may_watch_many_partitions():
    first, second, woken = Waiters(), Waiters(), future()
    first.add(woken)
    second.add(woken)
    first.wake()
    second.wake()
    assert woken.result() is None


async def test_cancelled_waiter_harms_nobody():
    waiters, gone, other = Waiters(), future(), future()
    waiters.add(gone)
    waiters.add(other)
    gone.cancel()
    waiters.wake()
    assert other.done()


async def test_added_while_waking_waits_for_the_next_time():
    waiters, one, late = Waiters(), future(), future()
    one.add_done_callback(lambda _: waiters.add(late))
    waiters.add(one)
    waiters.wake()
    await asyncio.sleep(0)
    assert (late.done(), len(waiters)) == (False, 1)
