"""Large buffers that are used again: to touch fresh pages and to zero them costs more than to copy into warm ones.

A buffer may be given back while views of it are alive, as those of readers who are slow. It is handed out again only
when there are none. What it held before is still in it: whoever takes one shows others only what it has written.
"""

from collections import deque

POOLED_BYTES_MIN = 64 * 1024  # smaller ones lie in the allocator's own pages, which are warm
STEP_BYTES = 64 * 1024  # sizes are multiples of it, so that buffers of like sizes serve each other
LOOKS_MAX = 4


class Buffers:
    """At most `spare_bytes_max` lie here unused."""

    def __init__(self, spare_bytes_max: int) -> None:
        self._spare_bytes_max = spare_bytes_max
        self._spare: deque[bytearray] = deque()
        self._spare_bytes = 0

    def take(self, size_bytes: int) -> bytearray:
        """At least so large, and from POOLED_BYTES_MIN on at most a step and a quarter larger. What is in it is
        undefined."""
        if size_bytes < POOLED_BYTES_MIN:
            return bytearray(size_bytes)
        fitting_bytes_max = size_bytes + STEP_BYTES + size_bytes // 4
        for _ in range(min(len(self._spare), LOOKS_MAX)):
            buffer = self._spare.popleft()
            if size_bytes <= len(buffer) <= fitting_bytes_max and not has_views(buffer):
                self._spare_bytes -= len(buffer)
                return buffer
            self._spare.append(buffer)
        return bytearray(-(-size_bytes // STEP_BYTES) * STEP_BYTES)

    def give(self, buffer: bytearray) -> None:
        """The caller writes to it no more. If there are too many, the oldest go."""
        if POOLED_BYTES_MIN <= len(buffer) <= self._spare_bytes_max:
            self._spare.append(buffer)
            self._spare_bytes += len(buffer)
            while self._spare_bytes > self._spare_bytes_max:
                self._spare_bytes -= len(self._spare.popleft())


def has_views(buffer: bytearray) -> bool:
    """A bytearray that somebody looks at cannot change its size."""
    try:
        last = buffer.pop()
    except BufferError:
        return True
    buffer.append(last)
    return False
