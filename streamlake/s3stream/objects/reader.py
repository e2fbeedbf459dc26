"""Reads committed objects: finds the object, its index, the block; adjacent blocks come with one range request.

An index is read with one request for the end of the object, in most cases. A block comes together with neighbours of
the same stream that the caller wants too (`want_bytes`), or will want as it reads on sequentially: then also the next
ones are on their way while the last of these is served.

A reader that catches up reads object after object. When a good part of an object was asked for, by any reader, the
next one is fetched whole, with one request. A reader of one stream among a hundred never causes that.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from streamlake.core.errors import Corrupt
from streamlake.s3stream.objects.block_cache import BlockCache, Extent, Key, Loaded
from streamlake.s3stream.objects.format import (
    FOOTER,
    Block,
    ObjectIndex,
    decode_block,
    decode_footer,
    decode_index,
    object_key,
)
from streamlake.s3stream.objects.map import UNKNOWN_TIMESTAMP, ObjectMap, RangeInObject
from streamlake.s3stream.store.port import ObjectStore

log = structlog.get_logger(__name__)

TAIL_BYTES = 64 * 1024
INDEX_ROW = -1
HELD_BYTES_MAX = 1 << 20  # of memory, that a slow client keeps alive with a block
GOOD_PART = 0.25  # of an object's blocks: at worst four times what readers want is fetched
OBJECTS_WATCHED_MAX = 256  # of how many objects we know what was read; the least recently read is forgotten first
DAMAGED_READS_PER_LINE = 1000


@dataclass(frozen=True, slots=True)
class BlockRef:
    """A block of a stream as its object's index describes it."""

    entry: RangeInObject
    row: int
    start_offset: int
    end_offset: int
    max_timestamp: int
    bytes_behind: int  # of the chunks in the stream's later blocks of the same object


class ObjectReader:
    """`whole_objects_max`: how many are fetched whole at once; 0 if the cache is too small for them."""

    def __init__(
        self,
        store: ObjectStore,
        objects: ObjectMap,
        cache: BlockCache,
        read_ahead_bytes: int,
        whole_objects_max: int,
    ) -> None:
        self._store = store
        self._objects = objects
        self._cache = cache
        self._read_ahead_bytes = read_ahead_bytes
        self._whole_objects = asyncio.Semaphore(whole_objects_max)
        self._rows_read: OrderedDict[int, set[int]] = OrderedDict()  # by object, of sequential readers
        self.damaged_reads = 0

    async def block_at(
        self, stream_id: int, entry: RangeInObject, offset: int, want_bytes: int, *, sequential: bool
    ) -> Block:
        """The block that holds `offset` in the range `entry`. NotFound if the object is gone, Corrupt."""
        index = await self.index(entry)
        with self._naming(entry):
            row = index.block_at(stream_id, offset)
        limit = self._read_ahead_bytes if sequential else min(want_bytes, self._read_ahead_bytes)
        block = await self._block(stream_id, entry, index, row, limit)
        following = (entry.object_id, row + 1)
        if sequential and row + 1 in index.blocks_of(stream_id) and not self._cache.has(following):
            self._cache.start(*self._plan(stream_id, entry, index, row + 1, limit))
        if sequential and self._rows_known(entry, row) >= GOOD_PART * len(index.starts):
            self._fetch_whole(self._objects.find(stream_id, entry.end_offset))
        return block

    def _rows_known(self, entry: RangeInObject, row: int) -> int:
        """How many blocks of this object were read, `row` included."""
        rows = self._rows_read.setdefault(entry.object_id, set())
        rows.add(row)
        self._rows_read.move_to_end(entry.object_id)
        if len(self._rows_read) > OBJECTS_WATCHED_MAX:
            self._rows_read.popitem(last=False)
        return len(rows)

    def _fetch_whole(self, entry: RangeInObject | None) -> None:
        """In the background. Where the index is known, the object was fetched already, or is read piece by extent."""
        if entry is None or self._whole_objects.locked() or self._cache.has((entry.object_id, INDEX_ROW)):
            return
        self._cache.start([(entry.object_id, INDEX_ROW)], lambda: self._load_whole(entry))

    async def block(self, stream_id: int, ref: BlockRef) -> Block:
        return await self._block(stream_id, ref.entry, await self.index(ref.entry), ref.row, 0)

    async def blocks(
        self, stream_id: int, start: int, end: int, skip: Callable[[RangeInObject], bool]
    ) -> AsyncIterator[BlockRef]:
        """The blocks of a stream that overlap [start, end), in order; ranges for which `skip` says so are left out."""
        offset = start
        while offset < end and (entry := self._objects.find(stream_id, offset)) is not None:
            offset = entry.end_offset
            await asyncio.sleep(0)  # thousands of ranges may be known, and nothing below may have to wait
            if entry.max_timestamp != UNKNOWN_TIMESTAMP and skip(entry):
                continue
            index = await self.index(entry)
            rows = index.blocks_of(stream_id)
            if not rows:
                raise Corrupt(f"object {object_key(entry.object_id)} has no data of stream {stream_id}")
            self.learn(stream_id, entry, index)
            for row in rows:
                if index.ends[row] > start and index.starts[row] < end:
                    behind = index.data_bytes(row + 1, rows.stop)
                    yield BlockRef(entry, row, index.starts[row], index.ends[row], index.max_timestamps[row], behind)

    def learn(self, stream_id: int, entry: RangeInObject, index: ObjectIndex) -> None:
        """What the index of a range's object says about the range, unless that is known."""
        if entry.max_timestamp == UNKNOWN_TIMESTAMP:
            rows = index.blocks_of(stream_id)
            data_bytes = index.data_bytes(rows.start, rows.stop)
            self._objects.learn(stream_id, entry, data_bytes, max(index.max_timestamps[rows.start : rows.stop]))

    async def index(self, entry: RangeInObject) -> ObjectIndex:
        """The index of the range's object. NotFound if that is gone, Corrupt."""
        key: Key = (entry.object_id, INDEX_ROW)

        async def load() -> Loaded:
            index = await self._load_index(entry)
            return [Extent({key: index}, index.memory_bytes)]

        index = await self._cache.get(key, lambda: ([key], load))
        assert isinstance(index, ObjectIndex)
        return index

    async def _load_index(self, entry: RangeInObject) -> ObjectIndex:
        key, size = object_key(entry.object_id), entry.object_size
        with self._naming(entry):
            if size < FOOTER.size:
                raise Corrupt(f"{size} bytes are too few for a stream-set object")
            start = max(0, size - TAIL_BYTES)
            tail = await self._store.get_range(key, start, size - start)
            footer = decode_footer(tail, size)
            if footer.index_position >= start:
                at = footer.index_position - start
                data = tail[at : at + footer.index_size]
            else:
                data = await self._store.get_range(key, footer.index_position, footer.index_size)
            return decode_index(data, footer)

    async def _block(self, stream_id: int, entry: RangeInObject, index: ObjectIndex, row: int, limit: int) -> Block:
        def plan() -> tuple[Sequence[Key], Callable[[], Awaitable[Loaded]]]:
            return self._plan(stream_id, entry, index, row, limit)

        block = await self._cache.get((entry.object_id, row), plan)
        assert isinstance(block, Block)
        return block

    def _plan(
        self, stream_id: int, entry: RangeInObject, index: ObjectIndex, row: int, limit: int
    ) -> tuple[list[Key], Callable[[], Awaitable[Loaded]]]:
        """The block at `row` and absent neighbours behind it, `limit` bytes at most: their keys and their loader."""
        keys: list[Key] = [(entry.object_id, row)]
        size = index.sizes[row]
        for neighbour in range(row + 1, index.blocks_of(stream_id).stop):
            size += index.sizes[neighbour]
            if size > limit or self._cache.has((entry.object_id, neighbour)):
                break
            keys.append((entry.object_id, neighbour))
        return keys, lambda: self._load_blocks(entry, index, keys)

    async def _load_whole(self, entry: RangeInObject) -> Loaded:
        """The index and all blocks."""
        async with self._whole_objects:
            data = memoryview(await self._store.get_range(object_key(entry.object_id), 0, entry.object_size))
            with self._naming(entry):
                footer = decode_footer(data, entry.object_size)
                index = decode_index(data[footer.index_position :][: footer.index_size], footer)
            loaded = [Extent({(entry.object_id, INDEX_ROW): index}, index.memory_bytes)]
            for row, (at, size) in enumerate(zip(index.positions, index.sizes, strict=True)):
                try:
                    with self._naming(entry):  # a copy: a slow client that holds a block must not hold an object
                        block = decode_block(bytes(data[at : at + size]), index, row)
                except Corrupt:
                    continue  # a bad block is reported to the reader that asks for it
                loaded.append(Extent({(entry.object_id, row): block}, size))
                await asyncio.sleep(0)  # a copy and a checksum each: together they would hold the loop
            return loaded

    async def _load_blocks(self, entry: RangeInObject, index: ObjectIndex, keys: Sequence[Key]) -> Loaded:
        begin = index.positions[keys[0][1]]
        end = index.positions[keys[-1][1]] + index.sizes[keys[-1][1]]
        data = memoryview(await self._store.get_range(object_key(entry.object_id), begin, end - begin))
        shared = len(data) <= HELD_BYTES_MAX
        blocks: dict[Key, Block] = {}
        for key in keys:
            row = key[1]
            at = index.positions[row] - begin
            try:
                with self._naming(entry):
                    block = data[at : at + index.sizes[row]]
                    blocks[key] = decode_block(block if shared else bytes(block), index, row)
            except Corrupt:
                if not blocks:
                    raise
                break  # a bad neighbour is reported to the reader that asks for it
            await asyncio.sleep(0)  # a checksum each: together they would hold the loop
        if shared:
            return [Extent(blocks, len(data))]
        return [Extent({key: block}, index.sizes[key[1]]) for key, block in blocks.items()]

    @contextmanager
    def _naming(self, entry: RangeInObject) -> Iterator[None]:
        """Add the name of the object to errors about its bytes, and log them."""
        try:
            yield
        except Corrupt as error:
            key = object_key(entry.object_id)
            self.damaged_reads += 1
            if self.damaged_reads % DAMAGED_READS_PER_LINE == 1:  # clients ask again and again
                log.error("a committed object is damaged: restore it", object=key, reason=str(error))
            raise Corrupt(f"object {key}: {error}") from error
