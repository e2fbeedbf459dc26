"""A registry on the real metadata store, behind a real HTTP server."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.applications import Starlette
from support.registry_fixtures import *  # noqa: F403

from streamlake.http.registry import routes
from streamlake.registry.schema_registry import SchemaRegistry


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
