"""The long polls that wait for the high watermark of a partition: one future each, which may be in many partitions."""

import asyncio


class Waiters:
    """Futures that are resolved once. A fetch adds its future before it reads, so that it misses no append."""

    def __init__(self) -> None:
        self._futures: dict[asyncio.Future[None], None] = {}  # ordered, so that a simulation is repeatable

    def __len__(self) -> int:
        return len(self._futures)

    def add(self, future: "asyncio.Future[None]") -> None:
        self._futures[future] = None

    def discard(self, future: "asyncio.Future[None]") -> None:
        """Remove a future; no error if it was resolved already."""
        self._futures.pop(future, None)

    def wake(self) -> None:
        """Resolve and remove all futures. One that is done was resolved by another partition."""
        if not self._futures:
            return
        futures, self._futures = self._futures, {}
        for future in futures:
            if not future.done():
                future.set_result(None)
