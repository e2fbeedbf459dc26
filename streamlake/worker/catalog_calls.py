"""Requests to the Iceberg REST catalog in the worker: from their arrival on the control channel to their answer.

They may come before the catalog is open: then they wait a while for it, unless it is known that it cannot be opened.
"""

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from streamlake.iceberg_rest.errors import problem_body
from streamlake.iceberg_rest.service import IcebergRest
from streamlake.table.task.control import CatalogAnswer, CatalogCall

log = structlog.get_logger(__name__)

OPEN_TIMEOUT_S = 10.0
FINISH_TIMEOUT_S = 5.0


class CatalogCalls:
    """How many there are at a time is limited by the server, which sends them."""

    def __init__(self, send: Callable[[CatalogAnswer], None]) -> None:
        self._send = send
        self._service: asyncio.Future[IcebergRest] = asyncio.get_running_loop().create_future()
        self._running: set[asyncio.Task[None]] = set()
        self._tried = asyncio.Event()  # once: it is open, or its trouble is known
        self._trouble = "the catalog is being opened"

    def open(self, service: IcebergRest) -> None:
        self._service.set_result(service)
        self._tried.set()

    def failed(self, trouble: str) -> None:
        """The catalog cannot be opened at present."""
        self._trouble = trouble
        self._tried.set()

    def receive(self, call: CatalogCall) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(call))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def finish(self) -> None:
        """Before a stop: a commit under way is worth a short wait, as its client could not know whether it landed."""
        if self._running:
            await asyncio.wait(self._running, timeout=FINISH_TIMEOUT_S)

    async def _serve(self, call: CatalogCall) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await self._tried.wait()
        if not self._service.done():
            body = problem_body(503, "ServiceUnavailableException", self._trouble)
            self._send(CatalogAnswer(call.number, 503, body))
            return
        try:
            self._send(await self._service.result().answer(call))
        except Exception:  # a bug must not leave a client without an answer
            log.exception("a catalog request failed", method=call.method, path=call.path)
            body = problem_body(500, "InternalServerError", "the request failed: the server's log says why")
            self._send(CatalogAnswer(call.number, 500, body))
