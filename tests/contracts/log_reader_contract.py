"""What a table task counts on in a LogReader. Subclass with `log` (see LogUnderTest) in a fixture."""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

import pytest

from streamlake.record.arrow import decode_fetched
from streamlake.table.task.log_reader import Fetched, LogReader, PartitionPositions

MANY = 1 << 20


class LogUnderTest(Protocol):
    """A topic of one partition that the test fills."""

    topic: str
    topic_id: UUID
    reader: LogReader

    async def produce(self, values: Sequence[bytes]) -> None: ...
    async def delete_before(self, offset: int) -> None: ...


class LogReaderContract:
    @pytest.fixture
    def log(self) -> LogUnderTest:
        raise NotImplementedError

    async def fetch(self, log: LogUnderTest, offset: int, max_bytes: int = MANY) -> Fetched:
        return await log.reader.fetch(log.topic, log.topic_id, 0, offset, max_bytes)

    async def test_positions_grow_with_the_log(self, log: LogUnderTest) -> None:
        assert await log.reader.positions(log.topic, log.topic_id, [0]) == {0: PartitionPositions(0, 0)}
        await log.produce([b"a", b"b", b"c"])
        assert await log.reader.positions(log.topic, log.topic_id, [0]) == {0: PartitionPositions(0, 3)}

    async def test_partitions_that_do_not_exist_are_left_out(self, log: LogUnderTest) -> None:
        assert set(await log.reader.positions(log.topic, log.topic_id, [0, 1, 2])) == {0}

    async def test_fetches_whole_batches_from_the_one_that_holds_the_offset(self, log: LogUnderTest) -> None:
        await log.produce([b"a", b"b", b"c"])
        await log.produce([b"d"])
        fetched = await self.fetch(log, 1)
        assert (fetched.log_start_offset, fetched.last_stable_offset) == (0, 4)
        decoded = decode_fetched(fetched.data, 1, fetched.aborted, MANY)
        assert decoded.table["value"].to_pylist() == [b"b", b"c", b"d"]
        assert decoded.next_offset == 4

    async def test_gives_one_batch_however_little_is_asked_for(self, log: LogUnderTest) -> None:
        await log.produce([b"a" * 1000])
        fetched = await self.fetch(log, 0, max_bytes=1)
        assert decode_fetched(fetched.data, 0, (), MANY).next_offset == 1

    async def test_nothing_at_the_end(self, log: LogUnderTest) -> None:
        await log.produce([b"a"])
        fetched = await self.fetch(log, 1)
        assert (len(fetched.data), fetched.last_stable_offset) == (0, 1)

    async def test_below_the_log_start(self, log: LogUnderTest) -> None:
        for value in (b"a", b"b", b"c"):
            await log.produce([value])
        await log.delete_before(2)
        fetched = await self.fetch(log, 0)
        assert (len(fetched.data), fetched.log_start_offset) == (0, 2)

    async def test_beyond_the_end(self, log: LogUnderTest) -> None:
        await log.produce([b"a"])
        fetched = await self.fetch(log, 7)
        assert (len(fetched.data), fetched.last_stable_offset) == (0, 1)
