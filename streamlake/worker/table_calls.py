"""Requests about one table in the worker: from their arrival on the control channel to their answer."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from streamlake.core.errors import StreamLakeError, Unavailable, describe
from streamlake.iceberg_rest.problem import problem_body, problem_of_ours
from streamlake.table.task.control import CatalogAnswer, TableCall
from streamlake.table.task.redrive import order_of
from streamlake.table.task.tables import Tables
from streamlake.table.task.task import TableTask

log = structlog.get_logger(__name__)


class TableCalls:
    """How many there are at a time is limited by the server, which sends them."""

    def __init__(self, tables: Tables, send: Callable[[CatalogAnswer], None]) -> None:
        self._tables = tables
        self._send = send
        self._running: set[asyncio.Task[None]] = set()

    def receive(self, call: TableCall) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(call))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _serve(self, call: TableCall) -> None:
        try:
            status, found = await self._answer(call)
            answer = CatalogAnswer(call.number, status, msgspec.json.encode(found))
        except StreamLakeError as error:
            problem = problem_of_ours(error)
            answer = CatalogAnswer(call.number, problem.status, problem.body())
        except Exception as error:  # whatever a catalog or a store raises, or a bug: the client gets an answer
            log.exception("a request about a table failed", topic=call.spec.topic, action=call.action)
            answer = CatalogAnswer(call.number, 503, problem_body(503, "ServiceUnavailableException", describe(error)))
        self._send(answer)

    async def _answer(self, call: TableCall) -> tuple[int, Any]:
        match call.action:
            case "plan":
                return 200, await self._tables.plan(call.spec, int(call.arguments["sample"]))
            case "dead_letters":
                return 200, await self._task(call).dead_letters(int(call.arguments["examples"]))
            case "redrive":
                task = self._task(call)
                await task.redrive(order_of(call.arguments["reason"]))
                return 202, {"redrive": task.report().redrive}

    def _task(self, call: TableCall) -> TableTask:
        task = self._tables.tasks.get(call.spec.topic_id)
        if task is None:
            raise Unavailable(
                f"the table of topic {call.spec.topic} is not open yet: its status says what it waits for"
            )
        return task
