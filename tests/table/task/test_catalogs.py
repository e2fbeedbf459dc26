import asyncio
from typing import Any

import pytest
from support.table_world import World

from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.named import NamedCatalogs
from streamlake.core.errors import Invalid, Unavailable
from streamlake.table.task.catalogs import Catalogs

NAMED = NamedCatalogs("lake", {name: CatalogConfig("sql", name, {}) for name in ("lake", "other")})


class Opener:
    """Answers when a test says so."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.answers: dict[str, asyncio.Future[Any]] = {}

    async def open(self, name: str, config: CatalogConfig) -> Any:
        assert config.name == name
        self.calls.append(name)
        self.answers[name] = asyncio.get_running_loop().create_future()
        return await self.answers[name]


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_tables_of_a_catalog_share_one_attempt_and_no_other_waits() -> None:
    opener, tools = Opener(), World().tools()
    catalogs = Catalogs(NAMED, opener.open)
    first, second = (asyncio.create_task(catalogs.tools("lake")) for _ in range(2))
    other = asyncio.create_task(catalogs.tools("other"))
    await turn()
    assert opener.calls == ["lake", "other"]
    opener.answers["other"].set_result(tools)
    assert await other is tools
    assert not first.done()
    first.cancel()  # the others still wait for the attempt
    opener.answers["lake"].set_result(tools)
    assert await second is tools
    assert await catalogs.tools("lake") is tools
    assert opener.calls == ["lake", "other"]


async def test_after_a_failure_the_next_that_asks_makes_another_attempt() -> None:
    opener, tools = Opener(), World().tools()
    catalogs = Catalogs(NAMED, opener.open)
    waiting = [asyncio.create_task(catalogs.tools("lake")) for _ in range(2)]
    await turn()
    opener.answers["lake"].set_exception(Unavailable("no route"))
    for task in waiting:
        with pytest.raises(Unavailable):
            await task
    again = asyncio.create_task(catalogs.tools("lake"))
    await turn()
    opener.answers["lake"].set_result(tools)
    assert await again is tools
    assert opener.calls == ["lake", "lake"]


async def test_names() -> None:
    catalogs = Catalogs(NAMED, Opener().open)
    assert (catalogs.name(""), catalogs.name("other"), catalogs.kind("other")) == ("lake", "other", "sql")
    for ask in (lambda: catalogs.kind("nowhere"), lambda: catalogs._named["nowhere"]):
        with pytest.raises(Invalid, match="there is no catalog 'nowhere'"):
            ask()
    with pytest.raises(Invalid, match="there is no catalog 'nowhere'"):
        await catalogs.tools("nowhere")
