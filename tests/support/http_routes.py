"""Some routes of the HTTP server behind a real socket, and a client that asks them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from support.wait import DEADLINE_S

from streamlake.http.app import HttpServer, bind
from streamlake.telemetry.metrics import Metrics


@asynccontextmanager
async def serving(routes: Sequence[Any]) -> AsyncIterator[httpx.AsyncClient]:
    bound, metrics = bind("127.0.0.1", 0), Metrics()
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    server = HttpServer(bound, routes, metrics, list, list, lambda: None)
    await server.start()
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=DEADLINE_S) as client:
        yield client
    await server.stop()
    metrics.close()
