"""The WAL on a local disk: a directory of zeroed, recycled segments, written in groups, one sync per group.

    append ─► open group ─► flusher: one write, one fdatasync ─► on_durable
    trim   ─► segments whose records are all trimmed ─► recycled in the background ─► spare segments ─► append

One group is in flight at a time; what is appended meanwhile forms the next, so the busier the broker the larger the
group. Segments are made and recycled ahead of need, by a task of their own. A failed write or sync is the end of the
WAL: nothing is retried, nothing more is acked, the process must restart and recover (DESIGN section 5).

A lock on the directory keeps a second server out; it dies with the process. On a disk that several machines mount that
may not be enough, so a group is acknowledged only while the broker's lease is held: see `_acknowledge`.
"""

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

from streamlake.core.disk import Buffer, Disk, is_full
from streamlake.core.errors import (
    Closed,
    Corrupt,
    Full,
    Invalid,
    NotFound,
    OutcomeUnknown,
    StreamLakeError,
    Unavailable,
)
from streamlake.core.ids import Ids
from streamlake.core.tasks import Executor, Supervisor
from streamlake.s3stream.wal.file.directory import WalDirectory, close_segments
from streamlake.s3stream.wal.file.flusher import Flusher
from streamlake.s3stream.wal.file.format import (
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    decode_record,
    encode_record_header,
)
from streamlake.s3stream.wal.file.segment import Segment
from streamlake.s3stream.wal.file.settings import FileWalSettings
from streamlake.s3stream.wal.file.space import WalSpace
from streamlake.s3stream.wal.port import Lease, State, WalRecord

SPARE_SEGMENTS = 3  # made ahead of need: the slack, and two to fill
GROUP_RECORDS_MAX = 512  # keeps a group within one vectored write
READ_AHEAD_BYTES = 4 << 20  # per read of the replay
PREPARE_RETRY_S = 1.0


@dataclass(slots=True, eq=False)
class Group:
    """Records that become durable together, one after the other in one segment."""

    segment: Segment
    offset: int
    first_position: int
    last_position: int
    size_bytes: int = 0
    buffers: list[Buffer] = field(default_factory=list)


class FileWal:
    """Implements s3stream.wal.Wal, and before `start` DrainableWal. Tasks and files are its own; `executor` and the
    flusher's stay the caller's."""

    def __init__(
        self,
        directory: str,
        disk: Disk,
        *,
        executor: Executor,
        flusher: Flusher,
        ids: Ids,
        broker_epoch: int,
        lease: Lease | None = None,
        must_exist: bool = False,
        identity: str | None = None,
        settings: FileWalSettings | None = None,
    ) -> None:
        """`lease`: what is durable is acknowledged while it is held; None: always, the lock alone decides.
        `must_exist`: a WAL was here before, so a directory without one is an error, not an empty WAL; `identity` is the
        identity that it had ("" if none was recorded)."""
        self.settings = settings or FileWalSettings()
        self.durable_position = 0
        self.read_cache_bytes = 0  # the page cache of the machine does it
        self.appended_records = 0
        self.appended_bytes = 0
        self.replayed_records = 0
        self._directory = WalDirectory(directory, disk, ids, self.settings.segment_bytes)
        self._executor = executor
        self._flusher = flusher
        self.writes = flusher.writes
        self._broker_epoch = broker_epoch
        self._lease = lease
        self._must_exist = must_exist
        self._identity = identity
        self._state = State.NEW
        self._next_position = 1
        self._synced_position = 0  # durable; acknowledged to durable_position
        self._trimmed_position = 0
        self._live: list[Segment] = []  # hold records that are not trimmed, in order; the last one is being filled
        self._spares: deque[Segment] = deque()  # new or recycled, empty
        self._freed: deque[Segment] = deque()  # wait to be recycled
        self._space = WalSpace(self.settings.segment_bytes - SEGMENT_HEADER_BYTES, RECORD_HEADER_BYTES)
        self._groups: deque[Group] = deque()
        self._group_ready = asyncio.Event()
        self._lease_missed = asyncio.Event()
        self._segments_wanted = asyncio.Event()
        self._ended = asyncio.Event()
        self._prepare_error: OSError | None = None
        self._failure: StreamLakeError | None = None
        self._tasks = Supervisor(self._task_failed)
        self._running: list[asyncio.Task[None]] = []
        self._on_durable: Callable[[int], None] = lambda position: None
        self._on_failed: Callable[[BaseException], None] = lambda error: None

    @property
    def used_bytes(self) -> int:
        """Bytes of the disk that hold records not trimmed, whole segments."""
        return sum(segment.header.segment_bytes for segment in self._live)

    @property
    def total_bytes(self) -> int:
        """Bytes of the disk that the WAL occupies; at most the capacity."""
        return sum(s.header.segment_bytes for s in (*self._live, *self._spares, *self._freed))

    # -- recovery ------------------------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Lock the directory, made durably if it is not there. Unavailable as `recover`."""
        try:
            await self._executor.run(self._directory.lock, self._must_exist)
            if self._must_exist and self._identity is not None:
                await self._executor.run(self._directory.check_identity, self._identity)
        except OSError as error:
            raise self._unavailable("make", error) from error

    async def create(self) -> str:
        """Prepare a new WAL; its identity. Done before it is entered in the metadata store: a start that then finds no
        directory, or one of another identity, knows that the WAL was lost."""
        await self.prepare()
        try:
            return await self._executor.run(self._directory.create)
        except OSError as error:
            raise self._unavailable("make", error) from error

    async def recover(self, trim_position: int) -> AsyncIterator[tuple[int, WalRecord]]:
        """See Wal.recover. Unavailable if another server uses the directory, or if it is missing and must exist."""
        assert self._state is State.NEW, "recover is called once"
        await self.prepare()
        try:
            found = await self._executor.run(self._directory.recover, trim_position)
        except OSError as error:
            raise self._unavailable("recover", error) from error
        self._live = found.live
        self._next_position = found.next_position
        self._trimmed_position = trim_position
        self.durable_position = self._synced_position = found.next_position - 1
        if found.live:
            self._space.active_free_bytes = found.live[-1].header.segment_bytes - found.live[-1].end
        for spare in found.spares:
            self._add_spare(spare)
        self._state = State.RECOVERED
        for segment in found.live.copy():
            async for position, record in self._replay(segment):
                if position > trim_position:
                    self.replayed_records += 1
                    yield position, record

    async def _replay(self, segment: Segment) -> AsyncIterator[tuple[int, WalRecord]]:
        """The records of a segment as scanned, read a few MiB at a time."""
        for start, end in read_spans(segment, READ_AHEAD_BYTES):
            try:
                data = await self._executor.run(segment.file.pread, end - start, start)
            except OSError as error:
                raise self._unavailable("read", error) from error
            at = 0
            while at < len(data):
                try:
                    header, record = decode_record(segment.header, data, at)
                except Corrupt as error:
                    raise Corrupt(f"{segment.path}: offset {start + at}: {error}") from None
                yield header.position, record
                at += header.record_bytes

    # -- life ----------------------------------------------------------------------------------------------------------

    async def start(self, on_durable: Callable[[int], None], on_failed: Callable[[BaseException], None]) -> None:
        """See Wal.start. A full disk is no error here: appends wait, and what was replayed can be uploaded."""
        assert self._state is State.RECOVERED, "start follows recover"
        self._on_durable, self._on_failed = on_durable, on_failed
        try:
            while len(self._spares) < 2 and self._may_grow():  # one to fill and the slack; the others can come later
                self._add_spare(await self._executor.run(self._directory.make_segment))
        except OSError as error:
            if not is_full(error):
                raise self._unavailable("make a segment of", error) from error
            self._prepare_error = error
        self._state = State.RUNNING
        self._running = [
            self._tasks.start("wal flusher", self._flush_groups()),
            self._tasks.start("wal segments", self._prepare_segments()),
        ]
        if self._lease is not None:
            self._tasks.start("wal lease", self._await_lease(self._lease))

    async def discard(self) -> None:
        """See DrainableWal.discard: the segments go, the lock stays. Invalid if there are untrimmed records."""
        assert self._state is State.RECOVERED, "only a WAL that nobody writes to is discarded"
        if self._trimmed_position < self.durable_position:
            raise Invalid(
                f"the WAL in {self._directory.path} holds records {self._trimmed_position + 1} to "
                f"{self.durable_position} that are not trimmed: it cannot be discarded"
            )
        segments = [*self._freed, *self._live, *self._spares]
        try:
            await self._executor.run(self._directory.discard, segments)
        except OSError as error:
            raise self._unavailable("discard", error) from error
        close_segments(segments)
        self._live, self._spares, self._freed = [], deque(), deque()

    def hurry(self) -> None:
        """See Wal.hurry. It never waits for more: what comes while it syncs goes with the next sync."""

    async def close(self) -> None:
        """See Wal.close. What is not acknowledged when the lease is not held stays so."""
        if self._state is State.CLOSED:
            return
        self._state = State.CLOSED
        self._stop_waiting(Closed("the WAL is closed"))
        for task in self._running:  # never cancelled: a thread may be writing to a file that is closed below
            await asyncio.wait([task])
        await self._tasks.stop()  # the one that waits for the lease, which may never come
        close_segments([*self._live, *self._spares, *self._freed])
        self._directory.unlock()

    # -- capacity ------------------------------------------------------------------------------------------------------

    def try_reserve(self, size_bytes: int) -> bool:
        """See Wal.try_reserve. Invalid if a record of this size could never fit a segment."""
        granted = self._space.try_reserve(size_bytes)
        if not granted:
            self._segments_wanted.set()
        return granted

    async def reserve(self, size_bytes: int, timeout_s: float) -> None:
        """See Wal.reserve."""
        self._segments_wanted.set()
        reason = f"the disk says: {self._prepare_error}" if self._prepare_error else "uploads do not keep up"
        text = f"the WAL in {self._directory.path} has no room for {size_bytes} bytes ({self.used_bytes} of "
        text += f"{self.settings.capacity_bytes} bytes in use, {reason}): wait, or raise its capacity"
        await self._space.reserve(size_bytes, timeout_s, text)

    def release(self, size_bytes: int) -> None:
        """See Wal.release."""
        self._space.release(size_bytes)

    # -- writing -------------------------------------------------------------------------------------------------------

    def append(self, record: WalRecord) -> int:
        """See Wal.append."""
        if self._state is not State.RUNNING:
            raise self._failure or Closed("the WAL is not running")
        size_bytes = len(record.data)
        segment = self._spares[0] if self._space.starts_next(size_bytes) else self._live[-1]
        position = self._next_position
        group = self._open_group(segment) or Group(segment, segment.end, position, position)
        # All that can fail comes first: a group without its record would acknowledge the position of the next one.
        header = encode_record_header(
            segment.header,
            record,
            broker_epoch=self._broker_epoch,
            position=position,
            flushed_position=group.first_position - 1,  # true when it is written: groups are flushed one by one
        )
        if self._space.use(size_bytes):
            self._live.append(self._spares.popleft())
            self._segments_wanted.set()
        if not group.buffers:
            self._groups.append(group)
        record_bytes = RECORD_HEADER_BYTES + size_bytes
        segment.add(position, record_bytes)
        group.buffers += (header, record.data)
        group.size_bytes += record_bytes
        group.last_position = position
        self._next_position = position + 1
        self.appended_records += 1
        self.appended_bytes += size_bytes
        self._group_ready.set()
        return position

    def _open_group(self, segment: Segment) -> Group | None:
        """The group that the next record joins, unless it begins one."""
        if self._groups:
            group = self._groups[-1]
            full = group.size_bytes >= self.settings.group_bytes or len(group.buffers) >= 2 * GROUP_RECORDS_MAX
            if group.segment is segment and not full:
                return group
        return None

    async def _flush_groups(self) -> None:
        while True:
            if self._groups:
                group = self._groups.popleft()
                await self._flusher.flush(group.segment.file, group.buffers, group.offset)
                if self._state is State.FAILED:
                    return
                self._synced_position = group.last_position
                self._acknowledge()
            elif self._state is State.CLOSED:
                return
            else:
                self._group_ready.clear()
                await self._group_ready.wait()

    def _acknowledge(self) -> None:
        """Report what is durable, if the lease is held; else it is reported once it is held again.

        Safe: the syncs of all these groups have returned. If the machine dies now, recovery finds the records. If this
        process is a zombie, its successor on a shared disk began to read only after our lease had run out by its own
        reckoning, which is later than ours; the lease is held now, so he had not begun when the syncs returned, and
        finds the records too. That stays true if we are paused between this check and the answer to the client. Had we
        not asked, a sync that ended after he had read would be acknowledged and lost (hazard C4).
        """
        if self._state is State.FAILED or self._synced_position == self.durable_position:
            return
        if self._lease is not None and not self._lease.held():
            self._lease_missed.set()
            return
        self.durable_position = self._synced_position
        self._on_durable(self.durable_position)

    async def _await_lease(self, lease: Lease) -> None:
        """Acknowledge what was held back, as soon as the lease is held again. If it never is, this process has been
        fenced, and the task that renews the lease ends it."""
        while True:
            await self._lease_missed.wait()
            await lease.until_held()
            self._lease_missed.clear()
            self._acknowledge()

    def _task_failed(self, name: str, error: BaseException) -> None:
        what = f"the WAL in {self._directory.path} failed ({name}: {error})"
        self._fail(OutcomeUnknown(f"{what}: records not acknowledged may be lost. Restart the server to recover"))

    def _fail(self, failure: StreamLakeError) -> None:
        """The end: whatever is not durable by now is never acked, nothing is written or synced again."""
        if self._failure:
            return
        self._failure = Closed(str(failure))
        if self._state is not State.CLOSED:
            self._state = State.FAILED
        self._groups.clear()
        self._stop_waiting(self._failure)
        self._on_failed(failure)

    def _stop_waiting(self, reason: StreamLakeError) -> None:
        self._space.fail(reason)
        for event in (self._group_ready, self._segments_wanted, self._ended):
            event.set()

    # -- reading -------------------------------------------------------------------------------------------------------

    def readable_together(self, after: int) -> int:
        """See Wal.readable_together."""
        return max(after, self._next_position - 1)

    async def read(self, position: int) -> WalRecord:
        """See Wal.read."""
        if self._state is State.CLOSED:
            raise Closed("the WAL is closed")
        if not self._trimmed_position < position <= self.durable_position:
            raise NotFound(
                f"the WAL holds records {self._trimmed_position + 1} to {self.durable_position}, not {position}"
            )
        segment = self._live[bisect_right(self._live, position, key=lambda s: s.first_position) - 1]
        start, end = segment.span(position)
        segment_header, path = segment.header, segment.path
        try:
            data = await self._executor.run(segment.file.pread, end - start, start)
            header, record = decode_record(segment_header, data)
            if header.position != position:
                raise Corrupt(f"it holds record {header.position}")
        except (Corrupt, OSError) as error:
            if self._ended.is_set():
                raise Closed("the WAL was closed while it was read") from None
            if position <= self._trimmed_position:
                raise NotFound(f"record {position} was trimmed from the WAL while it was read") from None
            if isinstance(error, OSError):
                raise self._unavailable("read", error) from error
            raise Corrupt(f"{path}: record {position} at offset {start}: {error}") from None
        return record

    # -- trimming and making segments ----------------------------------------------------------------------------------

    async def trim(self, position: int) -> None:
        """See Wal.trim.

        Safe because the caller trims only what a committed metadata transaction holds in objects, this position
        included. If the machine dies before a segment is recycled, `recover` gets that position and skips it.
        """
        if position > self.durable_position:
            raise Invalid(f"cannot trim the WAL to {position}: it is durable to {self.durable_position} only")
        self._trimmed_position = max(self._trimmed_position, position)
        while len(self._live) > 1 and self._live[0].last_position <= self._trimmed_position:
            self._freed.append(self._live.pop(0))
            self._segments_wanted.set()

    async def _prepare_segments(self) -> None:
        """Keep spare segments ready, so that appending never waits for one to be made."""
        while self._state is State.RUNNING:
            self._segments_wanted.clear()
            try:
                if self._freed:
                    self._add_spare(await self._executor.run(self._directory.reuse, self._freed.popleft()))
                elif self._may_grow():
                    self._add_spare(await self._executor.run(self._directory.make_segment))
                else:
                    await self._segments_wanted.wait()
            except OSError as error:  # the file is gone, no record was in it; most likely the disk is full
                self._prepare_error = error
                try:
                    async with asyncio.timeout(PREPARE_RETRY_S):
                        await self._ended.wait()
                except TimeoutError:
                    pass

    def _add_spare(self, segment: Segment | None) -> None:
        if segment:
            self._prepare_error = None
            self._spares.append(segment)
            self._space.add_spare()

    def _may_grow(self) -> bool:
        needed = len(self._spares) < SPARE_SEGMENTS or self._space.wanted
        return needed and self.total_bytes + self.settings.segment_bytes <= self.settings.capacity_bytes

    def _unavailable(self, verb: str, error: OSError) -> StreamLakeError:
        kind = Full if is_full(error) else Unavailable
        return kind(f"cannot {verb} the WAL in {self._directory.path}: {error}")


def read_spans(segment: Segment, limit_bytes: int) -> Iterator[tuple[int, int]]:
    """Byte offsets [start, end) of runs of whole records, each as long as fits the limit, one record at least."""
    start = end = SEGMENT_HEADER_BYTES
    for at in (*segment.offsets[1:], segment.end):
        if at - start > limit_bytes and end > start:
            yield start, end
            start = end
        end = at
    if end > start:
        yield start, end
