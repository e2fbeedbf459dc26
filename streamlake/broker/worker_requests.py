"""Requests on their way to the table worker, which has catalogs and tables, and back: to the Iceberg REST catalog, and
about the table of one topic.

The worker may be starting, or die: what was not sent yet waits for the next one, what was sent and not answered may
have been done or not.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import TypeAlias

import msgspec

from streamlake.core.admission import Admission
from streamlake.core.errors import Full, OutcomeUnknown, Unavailable
from streamlake.table.task.control import CatalogAnswer, CatalogCall, TableCall
from streamlake.telemetry.metric import Metric, Sample

REQUESTS_MAX = 32  # at a time; more wait
WAITING_MAX = 200
WAITING_BYTES_MAX = 64 << 20  # of their bodies
PLACE_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 30.0  # for a worker that is starting
ANSWER_TIMEOUT_S = 120.0


Call: TypeAlias = CatalogCall | TableCall


@dataclass(slots=True)
class _Pending:
    call: Call
    answer: asyncio.Future[CatalogAnswer]
    sent: asyncio.Event = field(default_factory=asyncio.Event)


class _Places(Admission[int]):
    """For the requests that are in the worker's hands. A request to wait is the size of its body."""

    def __init__(self) -> None:
        super().__init__()
        self._free = REQUESTS_MAX
        self._waiting_bytes = 0

    async def take(self, size_bytes: int) -> None:
        """Raises Full."""
        if not self._waiters and self._free:
            self._grant(size_bytes)
            return
        if len(self._waiters) >= WAITING_MAX or self._waiting_bytes + size_bytes > WAITING_BYTES_MAX:
            raise Full(f"the catalog has {REQUESTS_MAX} requests to answer, and many wait: try again later")
        self._waiting_bytes += size_bytes
        try:
            granted = await self._wait(size_bytes, PLACE_TIMEOUT_S)
        finally:
            self._waiting_bytes -= size_bytes
        if not granted:
            raise Full(f"the catalog has been busy for {PLACE_TIMEOUT_S:.0f} s: try again later")

    def give_back(self) -> None:
        self._free += 1
        self._wake()

    def _fits(self, request: int) -> bool:
        return self._free > 0

    def _grant(self, request: int) -> None:
        self._free -= 1

    def _revoke(self, request: int) -> None:
        self._free += 1


class WorkerRequests:
    """`on_waiting` is called when a request waits for a worker to be there."""

    def __init__(self, on_waiting: Callable[[], None]) -> None:
        self._on_waiting = on_waiting
        self._places = _Places()
        self._pending: dict[int, _Pending] = {}
        self._numbers = count()
        self._send: Callable[[Call], None] | None = None
        self._answered = {200: 0}  # calls of the catalog, by status

    def metrics(self) -> Iterable[Metric]:
        def by_status() -> Iterable[Sample]:
            return [(n, {"status": str(status)}) for status, n in sorted(self._answered.items())]

        return (Metric("counter", "streamlake_catalog_requests", "Requests to the Iceberg REST catalog that the table "
            "worker answered, by HTTP status.", by_status),)  # fmt: skip

    @property
    def waiting(self) -> bool:
        """A request has not been sent to a worker yet."""
        return any(not pending.sent.is_set() for pending in self._pending.values())

    @property
    def is_connected(self) -> bool:
        """A worker runs."""
        return self._send is not None

    async def ask(self, call: Call) -> CatalogAnswer:
        """`call.number` is given here. Raises Full and Unavailable: nothing was done; OutcomeUnknown."""
        await self._places.take(len(call.body) if isinstance(call, CatalogCall) else 0)
        try:
            return await self._ask(call)
        finally:
            self._places.give_back()

    async def _ask(self, call: Call) -> CatalogAnswer:
        call = msgspec.structs.replace(call, number=next(self._numbers))
        pending = _Pending(call, asyncio.get_running_loop().create_future())
        self._pending[call.number] = pending
        try:
            self._forward(pending)
            return await self._wait(pending)
        finally:
            del self._pending[call.number]

    def connected(self, send: Callable[[Call], None]) -> None:
        """A worker runs, and has been told its settings."""
        self._send = send
        for pending in list(self._pending.values()):
            self._forward(pending)

    def answered(self, answer: CatalogAnswer) -> None:
        pending = self._pending.get(answer.number)
        if pending is None or isinstance(pending.call, CatalogCall):
            self._answered[answer.status] = self._answered.get(answer.status, 0) + 1
        if pending is not None and not pending.answer.done():  # else its client has stopped waiting
            pending.answer.set_result(answer)

    def disconnected(self) -> None:
        """The worker has ended."""
        self._send = None
        for pending in self._pending.values():
            if pending.sent.is_set() and not pending.answer.done():
                error = "the table worker ended during the request: it may have been done or not"
                pending.answer.set_exception(OutcomeUnknown(error))

    def _forward(self, pending: _Pending) -> None:
        if self._send is None:
            self._on_waiting()
        elif not pending.sent.is_set():
            self._send(pending.call)
            pending.sent.set()

    async def _wait(self, pending: _Pending) -> CatalogAnswer:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await pending.sent.wait()
        except TimeoutError:
            raise Unavailable("the table worker, which has the catalog, does not start: see the log") from None
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await pending.answer
        except TimeoutError:
            raise OutcomeUnknown(f"the catalog did not answer within {ANSWER_TIMEOUT_S:.0f} s") from None
