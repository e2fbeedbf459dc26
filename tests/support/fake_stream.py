"""A stream in memory whose durability the test decides: nothing is durable until `make_durable` says so."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from streamlake.core.deferred_buffer import DeferredBuffer
from streamlake.core.errors import Closed, NotFound
from streamlake.log.stream_port import Buffer


@dataclass(frozen=True)
class Chunk:
    base_offset: int
    end_offset: int
    max_timestamp: int
    data: bytes


class FakeStream:
    """`reopen` gives the stream as its next owner finds it. Runs of chunks (data blocks) are RUN chunks long."""

    RUN = 2

    def __init__(self, stream_id: int = 1, start_offset: int = 0) -> None:
        self.stream_id = stream_id
        self.epoch = 1
        self.start_offset = start_offset
        self.next_offset = start_offset
        self.durable_offset = start_offset
        self.checkpoint = b""
        self.checkpoint_offset = start_offset
        self.notes = b""
        self.epochs: tuple[tuple[int, int], ...] = ((1, start_offset),)
        self.on_durable: Callable[[], None] | None = None
        self.auto_durable = False
        self.before_answer: Callable[[], None] = lambda: None  # runs while a caller awaits retention_point or read
        self._chunks: list[Chunk] = []
        self._futures: list[tuple[int, asyncio.Future[None]]] = []
        self._dead: Exception | None = None
        self._checkpointer: Callable[[], bytes] = lambda: b""
        self._uploads: list[tuple[int, bytes, bytes]] = [(start_offset, b"", b"")]
        self._noted: dict[int, bytes] = {}

    @property
    def uploaded_offset(self) -> int:
        return self.durable_offset

    @property
    def size_bytes(self) -> int:
        return sum(len(c.data) for c in self._chunks)

    def set_checkpointer(self, checkpointer: Callable[[], bytes]) -> None:
        self._checkpointer = checkpointer

    def note(self, end_offset: int, data: bytes) -> None:
        self._noted[end_offset] = data

    def append(
        self, base_offset: int, count: int, max_timestamp: int, data: Buffer | DeferredBuffer
    ) -> "asyncio.Future[None]":
        if self._dead:
            raise Closed("the write-ahead log has failed") from self._dead
        assert base_offset == self.next_offset
        whole = bytearray(len(data))
        if isinstance(data, bytes | memoryview):
            whole[:] = data
        else:
            data.copy_to(whole, 0)
        self._chunks.append(Chunk(base_offset, base_offset + count, max_timestamp, bytes(whole)))
        self.next_offset += count
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._futures.append((self.next_offset, future))
        if self.auto_durable:
            self.make_durable()
        return future

    def make_durable(self, offset: int | None = None) -> None:
        """All that was appended up to `offset`, or simply all."""
        assert self._dead is None
        self.durable_offset = self.next_offset if offset is None else offset
        while self._futures and self._futures[0][0] <= self.durable_offset:
            self._futures.pop(0)[1].set_result(None)
        if self.on_durable:
            self.on_durable()

    def fail(self, error: Exception) -> None:
        """The write-ahead log fails: so does everything that is not durable."""
        self._dead = error
        for _, future in self._futures:
            future.set_exception(error)
        self._futures.clear()

    def upload(self) -> None:
        """Cut here: the checkpoint is taken now, and counts once all before it is durable."""
        self._uploads.append((self.next_offset, self._checkpointer(), self.notes + b"".join(self._noted.values())))

    def reopen(self) -> "FakeStream":
        again = FakeStream(self.stream_id, self.start_offset)
        again.epoch = self.epoch + 1
        again._chunks = [c for c in self._chunks if c.end_offset <= self.durable_offset]
        again.next_offset = again.durable_offset = self.durable_offset
        again.epochs = (*self.epochs, (again.epoch, again.durable_offset))
        again._uploads = [u for u in self._uploads if u[0] <= self.durable_offset]
        again.checkpoint_offset, again.checkpoint, again.notes = again._uploads[-1]
        return again

    def _durable(self, start_offset: int, end_offset: int) -> list[Chunk]:
        end_offset = min(end_offset, self.durable_offset)
        return [c for c in self._chunks if c.end_offset > start_offset and c.base_offset < end_offset]

    async def read(self, start_offset: int, end_offset: int, max_bytes: int) -> list[bytes]:
        await asyncio.sleep(0)
        self.before_answer()
        if start_offset < self.start_offset:
            raise NotFound(f"offset {start_offset} was deleted")
        taken: list[bytes] = []
        for chunk in self._durable(start_offset, end_offset):
            if taken and sum(map(len, taken)) + len(chunk.data) > max_bytes:
                break
            taken.append(chunk.data)
        return taken

    def _runs(self, end_offset: int) -> Iterator[list[Chunk]]:
        chunks = self._durable(self.start_offset, end_offset)
        return (chunks[i : i + self.RUN] for i in range(0, len(chunks), self.RUN))

    async def find_timestamp(self, timestamp: int, end_offset: int) -> tuple[int, int] | None:
        for run in self._runs(end_offset):
            if max(c.max_timestamp for c in run) >= timestamp:
                return run[0].base_offset, run[-1].end_offset
        return None

    async def max_timestamp(self, end_offset: int) -> tuple[int, int, int] | None:
        runs = [
            (max(c.max_timestamp for c in run), run[0].base_offset, run[-1].end_offset)
            for run in self._runs(end_offset)
        ]
        return max(runs, key=lambda run: run[0], default=None)

    async def retention_point(
        self, keep_bytes: int | None, min_timestamp: int | None, upto_offset: int
    ) -> tuple[int, int | None]:
        await asyncio.sleep(0)
        point, kept, left_bytes = self.start_offset, None, self.size_bytes
        for run in self._runs(upto_offset):
            left_bytes -= sum(len(c.data) for c in run)
            newest = max(c.max_timestamp for c in run)
            too_old = min_timestamp is not None and newest < min_timestamp
            too_much = keep_bytes is not None and left_bytes >= keep_bytes
            if run[-1].end_offset > upto_offset:
                break
            if not (too_old or too_much):
                kept = newest
                break
            point = run[-1].end_offset
        self.before_answer()
        return point, kept

    async def trim(self, start_offset: int, *, spares_held: bool = False) -> None:
        assert start_offset <= self.durable_offset
        self.upload()  # the checkpoint goes with the trim
        self.start_offset = max(self.start_offset, start_offset)
        self._chunks = [c for c in self._chunks if c.end_offset > self.start_offset]
