import asyncio

import pytest
from support.wait import turns

from streamlake.core.errors import Closed, Unavailable
from streamlake.s3stream.objects.block_cache import BlockCache, Extent, Loaded


class Loader:
    def __init__(self, size: int = 10) -> None:
        self.size = size
        self.calls: list[list[tuple[int, int]]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.together = False
        self.leave_out: set[tuple[int, int]] = set()
        self.error: Exception | None = None

    def __call__(self, *keys: tuple[int, int]):  # type: ignore[no-untyped-def]
        async def load() -> Loaded:
            self.calls.append(list(keys))
            await self.gate.wait()
            if self.error:
                raise self.error
            found = [key for key in keys if key not in self.leave_out or key == keys[0]]
            if self.together:
                return [Extent({key: f"value {key}" for key in found}, self.size * len(found))]
            return [Extent({key: f"value {key}"}, self.size) for key in found]

        return lambda: (keys, load)


async def test_one_load_serves_all_who_wait() -> None:
    cache, loader = BlockCache(100, 4), Loader()
    loader.gate.clear()
    readers = [asyncio.create_task(cache.get((1, n), loader((1, 0), (1, 1)))) for n in (0, 1, 0)]
    await turns()
    assert cache.has((1, 1))
    loader.gate.set()
    assert await asyncio.gather(*readers) == ["value (1, 0)", "value (1, 1)", "value (1, 0)"]
    assert len(loader.calls) == 1
    assert (cache.hits, cache.misses, cache.used_bytes) == (0, 3, 20)
    assert await cache.get((1, 1), loader((1, 1))) == "value (1, 1)"
    assert cache.hits == 1


async def test_the_least_recently_used_goes_first() -> None:
    cache, loader = BlockCache(30, 4), Loader()
    for n in (0, 1, 2, 0, 3):
        await cache.get((1, n), loader((1, n)))
    assert [cache.has((1, n)) for n in range(4)] == [True, False, True, True]
    assert cache.used_bytes == 30


async def test_what_came_together_leaves_together() -> None:
    cache, loader = BlockCache(40, 4), Loader()
    loader.together = True
    await cache.get((1, 0), loader((1, 0), (1, 1)))
    await cache.get((2, 0), loader((2, 0), (2, 1)))
    await cache.get((1, 1), loader((1, 1)))  # so the others are older now
    await cache.get((3, 0), loader((3, 0)))
    assert [cache.has(key) for key in ((1, 0), (1, 1), (2, 0), (2, 1), (3, 0))] == [True, True, False, False, True]
    assert cache.used_bytes == 30


async def test_a_loader_may_bring_what_is_here_already() -> None:
    """It counts twice, as it is there twice, until the older extent goes; the newer one is used."""
    cache, loader = BlockCache(30, 4), Loader()
    await cache.get((1, 0), loader((1, 0)))
    load = loader((1, 1), (1, 0))()[1]
    assert await cache.get((1, 1), lambda: ([(1, 1)], load)) == "value (1, 1)"
    assert cache.used_bytes == 30
    await cache.get((1, 2), loader((1, 2)))
    assert [cache.has((1, n)) for n in range(3)] == [True, True, True] and cache.used_bytes == 30


async def test_an_older_extent_may_outlive_a_newer_one_with_the_same_key() -> None:
    cache, loader = BlockCache(50, 4), Loader()
    loader.together = True
    await cache.get((1, 0), loader((1, 0), (1, 1)))
    load = loader((1, 2), (1, 0))()[1]
    await cache.get((1, 2), lambda: ([(1, 2)], load))
    await cache.get((1, 1), loader((1, 1)))  # of the older one
    for n in range(3, 8):
        await cache.get((1, n), loader((1, n)))
    assert not any(cache.has((1, n)) for n in range(3)) and cache.used_bytes == 50


async def test_a_value_larger_than_the_cache_is_given_and_not_kept() -> None:
    cache, loader = BlockCache(5, 4), Loader()
    assert await cache.get((1, 0), loader((1, 0))) == "value (1, 0)"
    assert cache.used_bytes == 0


async def test_failures_are_not_cached() -> None:
    cache, loader = BlockCache(100, 4), Loader()
    loader.error = Unavailable("not now")
    with pytest.raises(Unavailable):
        await cache.get((1, 0), loader((1, 0)))
    loader.error = None
    assert await cache.get((1, 0), loader((1, 0))) == "value (1, 0)"


async def test_a_bad_neighbour_is_loaded_alone_by_who_wants_it() -> None:
    cache, loader = BlockCache(100, 4), Loader()
    loader.leave_out = {(1, 1)}
    first = asyncio.create_task(cache.get((1, 0), loader((1, 0), (1, 1))))
    second = asyncio.create_task(cache.get((1, 1), loader((1, 1))))
    assert await asyncio.gather(first, second) == ["value (1, 0)", "value (1, 1)"]
    assert loader.calls == [[(1, 0), (1, 1)], [(1, 1)]]


async def test_a_cancelled_reader_does_not_stop_the_load() -> None:
    cache, loader = BlockCache(100, 4), Loader()
    loader.gate.clear()
    gone = asyncio.create_task(cache.get((1, 0), loader((1, 0))))
    stays = asyncio.create_task(cache.get((1, 0), loader((1, 0))))
    await turns()
    gone.cancel()
    loader.gate.set()
    assert await stays == "value (1, 0)"
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_loads_in_flight_are_limited() -> None:
    cache, loader = BlockCache(1000, 2), Loader()
    loader.gate.clear()
    readers = [asyncio.create_task(cache.get((1, n), loader((1, n)))) for n in range(5)]
    await turns()
    assert len(loader.calls) == 2
    loader.gate.set()
    await asyncio.gather(*readers)
    assert len(loader.calls) == 5


async def test_close_ends_readers_with_a_clear_error() -> None:
    cache, loader = BlockCache(100, 4), Loader()
    loader.gate.clear()
    reader = asyncio.create_task(cache.get((1, 0), loader((1, 0))))
    await turns()
    await cache.close()
    with pytest.raises(Closed):
        await reader
    with pytest.raises(Closed):
        await cache.get((1, 1), loader((1, 1)))
