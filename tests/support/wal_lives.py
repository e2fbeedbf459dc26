"""Random lives of a FileWal on a disk that loses what was not synced, and the checks that must hold at each rebirth.

One seed is one story: appends, trims, reads, power cuts, kills and failing disks, also in the middle of recovery.
After each recovery: every acked record above the trim is replayed, in order, with its bytes; a record that was never
acked may be there, but only as the last life wrote it; nothing of an earlier use of a segment comes back; and no
position is given twice once it was seen durable. `Violation` says which of these broke.
"""

import asyncio
import errno
from random import Random

from simulation.world.disk import SimDisk

from streamlake.core.clock import SystemClock
from streamlake.core.errors import StreamLakeError
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor
from streamlake.s3stream.wal.file.flusher import Flusher
from streamlake.s3stream.wal.file.settings import FileWalSettings
from streamlake.s3stream.wal.file.wal import FileWal
from streamlake.s3stream.wal.port import WalRecord

SETTINGS = FileWalSettings(capacity_bytes=4 * 16384, segment_bytes=16384, group_bytes=2048)
# Mostly one length: a stale record then fits exactly behind a new one.
SIZES = (0, 30, 400, 400, 400, 400, 400, 3000, 9000)


class PowerCut(Exception):
    """Raised inside an operation of the disk: it did not happen, nor will any other."""


def power_cut_at_sync(operation: str, path: str) -> None:
    if operation == "sync":
        raise PowerCut("power")


class Violation(AssertionError):
    pass


class Life:
    def __init__(self, seed: int, *, syncs: bool = True) -> None:
        self.random = Random(seed)
        self.disk = SimDisk(syncs=syncs)
        self.acked: dict[int, WalRecord] = {}
        self.written: dict[int, WalRecord] = {}  # appended in the present life
        self.trimmed = 0
        self.serial = 0
        self.recoveries = 0
        self.replayed = 0
        self.wal = self._make()

    async def run(self, lives: int) -> None:
        for _ in range(lives):
            try:
                if await self._recover():
                    await self._work()
            finally:
                await self._end()

    def _make(self) -> FileWal:
        executor = InlineExecutor()
        flusher, ids = Flusher(executor, SystemClock()), Ids(self.random.getrandbits(32))
        return FileWal(
            "/wal", self.disk, executor=executor, flusher=flusher, ids=ids, broker_epoch=1, settings=SETTINGS
        )

    async def _recover(self) -> bool:
        self._plan_fault(chance=0.2)
        try:
            replayed = [entry async for entry in self.wal.recover(self.trimmed)]
            self._check(replayed)
            await self.wal.start(self._on_durable, lambda error: None)
        except (PowerCut, StreamLakeError) as error:
            if self.disk.before is None and not isinstance(error, PowerCut):
                raise Violation(f"recovery refused a sound WAL: {error}") from error
            return False
        return True

    def _check(self, replayed: list[tuple[int, WalRecord]]) -> None:
        self.recoveries += 1
        self.replayed += len(replayed)
        positions = [position for position, _ in replayed]
        if positions != list(range(self.trimmed + 1, self.trimmed + 1 + len(replayed))):
            raise Violation(f"replayed positions {positions} after {self.trimmed}")
        found = dict(replayed)
        for position, record in self.acked.items():
            if position > self.trimmed and found.get(position) != record:
                raise Violation(f"acked record {position} is lost or changed")
        for position, record in replayed:
            if position not in self.acked and self.written.get(position) != record:
                raise Violation(f"record {position} was resurrected")
        self.acked = found  # replayed is as good as acked: it was shown to the layers above
        self.written = {}

    async def _work(self) -> None:
        self._plan_fault(chance=0.5)
        try:
            for _ in range(self.random.randrange(self.random.choice((2, 6, 25)))):
                await self._step()
            if self.random.random() < 0.4:
                await self._die_writing()
        except StreamLakeError:
            pass  # the WAL failed, or is full

    async def _die_writing(self) -> None:
        """The power goes between the write and the sync of a group: it may be torn anywhere."""
        size_bytes = self.random.choice(SIZES)
        for _ in range(self.random.randint(1, 5)):
            self._append(size_bytes)
        self.disk.before = power_cut_at_sync
        for _ in range(4):
            await asyncio.sleep(0)

    async def _step(self) -> None:
        choice = self.random.random()
        if choice < 0.75:
            self._append(self.random.choice(SIZES))
        elif choice < 0.85 and self.wal.durable_position > self.trimmed:
            # the metadata commit that goes before a trim
            self.trimmed = self.random.randint(self.trimmed, self.wal.durable_position)
            await self.wal.trim(self.trimmed)
        elif choice < 0.9 and self.wal.durable_position > self.trimmed:
            position = self.random.randint(self.trimmed + 1, self.wal.durable_position)
            if await self.wal.read(position) != self.acked[position]:
                raise Violation(f"record {position} read back wrong")
        for _ in range(self.random.randrange(4)):
            await asyncio.sleep(0)

    def _append(self, size_bytes: int) -> None:
        if not self.wal.try_reserve(size_bytes):
            return
        self.serial += 1
        body = self.serial.to_bytes(8, "big") * (size_bytes // 8 + 1)
        record = WalRecord(self.serial % 5, 1, self.serial, 1, self.serial, body[:size_bytes])
        position = self.wal.append(record)
        if position in self.acked or position in self.written or position <= self.trimmed:
            raise Violation(f"position {position} was given twice")
        self.written[position] = record

    def _on_durable(self, position: int) -> None:
        for each in [p for p in self.written if p <= position]:
            self.acked[each] = self.written[each]

    async def _end(self) -> None:
        self.disk.before = None
        how = self.random.random()
        if how < 0.15:
            await self.wal.close()
        disk = self.disk.crash(self.random) if self.random.random() < 0.6 else self.disk.kill()
        await self.wal.close()
        self.disk = disk
        self.wal = self._make()

    def _plan_fault(self, chance: float) -> None:
        """One failure at one of the next operations: an I/O error, a full disk, or the end of power."""
        self.disk.before = None
        if self.random.random() > chance:
            return
        fault = self.random.choice((PowerCut("power"), OSError(errno.EIO, "planned"), OSError(errno.ENOSPC, "planned")))
        left = self.random.randrange(60)

        def before(operation: str, path: str) -> None:
            nonlocal left
            left -= 1
            if left < 0 and operation in ("pwrite", "sync", "sync_dir", "open", "unlink"):
                if not isinstance(fault, PowerCut):
                    left = 1 << 30  # once
                raise fault

        self.disk.before = before
