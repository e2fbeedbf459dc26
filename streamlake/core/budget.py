"""One memory budget with named accounts: full means push back, before offsets are given.

Bytes are counted where they are held (unacknowledged produce data, log cache, block cache, replies in
flight, table buffers). `take` waits first come, first served, so a large taker is not starved by small ones.
"""

import asyncio
from collections import deque

from streamlake.core.errors import Invalid, Unavailable


class Budget:
    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.used_bytes = 0
        self.accounts: dict[str, int] = {}
        self._waiters: deque[tuple[int, str, asyncio.Future[None]]] = deque()

    @property
    def free_bytes(self) -> int:
        return self.total_bytes - self.used_bytes

    def try_take(self, account: str, size_bytes: int) -> bool:
        """Take at once, or take nothing and return False."""
        if self._waiters or size_bytes > self.free_bytes:
            return False
        self._take(account, size_bytes)
        return True

    async def take(self, account: str, size_bytes: int, timeout_s: float) -> None:
        """Wait for capacity. Raises Unavailable after `timeout_s`, Invalid if it could never fit."""
        if size_bytes > self.total_bytes:
            raise Invalid(f"{size_bytes} bytes never fit the memory budget of {self.total_bytes}: raise memory.total")
        if self.try_take(account, size_bytes):
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size_bytes, account, granted)
        self._waiters.append(entry)
        try:
            async with asyncio.timeout(timeout_s):
                await granted
        except TimeoutError:
            self._withdraw(entry)
            raise Unavailable(f"no {size_bytes} bytes of memory came free within {timeout_s:g} s: try again") from None
        except asyncio.CancelledError:
            self._withdraw(entry)
            raise

    def give(self, account: str, size_bytes: int) -> None:
        """Return bytes to the budget and wake who fits now."""
        held = self.accounts.get(account, 0) - size_bytes
        assert held >= 0, f"account {account} gives back more than it took"
        self.accounts[account] = held
        self.used_bytes -= size_bytes
        self._wake()

    def _take(self, account: str, size_bytes: int) -> None:
        self.accounts[account] = self.accounts.get(account, 0) + size_bytes
        self.used_bytes += size_bytes

    def _withdraw(self, entry: tuple[int, str, "asyncio.Future[None]"]) -> None:
        size_bytes, account, granted = entry
        if granted.done() and not granted.cancelled():
            self.give(account, size_bytes)  # granted in the very tick we gave up: hand it back
            return
        if entry in self._waiters:
            self._waiters.remove(entry)
            self._wake()

    def _wake(self) -> None:
        while self._waiters and self._waiters[0][0] <= self.free_bytes:
            size_bytes, account, granted = self._waiters.popleft()
            if not granted.done():
                self._take(account, size_bytes)
                granted.set_result(None)
