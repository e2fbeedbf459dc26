"""The HTTP port: schema registry, tables, health, metrics. Starlette routes on uvicorn, on the broker's loop."""

import asyncio
import contextlib
import html
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from streamlake.core import sockets
from streamlake.core.errors import Unavailable
from streamlake.core.version import version
from streamlake.telemetry.metrics import Metrics

START_TIMEOUT_S = 10.0
BACKLOG = 256
HEADERS_BYTES_MAX = 64 << 10  # of a request
PAGES = {
    "/v1/tables": "the tables, and how far they are",
    "/v1/cluster": "the brokers, and what they have",
    "/iceberg/v1/config": "the Iceberg REST catalog",
    "/subjects": "subjects of the schema registry",
    "/healthz": "whether this broker is well",
    "/live": "whether it must be started again",
    "/ready": "whether clients should be sent to it",
    "/metrics": "metrics for Prometheus",
}
# What starlette uses of anyio, which imports its parts when they are named first: not within the first request.
anyio.create_task_group, anyio.connect_tcp, anyio.create_memory_object_stream  # noqa: B018


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handlers: Ctrl-C belongs to broker/process.py, which stops things in order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """Serves on a socket of `bind`. `health` returns what is wrong, or nothing; `tables` the table topics as JSON-ready
    dictionaries, `catalogs` the names of the catalogs, the default first."""

    def __init__(
        self,
        bound: socket.socket,
        routes: Sequence[BaseRoute],
        metrics: Metrics,
        health: Callable[[], list[str]],
        tables: Callable[[], list[dict[str, Any]]],
        worker_pid: Callable[[], int | None],
        catalogs: Sequence[str] = (),
    ) -> None:
        self._health, self._tables, self._metrics, self._worker_pid = health, tables, metrics, worker_pid
        self._catalogs = catalogs
        own = [
            Route("/", self._root),
            Route("/healthz", self._healthz),
            Route("/metrics", self._render),
            Route("/v1/tables", self._list_tables),
            Route("/v1/worker", self._worker),
        ]
        app = Starlette(routes=[*own, *routes])
        self._socket = bound
        config = uvicorn.Config(
            app,
            http="h11",  # uvicorn would take httptools if it is installed, which has no limit for headers
            ws="none",
            h11_max_incomplete_event_size=HEADERS_BYTES_MAX,
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=3,
            server_header=False,
        )
        self._server = _Uvicorn(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._server.serve([self._socket]), name="http")
        async with asyncio.timeout(START_TIMEOUT_S):
            while not self._server.started:
                if self._task.done():
                    self._task.result()
                    raise Unavailable("the HTTP server ended while it started")
                await asyncio.sleep(0.005)

    async def stop(self) -> None:
        if self._task is not None:
            self._server.should_exit = True
            await self._task
        self._socket.close()

    async def _root(self, request: Request) -> Response:
        """Clients of a schema registry expect an empty object, a person wants to know what there is."""
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(_page(PAGES))
        return JSONResponse({})

    async def _healthz(self, _request: Request) -> Response:
        problems = self._health()
        body = {"status": "unhealthy" if problems else "ok", "problems": problems}
        return JSONResponse(body, status_code=503 if problems else 200)

    def _render(self, _request: Request) -> Response:
        # A plain def: Starlette runs it on a thread, so a scrape of many partitions does not hold up the loop.
        return Response(self._metrics.render(), media_type=self._metrics.content_type)

    async def _list_tables(self, _request: Request) -> Response:
        return JSONResponse({"tables": self._tables(), "catalogs": list(self._catalogs)})

    async def _worker(self, _request: Request) -> Response:
        return JSONResponse({"pid": self._worker_pid()})


def bind(host: str, port: int) -> socket.socket:
    """Invalid, Unavailable."""
    host_key, port_key = "server.http_host (or --host, which it follows)", "server.http_port (--http-port)"
    return sockets.bind(host, port, "HTTP", host_key, port_key, BACKLOG)


def _page(paths: Mapping[str, str]) -> str:
    links = "".join(f'<li><a href="{path}">{path}</a>: {html.escape(what)}' for path, what in paths.items())
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>StreamLake</title>'
        f"<h1>StreamLake {html.escape(version())}</h1><ul>{links}</ul>"
        "<p>The schema registry is served here too: give clients this address.</html>"
    )
