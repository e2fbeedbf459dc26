"""Capacity of the object WAL, reserved before offsets are given, so that nothing piles up while the store is slow.

Two limits: bytes on their way (memory of the broker: reserved, or appended and not yet durable), and bytes that are
not trimmed (what a recovery would have to read). Objects cannot run out of space as a disk can, so headers and tables
are counted when they arise and may go over a limit by their own size.

Plain counting, no I/O. Waiters are served first come, first served, so a large one is not starved by small ones.
"""

from streamlake.core.admission import Admission
from streamlake.core.errors import Full, Invalid


class ObjectWalSpace(Admission[int]):
    def __init__(self, unflushed_bytes_max: int, capacity_bytes: int) -> None:
        super().__init__()
        self._unflushed_bytes_max = unflushed_bytes_max
        self._capacity_bytes = capacity_bytes
        self.reserved_bytes = 0
        self.appended_bytes = 0  # and not yet durable
        self.kept_bytes = 0  # appended and not trimmed

    @property
    def unflushed_bytes(self) -> int:
        return self.reserved_bytes + self.appended_bytes

    @property
    def used_bytes(self) -> int:
        return self.reserved_bytes + self.kept_bytes

    def try_reserve(self, size_bytes: int) -> bool:
        if self._failure:
            raise self._failure
        limit_bytes = min(self._unflushed_bytes_max, self._capacity_bytes)
        if size_bytes > limit_bytes:
            raise Invalid(
                f"{size_bytes} bytes can never fit the WAL, which has room for {limit_bytes} at once: "
                "send smaller batches, or raise its limit of unflushed bytes"
            )
        if self._waiters or not self._fits(size_bytes):
            return False
        self.reserved_bytes += size_bytes
        return True

    async def reserve(self, size_bytes: int, timeout_s: float) -> None:
        """Wait for capacity; Full after `timeout_s`."""
        if not self.try_reserve(size_bytes) and not await self._wait(size_bytes, timeout_s):
            raise Full(self._describe_full(size_bytes))

    def release(self, size_bytes: int) -> None:
        self.reserved_bytes = max(0, self.reserved_bytes - size_bytes)
        if self._waiters:
            self._wake()

    def use(self, size_bytes: int, stored_bytes: int, overhead_bytes: int = 0) -> None:
        """A record of `size_bytes`, which were reserved, takes `stored_bytes` in its object; `overhead_bytes` are kept
        beside that until it is trimmed."""
        self.reserved_bytes = max(0, self.reserved_bytes - size_bytes)
        self.appended_bytes += stored_bytes
        self.kept_bytes += stored_bytes + overhead_bytes

    def flushed(self, stored_bytes: int) -> None:
        self.appended_bytes -= stored_bytes
        if self._waiters:
            self._wake()

    def trimmed(self, stored_bytes: int) -> None:
        self.kept_bytes -= stored_bytes
        if self._waiters:
            self._wake()

    def _fits(self, size_bytes: int) -> bool:
        return self._fits_unflushed(size_bytes) and self.used_bytes + size_bytes <= self._capacity_bytes

    def _grant(self, size_bytes: int) -> None:
        self.reserved_bytes += size_bytes

    def _revoke(self, size_bytes: int) -> None:
        self.reserved_bytes -= size_bytes

    def _fits_unflushed(self, size_bytes: int) -> bool:
        return self.unflushed_bytes + size_bytes <= self._unflushed_bytes_max

    def _describe_full(self, size_bytes: int) -> str:
        if not self._fits_unflushed(size_bytes):
            why = f"{self.unflushed_bytes} of {self._unflushed_bytes_max} bytes are on their way to the object store"
            return (
                f"the WAL has no room for {size_bytes} bytes ({why}, which is slow or away): wait, or see to the store"
            )
        why = f"{self.used_bytes} of {self._capacity_bytes} bytes are not trimmed, as uploads do not keep up"
        return f"the WAL has no room for {size_bytes} bytes ({why}): wait, or raise its capacity"
