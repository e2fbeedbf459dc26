"""The catalogs of a worker: each is opened when the first table needs it, on threads of its own.

One that cannot be reached, or hangs, holds up its own tables and no others.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.named import NamedCatalogs
from streamlake.table.commit.tools import Tools


class Catalogs:
    """`open_` connects to a catalog, given its name and configuration. It raises Invalid if that can never work, and
    Unavailable."""

    def __init__(self, named: NamedCatalogs, open_: Callable[[str, CatalogConfig], Coroutine[Any, Any, Tools]]) -> None:
        self._named = named
        self._open = open_
        self._opening: dict[str, asyncio.Task[Tools]] = {}

    def name(self, configured: str) -> str:
        """The catalog that this value of streamlake.table.catalog means."""
        return configured or self._named.default

    def kind(self, name: str) -> str:
        """Invalid if there is no such catalog."""
        return self._named[name].kind

    async def tools(self, name: str) -> Tools:
        """What tables of this catalog work with. All that wait share one attempt; after a failure the next caller makes
        another. Raises Invalid, also if there is no such catalog, and Unavailable."""
        config = self._named[name]
        opening = self._opening.get(name)
        if opening is None or (opening.done() and _failed(opening)):
            opening = self._opening[name] = asyncio.get_running_loop().create_task(self._open(name, config))
            opening.add_done_callback(_failed)  # seen, also if every caller has gone away
        return await asyncio.shield(opening)


def _failed(opening: "asyncio.Task[Tools]") -> bool:
    return opening.cancelled() or opening.exception() is not None
