"""Random lives of an ObjectWal on a store that loses answers and lets puts land late, and the ledger that must hold.

One seed is one story: brokers append, trim, die or are left behind as zombies that go on; each successor drains what
was left, may die at any await of it, or be left behind itself; then it writes under its own epoch. For every epoch:

- what is replayed is what was appended from the trim on, in order, without a gap; all recoveries end at the same record;
- what was ever acknowledged, by a zombie after all that too, was replayed (or trimmed before);
- nobody is fenced who has no successor, no successor finds damage, and fences and marks are all that is left in the end.

`Violation` says which of these broke.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from streamlake.core.errors import Exists, Fenced, NotFound, OutcomeUnknown, StreamLakeError, Unavailable
from streamlake.core.ids import Ids
from streamlake.s3stream.store.port import Buffer, ObjectMeta
from streamlake.s3stream.wal.object.format import HEADER_BYTES
from streamlake.s3stream.wal.object.recovery import ObjectWalRecovery, sweep
from streamlake.s3stream.wal.object.settings import ObjectWalSettings
from streamlake.s3stream.wal.object.wal import ObjectWal
from streamlake.s3stream.wal.port import WalRecord

SETTINGS = ObjectWalSettings(
    object_bytes=4096,
    linger_ms=0,
    uploads_max=4,
    unflushed_bytes_max=65536,
    capacity_bytes=262144,
    retry_first_ms=0,
    retry_max_ms=0,
)
NODE = 3
SIZES = (0, 30, 400, 1500, 3900, 6000)


class Violation(AssertionError):
    pass


class ChaosStore:
    """Any call may take long, fail, be applied with its answer lost, or land long after it failed or was cancelled."""

    requests_cost = True

    def __init__(self, random: Random) -> None:
        self.objects: dict[str, bytes] = {}
        self.chaos = random.choice((0.0, 0.1, 0.4))
        self._random = random
        self._late: list[asyncio.Task[None]] = []

    async def create(self, key: str, parts: Sequence[Buffer]) -> None:
        data = b"".join(parts)

        def apply() -> None:
            if key in self.objects:
                raise Exists(key)
            self.objects[key] = data

        await self._change(apply)

    async def delete(self, keys: Sequence[str]) -> None:
        def apply() -> None:
            for key in keys:
                self.objects.pop(key, None)

        await self._change(apply)

    async def get(self, key: str) -> bytes:
        await self._pause()
        if self._random.random() < self.chaos:
            raise Unavailable(key)
        data = self.objects.get(key)
        await self._pause()
        if data is None:
            raise NotFound(key)
        return data

    async def list(self, prefix: str) -> AsyncIterator[ObjectMeta]:
        for key in sorted(key for key in self.objects if key.startswith(prefix)):
            yield ObjectMeta(key, len(self.objects[key]))

    async def settle(self) -> None:
        self.chaos = 0.0
        for task in self._late:
            await task

    async def _change(self, apply: Callable[[], None]) -> None:
        try:
            await self._pause()
        except asyncio.CancelledError:
            if self._random.random() < 0.5:
                self._land_later(apply)
            raise
        if self._random.random() >= self.chaos:
            apply()
            await self._pause()
            return
        what = self._random.choice(("nothing", "lost", "applied", "late"))
        if what == "nothing":
            raise Unavailable("planned")
        if what == "applied":
            try:
                apply()
            except Exists:
                pass
        elif what == "late":
            self._land_later(apply)
        raise OutcomeUnknown("planned")

    def _land_later(self, apply: Callable[[], None]) -> None:
        async def land() -> None:
            await turns(self._random.randrange(300))
            try:
                apply()
            except Exists:
                pass

        self._late.append(asyncio.get_running_loop().create_task(land()))

    async def _pause(self) -> None:
        await turns(self._random.randrange(400 if self._random.random() < 0.03 else 4))


class Epoch:
    """The ledger of one broker epoch."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.appended: list[tuple[int, WalRecord]] = []
        self.acked_position = 0
        self.trim = 0
        self.end: int | None = None  # last position that recoveries replay
        self.successors = 0
        self.discarders: list[int] = []

    def above(self, position: int) -> list[tuple[int, WalRecord]]:
        return [entry for entry in self.appended if entry[0] > position]


class Lives:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.store: Any = ChaosStore(self.random)
        self.epochs: list[Epoch] = []
        self.undrained: list[Epoch] = []
        self.current = 0  # the epoch that may commit; the metadata store refuses all others
        self.serial = 0
        self.violations: list[str] = []
        self.wals: list[ObjectWal] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.counts = {"replayed": 0, "fenced": 0, "acked_by_zombies": 0, "recoveries": 0}

    async def run(self) -> None:
        for _ in range(self.random.randint(1, 5)):
            if await self._recover():
                await self._live()
        await self._end()
        if self.violations:
            raise Violation(self.violations[0])

    # -- recovering ----------------------------------------------------------------------------------------------------

    async def _recover(self, *, surely: bool = False) -> bool:
        """Drain all that is left; False if this life ends over it."""
        self.current += 1
        for epoch in self.undrained.copy():
            epoch.successors += 1
            task = self._spawn(self._drain(epoch, self.current))
            if not surely and self.random.random() < 0.3:
                await turns(self.random.randrange(80))
                if self.random.random() < 0.5:
                    task.cancel()  # dead; else it goes on as a zombie
                    await asyncio.wait([task])
                return False
            await asyncio.wait([task])
            if epoch in self.undrained:
                return False
        return True

    async def _drain(self, epoch: Epoch, me: int) -> None:
        recovery = ObjectWalRecovery(
            self.store, node=NODE, epoch=epoch.number, fencing_epoch=me, ids=self._ids(), settings=SETTINGS
        )
        start, found = epoch.trim, []
        try:
            async for position, record in recovery.recover(start):
                found.append((position, copied(record)))
                if self.random.random() < 0.1:
                    await turns(self.random.randrange(20))
                if me == self.current and self.random.random() < 0.1:
                    epoch.trim = max(epoch.trim, position)
                    await recovery.trim(position)
        except Fenced as error:
            if me == self.current:
                self.violations.append(f"the newest is fenced: {error}")
            return
        except StreamLakeError as error:
            self.violations.append(f"epoch {epoch.number}: {error!r}")
            return
        self._check_replay(epoch, me, start, found)
        if me != self.current:
            return
        if found:
            epoch.trim = max(epoch.trim, found[-1][0])
        await turns(self.random.randrange(10))
        epoch.discarders.append(me)
        await recovery.discard()
        if epoch in self.undrained:
            self.undrained.remove(epoch)

    def _check_replay(self, epoch: Epoch, me: int, start: int, found: list[tuple[int, WalRecord]]) -> None:
        self.counts["recoveries"] += 1
        self.counts["replayed"] += len(found)
        expected = epoch.above(start)
        if found != expected[: len(found)]:
            self.violations.append(f"epoch {epoch.number}: replayed {positions(found)}, not {positions(expected)}")
        # What an older recovery discards is committed: then it does not matter how much of it is still seen.
        if any(discarder <= me for discarder in epoch.discarders):
            return
        end = found[-1][0] if found else start
        if epoch.end is not None and end != epoch.end:
            self.violations.append(f"epoch {epoch.number}: one recovery ends at {epoch.end}, another at {end}")
        epoch.end = end

    # -- living --------------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        epoch = Epoch(self.current)
        self.epochs.append(epoch)
        self.undrained.append(epoch)
        settings = replace(SETTINGS, linger_ms=self.random.choice((0, 3_600_000)))
        wal = ObjectWal(self.store, node=NODE, broker_epoch=epoch.number, ids=self._ids(), settings=settings)
        self.wals.append(wal)
        async for _ in wal.recover(0):
            self.violations.append("a new epoch is not empty")

        def on_durable(position: int) -> None:
            if position <= epoch.acked_position:
                self.violations.append(f"acked {position} after {epoch.acked_position}")
            epoch.acked_position = position
            if epoch.end is not None:
                self.counts["acked_by_zombies"] += 1

        def on_failed(error: BaseException) -> None:
            self.counts["fenced"] += 1
            if not isinstance(error, Fenced):
                self.violations.append(f"failed: {error}")
            if not epoch.successors:
                self.violations.append(f"epoch {epoch.number} was fenced without a successor")

        await wal.start(on_durable, on_failed)
        await self._work(epoch, wal)
        how = self.random.random()
        if how < 0.3:
            self._spawn(self._work(epoch, wal))  # left behind, and goes on
        elif how < 0.6:
            closing = self._spawn(wal.close())
            await turns(self.random.randrange(10))
            closing.cancel()
            await asyncio.wait([closing])
        elif how < 0.8:
            await wal.close()

    async def _work(self, epoch: Epoch, wal: ObjectWal) -> None:
        for _ in range(self.random.choice((1, 5, 30))):
            choice = self.random.random()
            size_bytes = self.random.choice(SIZES)
            try:
                if choice < 0.8 and wal.try_reserve(size_bytes):
                    self.serial += 1
                    body = (self.serial.to_bytes(8, "big") * (size_bytes // 8 + 1))[:size_bytes]
                    record = WalRecord(self.serial % 5, 1, self.serial, 1, self.serial, body)
                    epoch.appended.append((wal.append(record), record))
                elif choice < 0.9 and epoch.number == self.current and wal.durable_position:
                    durable = [p for p, _ in epoch.appended if p <= wal.durable_position]
                    position = self.random.choice(durable)
                    epoch.trim = max(epoch.trim, position)  # the metadata commit that goes before a trim
                    await wal.trim(position)
            except StreamLakeError:
                return  # fenced, or closed
            await turns(self.random.randrange(5))

    # -- the end -------------------------------------------------------------------------------------------------------

    async def _end(self) -> None:
        while not await self._recover(surely=True) or self.undrained:
            if self.violations:
                break
        for task in self.tasks:
            if self.violations:
                task.cancel()
            await asyncio.wait([task])
        await self.store.settle()
        for wal in self.wals:
            closing = asyncio.create_task(wal.close())
            for _ in range(0 if self.violations else 500):
                if not closing.done():
                    await turns(10)
            if not closing.done() and not self.violations:
                self.violations.append("a zombie is neither fenced nor done")
            closing.cancel()
            await asyncio.wait([closing])
        await self.store.settle()
        for epoch in self.epochs:
            if epoch.end is not None and epoch.acked_position > max(epoch.end, epoch.trim):
                self.violations.append(f"epoch {epoch.number}: acked {epoch.acked_position}, replayed to {epoch.end}")
        await sweep(self.store, NODE, self.current)
        left = [key for key, data in self.store.objects.items() if len(data) > HEADER_BYTES]
        if left:
            self.violations.append(f"left behind: {left}")

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.append(task)
        return task

    def _ids(self) -> Ids:
        return Ids(self.random.getrandbits(32))


def copied(r: WalRecord) -> WalRecord:
    return WalRecord(r.stream_id, r.stream_epoch, r.base_offset, r.count, r.max_timestamp, bytes(r.data))


def positions(entries: list[tuple[int, WalRecord]]) -> list[int]:
    return [position for position, _ in entries]


async def turns(n: int) -> None:
    for _ in range(n):
        await asyncio.sleep(0)
