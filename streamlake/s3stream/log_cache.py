"""Chunks that are not in objects yet, and recent ones, in memory: slabs and packed arrays, no object per chunk.

A stream's chunks lie one after the other in its slabs. A slab's bytes are written once and never move, so the WAL,
uploads and replies hold read-only views of them, which outlive eviction. Five numbers per chunk tell where it is.
What is in memory is always the newest part of the stream: eviction drops a stream's oldest slab. First go slabs that
lie in committed objects. Then, if the WAL can be read, durable ones: their chunks stay listed with their WAL position.

Counted against the limit are the bytes of chunks (32 more per chunk are not). A slab is little larger than what its
stream holds already, so unused slab space about doubles the count at most, but for SLAB_MIN_BYTES per stream. Slabs
that were dropped are used again when nobody looks at them any more (core/buffers.py): up to SPARE_BYTES_MAX wait for
that, beside the limit.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

from streamlake.core.budget import Budget
from streamlake.core.buffers import Buffers
from streamlake.core.cut import cut_end
from streamlake.core.deferred_buffer import DeferredBuffer
from streamlake.s3stream.metadata import Checkpoint, StreamState
from streamlake.s3stream.wal.port import Buffer

SLAB_MIN_BYTES = 4 * 1024
SLAB_MAX_BYTES = 1024 * 1024
MAX_SPILLED_CHUNKS = 256  # per extent: what one batch of WAL reads fetches
ACCOUNT = "log_cache"
_BYTES = bytes, memoryview
SPARE_BYTES_MAX = 16 << 20  # slabs that left and will be used again: those that readers still look at wait here


class Slab:
    __slots__ = ("begin", "capacity", "end", "last_position", "log", "sealed", "target", "view")

    def __init__(self, log: "StreamLog", target: bytearray) -> None:
        self.log = log
        self.begin = self.end = log.next_byte  # bytes of the stream, counted since the log was opened
        self.capacity = len(target)
        self.target = target
        self.view = memoryview(self.target).toreadonly()
        self.last_position = 0  # WAL position of the newest chunk
        self.sealed = False  # all of it lies in committed objects; takes no more


@dataclass(frozen=True, slots=True)
class Extent:
    """Consecutive whole chunks of one stream: in memory (`view`), or in the WAL at `positions`."""

    start_offset: int
    end_offset: int
    size_bytes: int
    bases: "array[int]"  # first offset of each chunk
    timestamps: "array[int]"  # max timestamp of each
    begins: "array[int]"  # where each begins, relative to the stream's bytes
    positions: "array[int]"  # WAL position of each
    view: memoryview | None


class StreamLog:
    """The state of one stream: its offsets, and the index of the chunks above its objects."""

    def __init__(self, state: StreamState) -> None:
        self.stream_id = state.stream_id
        self.epoch = state.epoch
        self.start_offset = state.start_offset
        self.uploaded_offset = state.end_offset  # below: in committed objects
        self.durable_offset = state.end_offset  # below: survives a crash, may be read
        self.next_offset = state.end_offset  # of the next chunk
        self.next_byte = 0
        self.deleted = False
        self.closed = False  # appends have ended, because the stream is given up
        self.gone = False  # deleted, or no longer ours: nothing of it is here any more
        self.on_durable: Callable[[], None] | None = None
        self.checkpointer: Callable[[], bytes] | None = None
        self.notes: dict[int, bytes] = {}  # that no committed checkpoint has brought along yet, by the end of a chunk
        self.bases: array[int] = array("q")
        self.begins: array[int] = array("q")
        self.timestamps: array[int] = array("q")
        self.positions: array[int] = array("q")
        self.slabs: list[Slab] = []

    @property
    def first_offset(self) -> int:
        """The lowest offset that this log can give; lower ones lie in objects only."""
        return self.bases[0] if self.bases else self.next_offset

    @property
    def resident_byte(self) -> int:
        return self.slabs[0].begin if self.slabs else self.next_byte

    @property
    def is_spilled(self) -> bool:
        """Some of what is in no object has left memory: only the WAL has it."""
        return self.resident_byte > self.byte_at(self.uploaded_offset)

    def end_at(self, position: int) -> int:
        """The end of the chunks that lie in the WAL up to this position."""
        at = bisect_right(self.positions, position)
        return self.bases[at] if at < len(self.bases) else self.next_offset

    def checkpoint(self) -> Checkpoint | None:
        """The state of the layer above, now, with the notes that are not committed yet."""
        if self.checkpointer is None:
            return None
        notes = b"".join(self.notes.values()) if self.notes else b""
        return Checkpoint(self.stream_id, self.next_offset, self.checkpointer(), notes)

    def committed(self, checkpoint: Checkpoint) -> None:
        """Its notes need not be committed again."""
        if checkpoint.notes:
            self.notes = {end: note for end, note in self.notes.items() if end > checkpoint.offset}

    def byte_at(self, offset: int) -> int:
        """Where the chunk that begins at `offset` begins."""
        at = bisect_left(self.bases, offset)
        return self.begins[at] if at < len(self.begins) else self.next_byte

    @property
    def unuploaded_bytes(self) -> int:
        return self.next_byte - self.byte_at(self.uploaded_offset)

    def extent(self, start: int, end: int, max_bytes: int, *, at_least_one: bool) -> Extent | None:
        """Whole chunks from the one that contains `start`, below `end`, up to max_bytes, that lie together."""
        at = bisect_right(self.bases, start) - 1
        stop = bisect_left(self.bases, end)
        begin = self.begins[at]
        if self.next_byte > begin + max_bytes:
            stop = min(stop, bisect_right(self.begins, begin + max_bytes) - 1)
        slab = self._slab_at(begin)
        if slab is None:
            stop = min(stop, bisect_left(self.begins, self.resident_byte), at + MAX_SPILLED_CHUNKS)
        elif slab.end < self.next_byte:
            stop = min(stop, bisect_left(self.begins, slab.end))
        stop = cut_end(at, stop, at_least_one)
        if stop <= at:
            return None
        more = stop < len(self.bases)
        end_byte = self.begins[stop] if more else self.next_byte
        return Extent(
            self.bases[at],
            self.bases[stop] if more else self.next_offset,
            end_byte - begin,
            self.bases[at:stop],
            self.timestamps[at:stop],
            self.begins[at:stop],
            self.positions[at:stop],
            None if slab is None else slab.view[begin - slab.begin : end_byte - slab.begin],
        )

    def _slab_at(self, byte: int) -> Slab | None:
        at = bisect_right(self.slabs, byte, key=attrgetter("begin")) - 1
        return self.slabs[at] if at >= 0 else None

    def evict_uploaded(self) -> None:
        """Drop the index of chunks that are in objects and not in memory: the WAL may not have them any more."""
        self._evict_before(min(self.byte_at(self.uploaded_offset), self.resident_byte))

    def evict_all(self) -> None:
        self._evict_before(self.next_byte)

    def _evict_before(self, byte: int) -> None:
        count = bisect_left(self.begins, byte)
        for column in (self.bases, self.begins, self.timestamps, self.positions):
            del column[:count]


class LogCache:
    """The slabs of all streams of a broker within one limit. `capacity` counts reserved and held bytes."""

    def __init__(self, limit_bytes: int, *, wal_readable: bool) -> None:
        self.capacity = Budget(limit_bytes)
        self._wal_readable = wal_readable
        self._buffers = Buffers(min(SPARE_BYTES_MAX, limit_bytes))
        self._recent: OrderedDict[Slab, None] = OrderedDict()  # in the order they were begun
        self._uploaded: OrderedDict[Slab, None] = OrderedDict()  # sealed, in the order they were uploaded
        self.spilled: set[int] = set()  # ids of streams with chunks that only the WAL has

    def copy_in(self, log: StreamLog, data: Buffer | DeferredBuffer) -> memoryview:
        """Copy a chunk to the end of its stream; its size was taken from `capacity` before.

        `add` must follow in the same tick. If not (the WAL refused the chunk), the next chunk overwrites the bytes."""
        size = len(data)
        slab = log.slabs[-1] if log.slabs else None
        if slab is None or slab.sealed or slab.capacity - (slab.end - slab.begin) < size:
            resident = log.next_byte - log.resident_byte
            slab = Slab(log, self._buffers.take(max(size, min(SLAB_MAX_BYTES, max(SLAB_MIN_BYTES, resident)))))
            log.slabs.append(slab)
            self._recent[slab] = None
        begin = slab.end - slab.begin
        if isinstance(data, _BYTES):
            slab.target[begin : begin + size] = data
        else:
            data.copy_to(slab.target, begin)
        return slab.view[begin : begin + size]

    def add(self, log: StreamLog, count: int, max_timestamp: int, position: int, size_bytes: int) -> None:
        """List the chunk that was copied in last: `count` offsets from next_offset on, at this WAL position."""
        slab = log.slabs[-1]
        slab.end += size_bytes
        slab.last_position = position
        log.bases.append(log.next_offset)
        log.begins.append(log.next_byte)
        log.timestamps.append(max_timestamp)
        log.positions.append(position)
        log.next_offset += count
        log.next_byte = slab.end

    def uploaded(self, log: StreamLog, offset: int) -> None:
        """Chunks below `offset` lie in committed objects: their slabs may be evicted, spilled ones leave the index."""
        log.uploaded_offset = offset
        boundary = log.byte_at(offset)
        for slab in log.slabs:
            if slab.end > boundary:
                break
            if not slab.sealed:
                slab.sealed = True
                del self._recent[slab]
                self._uploaded[slab] = None
        log.evict_uploaded()
        if not log.is_spilled:
            self.spilled.discard(log.stream_id)

    def evict(self, size_bytes: int, durable_position: int) -> None:
        """Evict until `size_bytes` are free, or nothing more may go: uploaded slabs first, then durable ones."""
        while self._uploaded and self.capacity.free_bytes < size_bytes:
            slab, _ = self._uploaded.popitem(last=False)
            self._drop(slab)
        if not self._wal_readable:
            return
        for _ in range(len(self._recent)):
            slab = next(iter(self._recent))
            if self.capacity.free_bytes >= size_bytes:
                return
            if slab.last_position <= durable_position:
                # safe at a crash: every chunk of it is durable in the WAL, which is trimmed only after their upload
                del self._recent[slab]
                self._drop(slab)
                if slab.log.is_spilled:
                    self.spilled.add(slab.log.stream_id)
            elif slab is slab.log.slabs[-1]:
                self._recent.move_to_end(slab)  # old, but still being filled
            else:
                return  # younger ones are not durable either

    def evict_stream(self, log: StreamLog) -> None:
        """The stream is gone: free its slabs. Views that readers hold stay whole."""
        for slab in list(log.slabs):
            self._recent.pop(slab, None)
            self._uploaded.pop(slab, None)
            self._drop(slab)
        log.evict_all()
        self.spilled.discard(log.stream_id)

    def _drop(self, slab: Slab) -> None:
        oldest = slab.log.slabs.pop(0)
        assert oldest is slab, "a stream's slabs leave memory oldest first"
        size = slab.end - slab.begin
        self._buffers.give(slab.target)
        slab.log.evict_uploaded()
        self.capacity.give(ACCOUNT, size)
