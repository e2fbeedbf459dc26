"""What every Wal does. A test class inherits this and gives `place`, the storage on which WALs follow one another."""

import asyncio
from typing import Protocol

import pytest

from streamlake.core.errors import Closed, Full, NotFound
from streamlake.s3stream.wal import Wal, WalRecord


class WalPlace(Protocol):
    record_bytes_max: int  # the largest record that fits

    def make(self) -> Wal:
        """A WAL on this storage, not yet recovered; the one before it was closed."""
        ...


class Watcher:
    """The callbacks of a WAL, kept."""

    def __init__(self) -> None:
        self.durable: list[int] = []
        self.failed: list[BaseException] = []
        self._changed = asyncio.Event()

    def on_durable(self, position: int) -> None:
        self.durable.append(position)
        self._changed.set()

    def on_failed(self, error: BaseException) -> None:
        self.failed.append(error)
        self._changed.set()

    async def until(self, position: int) -> None:
        while not self.failed and (not self.durable or self.durable[-1] < position):
            self._changed.clear()
            await self._changed.wait()

    async def until_failed(self) -> None:
        while not self.failed:
            self._changed.clear()
            await self._changed.wait()


def record(n: int, size_bytes: int = 100) -> WalRecord:
    return WalRecord(n % 7, n % 3, 1000 * n, 1 + n % 5, -n, bytes([n % 251]) * size_bytes)


async def started(wal: Wal, trim_position: int = 0) -> tuple[list[tuple[int, WalRecord]], Watcher]:
    """Recover and start; what was replayed, and the watcher."""
    replayed = [entry async for entry in wal.recover(trim_position)]
    watcher = Watcher()
    await wal.start(watcher.on_durable, watcher.on_failed)
    return replayed, watcher


def append(wal: Wal, *records: WalRecord) -> list[int]:
    positions = []
    for each in records:
        assert wal.try_reserve(len(each.data))
        positions.append(wal.append(each))
    return positions


class WalContract:
    async def test_a_new_wal_is_empty(self, place: WalPlace) -> None:
        wal = place.make()
        replayed, _ = await started(wal)
        assert (replayed, wal.durable_position) == ([], 0)
        with pytest.raises(NotFound):
            await wal.read(1)
        await wal.close()

    async def test_what_is_durable_is_replayed_in_order(self, place: WalPlace) -> None:
        wal = place.make()
        _, watcher = await started(wal)
        records = [record(n, size_bytes=n) for n in range(1, 40)]
        positions = append(wal, *records)
        assert positions == list(range(1, 40)), "one position per record"
        await watcher.until(39)
        assert watcher.durable == sorted(set(watcher.durable))
        assert wal.durable_position == 39
        await wal.close()

        again = place.make()
        replayed, watcher = await started(again)
        assert replayed == list(zip(positions, records, strict=True))
        assert again.durable_position == 39
        assert append(again, record(40)) == [40]
        await watcher.until(40)
        await again.close()

    async def test_close_makes_queued_records_durable(self, place: WalPlace) -> None:
        wal = place.make()
        await started(wal)
        append(wal, record(1), record(2))
        await wal.close()
        await wal.close()
        with pytest.raises(Closed):
            wal.append(record(3))
        again = place.make()
        replayed, _ = await started(again)
        assert [position for position, _ in replayed] == [1, 2]
        await again.close()

    async def test_trimmed_records_are_gone_and_positions_never_repeat(self, place: WalPlace) -> None:
        wal = place.make()
        _, watcher = await started(wal)
        append(wal, *(record(n) for n in range(1, 11)))
        await watcher.until(10)
        await wal.trim(4)
        await wal.trim(2)
        with pytest.raises(NotFound):
            await wal.read(4)
        assert await wal.read(5) == record(5)
        await wal.close()

        again = place.make()
        replayed, watcher = await started(again, trim_position=4)
        assert [position for position, _ in replayed] == [5, 6, 7, 8, 9, 10]
        await again.trim(10)
        await again.close()

        last = place.make()
        replayed, watcher = await started(last, trim_position=10)
        assert replayed == []
        assert append(last, record(11)) == [11]
        await watcher.until(11)
        await last.close()

    async def test_durable_records_can_be_read_back(self, place: WalPlace) -> None:
        wal = place.make()
        _, watcher = await started(wal)
        append(wal, *(record(n, size_bytes=500) for n in range(1, 50)))
        await watcher.until(49)
        assert [await wal.read(n) for n in (1, 49, 17, 18)] == [record(n, size_bytes=500) for n in (1, 49, 17, 18)]
        with pytest.raises(NotFound):
            await wal.read(50)
        await wal.close()
        again = place.make()
        await started(again)
        assert await again.read(30) == record(30, size_bytes=500)
        await again.close()

    async def test_a_memoryview_is_as_good_as_bytes(self, place: WalPlace) -> None:
        wal = place.make()
        _, watcher = await started(wal)
        append(wal, WalRecord(1, 2, 3, 4, 5, memoryview(b"xabcx")[1:4]))
        await watcher.until(1)
        assert await wal.read(1) == WalRecord(1, 2, 3, 4, 5, b"abc")
        await wal.close()

    async def test_full_pushes_back_until_a_trim_makes_room(self, place: WalPlace) -> None:
        wal = place.make()
        _, watcher = await started(wal)
        size_bytes = place.record_bytes_max // 4
        n = 0
        while True:
            try:
                await wal.reserve(size_bytes, timeout_s=0.05)
            except Full as error:
                assert "room" in str(error)
                break
            n += 1
            assert wal.append(record(n, size_bytes)) == n
            await watcher.until(n)
        assert n >= 4, "a WAL holds more than one segment"
        assert not wal.try_reserve(size_bytes)
        waiting = asyncio.create_task(wal.reserve(size_bytes, timeout_s=60))
        await asyncio.sleep(0)
        await wal.trim(n)
        await waiting
        assert wal.append(record(n + 1, size_bytes)) == n + 1
        await watcher.until(n + 1)
        await wal.close()

    async def test_what_is_released_can_be_reserved_again(self, place: WalPlace) -> None:
        wal = place.make()
        await started(wal)
        for _ in range(1000):
            await wal.reserve(place.record_bytes_max, timeout_s=60)
            wal.release(place.record_bytes_max)
        await wal.close()

    async def test_more_than_the_wal_holds_goes_through_it(self, place: WalPlace) -> None:
        """Segments are recycled many times; nothing of a former use comes back."""
        wal = place.make()
        _, watcher = await started(wal)
        for n in range(1, 200):
            await wal.reserve(place.record_bytes_max // 3, timeout_s=60)
            wal.append(record(n, place.record_bytes_max // 3 - n))
            await watcher.until(n)
            await wal.trim(n - 2 if n > 2 else 0)
        await wal.close()
        again = place.make()
        replayed, _ = await started(again, trim_position=197)
        assert [position for position, _ in replayed] == [198, 199]
        assert replayed[1][1] == record(199, place.record_bytes_max // 3 - 199)
        await again.close()
