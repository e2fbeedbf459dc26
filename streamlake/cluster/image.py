"""Keeps an image in memory from staying behind the metadata store for ever.

An image follows the commits of its own broker. When the answer to a commit is lost it is read again at once; when that
fails too, nobody else would: a topic could exist in the store, be refused to whoever creates it, and be unknown to
whoever asks for it. So what was missed is remembered, and read again until it is there.
"""

import asyncio
from collections.abc import Awaitable, Callable

from streamlake.core.retry import TRANSIENT

RETRY_S = 1.0


async def keep_fresh(stale: asyncio.Event, refresh: Callable[[], Awaitable[None]]) -> None:
    """Until cancelled. `refresh` clears `stale` when it has read everything."""
    while True:
        await stale.wait()
        try:
            await refresh()
        except TRANSIENT:
            await asyncio.sleep(RETRY_S)
