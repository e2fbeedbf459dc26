"""The stream that a log needs, as a port: s3stream's Stream implements it.

A stream is a sequence of immutable chunks (of one or more record batches) at increasing offsets, with one writer. A
chunk gets its offset at `append` and becomes durable later, in order; readers get durable chunks only. If the
write-ahead log fails, all appends of all streams that are not durable yet fail, and `append` raises from then on: the
stream must be opened again from its durable part. Contract: tests/contracts/log_stream_contract.py.
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
        """End of the appended chunks, durable or not."""
        ...

    @property
    def durable_offset(self) -> int:
        """End of the durable chunks."""
        ...

    @property
    def uploaded_offset(self) -> int:
        """End of the chunks that are in objects: retention deletes below it only."""
        ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def epochs(self) -> tuple[tuple[int, int], ...]:
        """(epoch, start offset) of each open, oldest first."""
        ...

    @property
    def checkpoint(self) -> bytes:
        """The checkpoint at `checkpoint_offset`, as of this open; empty if there is none yet."""
        ...

    @property
    def checkpoint_offset(self) -> int: ...

    @property
    def notes(self) -> bytes:
        """All notes up to `checkpoint_offset`, one after the other, as of this open."""
        ...

    def note(self, end_offset: int, data: bytes) -> None:
        """Keep `data`, about a chunk that ends at `end_offset`, until the start passes that. It becomes durable with
        the next checkpoint, all or nothing; until then whoever opens the stream notes it again, from the chunks."""
        ...

    def set_checkpointer(self, checkpointer: Callable[[], bytes]) -> None:
        """An upload calls `checkpointer` in the turn of the loop in which it cuts the stream at `next_offset`. It must
        be fast, and must not fail."""
        ...

    def append(
        self, base_offset: int, count: int, max_timestamp: int, data: Buffer | DeferredBuffer
    ) -> "asyncio.Future[None]":
        """Add a copy of one chunk at `next_offset`; the caller has reserved its capacity. The future resolves when the
        chunk is durable, in order. `retention_point` and look-ups by time use `max_timestamp` (ms). Raises Closed or
        Fenced once the stream has failed."""
        ...

    async def read(self, start_offset: int, end_offset: int, max_bytes: int) -> list[Buffer]:
        """Whole durable chunks from the one that contains `start_offset` on, all of which start below `end_offset`: at
        least one if there is any, then as many as fit `max_bytes`. NotFound if `start_offset` was trimmed."""
        ...

    async def find_timestamp(self, timestamp: int, end_offset: int) -> tuple[int, int] | None:
        """[start, end) of the first run of chunks below `end_offset` that has a max_timestamp >= `timestamp`."""
        ...

    async def max_timestamp(self, end_offset: int) -> tuple[int, int, int] | None:
        """(timestamp, start, end): the first run of chunks below `end_offset` that has the greatest max_timestamp."""
        ...

    async def retention_point(
        self, keep_bytes: int | None, min_timestamp: int | None, upto_offset: int
    ) -> tuple[int, int | None]:
        """How far the start may move: as long as `keep_bytes` remain after it, or all before it is older than
        `min_timestamp`; never above `upto_offset`. The unit is a run of chunks that is committed to objects. The second
        value is the greatest timestamp of the run that it stops at, None if no further run is below `upto_offset` and
        `uploaded_offset`. Both depend on the arguments, the three offsets and the appended chunks only."""
        ...

    async def trim(self, start_offset: int, *, spares_held: bool = False) -> None:
        """Move the start forward, durably; never back, and never above `durable_offset`. `spares_held`: Conflict if
        that would pass a hold in the metadata store, which may be newer than what is known here."""
        ...
