"""Actors against a real server in the tests of this folder: wiring, topics of their own, and answers turned into lies."""

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec import Struct
from simulation.actors.admin import Admin
from simulation.actors.client import Address, Client, World
from simulation.checks.ledger import Ledger
from support.server import Server, serve
from support.wait import DEADLINE_S

from streamlake.core.clock import SystemClock
from streamlake.protocol.messages import ApiKey

CONFIG = """
[tables]
enabled = false
[storage]
upload_bytes = 100000
upload_interval_s = 0.5
retention_interval_s = 0.5
gc_interval_s = 1.0
gc_grace_s = 1.0
[groups]
initial_rebalance_delay_ms = 50
"""

_numbers = itertools.count()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One real server for the tests of all actors, with quick uploads and retention. conftest.py names it."""
    server = Server(tmp_path_factory.mktemp("actors"), CONFIG)
    yield from serve(server)
    assert "a request failed" not in server.log


def world_of(server: Server) -> World:
    """A world whose only broker is that server, wherever it is started again; one address is dead."""
    clock = SystemClock()
    return World(lambda: [("127.0.0.1", server.port), ("127.0.0.1", 1)], Ledger(clock), clock, asyncio.Event())


async def new_topic(world: World, partitions: int = 1, **configs: str) -> str:
    """Underscores in the names of `configs` are dots."""
    name = f"topic-{next(_numbers)}"
    given = {key.replace("_", "."): value for key, value in configs.items()}
    admin = Admin(world, "setup", random.Random(1))
    while not await admin.create(name, partitions, given):  # the dead address was asked
        pass
    await admin.client.drop()
    return name


async def run_until(world: World, enough: Callable[[], bool], *actors: Any) -> None:
    """Run actors until there is enough of whatever, stop, and wait until they are done. What one raises ends all."""
    loop = asyncio.get_running_loop()

    async def watch() -> None:
        while not enough():
            await asyncio.sleep(0.01)
        world.stop.set()

    tasks = [loop.create_task(watch()), *(loop.create_task(actor.run()) for actor in actors)]
    try:
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        world.stop.clear()


async def run_on(world: World, *actors: Any) -> None:
    """Run actors until one of them raises."""
    await run_until(world, lambda: False, *actors)


def lie(client: Client, key: ApiKey, change: Callable[[Any], Any], after: int = 0) -> None:
    """From the answer number `after` on, this client is given `change(answer)` to requests of this API."""
    true_call, heard = client.call, itertools.count()

    async def call(address: Address, asked: ApiKey, request: Struct, max_version: int) -> Any:
        answer = await true_call(address, asked, request, max_version)
        return change(answer) if asked == key and next(heard) >= after else answer

    client.call = call  # type: ignore[method-assign, assignment]
