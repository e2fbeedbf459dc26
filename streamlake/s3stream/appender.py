"""From append to acknowledgement: reserve capacity, give offsets, queue in the WAL, become durable.

The order of one append, all in one tick: copied into its stream's slab, queued in the WAL, listed at its WAL position.
Its future resolves when the WAL reports that position durable; positions grow, so futures resolve in order.
If the WAL fails or is fenced, all pending appends of all streams fail together and nothing is acked ever after:
an error for one append with a success for a later one of the same stream would leave a gap in its offsets.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from math import inf

from streamlake.core.deferred_buffer import DeferredBuffer
from streamlake.core.errors import Closed, Fenced, Invalid, StreamLakeError
from streamlake.s3stream.log_cache import ACCOUNT, LogCache, StreamLog
from streamlake.s3stream.wal.port import Buffer, Wal, WalRecord


class Appender:
    def __init__(self, wal: Wal, cache: LogCache, upload_trigger_bytes: int, on_fatal: Callable[[BaseException], None]):
        self._wal = wal
        self._cache = cache
        self._upload_trigger_bytes = upload_trigger_bytes
        self._on_fatal = on_fatal
        self._pending: deque[tuple[int, StreamLog, int, asyncio.Future[None]]] = deque()
        self._waiting_bytes = 0  # of reserve calls that wait for memory
        self._loop = asyncio.get_running_loop()  # asked for once: before Python 3.12 each asking is a system call
        self._changed = asyncio.Event()  # durable_position moved, or failed
        self.failure: BaseException | None = None
        self.durable_position = 0
        self.last_position = 0
        self.dirty: dict[int, StreamLog] = {}  # streams with chunks that are not in objects
        self.unuploaded_bytes = 0
        self.on_dirty: Callable[[], None] = lambda: None  # the first dirty stream
        self.on_pressure: Callable[[], None] = lambda: None  # enough to upload, or no capacity left without it
        self.appended_at = -inf  # when, by the loop's time
        self.appended_bytes = 0

    async def start(self, position: int) -> None:
        """Begin to accept appends; `position` is that of the last recovered record."""
        self.durable_position = self.last_position = position
        await self._wal.start(self._durable, self.fail)

    # -- capacity ----------------------------------------------------------------------------------------------------

    def try_reserve(self, size_bytes: int) -> bool:
        if self.failure is not None:
            raise self.error()
        if not self._wal.try_reserve(size_bytes):
            self.on_pressure()
            return False
        if self._try_take(size_bytes):
            return True
        self._wal.release(size_bytes)
        self.on_pressure()
        return False

    async def reserve(self, size_bytes: int, timeout_s: float) -> None:
        self.raise_if_failed()
        if size_bytes > (limit := self._cache.capacity.total_bytes):
            raise Invalid(
                f"{size_bytes} bytes can never fit the log cache of {limit}: send less at once or raise its limit"
            )
        deadline = asyncio.get_running_loop().time() + timeout_s
        if not self._wal.try_reserve(size_bytes):
            self.on_pressure()
            await self._wal.reserve(size_bytes, timeout_s)
        try:
            if not self._try_take(size_bytes):
                await self._take(size_bytes, deadline - asyncio.get_running_loop().time())
            self.raise_if_failed()
        except BaseException:
            self._wal.release(size_bytes)
            raise

    def release(self, size_bytes: int) -> None:
        self._wal.release(size_bytes)
        self._cache.capacity.give(ACCOUNT, size_bytes)

    def _try_take(self, size_bytes: int) -> bool:
        capacity = self._cache.capacity
        if capacity.try_take(ACCOUNT, size_bytes):
            return True
        self._cache.evict(size_bytes, self.durable_position)
        return capacity.try_take(ACCOUNT, size_bytes)

    async def _take(self, size_bytes: int, timeout_s: float) -> None:
        self._waiting_bytes += size_bytes
        self.on_pressure()
        try:
            await self._cache.capacity.take(ACCOUNT, size_bytes, timeout_s)
        finally:
            self._waiting_bytes -= size_bytes

    def relieve(self) -> None:
        """More may leave memory now: evict for those who wait."""
        if self._waiting_bytes:
            self._cache.evict(self._waiting_bytes, self.durable_position)

    # -- append ------------------------------------------------------------------------------------------------------

    def append(
        self, log: StreamLog, count: int, max_timestamp: int, data: Buffer | DeferredBuffer
    ) -> "asyncio.Future[None]":
        """Give the stream's next `count` offsets to this chunk, whose capacity was reserved. Resolves when durable.
        Closed or Fenced, at once or by the future, when appends have ended."""
        if self.failure is not None:
            raise self.error()
        if log.deleted:
            raise Closed(f"stream {log.stream_id} was deleted")
        if log.closed:
            raise Closed(f"stream {log.stream_id} was closed: look up its owner again")
        view = self._cache.copy_in(log, data)
        record = WalRecord(log.stream_id, log.epoch, log.next_offset, count, max_timestamp, view)
        position = self._wal.append(record)
        future: asyncio.Future[None] = self._loop.create_future()
        size_bytes = len(view)
        self._cache.add(log, count, max_timestamp, position, size_bytes)
        self.last_position = position
        self._pending.append((position, log, log.next_offset, future))
        self.appended_at = self._loop.time()
        self.appended_bytes += size_bytes
        self.mark_dirty(log, size_bytes)
        return future

    def mark_dirty(self, log: StreamLog, size_bytes: int) -> None:
        self.unuploaded_bytes += size_bytes
        if log.stream_id not in self.dirty:
            self.dirty[log.stream_id] = log
            self.on_dirty()
        if self.unuploaded_bytes >= self._upload_trigger_bytes:
            self.on_pressure()

    def round_end(self, begin: int) -> int:
        """See uploader.Backlog."""
        if self._cache.spilled:
            return min(self.last_position, self._wal.readable_together(begin))
        return self.last_position

    def _durable(self, position: int) -> None:
        # safe to ack: the WAL has every record up to `position` on stable storage and its lease still stood, so a
        # crash here or later replays them; a failure that came first has emptied _pending, so none of it is acked late
        self.durable_position = position
        moved: dict[int, StreamLog] = {}
        while self._pending and self._pending[0][0] <= position:
            _, log, end_offset, future = self._pending.popleft()
            log.durable_offset = end_offset
            moved[log.stream_id] = log
            if not future.done():  # its caller may have gone away
                future.set_result(None)
        for log in moved.values():
            if log.on_durable is not None:
                log.on_durable()
        self._changed.set()
        self.relieve()

    async def until_durable(self, position: int) -> None:
        while self.durable_position < position:
            self.raise_if_failed()
            self._changed.clear()
            await self._changed.wait()

    # -- the end -----------------------------------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """The WAL failed, or this broker is no longer the owner: nothing more is acked. Only the first call counts."""
        if self.failure is None:
            self._end(error)
            self._on_fatal(error)

    def close(self) -> None:
        """A wanted end: what is not durable by now fails."""
        if self.failure is None:
            self._end(Closed("the broker is stopping"))

    def _end(self, error: BaseException) -> None:
        self.failure = error
        while self._pending:
            future = self._pending.popleft()[3]
            if not future.done():
                future.set_exception(self.error())
                future.exception()  # seen: a caller that went away is no reason for a warning
        self._changed.set()

    def error(self) -> StreamLakeError:
        """A fresh error for one caller, with the failure as its cause."""
        kind = Fenced if isinstance(self.failure, Fenced) else Closed
        error = kind(f"appends have ended, reopen the stream on its new owner or after a restart: {self.failure}")
        error.__cause__ = self.failure
        return error

    def raise_if_failed(self) -> None:
        if self.failure is not None:
            raise self.error()
