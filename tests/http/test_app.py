"""The HTTP port: health, metrics, tables, and routes that others bring."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from support.wait import DEADLINE_S

from streamlake.core.errors import Unavailable
from streamlake.http.app import HEADERS_BYTES_MAX, HttpServer, bind
from streamlake.telemetry.metric import Metric
from streamlake.telemetry.metrics import Metrics


class Broker:
    """What the HTTP server is told by the rest of the server."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.tables: list[dict[str, Any]] = []
        self.worker_pid: int | None = None
        self.metrics = Metrics()
        self.metrics.add([Metric("counter", "streamlake_things", "Things.", lambda: [(5, {"kind": "a"})])])
        bound = bind("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{bound.getsockname()[1]}"

        async def hello(_request: Request) -> PlainTextResponse:
            return PlainTextResponse("hello")

        self.server = HttpServer(
            bound,
            [Route("/hello", hello)],
            self.metrics,
            lambda: self.problems,
            lambda: self.tables,
            lambda: self.worker_pid,
            ["lake", "sql"],
        )


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    broker = Broker()
    await broker.server.start()
    yield broker
    await broker.server.stop()
    broker.metrics.close()


@pytest.fixture
async def http(broker: Broker) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=broker.url, trust_env=False) as client:
        yield client


async def test_health(broker: Broker, http: httpx.AsyncClient) -> None:
    well = await http.get("/healthz")
    assert (well.status_code, well.json()) == (200, {"status": "ok", "problems": []})
    broker.problems = ["the lease has run out"]
    sick = await http.get("/healthz")
    assert (sick.status_code, sick.json()) == (503, {"status": "unhealthy", "problems": ["the lease has run out"]})


async def test_metrics_are_prometheus_text(http: httpx.AsyncClient) -> None:
    answer = await http.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.text.splitlines()[:2] == [
        "# HELP streamlake_things_total Things.",
        "# TYPE streamlake_things_total counter",
    ]
    assert answer.text.splitlines()[2].startswith('streamlake_things_total{kind="a"')


async def test_tables_and_worker(broker: Broker, http: httpx.AsyncClient) -> None:
    assert (await http.get("/v1/tables")).json() == {"tables": [], "catalogs": ["lake", "sql"]}
    assert (await http.get("/v1/worker")).json() == {"pid": None}
    broker.tables, broker.worker_pid = [{"topic": "t", "rows": 3}], 42
    assert (await http.get("/v1/tables")).json()["tables"] == [{"topic": "t", "rows": 3}]
    assert (await http.get("/v1/worker")).json() == {"pid": 42}


async def test_the_root_is_a_registrys_to_clients_and_a_page_to_people(http: httpx.AsyncClient) -> None:
    for accept in ("*/*", "application/vnd.schemaregistry.v1+json, application/json"):
        answer = await http.get("/", headers={"accept": accept})
        assert (answer.status_code, answer.json()) == (200, {})
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    page = await http.get("/", headers={"accept": browser})
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "StreamLake" in page.text
    links = re.findall('href="([^"]*)"', page.text)
    assert links
    for link in links:
        elsewhere = link in (
            "/subjects",
            "/iceberg/v1/config",
            "/v1/cluster",
            "/live",
            "/ready",
        )  # others bring these routes
        assert (await http.get(link)).status_code == (404 if elsewhere else 200)


async def test_other_routes(http: httpx.AsyncClient) -> None:
    answer = await http.get("/hello")
    assert answer.text == "hello"
    assert "server" not in answer.headers
    assert (await http.get("/no/such/path")).status_code == 404
    assert (await http.post("/healthz")).status_code == 405


async def test_headers_have_a_limit(http: httpx.AsyncClient) -> None:
    assert (await http.get("/hello", headers={"X-Long": "x" * (HEADERS_BYTES_MAX // 2)})).status_code == 200
    reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
    writer.write(b"GET /hello HTTP/1.1\r\nX-Long: " + b"x" * HEADERS_BYTES_MAX)
    async with asyncio.timeout(DEADLINE_S):
        assert b" 400 " in await reader.readline(), "it is not waited for its end"
    writer.close()


async def test_a_taken_port_is_a_clear_error(broker: Broker) -> None:
    port = broker.url.rpartition(":")[2]
    with pytest.raises(
        Unavailable, match=f"cannot listen on 127.0.0.1:{port} for HTTP: .*Give another server.http_port"
    ):
        bind("127.0.0.1", int(port))


async def test_stop_frees_the_port_and_does_not_wait_for_idle_clients() -> None:
    broker = Broker()
    await broker.server.start()
    port = int(broker.url.rpartition(":")[2])
    async with httpx.AsyncClient(base_url=broker.url, trust_env=False) as client:
        await client.get("/healthz")  # its connection stays open
        await broker.server.stop()
    broker.metrics.close()
    bind("127.0.0.1", port).close()


async def test_stop_before_start() -> None:
    broker = Broker()
    await broker.server.stop()
    broker.metrics.close()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", int(broker.url.rpartition(":")[2])), timeout=DEADLINE_S)
