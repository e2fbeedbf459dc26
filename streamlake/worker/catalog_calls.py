"""Requests to the Iceberg REST catalog in the worker: from their arrival on the control channel to their answer.

The catalog is opened when the first comes. Those that come before it is open wait a while for it.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from streamlake.core.errors import StreamLakeError
from streamlake.iceberg_rest.errors import problem_body
from streamlake.iceberg_rest.service import IcebergRest
from streamlake.table.task.control import CatalogAnswer, CatalogCall

log = structlog.get_logger(__name__)

OPEN_TIMEOUT_S = 10.0
FINISH_TIMEOUT_S = 5.0


class CatalogCalls:
    """How many there are at a time is limited by the server, which sends them. `open_` raises Invalid, Unavailable; it
    is called for each request until it has succeeded."""

    def __init__(self, open_: Callable[[], Awaitable[IcebergRest]], send: Callable[[CatalogAnswer], None]) -> None:
        self._open = open_
        self._send = send
        self._service: IcebergRest | None = None
        self._running: set[asyncio.Task[None]] = set()

    def receive(self, call: CatalogCall) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(call))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def finish(self) -> None:
        """Before a stop: a commit under way is worth a short wait, as its client could not know whether it landed."""
        if self._running:
            await asyncio.wait(self._running, timeout=FINISH_TIMEOUT_S)

    async def _serve(self, call: CatalogCall) -> None:
        try:
            service = await self._opened()
        except TimeoutError:
            self._refuse(call, 503, "ServiceUnavailableException", "the catalog is being opened: try again")
        except StreamLakeError as error:
            self._refuse(call, 503, "ServiceUnavailableException", str(error))
        else:
            try:
                self._send(await service.answer(call))
            except Exception:  # a bug must not leave a client without an answer
                log.exception("a catalog request failed", method=call.method, path=call.path)
                text = "the request failed: the server's log says why"
                self._refuse(call, 500, "InternalServerError", text)

    async def _opened(self) -> IcebergRest:
        if self._service is None:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                found = await self._open()
            self._service = self._service or found
        return self._service

    def _refuse(self, call: CatalogCall, status: int, kind: str, text: str) -> None:
        self._send(CatalogAnswer(call.number, status, problem_body(status, kind, text)))
