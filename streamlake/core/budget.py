"""One memory budget with named accounts: full means push back, before offsets are given.

Bytes are counted where they are held (log cache, block cache, uploads, connections, table buffers). `take` waits first
come, first served, so a large taker is not starved by small ones. What holds bytes that it cannot refuse, as
connections do, has an `Account` (account.py) with a share of the budget as its limit.
"""

from streamlake.core.admission import Admission
from streamlake.core.errors import Invalid, Unavailable


class Budget(Admission[tuple[str, int]]):
    def __init__(self, total_bytes: int) -> None:
        super().__init__()
        self.total_bytes = total_bytes
        self.used_bytes = 0
        self.accounts: dict[str, int] = {}

    @property
    def free_bytes(self) -> int:
        return self.total_bytes - self.used_bytes

    def try_take(self, account: str, size_bytes: int) -> bool:
        """Take at once, or take nothing and return False."""
        if self._waiters or size_bytes > self.total_bytes - self.used_bytes:
            return False
        self.accounts[account] = self.accounts.get(account, 0) + size_bytes
        self.used_bytes += size_bytes
        return True

    async def take(self, account: str, size_bytes: int, timeout_s: float) -> None:
        """Wait for capacity. Raises Unavailable after `timeout_s`, Invalid if it could never fit."""
        if size_bytes > self.total_bytes:
            raise Invalid(
                f"{size_bytes} bytes never fit the memory budget of {self.total_bytes}: raise memory.total_bytes"
            )
        if not self.try_take(account, size_bytes) and not await self._wait((account, size_bytes), timeout_s):
            raise Unavailable(f"no {size_bytes} bytes of memory came free within {timeout_s:g} s: try again")

    def take_rest(self, account: str) -> int:
        """Take all that is free; its size in bytes."""
        size_bytes = self.free_bytes
        self._grant((account, size_bytes))
        return size_bytes

    def give(self, account: str, size_bytes: int) -> None:
        """Return bytes to the budget and wake the waiters that fit now."""
        held = self.accounts.get(account, 0) - size_bytes
        assert held >= 0, f"account {account} gives back more than it took"
        self.accounts[account] = held
        self.used_bytes -= size_bytes
        if self._waiters:
            self._wake()

    def _fits(self, request: tuple[str, int]) -> bool:
        return request[1] <= self.free_bytes

    def _grant(self, request: tuple[str, int]) -> None:
        account, size_bytes = request
        self.accounts[account] = self.accounts.get(account, 0) + size_bytes
        self.used_bytes += size_bytes

    def _revoke(self, request: tuple[str, int]) -> None:
        self.give(*request)
