"""Who waits for a partition's high watermark to move: long polls, one future each, perhaps watching many partitions."""

import asyncio


class Waiters:
    """Futures to resolve once. A fetch adds its future before it reads, so that no append falls in between."""

    def __init__(self) -> None:
        self._futures: dict[asyncio.Future[None], None] = {}  # a set with an order, so that simulation can repeat it

    def __len__(self) -> int:
        return len(self._futures)

    def add(self, future: "asyncio.Future[None]") -> None:
        self._futures[future] = None

    def discard(self, future: "asyncio.Future[None]") -> None:
        """No error if it was woken already."""
        self._futures.pop(future, None)

    def wake(self) -> None:
        """Resolve and forget all futures; those that are done (another partition was first) are only forgotten."""
        futures, self._futures = self._futures, {}
        for future in futures:
            if not future.done():
                future.set_result(None)
