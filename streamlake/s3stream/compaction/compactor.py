"""Writes small ranges of this broker's streams anew, as large ones, and lets go of the objects that held them.

    plan ─► read the ranges ─► one new object ─► one metadata transaction ─► the object map of this broker

Ranges of open streams only: nobody else replaces these, or reads them by a map that this does not move. What is written
was committed before, so it changes no more, whatever uploads and trims do meanwhile; offsets, checkpoints and the WAL's
trim are not touched. Each object is a job of its own that begins at the plan: after a crash, a conflict or an error the
next round looks again at what there is.

    crash before the transaction   an object that was never committed: gc takes it after its deadline
    crash after it                 old objects without ranges, or with few: gc takes them, or a later job empties them
    a reader with the old range    its object stays for the grace of gc; after that it finds the range anew (stream.py)

A read is throttled twice: to a rate of its own, and with all who read from objects while producers are active
(objects/read_throttle.py).
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

import structlog

from streamlake.core.errors import Conflict, Corrupt, Full, NotFound, OutcomeUnknown, Unavailable
from streamlake.core.ids import Ids
from streamlake.core.retry import TRANSIENT
from streamlake.s3stream.compaction.draft import Draft
from streamlake.s3stream.compaction.plan import RANGES_MAX, SPARSE_SHARE, Run, runs
from streamlake.s3stream.log_cache import StreamLog
from streamlake.s3stream.metadata import StreamMetadata, StreamRange
from streamlake.s3stream.objects.format import Block, ObjectIndex, decode_block, object_key
from streamlake.s3stream.objects.map import ObjectMap, RangeInObject
from streamlake.s3stream.objects.read_throttle import ReadThrottle
from streamlake.s3stream.objects.reader import ObjectReader
from streamlake.s3stream.settings import StreamsSettings
from streamlake.s3stream.store.port import ObjectStore

STREAMS_PER_SLICE = 16
SOURCES_MAX = 2 * RANGES_MAX  # of a job: its transaction reads and locks their rows
GAP_PART = 32  # of a request at most: what is between two blocks is read, too, rather than with another request
log = structlog.get_logger(__name__)


class Damaged(Exception):
    """A source cannot be read."""

    def __init__(self, source: "RangeInObject", stream_id: int, reason: str) -> None:
        super().__init__(reason)
        self.object_id = source.object_id
        self.stream_id = stream_id


@dataclass(frozen=True, slots=True)
class Source:
    """A range, and the rows of its object's index that are to be read: those of blocks that are still in the stream."""

    stream_id: int
    entry: RangeInObject
    index: ObjectIndex
    rows: range

    @property
    def size_bytes(self) -> int:
        return sum(self.index.sizes[self.rows.start : self.rows.stop])


Extent = list[tuple[Source, int]]  # blocks of one object, by their rows, that one request brings


class Compactor:
    def __init__(
        self,
        *,
        settings: StreamsSettings,
        store: ObjectStore,
        metadata: StreamMetadata,
        ownership: asyncio.Lock,
        logs: Mapping[int, StreamLog],
        objects: ObjectMap,
        reader: ObjectReader,
        throttle: ReadThrottle,
        ids: Ids,
    ) -> None:
        self._settings = settings
        self._store = store
        self._metadata = metadata
        self._ownership = ownership  # held while stream epochs are taken or used
        self._logs = logs
        self._objects = objects
        self._reader = reader
        self._throttle = throttle
        self._ids = ids
        self._free_at = 0.0
        self._damaged: set[int] = set()  # objects that could not be read: reported once, then left alone
        self.compactions = 0
        self.compacted_bytes = 0
        self.failures = 0

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._settings.compaction_interval_ms / 1000)
            try:
                await self.compact()
            except TRANSIENT as error:
                self.failures += 1
                log.warning("compaction failed, retrying", error=str(error))

    async def compact(self) -> None:
        """One round: all that is worth it now."""
        async for job in self._jobs():
            try:
                await self._do(job)
            except Damaged as error:
                self._damaged.add(error.object_id)
                if self._is_open(error.stream_id):  # else it was deleted, and the object perhaps with it
                    self.failures += 1
                    key = object_key(error.object_id)
                    log.error("an object cannot be compacted: restore it", object=key, reason=str(error))

    # -- the plan ----------------------------------------------------------------------------------------------------

    async def _jobs(self) -> AsyncIterator[list[Run]]:
        """Runs for one object each: by stream, as their sources are sorted. At most one run of a stream, because a
        stream has one range in an object."""
        live = await self._live_bytes()
        job: list[Run] = []
        for number, stream_id in enumerate(sorted(self._logs), 1):
            for run in self._runs(stream_id, live):
                if job and not self._fits(job, run):
                    yield job
                    job = []
                job.append(run)
            if number % STREAMS_PER_SLICE == 0:
                await asyncio.sleep(0)
        if job:
            yield job

    async def _live_bytes(self) -> Counter[int]:
        """By object, what streams of this broker have in it. What streams of others have in it is not known: if it is
        much, our part still leaves the object, once."""
        live: Counter[int] = Counter()
        for number, stream_id in enumerate(list(self._logs), 1):
            for entry in self._objects.ranges(stream_id):
                live[entry.object_id] += entry.size_bytes
            if number % STREAMS_PER_SLICE == 0:
                await asyncio.sleep(0)
        return live

    def _runs(self, stream_id: int, live: Counter[int]) -> Iterator[Run]:
        def is_sparse(entry: RangeInObject) -> bool:
            return live[entry.object_id] * SPARSE_SHARE < entry.object_size

        if self._is_open(stream_id):
            ranges = self._objects.ranges(stream_id)
            for damaged, some in groupby(ranges, lambda entry: entry.object_id in self._damaged):
                if not damaged:
                    yield from runs(stream_id, list(some), self._settings.object_bytes, is_sparse)

    def _fits(self, job: list[Run], run: Run) -> bool:
        sources = {entry.object_id for known in [*job, run] for entry in known.entries}
        return (
            job[-1].stream_id != run.stream_id
            and sum(known.size_bytes for known in job) + run.size_bytes <= self._settings.object_bytes
            and len(sources) <= SOURCES_MAX
            and len(job) < self._settings.streams_per_commit
        )

    def _is_open(self, stream_id: int) -> bool:
        stream = self._logs.get(stream_id)
        return stream is not None and not (stream.closed or stream.gone or stream.deleted)

    # -- one job -----------------------------------------------------------------------------------------------------

    async def _do(self, job: list[Run]) -> None:
        sources = await self._sources(job)
        size = sum(source.size_bytes for source in sources)
        if not sources or size > self._settings.compaction_bytes_max:
            return  # the plan took estimates; sizes are known now, for that of the next round
        blocks = await self._read(sources)
        draft = Draft(self._settings.block_bytes)
        for source in sources:
            for row in source.rows:
                draft.add(source.stream_id, blocks.pop((source.entry.object_id, row)))
                await asyncio.sleep(0)  # a checksum each: together they would hold the loop
        parts = draft.finish()
        # Durable before the first byte is stored: gc finds the object, whatever happens next.
        object_id = await self._metadata.prepare_object(self._settings.prepare_ttl_ms)
        await self._store.put(object_key(object_id), parts)
        if await self._commit(object_id, draft, sources):
            self.compactions += 1
            self.compacted_bytes += draft.size_bytes

    async def _sources(self, job: list[Run]) -> list[Source]:
        """By stream, then offset; without what was deleted since the plan was made."""
        found = []
        for run in job:
            stream = self._logs.get(run.stream_id)
            start = run.entries[-1].end_offset if stream is None else stream.start_offset
            for entry in run.entries:
                with _naming(entry, run.stream_id):
                    index = await self._reader.index(entry)
                    rows = index.blocks_of(run.stream_id)
                    if not rows or index.ends[rows.stop - 1] != entry.end_offset:
                        raise Corrupt(f"it does not hold stream {run.stream_id} up to {entry.end_offset}")
                self._reader.learn(run.stream_id, entry, index)
                left = [row for row in rows if index.ends[row] > start]
                if left:
                    found.append(Source(run.stream_id, entry, index, range(left[0], rows.stop)))
        return found

    async def _read(self, sources: list[Source]) -> dict[tuple[int, int], Block]:
        """The blocks by object and row. Those of an object that lie together, or nearly, come with one request."""
        blocks: dict[tuple[int, int], Block] = {}
        for extent in _extents(sources, self._settings.compaction_read_bytes):
            await self._read_extent(extent, blocks)
        return blocks

    async def _read_extent(self, extent: Extent, blocks: dict[tuple[int, int], Block]) -> None:
        (first, row), (last, last_row) = extent[0], extent[-1]
        begin = first.index.positions[row]
        size = last.index.positions[last_row] + last.index.sizes[last_row] - begin
        entry, index = first.entry, first.index
        await self._pace(size)
        with _naming(entry, first.stream_id):
            data = memoryview(await self._store.get_range(object_key(entry.object_id), begin, size))
            for _, row in extent:
                at = index.positions[row] - begin
                # a copy: what lies between two blocks is not kept
                blocks[entry.object_id, row] = decode_block(bytes(data[at : at + index.sizes[row]]), index, row)
                await asyncio.sleep(0)

    async def _pace(self, size_bytes: int) -> None:
        """Wait until so much may be read: at a rate of our own, and as one of those who read from objects."""
        now = asyncio.get_running_loop().time()
        start = max(now, self._free_at)
        self._free_at = start + size_bytes / self._settings.compaction_bytes_per_s
        if start > now:
            await asyncio.sleep(start - now)
        await self._throttle.acquire()
        self._throttle.consumed(size_bytes)

    # -- the commit --------------------------------------------------------------------------------------------------

    async def _commit(self, object_id: int, draft: Draft, sources: list[Source]) -> bool:
        """True when committed. False if a stream is not ours any more, or its ranges are others now."""
        async with self._ownership:  # no stream is opened or closed until the map says what the metadata store says
            if not all(self._is_as_read(source) for source in sources):
                return False
            epochs = {r.stream_id: self._logs[r.stream_id].epoch for r in draft.ranges}
            ranges = [StreamRange(r.stream_id, epochs[r.stream_id], r.start_offset, r.end_offset) for r in draft.ranges]
            if not await self._replace(object_id, draft.size_bytes, ranges, {s.entry.object_id for s in sources}):
                return False
            for r in draft.ranges:
                size = draft.size_bytes
                entry = RangeInObject(r.start_offset, r.end_offset, object_id, size, r.data_bytes, r.max_timestamp)
                self._objects.replace(r.stream_id, entry)
            return True

    def _is_as_read(self, source: Source) -> bool:
        """The map still finds its last offset there, or the stream begins above it."""
        if not self._is_open(source.stream_id):
            return False
        found = self._objects.find(source.stream_id, source.entry.end_offset - 1)
        return found is None or found.object_id == source.entry.object_id

    async def _replace(self, object_id: int, size: int, ranges: list[StreamRange], sources: set[int]) -> bool:
        """Until the answer is known: did the ranges move and we did not know, our readers would look for them in
        objects that gc deletes."""
        unknown = False
        backoff = self._settings.backoff(self._ids)
        while True:
            try:
                # safe at a crash: the object is durable (put returned) before this transaction names it, and the
                # sources stay readable for the grace of gc; it fails whole if this broker's or a stream's epoch is over
                await self._metadata.replace_ranges(object_id, size, ranges, sorted(sources))
                return True
            except Conflict:
                return unknown and await self._landed(object_id)
            except OutcomeUnknown:
                unknown = True
            except (Unavailable, Full):
                if not unknown:
                    raise
            await backoff.pause()

    async def _landed(self, object_id: int) -> bool:
        """If it did and is gone already, all that it held was deleted: nobody looks for that."""
        backoff = self._settings.backoff(self._ids)
        while True:
            try:
                return any(item.object_id == object_id for item in await self._metadata.objects())
            except TRANSIENT:
                await backoff.pause()


def _extents(sources: list[Source], limit_bytes: int) -> Iterator[Extent]:
    extent: Extent = []
    for source in sorted(sources, key=lambda source: (source.entry.object_id, source.rows.start)):
        for row in source.rows:
            if extent and not _lie_together(extent, source, row, limit_bytes):
                yield extent
                extent = []
            extent.append((source, row))
    if extent:
        yield extent


def _lie_together(extent: Extent, source: Source, row: int, limit_bytes: int) -> bool:
    first_row, (last, last_row) = extent[0][1], extent[-1]
    positions, sizes = source.index.positions, source.index.sizes
    return (
        last.entry.object_id == source.entry.object_id
        and positions[row] - positions[last_row] - sizes[last_row] <= limit_bytes // GAP_PART
        and positions[row] + sizes[row] - positions[first_row] <= limit_bytes
    )


@contextmanager
def _naming(entry: RangeInObject, stream_id: int) -> Iterator[None]:
    try:
        yield
    except (Corrupt, NotFound) as error:
        raise Damaged(entry, stream_id, str(error)) from error
