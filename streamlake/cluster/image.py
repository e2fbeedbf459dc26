"""Reads an image in memory again after it has missed a change of the metadata store.

An image follows the commits of its own broker. When the answer to a commit is lost, it is read again at once. Should
that fail too, a topic would exist in the store, so that nobody can create it, but not in the image, so that nobody can
use it. Therefore the image is marked as stale, and read again until that succeeds. The commits of other brokers are
noticed by their revision, which each beat reads (brokers.py).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from streamlake.cluster.store.database import Database
from streamlake.cluster.store.revision import current_revision
from streamlake.core.errors import StreamLakeError
from streamlake.core.retry import TRANSIENT

RETRY_S = 1.0
CATCH_UP_INTERVAL_S = 0.1
CATCH_UP_TIMEOUT_S = 1.0  # then the image counts, however old it is: the metadata store may be away


class CanBeStale(Protocol):
    revision: int
    """It has all changes up to this revision of the metadata store."""
    stale: asyncio.Event


class Image(CanBeStale, Protocol):
    async def refresh(self) -> None: ...


async def keep_fresh(stale: asyncio.Event, refresh: Callable[[], Awaitable[None]]) -> None:
    """Runs until cancelled. `refresh` clears `stale` when it has read everything."""
    while True:
        await stale.wait()
        try:
            await refresh()
        except TRANSIENT:
            await asyncio.sleep(RETRY_S)


class CatchUp:
    """For who asks for something that the image does not have: another broker may have made it a moment ago, before our
    next beat, and many clients do not ask again for minutes."""

    def __init__(self, database: Database, image: Image) -> None:
        self._database = database
        self._image = image
        self._looked_at = float("-inf")
        self._next: asyncio.Task[bool] | None = None  # a look that has not begun

    async def __call__(self) -> bool:
        """On return the image has what was there when this was called; False if the metadata store does not answer. All
        who wait share one look; there is one each 100 ms at most."""
        if self._database.is_ours_alone:
            return True
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._look(), name="catch up")
        look = self._next
        await asyncio.wait([look], timeout=CATCH_UP_TIMEOUT_S)
        return look.done() and not look.cancelled() and look.result()

    async def _look(self) -> bool:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._looked_at + CATCH_UP_INTERVAL_S - loop.time()))
        self._looked_at, self._next = loop.time(), None  # who asks from here on needs another look
        try:
            revision = await self._database.read(current_revision)
            if self._image.revision < revision:
                await self._image.refresh()
        except StreamLakeError:
            self._image.stale.set()  # keep_fresh tries again
            return False
        return True
