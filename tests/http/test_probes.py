"""Probes: what an orchestrator does with a process."""

from collections.abc import AsyncIterator

import httpx
import pytest
from support.wait import DEADLINE_S

from streamlake.http import probes
from streamlake.http.app import HttpServer, bind
from streamlake.telemetry.metrics import Metrics


class Broker:
    failed: str | None = None
    waits: str | None = "starting, or stopping"


@pytest.fixture
async def http(broker: Broker) -> AsyncIterator[httpx.AsyncClient]:
    bound, metrics = bind("127.0.0.1", 0), Metrics()
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    routes = probes.routes(lambda: broker.failed, lambda: broker.failed or broker.waits)
    server = HttpServer(bound, routes, metrics, list, list, lambda: None)
    await server.start()
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=DEADLINE_S) as client:
        yield client
    await server.stop()
    metrics.close()


@pytest.fixture
def broker() -> Broker:
    return Broker()


async def test_probes(broker: Broker, http: httpx.AsyncClient) -> None:
    async def found() -> list[int]:
        return [(await http.get(path)).status_code for path in ("/live", "/ready")]

    assert await found() == [200, 503]
    assert (await http.get("/ready")).json() == {"status": "starting, or stopping"}
    broker.waits = None
    assert await found() == [200, 200]
    broker.failed = "stopping: node 1 was taken over"
    assert await found() == [503, 503]
    assert (await http.get("/live")).json() == {"status": "stopping: node 1 was taken over"}
