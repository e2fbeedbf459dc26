"""One open stream: append, read, search by time, trim. The log cache holds its newest part, objects the rest.

A read goes through the log cache, chunks that only the WAL holds, and objects, in one pass over whole chunks. Readers
see durable offsets only. A buffer that is read holds one or more whole chunks, as they lie together.
"""

import asyncio
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable

from streamlake.core.deferred_buffer import DeferredBuffer
from streamlake.core.errors import Closed, Corrupt, Invalid, NotFound
from streamlake.s3stream.appender import Appender
from streamlake.s3stream.log_cache import Extent, StreamLog
from streamlake.s3stream.metadata import StreamMetadata, StreamState, StreamTrim
from streamlake.s3stream.objects.map import ObjectMap, RangeInObject
from streamlake.s3stream.objects.read_throttle import ReadThrottle
from streamlake.s3stream.objects.reader import BlockRef, ObjectReader
from streamlake.s3stream.wal.port import Buffer, Wal

ENOUGH_BYTES = 1 << 20  # from objects, for one read, while readers are slowed down
MAX_TAILED_READERS = 16  # offsets where readers stopped, to recognise a reader that continues
CHUNKS_PER_SLICE = 2048  # looked through before others may run


class Reads:
    """What all streams of a broker read through, with counters."""

    def __init__(self, wal: Wal, objects: ObjectMap, reader: ObjectReader, throttle: ReadThrottle) -> None:
        self.wal = wal
        self.objects = objects
        self.reader = reader
        self.throttle = throttle
        self.cache_bytes = 0
        self.wal_bytes = 0
        self.object_bytes = 0

    async def fetch(self, extent: Extent) -> list[Buffer]:
        """The bytes of a extent. NotFound if it left the WAL meanwhile: then it lies in an object."""
        if extent.view is not None:
            return [extent.view]
        records = await asyncio.gather(*(self.wal.read(position) for position in extent.positions))
        for record, base in zip(records, extent.bases, strict=True):
            if record.base_offset != base:
                raise Corrupt(f"the WAL gave offset {record.base_offset} where {base} was appended")
        return [record.data for record in records]


class Stream:
    def __init__(
        self, log: StreamLog, state: StreamState, appender: Appender, reads: Reads, metadata: StreamMetadata
    ) -> None:
        self._log = log
        self._appender = appender
        self._reads = reads
        self._metadata = metadata
        self._stopped: OrderedDict[int, None] = OrderedDict()  # offsets where the latest readers stopped
        self.checkpoint = state.checkpoint
        self.checkpoint_offset = state.checkpoint_offset
        self.epochs = state.epochs
        self.notes = state.notes

    @property
    def stream_id(self) -> int:
        return self._log.stream_id

    @property
    def epoch(self) -> int:
        return self._log.epoch

    @property
    def start_offset(self) -> int:
        return self._log.start_offset

    @property
    def next_offset(self) -> int:
        return self._log.next_offset

    @property
    def durable_offset(self) -> int:
        return self._log.durable_offset

    @property
    def uploaded_offset(self) -> int:
        return self._log.uploaded_offset

    @property
    def size_bytes(self) -> int:
        """Bytes from start_offset on, in objects (near enough, see ObjectMap) and above them."""
        return self._reads.objects.size_bytes(self.stream_id, self.start_offset) + self._log.unuploaded_bytes

    @property
    def on_durable(self) -> Callable[[], None] | None:
        return self._log.on_durable

    @on_durable.setter
    def on_durable(self, callback: Callable[[], None] | None) -> None:
        self._log.on_durable = callback

    def set_checkpointer(self, checkpointer: Callable[[], bytes]) -> None:
        """`checkpointer()` gives the caller's state exactly at next_offset; it is committed with the data below it."""
        self._log.checkpointer = checkpointer

    def note(self, end_offset: int, data: bytes) -> None:
        """Committed with the next checkpoint, which lies at or above `end_offset`, all or nothing."""
        self._log.notes[end_offset] = data

    def append(
        self, base_offset: int, count: int, max_timestamp: int, data: Buffer | DeferredBuffer
    ) -> "asyncio.Future[None]":
        """Append a chunk of `count` offsets, whose capacity was reserved; resolves when it is durable, in order. Many
        may wait for it, so nobody cancels it."""
        assert base_offset == self._log.next_offset, "chunks are appended without gap"
        assert count > 0 and len(data) > 0, "a chunk holds something"
        return self._appender.append(self._log, count, max_timestamp, data)

    async def read(self, start_offset: int, end_offset: int, max_bytes: int) -> list[Buffer]:
        """Whole chunks from the one that contains start_offset, below min(end_offset, durable_offset): at least one
        if there is any, then up to max_bytes, or less where producers are spared (objects/read_throttle.py). NotFound
        if the start was trimmed, Closed, Corrupt, Unavailable."""
        end = min(end_offset, self.durable_offset)
        offset, left, out = start_offset, max_bytes, list[Buffer]()
        sequential = start_offset in self._stopped
        missing: tuple[int, RangeInObject | None] | None = None
        while offset < end and (left > 0 or not out):
            if offset < self.start_offset or self._log.gone:
                if out:
                    break
                if self._log.closed and not self._log.deleted:
                    raise Closed(f"stream {self.stream_id} was closed: look up its owner again")
                raise NotFound(
                    f"offset {offset} was deleted: the stream starts at {self.start_offset}, if it still exists"
                )
            entry = None if offset >= self._log.first_offset else self._reads.objects.find(self.stream_id, offset)
            if entry is not None and out and self._reads.throttle.limited and max_bytes - left >= ENOUGH_BYTES:
                break
            try:
                if entry is None:
                    step = await self._read_log(offset, end, left, at_least_one=not out)
                else:
                    step = await self._read_object(entry, offset, end, left, sequential, at_least_one=not out)
            except NotFound as error:
                if missing == (offset, entry):
                    await self._require_current()
                    raise Corrupt(f"stream {self.stream_id}: the data at offset {offset} is gone: {error}") from error
                missing = offset, entry  # it moved from the WAL to an object, or was trimmed: look again
                continue
            if step is None:
                break
            buffers, size, offset = step
            out.extend(buffers)
            left -= size
        self._remember(offset)
        return out

    async def _require_current(self) -> None:
        """Data that this broker cannot find may have been deleted by the next owner of the stream, of which it has not
        heard yet: then Closed. NotFound if the stream was deleted, Unavailable if that cannot be known now."""
        states = await self._metadata.stream_states([self.stream_id])
        if not states:
            raise NotFound(f"stream {self.stream_id} was deleted")
        if states[0].epoch != self.epoch:
            raise Closed(f"stream {self.stream_id} has another owner: look it up again")

    def _remember(self, offset: int) -> None:
        self._stopped[offset] = None
        self._stopped.move_to_end(offset)
        if len(self._stopped) > MAX_TAILED_READERS:
            self._stopped.popitem(last=False)

    async def _read_log(
        self, offset: int, end: int, max_bytes: int, *, at_least_one: bool
    ) -> tuple[list[Buffer], int, int] | None:
        if offset < self._log.first_offset:
            raise Corrupt(f"stream {self.stream_id}: offset {offset} lies in no object and not in the log cache")
        extent = self._log.extent(offset, end, max_bytes, at_least_one=at_least_one)
        if extent is None:
            return None
        buffers = await self._reads.fetch(extent)
        if extent.view is None:
            self._reads.wal_bytes += extent.size_bytes
        else:
            self._reads.cache_bytes += extent.size_bytes
        return buffers, extent.size_bytes, extent.end_offset

    async def _read_object(
        self, entry: RangeInObject, offset: int, end: int, max_bytes: int, sequential: bool, *, at_least_one: bool
    ) -> tuple[list[Buffer], int, int] | None:
        await self._reads.throttle.acquire()
        data: Buffer = b""
        try:
            block = await self._reads.reader.block_at(self.stream_id, entry, offset, max_bytes, sequential=sequential)
            found = block.cut(offset, end, max_bytes, at_least_one=at_least_one)
            if found is None:
                return None
            data, chunks_end = found
        finally:
            self._reads.throttle.consumed(len(data))
        self._reads.object_bytes += len(data)
        return [data], len(data), chunks_end

    # -- search by time ----------------------------------------------------------------------------------------------

    async def find_timestamp(self, timestamp: int, end_offset: int) -> tuple[int, int] | None:
        """Offsets [start, end) of the first chunk below end_offset whose max timestamp is at least `timestamp`."""
        end, offset = min(end_offset, self.durable_offset), self.start_offset
        while offset < end:
            in_objects = min(end, self._log.first_offset)
            if offset < in_objects:
                if (chunk := await self._find_in_objects(timestamp, offset, in_objects)) is not None:
                    return chunk
                offset = in_objects  # the log may have moved on meanwhile: look where this offset is now
            else:
                chunks, offset = self._slice(offset, end)
                for base, chunk_end, found in chunks:
                    if found >= timestamp:
                        return base, chunk_end
                await asyncio.sleep(0)
        return None

    async def _find_in_objects(self, timestamp: int, start: int, end: int) -> tuple[int, int] | None:
        reader = self._reads.reader
        async for ref in reader.blocks(self.stream_id, start, end, lambda entry: entry.max_timestamp < timestamp):
            if ref.max_timestamp >= timestamp:
                block = await reader.block(self.stream_id, ref)
                for at, found in enumerate(block.timestamps):
                    chunk = block.chunk_range(at)
                    if found >= timestamp and chunk[1] > start and chunk[0] < end:
                        return chunk
        return None

    async def max_timestamp(self, end_offset: int) -> tuple[int, int, int] | None:
        """(timestamp, start, end) of the first chunk with the greatest max timestamp below end_offset."""
        end, offset = min(end_offset, self.durable_offset), self.start_offset
        best: tuple[int, int, int] | None = None
        while offset < end:
            in_objects = min(end, self._log.first_offset)
            if offset < in_objects:
                found = await self._max_in_objects(offset, in_objects)
                offset = in_objects
                candidates = [] if found is None else [found]
            else:
                chunks, offset = self._slice(offset, end)
                candidates = [(timestamp, base, chunk_end) for base, chunk_end, timestamp in chunks]
                await asyncio.sleep(0)
            for candidate in candidates:
                if best is None or candidate[0] > best[0]:
                    best = candidate
        return best

    async def _max_in_objects(self, start: int, end: int) -> tuple[int, int, int] | None:
        best: BlockRef | None = None
        edges: list[BlockRef] = []  # blocks that the bounds cut: only some of their chunks count

        def no_better(entry: RangeInObject) -> bool:
            return best is not None and entry.max_timestamp <= best.max_timestamp

        async for ref in self._reads.reader.blocks(self.stream_id, start, end, no_better):
            if ref.start_offset < start or ref.end_offset > end:
                edges.append(ref)
            elif best is None or ref.max_timestamp > best.max_timestamp:
                best = ref
        found: list[tuple[int, int, int]] = []
        for ref in [*edges, *([best] if best is not None else [])]:
            block = await self._reads.reader.block(self.stream_id, ref)
            for at, timestamp in enumerate(block.timestamps):
                chunk = block.chunk_range(at)
                if chunk[1] > start and chunk[0] < end:
                    found.append((timestamp, *chunk))
        return max(found, key=lambda f: (f[0], -f[1])) if found else None

    def _slice(self, offset: int, end: int) -> tuple[list[tuple[int, int, int]], int]:
        """(start, end, max timestamp) of the next chunks in the log, and where the next slice begins."""
        log = self._log
        at = max(bisect_right(log.bases, offset) - 1, 0)
        stop = min(bisect_left(log.bases, end), at + CHUNKS_PER_SLICE)
        ends = log.bases[at + 1 : stop + 1]
        if stop == len(log.bases):
            ends = ends + array("q", (log.next_offset,))
        chunks = list(zip(log.bases[at:stop], ends, log.timestamps[at:stop], strict=True))
        return chunks, chunks[-1][1] if chunks else end

    # -- retention ---------------------------------------------------------------------------------------------------

    async def trim(self, start_offset: int, *, spares_held: bool = False) -> None:
        """Delete what lies below start_offset. It never moves back. `spares_held`: Conflict if somebody needs what is
        below, as the metadata store knows."""
        if start_offset > self.durable_offset:
            raise Invalid(f"cannot trim to {start_offset}: only offsets up to {self.durable_offset} are durable")
        if start_offset <= self.start_offset:
            return
        if (checkpoint := self._log.checkpoint()) is not None:
            await self._appender.until_durable(self._appender.last_position)  # the offset that it is taken at is too
        # safe at a crash: the start moves in the metadata store first, objects go later, through gc. The checkpoint
        # goes with it: the state that was built from what is trimmed here could not be rebuilt by the next owner
        await self._metadata.trim_streams(
            [StreamTrim(self.stream_id, self.epoch, start_offset, checkpoint, spares_held)]
        )
        self._log.start_offset = max(self._log.start_offset, start_offset)
        if checkpoint is not None:
            self._log.committed(checkpoint)
        self._reads.objects.trim(self.stream_id, self._log.start_offset)

    async def retention_point(
        self, keep_bytes: int | None, min_timestamp: int | None, upto_offset: int
    ) -> tuple[int, int | None]:
        """The highest offset that the start may move to: a block goes if at least keep_bytes stay without it, or if
        all of it is older than min_timestamp; never above upto_offset or the committed end. And the max timestamp of
        the block that stays, unless it is one of these two ends that stops us."""
        reader, stream_id = self._reads.reader, self.stream_id
        point = self.start_offset
        limit = min(upto_offset, self._log.uploaded_offset)
        if keep_bytes is not None:  # sizes must be exact: learn those of the objects whose index was never read
            async for _ in reader.blocks(stream_id, point, self._log.uploaded_offset, lambda _: True):
                pass
        async for ref in reader.blocks(stream_id, point, limit, lambda _: False):
            if ref.end_offset > limit:
                break
            behind = ref.bytes_behind + self._reads.objects.size_bytes(stream_id, ref.entry.end_offset)
            surplus = keep_bytes is not None and behind + self._log.unuploaded_bytes >= keep_bytes
            old = min_timestamp is not None and ref.max_timestamp < min_timestamp
            if not (surplus or old):
                return point, ref.max_timestamp
            point = ref.end_offset
        return point, None
