from collections.abc import Sequence

import pytest
from contracts.log_reader_contract import LogReaderContract
from support.table_world import TOPIC, TOPIC_ID, Log


class MemoryLog:
    topic, topic_id = TOPIC, TOPIC_ID

    def __init__(self) -> None:
        self.reader = Log()

    async def produce(self, values: Sequence[bytes]) -> None:
        self.reader.produce(0, values)

    async def delete_before(self, offset: int) -> None:
        self.reader.delete_before(0, offset)


class TestMemoryLogReader(LogReaderContract):
    @pytest.fixture
    def log(self) -> MemoryLog:
        return MemoryLog()
