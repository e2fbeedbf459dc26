"""What the log counts on from a stream (streamlake/log/stream_port.py), as tests that every implementation runs.

A subclass gives a fixture `stream`, empty and from offset 0, and says how its appends become durable and reach an
object. A buffer that is read may hold several chunks, so only their concatenation counts.
"""

import asyncio

import pytest


def chunk(number: int, size: int = 100) -> bytes:
    return bytes([number]) * size


def chunks(numbers) -> bytes:
    return b"".join(map(chunk, numbers))


class LogStreamContract:
    def append(self, stream, count: int, timestamp: int, data: bytes) -> "asyncio.Future[None]":
        """Reserve room as the implementation wants it, then append."""
        return stream.append(stream.next_offset, count, timestamp, data)

    async def settle(self, stream) -> None:
        """Return once all appends are durable."""
        raise NotImplementedError

    async def upload(self, stream) -> None:
        """Return once all that is durable lies in committed objects."""
        raise NotImplementedError

    async def reopened(self, stream):
        """The stream as its next owner opens it."""
        raise NotImplementedError

    @pytest.fixture
    async def filled(self, stream):
        """Chunk i has offsets [10 i, 10 i + 10), timestamp 1000 + i, 100 bytes; six of them, durable."""
        for i in range(6):
            self.append(stream, 10, 1000 + i, chunk(i))
        await self.settle(stream)
        return stream

    async def test_appends_become_durable_in_order(self, stream) -> None:
        start, done, moved = stream.next_offset, [], []
        stream.on_durable = lambda: moved.append(stream.durable_offset)
        futures = [self.append(stream, 10, 1000, chunk(i)) for i in range(3)]
        for i, future in enumerate(futures):
            future.add_done_callback(lambda _, i=i: done.append(i))
        assert stream.next_offset == start + 30
        await self.settle(stream)
        await asyncio.gather(*futures)
        await asyncio.sleep(0)
        assert done == [0, 1, 2]
        assert stream.durable_offset == start + 30
        assert moved == sorted(moved)
        assert moved[-1] == start + 30

    async def test_reads_whole_chunks(self, filled) -> None:
        async def read(*arguments):
            return b"".join(await filled.read(*arguments))

        assert await read(0, 60, 10_000) == chunks(range(6))
        assert await read(25, 60, 10_000) == chunks((2, 3, 4, 5))
        assert await read(20, 41, 10_000) == chunks((2, 3, 4))
        assert await read(20, 40, 10_000) == chunks((2, 3))
        assert await read(0, 60, 1) == chunk(0)
        assert await read(0, 60, 250) == chunks((0, 1))
        assert await read(60, 60, 10_000) == b""

    async def test_reads_the_same_from_objects(self, filled) -> None:
        await self.upload(filled)
        assert b"".join(await filled.read(25, 60, 10_000)) == chunks((2, 3, 4, 5))

    async def test_trim(self, filled) -> None:
        await filled.trim(25)
        assert filled.start_offset == 25
        assert bytes((await filled.read(25, 60, 1))[0]) == chunk(2)
        await filled.trim(10)
        assert filled.start_offset == 25

    @pytest.mark.parametrize("uploaded", [False, True])
    async def test_time_lookups(self, filled, uploaded) -> None:
        if uploaded:
            await self.upload(filled)
        for timestamp in range(999, 1006):
            start, end = await filled.find_timestamp(timestamp, 60)
            wanted = 10 * max(timestamp - 1000, 0)
            assert start <= wanted < end <= 60
        assert await filled.find_timestamp(1006, 60) is None
        timestamp, start, end = await filled.max_timestamp(60)
        assert timestamp == 1005
        assert start <= 50 < end <= 60

    async def test_empty_stream(self, stream) -> None:
        assert await stream.find_timestamp(0, stream.durable_offset) is None
        assert await stream.max_timestamp(stream.durable_offset) is None
        assert await stream.retention_point(0, 2**62, stream.durable_offset) == (stream.start_offset, None)

    async def test_retention_point(self, filled) -> None:
        await self.upload(filled)
        assert filled.uploaded_offset == 60

        async def point(*limits: int | None) -> int:
            return (await filled.retention_point(*limits))[0]

        assert await point(None, None, 60) == 0
        assert await point(None, 1000, 60) == 0
        assert await point(10_000, None, 60) == 0
        for upto in (0, 15, 40, 60):
            assert 0 <= await point(0, 2**62, upto) <= upto
        assert await point(0, None, 60) == 60
        assert await point(None, 2000, 60) == 60
        assert await point(None, 1003, 60) <= 30
        assert await point(300, None, 60) <= 30

    async def test_retention_says_how_old_the_first_run_is_that_stays(self, filled) -> None:
        """A little later it goes, and not before."""
        await self.upload(filled)
        point, kept, moves = 0, 0, 0
        while point < 60:
            point, kept = await filled.retention_point(None, kept, 60)
            if kept is None:
                break
            assert await filled.retention_point(None, kept, 60) == (point, kept)
            assert (await filled.retention_point(None, kept + 1, 60))[0] > point
            kept, moves = kept + 1, moves + 1
        assert moves > 0
        assert await filled.retention_point(None, 2000, 60) == (60, None)
        assert await filled.retention_point(None, 0, 0) == (0, None), "what stops it is not its age"

    async def test_checkpointer_is_asked_at_an_upload(self, filled) -> None:
        asked = []
        filled.set_checkpointer(lambda: asked.append(filled.next_offset) or b"state")
        await self.upload(filled)
        assert asked
        assert asked[-1] == 60

    async def test_notes_live_as_long_as_a_checkpoint_that_brought_them_along(self, filled) -> None:
        """Those without one are noted again by the next owner, who finds them in the chunks."""
        filled.set_checkpointer(lambda: b"state at %d" % filled.next_offset)
        assert filled.notes == b""
        filled.note(20, b"twenty ")
        filled.note(60, b"sixty ")
        await self.upload(filled)
        self.append(filled, 10, 1, chunk(6))
        filled.note(70, b"seventy ")
        await self.settle(filled)
        again = await self.reopened(filled)
        assert (again.checkpoint, again.notes) == (b"state at 60", b"twenty sixty ")
        again.set_checkpointer(lambda: b"state at %d" % again.next_offset)
        again.note(70, b"seventy ")
        await again.trim(20)
        last = await self.reopened(again)
        assert (last.checkpoint, last.notes) == (b"state at 70", b"twenty sixty seventy ")
