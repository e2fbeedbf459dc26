"""Reads an image in memory again after it has missed a change of the metadata store.

An image follows the commits of its own broker. When the answer to a commit is lost, it is read again at once. Should
that fail too, a topic would exist in the store, so that nobody can create it, but not in the image, so that nobody can
use it. Therefore the image is marked as stale, and read again until that succeeds. The commits of other brokers are
noticed by their revision, which each beat reads (brokers.py).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from streamlake.core.retry import TRANSIENT

RETRY_S = 1.0


class Image(Protocol):
    revision: int
    """It has all changes up to this revision of the metadata store."""
    stale: asyncio.Event


async def keep_fresh(stale: asyncio.Event, refresh: Callable[[], Awaitable[None]]) -> None:
    """Runs until cancelled. `refresh` clears `stale` when it has read everything."""
    while True:
        await stale.wait()
        try:
            await refresh()
        except TRANSIENT:
            await asyncio.sleep(RETRY_S)
