"""Requests to the Iceberg REST catalog in the worker: from their arrival on the control channel to their answer.

A catalog is opened when the first request for it comes. Those that come before it is open wait a while for it.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import structlog

from streamlake.core.errors import StreamLakeError
from streamlake.iceberg_rest.problem import Problem
from streamlake.iceberg_rest.service import IcebergRest, refusal
from streamlake.iceberg_rest.warehouses import Warehouses
from streamlake.table.task.control import CatalogAnswer, CatalogCall

log = structlog.get_logger(__name__)

CALLS_MAX = 24  # of one catalog at a time: the server sends 32, so one that hangs leaves places to the others
OPEN_TIMEOUT_S = 10.0
FINISH_TIMEOUT_S = 5.0


class CatalogCalls:
    """How many there are at a time is limited by the server, which sends them. `open_` opens a catalog by its name. It
    raises Invalid, Unavailable, and is called for each request until it has succeeded."""

    def __init__(
        self,
        warehouses: Warehouses,
        open_: Callable[[str], Awaitable[IcebergRest]],
        send: Callable[[CatalogAnswer], None],
    ) -> None:
        self._warehouses = warehouses
        self._open = open_
        self._send = send
        self._services: dict[str, IcebergRest] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._at_work: Counter[str] = Counter()  # calls, by catalog

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
            answer = await self._answer(call)
        except Problem as problem:
            answer = refusal(call, problem)
        except Exception:  # a bug must not leave a client without an answer
            log.exception("a catalog request failed", method=call.method, path=call.path)
            text = "the request failed: the server's log says why"
            answer = refusal(call, Problem(500, "InternalServerError", text))
        self._send(answer)

    async def _answer(self, call: CatalogCall) -> CatalogAnswer:
        target = self._warehouses.target(call)
        if self._at_work[target.catalog] >= CALLS_MAX:
            text = f"the catalog {target.catalog} has {CALLS_MAX} requests to answer: try again later"
            raise Problem(503, "ServiceUnavailableException", text)
        self._at_work[target.catalog] += 1
        try:
            service = await self._opened(target.catalog)
        except TimeoutError:
            raise Problem(503, "ServiceUnavailableException", "the catalog is being opened: try again") from None
        except StreamLakeError as error:
            raise Problem(503, "ServiceUnavailableException", str(error)) from None
        else:
            return await service.answer(call, target)
        finally:
            self._at_work[target.catalog] -= 1

    async def _opened(self, catalog: str) -> IcebergRest:
        if catalog not in self._services:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                found = await self._open(catalog)
            self._services.setdefault(catalog, found)
        return self._services[catalog]
