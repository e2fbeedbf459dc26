"""Moves durable chunks from the WAL and the log cache into stream-set objects, then trims the WAL.

A round: note the WAL position reached; for every stream with new chunks take, in one tick, its next offset as the cut
and the checkpoint of the layer above at that very offset; wait until the cuts are durable; encode, store and commit
one object after the other; trim the WAL to the noted position, which all of these cover. Rounds never overlap.

What has left memory while the metadata store was away is read back from the WAL, where it lies by position and not by
stream. Then a round ends at the position up to which each part of the WAL is read once (`Backlog.round_end`).

The store or the metadata store may be away for hours: every step is retried for ever, while Produce goes on until
WAL or memory is full. A commit whose answer was lost is looked up before it is repeated. Only Fenced ends it.
Big rounds become several objects; the event loop may run other tasks after each block.

Streams that are about to be closed are uploaded apart from the others, by `upload`, which leaves the WAL's trim alone.
"""

import asyncio
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import structlog

from streamlake.core.errors import Conflict, Corrupt, Fenced, Full, OutcomeUnknown, StreamLakeError, Unavailable
from streamlake.core.ids import Ids
from streamlake.core.retry import TRANSIENT, Backoff
from streamlake.s3stream.log_cache import Extent, LogCache, StreamLog
from streamlake.s3stream.metadata import Checkpoint, StreamMetadata, StreamRange
from streamlake.s3stream.objects.format import ObjectEncoder, object_key
from streamlake.s3stream.objects.map import ObjectMap, RangeInObject
from streamlake.s3stream.settings import StreamsSettings
from streamlake.s3stream.store.port import ObjectStore
from streamlake.s3stream.wal.port import Buffer, DrainableWal, Wal

T = TypeVar("T")
STREAMS_PER_SLICE = 16
log = structlog.get_logger(__name__)


class Backlog(Protocol):
    """What is to be uploaded: by a running broker from its appender, or from a WAL that is drained."""

    last_position: int  # of the newest record
    dirty: dict[int, StreamLog]  # streams with chunks that are not in objects
    unuploaded_bytes: int
    on_dirty: Callable[[], None]  # the first dirty stream
    on_pressure: Callable[[], None]  # enough to upload, or no capacity left without it

    async def until_durable(self, position: int) -> None: ...

    def round_end(self, begin: int) -> int:
        """Up to which WAL position a round uploads whose records begin after `begin`: `last_position`, or less if some
        of them must be read back from the WAL, where they lie together by position and not by stream."""
        ...

    def relieve(self) -> None:
        """More can be evicted from memory now."""
        ...

    def raise_if_failed(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Cut:
    """What a round uploads of one stream: the chunks below `offset`, with the checkpoint taken exactly there."""

    log: StreamLog
    offset: int
    checkpoint: Checkpoint | None


@dataclass(slots=True)
class DraftRange:
    log: StreamLog
    start_offset: int
    end_offset: int
    data_bytes: int
    max_timestamp: int


class Draft:
    """One object in the making."""

    def __init__(self) -> None:
        self.encoder = ObjectEncoder()
        self.ranges: list[DraftRange] = []
        self.checkpoints: list[Checkpoint] = []
        self.parts: list[Buffer] = []

    def add(self, cut: Cut, block: "GatheredBlock") -> None:
        self.encoder.add_block(
            cut.log.stream_id, block.end_offset, block.bases, block.timestamps, block.ends, block.parts
        )
        last = self.ranges[-1] if self.ranges else None
        if last is None or last.log is not cut.log:
            last = DraftRange(cut.log, block.bases[0], block.bases[0], 0, block.timestamps[0])
            self.ranges.append(last)
        last.end_offset = block.end_offset
        last.data_bytes += block.ends[-1]
        last.max_timestamp = max(last.max_timestamp, max(block.timestamps))
        if block.end_offset == cut.offset and cut.checkpoint is not None:
            self.checkpoints.append(cut.checkpoint)

    async def stream_ranges(self) -> list[StreamRange]:
        """With the epochs as they are now: a stream may have been opened since the draft was made."""
        return [
            StreamRange(r.log.stream_id, r.log.epoch, r.start_offset, r.end_offset) async for r in _sliced(self.ranges)
        ]


class GatheredBlock:
    """Chunks of one stream on their way into a block."""

    __slots__ = ("bases", "end_offset", "ends", "parts", "timestamps")

    def __init__(self) -> None:
        self.bases: array[int] = array("q")
        self.timestamps: array[int] = array("q")
        self.ends: array[int] = array("I")
        self.parts: list[Buffer] = []
        self.end_offset = 0


class Uploader:
    def __init__(
        self,
        *,
        settings: StreamsSettings,
        store: ObjectStore,
        metadata: StreamMetadata,
        ownership: asyncio.Lock,
        wal: Wal | DrainableWal,
        appender: Backlog,
        cache: LogCache,
        objects: ObjectMap,
        fetch: Callable[[Extent], Awaitable[list[Buffer]]],
        ids: Ids,
    ) -> None:
        self._settings = settings
        self._store = store
        self._metadata = metadata
        self._ownership = ownership  # held while stream epochs are taken or used
        self._wal = wal
        self._appender = appender
        self._cache = cache
        self._objects = objects
        self._fetch = fetch
        self._ids = ids
        self._dirty = asyncio.Event()
        self._wanted = asyncio.Event()
        self._round_done = asyncio.Event()
        self._one_round = asyncio.Lock()
        self._committed_trim = 0
        self.uploaded_position = 0
        self.uploads = 0
        self.upload_bytes = 0
        self.retries = 0
        self.abandoned_uploads = 0
        appender.on_dirty = self._dirty.set
        appender.on_pressure = self.wake

    def begin_at(self, trim_position: int) -> None:
        """The trim that the metadata store knows."""
        self._committed_trim = self.uploaded_position = trim_position

    def wake(self) -> None:
        """Upload now what there is; if that is nothing, trim the records of deleted streams from the WAL."""
        if self._appender.dirty or self._committed_trim < self._appender.last_position:
            self._wanted.set()
            self._dirty.set()

    async def run(self) -> None:
        while True:
            await self._due()
            await self.round()

    async def _due(self) -> None:
        while not self._appender.dirty and not self._wanted.is_set():
            self._dirty.clear()
            await self._dirty.wait()
        if self._appender.unuploaded_bytes < self._settings.upload_trigger_bytes:
            try:
                async with asyncio.timeout(self._settings.upload_interval_ms / 1000):
                    await self._wanted.wait()
            except TimeoutError:
                pass
        self._wanted.clear()

    async def flush(self) -> None:
        """Return when everything that was appended before the call lies in committed objects."""
        target = self._appender.last_position
        while self._appender.dirty and self.uploaded_position < target:
            self._appender.raise_if_failed()
            self._wanted.set()
            self._round_done.clear()
            await self._round_done.wait()
        self._appender.raise_if_failed()

    def abort(self) -> None:
        """Appends have failed: let those who wait for a flush see it."""
        self._round_done.set()

    async def upload(self, stream_ids: Sequence[int]) -> None:
        """Return when all that was appended to these streams before the call lies in committed objects, each with the
        checkpoint at its end."""
        async with self._one_round:
            target = self._appender.last_position
            while self.uploaded_position < target and self._is_behind():
                await self._round()
            cuts = await self._cut([stream_id for stream_id in stream_ids if stream_id in self._appender.dirty])
            # Not what is durable now: records in flight have their offsets, and will be acknowledged.
            await self._appender.until_durable(self._appender.last_position)
            async for draft, _ in self._drafts(cuts):
                await self._upload(draft, self._committed_trim)

    async def round(self) -> None:
        async with self._one_round:
            await self._round()

    async def _round(self) -> None:
        position = self._appender.round_end(self.uploaded_position)
        # Every record up to `position` lies below the cuts that follow: they are at the end of each stream, or at the
        # end of its records up to there. So the trim that goes with the last object is safe at a crash: what was
        # acknowledged beyond it is in the WAL still, whether memory has it or not.
        at_ends = position == self._appender.last_position
        cuts = await self._cut(self._appender.dirty, None if at_ends else position)
        await self._appender.until_durable(self._appender.last_position if at_ends else position)
        async for draft, last in self._drafts(cuts):
            await self._upload(draft, position if last else self._committed_trim)
            if at_ends and not last and self._is_behind():
                return  # the rest left memory during a commit that took long: the next rounds read it from the WAL
        if self._committed_trim < position:
            # safe at a crash: no object has brought the trim along, so the streams of the last records are deleted, in
            # the metadata store first; all others up to `position` lie in committed objects
            await self.persist(lambda: self._metadata.trim_wal(position))
            self._committed_trim = position
        # safe at a crash, before or after: `position` is the trim that recovery starts from, and all objects that hold
        # the records up to it are committed, and durable since their put returned
        await self._wal.trim(position)
        self.uploaded_position = position
        self._appender.relieve()
        self._round_done.set()

    def _is_behind(self) -> bool:
        """A round does not upload all that there is."""
        return self._appender.round_end(self.uploaded_position) < self._appender.last_position

    async def _cut(self, stream_ids: Iterable[int], position: int | None = None) -> list[Cut]:
        """At the end of each stream, or of its records up to a WAL position. The state of the layer above is known at
        the end only: a cut before it has no checkpoint, and the next owner of the stream reads from the last one on."""
        cuts = []
        async for stream_id in _sliced(sorted(stream_ids)):
            stream = self._appender.dirty.get(stream_id)
            if stream is not None:  # else deleted meanwhile
                offset = stream.next_offset if position is None else stream.end_at(position)
                cuts.append(Cut(stream, offset, stream.checkpoint() if offset == stream.next_offset else None))
        return cuts

    async def _drafts(self, cuts: list[Cut]) -> AsyncIterator[tuple[Draft, bool]]:
        """Objects of about object_bytes and of few enough streams for one commit, each committed before the next is
        made; and whether it is the last. Each object is whole by itself: its ranges follow the committed ends, and only
        the last one moves the trim. So after a crash in between the WAL still has all that is not in objects."""
        draft = Draft()
        for cut in cuts:
            offset = cut.log.uploaded_offset
            while offset < cut.offset and not cut.log.deleted:
                if self._is_full(draft, cut.log):
                    yield draft, False
                    draft = Draft()
                block = await self._gather(cut, offset)
                if not block.parts:
                    break  # deleted while we looked
                draft.add(cut, block)
                offset = block.end_offset
                await asyncio.sleep(0)
        if draft.ranges:
            yield draft, True

    def _is_full(self, draft: Draft, next_log: StreamLog) -> bool:
        another = not draft.ranges or draft.ranges[-1].log is not next_log
        return draft.encoder.size_bytes >= self._settings.object_bytes or (
            another and len(draft.ranges) >= self._settings.streams_per_commit
        )

    async def _gather(self, cut: Cut, offset: int) -> GatheredBlock:
        """The chunks from `offset` on that make one block, from memory or the WAL."""
        block = GatheredBlock()
        left, size = self._settings.block_bytes, 0
        while offset < cut.offset and left > 0 and not cut.log.deleted:
            extent = cut.log.extent(offset, cut.offset, left, at_least_one=not block.parts)
            if extent is None:
                break
            block.parts.extend(await self.persist(lambda: self._fetch(extent)))  # noqa: B023 - awaited here
            block.bases.extend(extent.bases)
            block.timestamps.extend(extent.timestamps)
            shift = size - extent.begins[0]
            block.ends.extend(array("I", (begin + shift for begin in extent.begins[1:])))
            size += extent.size_bytes
            left -= extent.size_bytes
            block.ends.append(size)
            offset = block.end_offset = extent.end_offset
        return block

    # -- one object --------------------------------------------------------------------------------------------------

    async def _upload(self, draft: Draft, wal_trim: int) -> None:
        draft.parts = draft.encoder.finish()
        while True:
            object_id = await self.persist(lambda: self._metadata.prepare_object(self._settings.prepare_ttl_ms))
            key = object_key(object_id)
            # the same bytes under the same key, and an id is used once: a put that lands late changes nothing
            await self.persist(lambda: self._store.put(key, draft.parts))  # noqa: B023
            if await self._commit(object_id, draft, wal_trim):
                break
            self.abandoned_uploads += 1
            # safe: the object was destroyed before its commit, which can therefore never succeed; the data is still in
            # WAL and log cache. gc may have come before our put, so the bytes are deleted here
            await self.persist(lambda: self._store.delete([key]))  # noqa: B023
        self.uploads += 1
        self.upload_bytes += draft.encoder.size_bytes

    async def _commit(self, object_id: int, draft: Draft, wal_trim: int) -> bool:
        """True when committed, False if the object was destroyed before (it took too long)."""
        backoff = self._backoff()
        while True:
            try:
                async with self._ownership:
                    ranges = await draft.stream_ranges()
                    # safe at a crash: the object is durable (put returned) before this transaction names it, and the
                    # transaction fails whole if this broker or a stream's epoch is no longer the newest
                    await self._metadata.commit_object(
                        object_id, draft.encoder.size_bytes, ranges, draft.checkpoints, wal_trim
                    )
                    await self._apply(object_id, draft, wal_trim)
                return True
            except (OutcomeUnknown, Conflict) as error:
                if await self._landed(object_id) or (isinstance(error, Conflict) and await self._ends_are_ours(draft)):
                    await self._apply(object_id, draft, wal_trim)
                    return True
                if isinstance(error, Conflict):
                    return False
                await self._pause(backoff, error)
            except (Unavailable, Full) as error:
                await self._pause(backoff, error)

    async def _landed(self, object_id: int) -> bool:
        objects = await self.persist(self._metadata.objects)
        return any(item.object_id == object_id for item in objects)

    async def _ends_are_ours(self, draft: Draft) -> bool:
        """After a conflict: True if the streams end where this draft ends. Then it was committed, and all of it deleted
        since, with its object. False if they end where it begins: only the object is gone. Corrupt if neither."""
        committed = False
        starts = {r.log.stream_id: r for r in draft.ranges}
        for state in await self.persist(lambda: self._metadata.stream_states(list(starts))):
            ours = starts[state.stream_id]
            if state.epoch > ours.log.epoch:
                raise Fenced(f"stream {state.stream_id} was opened by another broker (epoch {state.epoch})")
            if state.end_offset == ours.end_offset:
                committed = True
            elif state.end_offset != ours.start_offset:
                raise Corrupt(
                    f"stream {state.stream_id}: the metadata store ends at {state.end_offset}, this broker has"
                    f" committed up to {ours.start_offset}: somebody else wrote, or an old database was restored"
                )
        return committed

    async def _apply(self, object_id: int, draft: Draft, wal_trim: int) -> None:
        """Readers go to the object for these chunks from now on, and they may be evicted from memory."""
        self._committed_trim = wal_trim
        checkpoints = {checkpoint.stream_id: checkpoint for checkpoint in draft.checkpoints}
        async for r in _sliced(draft.ranges):
            if r.log.deleted:
                continue
            if (checkpoint := checkpoints.get(r.log.stream_id)) is not None:
                r.log.committed(checkpoint)
            size = draft.encoder.size_bytes
            entry = RangeInObject(r.start_offset, r.end_offset, object_id, size, r.data_bytes, r.max_timestamp)
            self._objects.add(r.log.stream_id, entry)
            self._objects.trim(r.log.stream_id, r.log.start_offset)
            self._cache.uploaded(r.log, r.end_offset)
            self._appender.unuploaded_bytes -= r.data_bytes
            if r.log.uploaded_offset == r.log.next_offset:
                del self._appender.dirty[r.log.stream_id]
        self._appender.relieve()

    # -- retrying ----------------------------------------------------------------------------------------------------

    async def persist(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do a step that is safe to repeat until it succeeds."""
        backoff = self._backoff()
        while True:
            try:
                return await step()
            except TRANSIENT as error:
                await self._pause(backoff, error)

    def _backoff(self) -> Backoff:
        return self._settings.backoff(self._ids)

    async def _pause(self, backoff: Backoff, error: StreamLakeError) -> None:
        self.retries += 1
        if backoff.failures == 0:
            log.warning("upload failed, retrying", error=str(error))
        await backoff.pause()


async def _sliced(items: Sequence[T]) -> AsyncIterator[T]:
    """All items; after every few the event loop may run other tasks."""
    for number, item in enumerate(items, 1):
        yield item
        if number % STREAMS_PER_SLICE == 0:
            await asyncio.sleep(0)
