"""Blocks and indexes read from objects, in memory up to a limit of bytes; the least recently used goes first.

One load serves all readers that wait for it, and may bring several entries. Those that share memory (blocks that came
with one range request) are an extent: they are evicted together, so the limit is exact to the byte.
Failures are not cached: the next reader tries again. A reader that is cancelled does not stop the load.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from streamlake.core.errors import Closed

Key: TypeAlias = tuple[int, int]  # object id, row of the block; -1 is the index


@dataclass(frozen=True, slots=True, eq=False)
class Extent:
    values: dict[Key, Any]
    size_bytes: int


Loaded: TypeAlias = Sequence[Extent]


class BlockCache:
    def __init__(self, limit_bytes: int, max_loads: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.hits = 0
        self.misses = 0
        self._extents: OrderedDict[Extent, None] = OrderedDict()
        self._where: dict[Key, Extent] = {}
        self._loading: dict[Key, asyncio.Task[Loaded]] = {}
        self._loads = asyncio.Semaphore(max_loads)
        self._closed = False

    def has(self, key: Key) -> bool:
        """Is it here, or on its way?"""
        return key in self._where or key in self._loading

    async def get(self, key: Key, load: Callable[[], tuple[Sequence[Key], Callable[[], Awaitable[Loaded]]]]) -> Any:
        """The value of `key`. If it is absent, `load` tells which absent keys to load together with it, and how.
        The loader must bring `key` or raise; it may leave out the others."""
        if (extent := self._where.get(key)) is not None:
            self._extents.move_to_end(extent)
            self.hits += 1
            return extent.values[key]
        self.misses += 1
        while True:
            task = self._loading.get(key) or self.start(*load())
            for extent in await self._wait(task):
                if key in extent.values:
                    return extent.values[key]

    def start(self, keys: Sequence[Key], loader: Callable[[], Awaitable[Loaded]]) -> "asyncio.Task[Loaded]":
        """Begin to load `keys`, which are absent, without waiting."""
        if self._closed:
            raise Closed("the block cache is closed: the broker is stopping")
        task = asyncio.get_running_loop().create_task(self._load(keys, loader))
        for key in keys:
            self._loading[key] = task
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may wait for a read-ahead
        return task

    async def _load(self, keys: Sequence[Key], loader: Callable[[], Awaitable[Loaded]]) -> Loaded:
        try:
            async with self._loads:
                loaded = await loader()
        finally:
            for key in keys:
                del self._loading[key]
        for extent in loaded:
            self._extents[extent] = None
            self.used_bytes += extent.size_bytes
            self._where.update(dict.fromkeys(extent.values, extent))  # some may be here, in an older one
        while self.used_bytes > self.limit_bytes:
            self._drop_one()
        return loaded

    def _drop_one(self) -> None:
        extent, _ = self._extents.popitem(last=False)
        self.used_bytes -= extent.size_bytes
        for key in extent.values:
            if self._where.get(key) is extent:
                del self._where[key]

    async def _wait(self, task: "asyncio.Task[Loaded]") -> Loaded:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and self._closed:
                raise Closed("the block cache is closed: the broker is stopping") from None
            raise

    async def close(self) -> None:
        self._closed = True
        tasks = list(dict.fromkeys(self._loading.values()))  # one load may stand for many keys
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
