"""Capacity of the WAL, reserved before offsets are given, so that appending can never fail for lack of it.

The hard part is waste: a record lies in one segment, so the rest of a segment is lost when the next record does not
fit. Which records will come, in which order, is unknown when they are reserved; so a reservation is granted only if
it fits in the worst packing of all that is outstanding. A reservation pays for one record header; the headers of
further records, 84 bytes each, come out of a slack segment that is never handed out.

Plain counting, no I/O. Waiters are served first come, first served.
"""

from streamlake.core.admission import Admission
from streamlake.core.errors import Full, Invalid


class WalSpace(Admission[int]):
    def __init__(self, segment_capacity_bytes: int, record_header_bytes: int) -> None:
        super().__init__()
        self._segment_capacity_bytes = segment_capacity_bytes
        self._record_header_bytes = record_header_bytes
        self._record_bytes_max = segment_capacity_bytes - record_header_bytes  # of data
        self.active_free_bytes = 0  # left in the segment being filled
        self.spare_segments = 0  # ready to be filled
        self.reserved_bytes = 0  # of data; headers come on top
        self._reserved_headers = 0
        self._largest_bytes = 0  # largest reservation since nothing was reserved: bounds the waste per segment

    @property
    def wanted(self) -> bool:
        """True if somebody waits for capacity."""
        return bool(self._waiters)

    def try_reserve(self, size_bytes: int) -> bool:
        if size_bytes > self._record_bytes_max:
            raise Invalid(
                f"a record of {size_bytes} bytes can never fit a WAL segment, which has room for"
                f" {self._record_bytes_max}: send smaller batches, or use larger segments"
            )
        if self._failure:
            raise self._failure
        if self._waiters or not self._fits(size_bytes):
            return False
        self._grant(size_bytes)
        return True

    async def reserve(self, size_bytes: int, timeout_s: float, describe_full: str) -> None:
        """Wait for capacity; Full with `describe_full` after `timeout_s`."""
        if not self.try_reserve(size_bytes) and not await self._wait(size_bytes, timeout_s):
            raise Full(describe_full)

    def release(self, size_bytes: int) -> None:
        self._revoke(size_bytes)
        if self._waiters:
            self._wake()

    def starts_next(self, size_bytes: int) -> bool:
        """True if a record of this many data bytes goes to the next spare segment."""
        starts_next = size_bytes + self._record_header_bytes > self.active_free_bytes
        if starts_next and self.spare_segments == 0:
            raise Full("more was appended to the WAL than had been reserved")
        return starts_next

    def use(self, size_bytes: int) -> bool:
        """Take the capacity for one record of this many data bytes. True if it starts the next spare segment."""
        if starts_next := self.starts_next(size_bytes):
            self.spare_segments -= 1
            self.active_free_bytes = self._segment_capacity_bytes
        self.active_free_bytes -= size_bytes + self._record_header_bytes
        self._revoke(size_bytes)
        if self._waiters:
            self._wake()  # the worst packing of what is still reserved may have become better
        return starts_next

    def add_spare(self) -> None:
        self.spare_segments += 1
        self._wake()

    def _fits(self, size_bytes: int) -> bool:
        """True if `size_bytes` more fit in the worst packing: a segment is left when the next record, at most the
        largest reservation, does not fit in it."""
        total = self.reserved_bytes + size_bytes + (self._reserved_headers + 1) * self._record_header_bytes
        spares = self.spare_segments - 1  # one is the slack
        if spares < 0:
            return False
        if total <= self.active_free_bytes:
            return True
        if spares == 0:
            return False
        waste = max(self._largest_bytes, size_bytes) + self._record_header_bytes
        between = (spares - 1) * (self._segment_capacity_bytes - waste)
        return total <= max(0, self.active_free_bytes - waste) + between + self._segment_capacity_bytes

    def _grant(self, size_bytes: int) -> None:
        self.reserved_bytes += size_bytes
        self._reserved_headers += 1
        if size_bytes > self._largest_bytes:
            self._largest_bytes = size_bytes

    def _revoke(self, size_bytes: int) -> None:
        if size_bytes >= self.reserved_bytes:
            self.reserved_bytes = self._reserved_headers = self._largest_bytes = 0
            return
        self.reserved_bytes -= size_bytes
        if self._reserved_headers:
            self._reserved_headers -= 1
