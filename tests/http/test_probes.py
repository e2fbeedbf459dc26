"""Probes: what an orchestrator does with a process."""

from collections.abc import AsyncIterator

import httpx
import pytest
from support.http_routes import serving

from streamlake.http import probes


class Broker:
    failed: str | None = None
    waits: str | None = "starting, or stopping"


@pytest.fixture
async def http(broker: Broker) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(probes.routes(lambda: broker.failed, lambda: broker.failed or broker.waits)) as client:
        yield client


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
