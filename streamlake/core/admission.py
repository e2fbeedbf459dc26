"""The queue of those who wait for credits: first come, first served, with a timeout.

While a large request waits, later ones wait behind it, so that small ones cannot starve it. The subclass counts
its credits and decides what fits; it grants at once what fits while nobody waits, which is the ordinary case.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from typing import Generic, TypeVar

from streamlake.core.errors import StreamLakeError

Request = TypeVar("Request")


class Admission(ABC, Generic[Request]):
    def __init__(self) -> None:
        self._waiters: deque[tuple[Request, asyncio.Future[None]]] = deque()
        self._failure: StreamLakeError | None = None

    @abstractmethod
    def _fits(self, request: Request) -> bool: ...

    @abstractmethod
    def _grant(self, request: Request) -> None:
        """Count the credits as taken."""

    @abstractmethod
    def _revoke(self, request: Request) -> None:
        """Undo `_grant`."""

    async def _wait(self, request: Request, timeout_s: float) -> bool:
        """True once the request is granted, False after `timeout_s`. The error of `fail`."""
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (request, granted)
        self._waiters.append(entry)
        try:
            async with asyncio.timeout(timeout_s):
                await granted
        except TimeoutError:
            self._withdraw(entry)
            return False
        except asyncio.CancelledError:
            self._withdraw(entry)
            raise
        return True

    def _withdraw(self, entry: tuple[Request, "asyncio.Future[None]"]) -> None:
        request, granted = entry
        if entry in self._waiters:
            self._waiters.remove(entry)
        elif granted.done() and not granted.cancelled() and granted.exception() is None:
            self._revoke(request)  # granted in the very tick in which the waiter gave up
        self._wake()

    def _wake(self) -> None:
        """Grant what fits now; call it whenever credits came back."""
        while self._waiters:
            request, granted = self._waiters[0]
            if not granted.done():
                if not self._fits(request):
                    return
                self._grant(request)
                granted.set_result(None)
            self._waiters.popleft()

    def fail(self, error: StreamLakeError) -> None:
        """No more credits are granted: all waiters get `error`, and so do later requests."""
        self._failure = error
        for _, granted in self._waiters:
            if not granted.done():
                granted.set_exception(error)
        self._waiters.clear()
