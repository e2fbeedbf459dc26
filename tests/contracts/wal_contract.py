"""What every Wal does. A test class inherits this and gives `place`, the storage on which WALs follow one another.

Kinds differ in how one life follows another: a file WAL goes on where it stopped, an object WAL begins anew under a new
broker epoch and leaves what was to a DrainableWal. `place.reopen` is either, and tells what was replayed.
"""

import asyncio
import struct
from typing import Protocol

import msgspec
import pytest

from streamlake.core.errors import Closed, Full, Invalid, NotFound
from streamlake.s3stream.wal.port import Wal, WalRecord

Replayed = list[tuple[int, WalRecord]]


class WalPlace(Protocol):
    record_bytes_max: int  # the largest record that fits

    def make(self) -> Wal:
        """A new WAL on empty storage, not yet recovered."""
        ...

    async def reopen(self, trim_position: int) -> "tuple[Replayed, Wal, Watcher]":
        """The next life, started; the one before it was closed. `trim_position`: of the life before."""
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


async def started(wal: Wal, trim_position: int = 0) -> tuple[Replayed, Watcher]:
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
        assert positions == sorted(set(positions)) and positions[0] > 0, "one position per record, growing"
        await watcher.until(positions[-1])
        assert watcher.durable == sorted(set(watcher.durable))
        assert wal.durable_position == positions[-1]
        await wal.close()

        replayed, again, watcher = await place.reopen(0)
        assert replayed == list(zip(positions, records, strict=True))
        (position,) = append(again, record(40))
        await watcher.until(position)
        await again.close()
        replayed, last, _ = await place.reopen(0)
        assert replayed[-1] == (position, record(40))
        await last.close()

    async def test_an_append_that_fails_changes_nothing(self, place: WalPlace) -> None:
        """More offsets than the format has room for."""
        wal = place.make()
        _, watcher = await started(wal)
        positions, records = [], [record(n) for n in range(1, 7)]
        for n, good in enumerate(records):
            positions += append(wal, good)
            if n % 3:
                await asyncio.sleep(0)  # its flush is under way
            impossible = msgspec.structs.replace(good, count=2**32)
            assert wal.try_reserve(len(impossible.data))
            with pytest.raises(struct.error):
                wal.append(impossible)
            wal.release(len(impossible.data))
            if n % 2:
                await watcher.until(positions[-1])
                await asyncio.sleep(0.02)
                assert watcher.durable[-1] == wal.durable_position == positions[-1], "nothing else was written"
        assert positions == sorted(set(positions))
        await wal.close()
        replayed, again, _ = await place.reopen(0)
        assert replayed == list(zip(positions, records, strict=True))
        await again.close()

    async def test_close_makes_queued_records_durable(self, place: WalPlace) -> None:
        wal = place.make()
        await started(wal)
        positions = append(wal, record(1), record(2))
        await wal.close()
        await wal.close()
        with pytest.raises(Closed):
            wal.append(record(3))
        replayed, again, _ = await place.reopen(0)
        assert [position for position, _ in replayed] == positions
        await again.close()

    async def test_trimmed_records_are_gone(self, place: WalPlace) -> None:
        wal = place.make()
        _, watcher = await started(wal)
        positions = append(wal, *(record(n) for n in range(1, 6)))
        await watcher.until(positions[-1])
        positions += append(wal, *(record(n) for n in range(6, 11)))
        await watcher.until(positions[-1])
        await wal.trim(positions[6])
        await wal.trim(positions[1])
        for n in (0, 5, 6):
            with pytest.raises(NotFound):
                await wal.read(positions[n])
        assert await wal.read(positions[7]) == record(8)
        await wal.close()
        replayed, again, _ = await place.reopen(positions[6])
        assert [position for position, _ in replayed] == positions[7:]
        await again.close()

    async def test_a_wal_trimmed_to_its_end_has_nothing_to_replay(self, place: WalPlace) -> None:
        wal = place.make()
        _, watcher = await started(wal)
        positions = append(wal, *(record(n) for n in range(1, 6)))
        await watcher.until(positions[-1])
        await wal.trim(positions[-1])
        await wal.close()
        replayed, again, _ = await place.reopen(positions[-1])
        assert replayed == []
        await again.close()

    async def test_durable_records_can_be_read_back(self, place: WalPlace) -> None:
        wal = place.make()
        _, watcher = await started(wal)
        positions = append(wal, *(record(n, size_bytes=500) for n in range(1, 50)))
        await watcher.until(positions[-1])
        for n in (1, 49, 17, 18):
            assert await wal.read(positions[n - 1]) == record(n, size_bytes=500)
        assert positions[4] < wal.readable_together(positions[4])
        assert wal.readable_together(positions[-1]) == positions[-1]
        with pytest.raises(NotFound):
            await wal.read(positions[-1] + 1)
        await wal.close()

    async def test_a_memoryview_is_as_good_as_bytes(self, place: WalPlace) -> None:
        wal = place.make()
        _, watcher = await started(wal)
        (position,) = append(wal, WalRecord(1, 2, 3, 4, 5, memoryview(b"xabcx")[1:4]))
        await watcher.until(position)
        assert await wal.read(position) == WalRecord(1, 2, 3, 4, 5, b"abc")
        await wal.close()

    async def test_full_pushes_back_until_a_trim_makes_room(self, place: WalPlace) -> None:
        wal = place.make()
        _, watcher = await started(wal)
        size_bytes = place.record_bytes_max // 4
        n = position = 0
        while True:
            try:
                await wal.reserve(size_bytes, timeout_s=0.05)
            except Full as error:
                assert "room" in str(error)
                break
            n += 1
            position = wal.append(record(n, size_bytes))
            await watcher.until(position)
        assert n >= 4, "a WAL holds more than one segment"
        assert not wal.try_reserve(size_bytes)
        waiting = asyncio.create_task(wal.reserve(size_bytes, timeout_s=60))
        await asyncio.sleep(0)
        await wal.trim(position)
        await waiting
        await watcher.until(wal.append(record(n + 1, size_bytes)))
        await wal.close()

    async def test_what_can_never_fit_is_invalid(self, place: WalPlace) -> None:
        wal = place.make()
        await started(wal)
        with pytest.raises(Invalid):
            wal.try_reserve(place.record_bytes_max + 1)
        with pytest.raises(Invalid):
            await wal.reserve(place.record_bytes_max + 1, 1)
        await wal.close()

    async def test_what_is_not_durable_cannot_be_trimmed(self, place: WalPlace) -> None:
        wal = place.make()
        await started(wal)
        with pytest.raises(Invalid):
            await wal.trim(1)
        await wal.close()

    async def test_what_is_released_can_be_reserved_again(self, place: WalPlace) -> None:
        wal = place.make()
        await started(wal)
        for _ in range(1000):
            await wal.reserve(place.record_bytes_max, timeout_s=60)
            wal.release(place.record_bytes_max)
        await wal.close()

    async def test_waiters_come_first_and_a_close_ends_their_wait(self, place: WalPlace) -> None:
        wal = place.make()
        await started(wal)
        await wal.reserve(place.record_bytes_max, timeout_s=60)
        while wal.try_reserve(place.record_bytes_max):
            pass
        large = asyncio.create_task(wal.reserve(place.record_bytes_max, timeout_s=60))
        await asyncio.sleep(0)
        assert not wal.try_reserve(1), "a small one does not overtake"
        await wal.close()
        with pytest.raises(Closed):
            await large

    async def test_more_than_the_wal_holds_goes_through_it(self, place: WalPlace) -> None:
        """Segments are recycled many times; nothing of an earlier use comes back."""
        wal = place.make()
        _, watcher = await started(wal)
        positions: list[int] = []
        for n in range(1, 200):
            await wal.reserve(place.record_bytes_max // 3, timeout_s=60)
            positions.append(wal.append(record(n, place.record_bytes_max // 3 - n)))
            await watcher.until(positions[-1])
            await wal.trim(positions[n - 3] if n > 2 else 0)
        await wal.close()
        replayed, again, _ = await place.reopen(positions[196])
        assert [position for position, _ in replayed] == positions[197:]
        assert replayed[1][1] == record(199, place.record_bytes_max // 3 - 199)
        await again.close()
