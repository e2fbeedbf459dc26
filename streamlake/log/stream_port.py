"""What the log needs from a stream, as a port: s3stream's Stream implements it.

A stream is a row of immutable chunks (for us: one record batch or more) at growing offsets with one writer. A chunk
gets its offset at `append` and is durable later, in order; readers get durable chunks only. If the write-ahead log
fails, every append that is not durable yet fails, on all streams together, and `append` raises from then on: the
stream must be opened again from what is durable. Contract: tests/contracts/log_stream_contract.py.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from streamlake.core.deferred_buffer import DeferredBuffer

Buffer = bytes | memoryview


class Stream(Protocol):
    on_durable: Callable[[], None] | None
    """Called on the loop whenever `durable_offset` has moved."""

    @property
    def stream_id(self) -> int: ...

    @property
    def epoch(self) -> int:
        """Grows with each open; Kafka's leader epoch."""
        ...

    @property
    def start_offset(self) -> int: ...

    @property
    def next_offset(self) -> int:
        """End of what was appended, durable or not."""
        ...

    @property
    def durable_offset(self) -> int:
        """End of what is durable."""
        ...

    @property
    def uploaded_offset(self) -> int:
        """End of what lies in objects: retention deletes below it only."""
        ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def epochs(self) -> tuple[tuple[int, int], ...]:
        """(epoch, start offset) of each open, oldest first."""
        ...

    @property
    def checkpoint(self) -> bytes:
        """What the checkpointer gave at `checkpoint_offset`, as of this open; empty if it never was asked."""
        ...

    @property
    def checkpoint_offset(self) -> int: ...

    def set_checkpointer(self, checkpointer: Callable[[], bytes]) -> None:
        """`checkpointer` is called at an upload, in the tick that cuts at `next_offset`: plain, fast, no failure."""
        ...

    def append(
        self, base_offset: int, count: int, max_timestamp: int, data: Buffer | DeferredBuffer
    ) -> "asyncio.Future[None]":
        """Add one chunk at `next_offset`, copied; its room was reserved. The future resolves when it is durable, in
        order. `max_timestamp` (ms) is what `retention_point` and the time look-ups go by.
        Raises Closed or Fenced once the stream is dead."""
        ...

    async def read(self, start_offset: int, end_offset: int, max_bytes: int) -> list[Buffer]:
        """Whole durable chunks, beginning with the one that contains `start_offset`, all of them starting below
        `end_offset`; at least one if there is any, then up to `max_bytes`."""
        ...

    async def find_timestamp(self, timestamp: int, end_offset: int) -> tuple[int, int] | None:
        """[start, end) of the first run of chunks below `end_offset` with a max_timestamp >= `timestamp` in it."""
        ...

    async def max_timestamp(self, end_offset: int) -> tuple[int, int, int] | None:
        """(timestamp, start, end): the first run of chunks below `end_offset` that has the greatest max_timestamp."""
        ...

    async def retention_point(
        self, keep_bytes: int | None, min_timestamp: int | None, upto_offset: int
    ) -> tuple[int, int | None]:
        """How far the start may move: as long as `keep_bytes` remain behind it, or all before it is older than
        `min_timestamp`; never above `upto_offset`. Coarse: whole runs of chunks, committed to objects. And the greatest
        timestamp of the run that stops it: None if no further run lies below `upto_offset` and `uploaded_offset`.
        Both depend on nothing but the arguments, the three offsets and what was appended."""
        ...

    async def trim(self, start_offset: int) -> None:
        """Move the start forward, durably. Never back; never above `durable_offset`."""
        ...
