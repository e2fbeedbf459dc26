"""All streams of one broker: recovery, open, capacity, upload, garbage collection, one clear end.

    start()   metadata + WAL → what is not in objects yet (recovery.py), then WAL, uploader and gc run
    open()    take ownership of streams: their epoch grows, an older owner can commit nothing more
    reserve() capacity of WAL and memory, before offsets are given; then Stream.append
    flush()   everything appended so far lies in committed objects
    close_streams()   give up streams: all they hold lies in objects, and another broker may open them
    close()   what was appended becomes durable, then all stops

If the WAL fails, or anything says that this broker is fenced, all pending appends of all streams fail together and
`on_fatal` is called once: the broker must stop. Consensus, placement and the meaning of the bytes are not known here.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from streamlake.core.budget import Budget
from streamlake.core.errors import Corrupt, Full, Invalid, OutcomeUnknown, StreamLakeError, Unavailable
from streamlake.core.ids import Ids
from streamlake.core.tasks import Supervisor
from streamlake.s3stream.appender import Appender
from streamlake.s3stream.compaction.compactor import Compactor
from streamlake.s3stream.log_cache import LogCache, StreamLog
from streamlake.s3stream.metadata import Closing, OpenAt, StreamMetadata, StreamState
from streamlake.s3stream.objects.block_cache import BlockCache
from streamlake.s3stream.objects.gc import GarbageCollector
from streamlake.s3stream.objects.map import ObjectMap
from streamlake.s3stream.objects.read_throttle import ReadThrottle
from streamlake.s3stream.objects.reader import ObjectReader
from streamlake.s3stream.recovery import recover
from streamlake.s3stream.settings import MAX_FETCHES, StreamsSettings
from streamlake.s3stream.store.port import ObjectStore
from streamlake.s3stream.stream import Reads, Stream
from streamlake.s3stream.uploader import Uploader
from streamlake.s3stream.wal.port import Wal
from streamlake.telemetry.metric import Metric, counter, gauge

CLOSED_AT_ONCE = 1000  # streams, in one transaction


class Streams:
    def __init__(
        self,
        store: ObjectStore,
        wal: Wal,
        metadata: StreamMetadata,
        ids: Ids,
        settings: StreamsSettings,
        budget: Budget,
        on_fatal: Callable[[BaseException], None],
        collects_garbage: Callable[[], bool] = lambda: True,
    ) -> None:
        """`collects_garbage`: asked before each round; one broker of several is enough."""
        if not store.requests_cost:
            settings = settings.where_requests_are_free()
        self._wal = wal
        self._metadata = metadata
        self._settings = settings
        self._ids = ids
        self._budget = budget
        self._on_fatal = on_fatal
        self._ownership = asyncio.Lock()
        self._logs: dict[int, StreamLog] = {}
        self._objects = ObjectMap()
        self.cache = LogCache(settings.log_cache_bytes, wal_readable=True)
        self.blocks = BlockCache(settings.block_cache_bytes, MAX_FETCHES)
        reader = ObjectReader(store, self._objects, self.blocks, settings.read_ahead_bytes, settings.whole_objects_max)
        self.appender = Appender(wal, self.cache, settings.upload_trigger_bytes, self._failed)
        self.read_throttle = ReadThrottle(lambda: self.appender.appended_at, asyncio.get_running_loop())
        self.reads = Reads(wal, self._objects, reader, self.read_throttle)
        self.uploader = Uploader(
            settings=settings,
            store=store,
            metadata=metadata,
            ownership=self._ownership,
            wal=wal,
            appender=self.appender,
            cache=self.cache,
            objects=self._objects,
            fetch=self.reads.fetch,
            ids=ids,
        )
        self.gc = GarbageCollector(store, metadata, settings.gc_interval_ms, settings.gc_grace_ms, collects_garbage)
        self.compactor = Compactor(
            settings=settings,
            store=store,
            metadata=metadata,
            ownership=self._ownership,
            logs=self._logs,
            objects=self._objects,
            reader=reader,
            throttle=self.read_throttle,
            ids=ids,
        )
        self._tasks = Supervisor(lambda _, error: self.appender.fail(error))
        self._claimed: dict[str, int] = {}
        self.recovered_streams = 0
        self.skipped_records = 0

    def metrics(self) -> Iterable[Metric]:
        uploader, reader, blocks, gc, compactor = self.uploader, self.reads.reader, self.blocks, self.gc, self.compactor
        return (
            gauge("streamlake_unuploaded_bytes", "Bytes of record batches not yet uploaded to objects.",
                lambda: self.appender.unuploaded_bytes),
            counter("streamlake_uploads", "Stream-set objects uploaded and committed.", lambda: uploader.uploads),
            counter("streamlake_upload_bytes", "Bytes of stream-set objects uploaded and committed.",
                lambda: uploader.upload_bytes),
            counter("streamlake_upload_retries", "Retries of a failed step of an upload.", lambda: uploader.retries),
            counter("streamlake_uploads_abandoned", "Uploads abandoned because they took too long, and restarted.",
                lambda: uploader.abandoned_uploads),
            counter("streamlake_damaged_reads", "Reads of objects whose content was corrupt.",
                lambda: reader.damaged_reads),
            counter("streamlake_block_cache_hits", "Blocks and indexes found in the block cache.", lambda: blocks.hits),
            counter("streamlake_block_cache_misses", "Blocks and indexes not found in the block cache.",
                lambda: blocks.misses),
            gauge("streamlake_catch_up_rate_bytes",
                "Bytes per second that reads from objects may take while producers are active.",
                lambda: self.read_throttle.rate),
            counter("streamlake_catch_up_wait_seconds",
                "Total time that reads from objects were throttled in favour of producers.",
                lambda: self.read_throttle.waited_s),
            counter("streamlake_objects_deleted", "Objects deleted by garbage collection.", lambda: gc.deleted_objects),
            counter("streamlake_gc_failures", "Rounds of garbage collection that failed and will be retried.",
                lambda: gc.failed_rounds),
            counter("streamlake_compactions", "Objects that compaction has written and committed.",
                lambda: compactor.compactions),
            counter("streamlake_compaction_bytes", "Bytes of objects that compaction has written and committed.",
                lambda: compactor.compacted_bytes),
            counter("streamlake_compaction_failures",
                "Rounds of compaction that failed and will be retried, and objects that it cannot read.",
                lambda: compactor.failures),
        )  # fmt: skip

    async def start(self) -> None:
        """Recover, then serve. Corrupt if WAL and metadata contradict each other, Invalid if memory is too small."""
        self._claim_memory()
        recovered = await recover(self._wal, self._metadata, self.cache, self._objects)
        self._logs.update(recovered.logs)
        self.recovered_streams, self.skipped_records = len(recovered.logs), recovered.skipped_records
        self.uploader.begin_at(await self._metadata.wal_trim())
        await self.appender.start(recovered.last_position)
        for log in recovered.logs.values():
            self.appender.mark_dirty(log, log.unuploaded_bytes)
        self._tasks.start("uploader", self.uploader.run())
        self._tasks.start("s3stream gc", self.gc.run())
        if self._settings.compaction_bytes_per_s:
            self._tasks.start("compaction", self.compactor.run())

    async def open(self, stream_ids: Sequence[int]) -> list[Stream | StreamLakeError]:
        """Become the owner of each of these streams, or say why not: NotFound if it does not exist; Unavailable while
        another broker owns it, or a WAL that is not drained yet holds records of it; Conflict if it was just closed
        elsewhere (try again). Raises what concerns all; some may be open then, and may be opened again."""
        async with self._ownership:  # no commit is under way with the epochs that end here
            count, states = self._settings.streams_per_commit, list[StreamState | StreamLakeError]()
            opened: list[Stream | StreamLakeError] = []
            for at in range(0, len(stream_ids), count):
                some = await self._take(stream_ids[at : at + count])
                # Before anything else can fail: they are ours now, to be uploaded under these epochs, and given up.
                opened += [state if isinstance(state, StreamLakeError) else self._opened(state) for state in some]
                states += some
            await self._refresh([state for state in states if isinstance(state, StreamState)])
            return opened

    async def _take(self, stream_ids: Sequence[int]) -> list[StreamState | StreamLakeError]:
        before = {state.stream_id: state for state in await self._metadata.stream_states(stream_ids)}
        openings = [OpenAt(i, self._end_of(i, before.get(i))) for i in stream_ids]
        return await self._take_epochs(openings)

    async def _take_epochs(self, openings: Sequence[OpenAt]) -> list[StreamState | StreamLakeError]:
        """Until the answer is known: were the epochs raised and we did not know, our next upload would be fenced, by
        ourselves. So no commit may come in between, and one epoch more does no harm."""
        unknown: OutcomeUnknown | None = None
        backoff = self._settings.backoff(self._ids)
        while True:
            try:
                return await self._metadata.open_streams(openings)
            except OutcomeUnknown as error:
                unknown = error
            except (Unavailable, Full):
                if unknown is None:
                    raise
            await backoff.pause()

    def _end_of(self, stream_id: int, state: StreamState | None) -> int:
        """The end of a stream, its recovered tail included."""
        committed = state.end_offset if state else 0  # open_streams will say that it does not exist
        log = self._logs.get(stream_id)
        if log is None:
            return committed
        if committed > log.next_offset:
            raise Corrupt(f"stream {stream_id} was committed up to {committed}, beyond all that this broker wrote")
        return log.next_offset

    async def _refresh(self, states: Sequence[StreamState]) -> None:
        """Learn the objects of streams that were not ours: of these the map has nothing, as their owners may have
        replaced what it knew."""
        known = self._objects.end_offset
        stale = {s.stream_id: s for s in states if s.end_offset > max(s.start_offset, known(s.stream_id) or 0)}
        if stale:
            self._objects.load(await self._metadata.objects(), stale)

    def _opened(self, state: StreamState) -> Stream:
        log = self._logs.get(state.stream_id)
        if log is None:
            log = self._logs[state.stream_id] = StreamLog(state)
        log.epoch = state.epoch
        log.closed = False  # it was about to be closed, and is not
        return Stream(log, state, self.appender, self.reads, self._metadata)

    def holds(self, stream_id: int) -> bool:
        """Whether it is open here, or lies in our WAL beyond its committed end."""
        return stream_id in self._logs

    def held(self) -> list[int]:
        return list(self._logs)

    async def upload(self, stream_ids: Sequence[int]) -> None:
        """Return when all that was appended to these streams before the call lies in committed objects."""
        await self.uploader.upload(stream_ids)

    async def close_streams(self, stream_ids: Sequence[int] | None = None) -> None:
        """Give up the ownership of open streams, of all by default: appends end at once, what was appended becomes
        durable and is acknowledged, all of it goes into objects, and nobody owns the streams. However long it takes; if
        it is cancelled, or raises (Fenced), `open` makes the streams usable again."""
        ids = list(self._logs) if stream_ids is None else stream_ids
        logs = [log for stream_id in ids if (log := self._logs.get(stream_id)) is not None]
        for log in logs:
            log.closed = True
        self._wal.hurry()  # nobody can produce to these streams until what is in flight is durable
        await self.uploader.upload([log.stream_id for log in logs])
        for at in range(0, len(logs), CLOSED_AT_ONCE):
            async with self._ownership:  # no open of these streams comes in between; what was opened since is left out
                some = [log for log in logs[at : at + CLOSED_AT_ONCE] if self._logs.get(log.stream_id) is log]
                closings = [Closing(log.stream_id, log.epoch, log.next_offset) for log in some if log.closed]
                # Safe at a crash, or if the answer is lost: nothing of these streams lies only in our WAL, whoever
                # opens them. Repeated, it changes nothing.
                await self.uploader.persist(lambda: self._metadata.close_streams(closings))  # noqa: B023
                for closing in closings:
                    self._drop(closing.stream_id)
        self.appender.relieve()

    def delete(self, stream_ids: Sequence[int]) -> None:
        """Drop streams that the metadata store has deleted; gc deletes their objects."""
        for stream_id in stream_ids:
            if (log := self._logs.get(stream_id)) is not None:
                log.deleted = True
            self._drop(stream_id)
        self.appender.relieve()

    def _drop(self, stream_id: int) -> None:
        """What is known here of a stream that is not ours any more."""
        log = self._logs.pop(stream_id, None)
        if log is not None:
            log.gone = True
            if self.appender.dirty.pop(stream_id, None) is not None:
                self.appender.unuploaded_bytes -= log.unuploaded_bytes
            self.cache.evict_stream(log)
        self._objects.remove(stream_id)

    # -- capacity ----------------------------------------------------------------------------------------------------

    def try_reserve(self, size_bytes: int) -> bool:
        """Reserve WAL and memory for chunks of this many bytes; False if either is full. Fenced or Closed when appends
        have ended."""
        return self.appender.try_reserve(size_bytes)

    async def reserve(self, size_bytes: int, timeout_s: float) -> None:
        """Wait for capacity. Full or Unavailable after timeout_s, Invalid if it can never fit."""
        await self.appender.reserve(size_bytes, timeout_s)

    def release(self, size_bytes: int) -> None:
        """Give back what was reserved and not used."""
        self.appender.release(size_bytes)

    # -- the end -----------------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Upload now; returns when all that was appended before lies in committed objects, however long it takes."""
        await self.uploader.flush()

    async def close(self) -> None:
        await self._tasks.stop()
        await self._wal.close()
        self.appender.close()
        self.uploader.abort()
        self.read_throttle.close()
        await self.blocks.close()
        for account, size in self._claimed.items():
            self._budget.give(account, size)
        self._claimed.clear()

    def _failed(self, error: BaseException) -> None:
        self.uploader.abort()
        self._on_fatal(error)

    def _claim_memory(self) -> None:
        """Caches have a fixed share, so that no other account can starve an upload, nor they another account."""
        for account, size in {**self._settings.memory_bytes(), "wal_read": self._wal.read_cache_bytes}.items():
            if not self._budget.try_take(account, size):
                raise Invalid(
                    f"the memory budget of {self._budget.total_bytes} bytes has {self._budget.free_bytes} left, but"
                    f" {account} needs {size}: raise memory.total_bytes or lower the caches"
                )
            self._claimed[account] = size
