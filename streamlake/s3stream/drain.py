"""Drains a WAL into objects: that of an earlier life, of another kind, or of a dead broker.

    recover() of the WAL ─► log cache, part by part ─► objects, each part committed with the trim it allows

Memory is bounded by the upload trigger, whatever the WAL holds. After a crash at any point the next drain reads the WAL
again, and skips what lies below the ends of the streams. Checkpoints of the layer above are not taken, as nobody runs
it for these streams; the next owner of a stream reads its tail once.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from streamlake.core.ids import Ids
from streamlake.s3stream.log_cache import Extent, LogCache, StreamLog
from streamlake.s3stream.metadata import StreamMetadata
from streamlake.s3stream.objects.map import ObjectMap
from streamlake.s3stream.recovery import RECORDS_PER_SLICE, Replay
from streamlake.s3stream.settings import StreamsSettings
from streamlake.s3stream.store.port import ObjectStore
from streamlake.s3stream.uploader import Uploader
from streamlake.s3stream.wal.port import Buffer, DrainableWal


@dataclass(frozen=True, slots=True)
class Drained:
    records: int
    skipped_records: int  # lay in objects already, or belong to deleted streams or to those that others drain
    objects: int


async def drain(
    wal: DrainableWal,
    store: ObjectStore,
    metadata: StreamMetadata,
    ids: Ids,
    settings: StreamsSettings,
    wanted: Callable[[int], bool] = lambda stream_id: True,
) -> Drained:
    """Returns when every record of `wal` that belongs to a `wanted` stream lies in a committed object. If others drain
    the rest, the WAL may be discarded when they are done, too.

    Retries for ever while store or metadata are away. Fenced if another broker took the drain or one of the streams
    over; Corrupt if the WAL and the metadata store contradict each other.
    """
    states = {state.stream_id: state for state in await metadata.stream_states() if wanted(state.stream_id)}
    cache = LogCache(settings.log_cache_bytes, wal_readable=False)
    objects = ObjectMap()
    objects.load(await metadata.objects(), states)
    replay, backlog = Replay(states, cache), _Replayed()
    uploader = Uploader(
        settings=settings,
        store=store,
        metadata=metadata,
        ownership=asyncio.Lock(),
        wal=wal,
        appender=backlog,
        cache=cache,
        objects=objects,
        fetch=_in_memory,
        ids=ids,
    )
    backlog.last_position = await metadata.wal_trim()
    uploader.begin_at(backlog.last_position)
    records = 0
    async for position, record in wal.recover(backlog.last_position):
        log = replay.take(position, record)
        backlog.last_position = position
        records += 1
        if log is not None:
            backlog.dirty[log.stream_id] = log
            backlog.unuploaded_bytes += len(record.data)
        if backlog.unuploaded_bytes >= settings.upload_trigger_bytes:
            await uploader.round()
        elif records % RECORDS_PER_SLICE == 0:
            await asyncio.sleep(0)
    await uploader.round()
    return Drained(records, replay.skipped_records, uploader.uploads)


class _Replayed:
    """Stands in for the appender, with records that are durable already. Implements uploader.Backlog."""

    def __init__(self) -> None:
        self.last_position = 0
        self.dirty: dict[int, StreamLog] = {}
        self.unuploaded_bytes = 0
        self.on_dirty: Callable[[], None] = lambda: None
        self.on_pressure: Callable[[], None] = lambda: None

    async def until_durable(self, position: int) -> None:
        pass

    def round_end(self, begin: int) -> int:
        return self.last_position

    def relieve(self) -> None:
        pass

    def raise_if_failed(self) -> None:
        pass


async def _in_memory(extent: Extent) -> list[Buffer]:
    assert extent.view is not None, "nothing is spilled to a WAL that is being drained"
    return [extent.view]
