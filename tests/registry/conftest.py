"""A registry on the real metadata store, and the same behind a real HTTP server."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.applications import Starlette

from streamlake.cluster.database import Database
from streamlake.cluster.membership import Membership
from streamlake.cluster.schemas_store import SchemaStore
from streamlake.core.clock import SystemClock
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor, ThreadExecutor
from streamlake.registry.api import routes
from streamlake.registry.schema_registry import SchemaRegistry


@pytest.fixture
async def store() -> AsyncIterator[SchemaStore]:
    clock = SystemClock()
    database = await Database.open("sqlite://", InlineExecutor(), clock)
    identity = (await Membership(database, clock, Ids(7)).register(0, "localhost", 9092)).identity
    yield SchemaStore(database, identity)
    await database.close()


@pytest.fixture
async def registry(store: SchemaStore) -> AsyncIterator[SchemaRegistry]:
    executor = ThreadExecutor("registry")
    yield SchemaRegistry(store, executor)
    executor.close()


@pytest.fixture
async def url(registry: SchemaRegistry) -> AsyncIterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(Starlette(routes=routes(registry)), lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # Ctrl-C stays with pytest
    task = asyncio.create_task(server.serve([listener]))
    while not server.started:
        await asyncio.sleep(0.005)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    await task
    listener.close()
