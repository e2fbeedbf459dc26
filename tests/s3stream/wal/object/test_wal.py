"""ObjectWal: the WAL contract on two stores, batches, acks in order, unclear answers, fences, and random lives."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from contracts.wal_contract import WalContract, append, record, started
from simulation.world.disk import SimDisk
from support.memory_store import MemoryStore
from support.object_wal_lives import SETTINGS, Lives, Violation, copied
from support.object_wal_place import NODE, Place

from streamlake.core.disk import RealDisk
from streamlake.core.errors import Closed, Corrupt, Exists, Fenced, Full, NotFound, Unavailable
from streamlake.core.ids import Ids
from streamlake.core.retry import TRANSIENT
from streamlake.core.tasks import InlineExecutor, ThreadExecutor
from streamlake.s3stream.store.local import LocalStore
from streamlake.s3stream.wal.object import wal as wal_module
from streamlake.s3stream.wal.object.format import (
    ENTRY_BYTES,
    HEADER_BYTES,
    ObjectHeader,
    ObjectKind,
    encode_mark,
    position_of,
)
from streamlake.s3stream.wal.object.recovery import ObjectWalRecovery
from streamlake.s3stream.wal.object.wal import OBJECT_OVERHEAD_BYTES, ObjectWal

NEVER_MS = 3_600_000


class TestOnMemoryStore(WalContract):
    @pytest.fixture
    def place(self) -> Place:
        return Place(MemoryStore())


class TestOnSimDisk(WalContract):
    @pytest.fixture
    async def place(self) -> Place:
        return Place(await LocalStore.open("/lake", SimDisk(), InlineExecutor(), Ids(9)))


class TestOnRealDisk(WalContract):
    @pytest.fixture
    async def place(self, tmp_path: Path) -> AsyncIterator[Place]:
        executor = ThreadExecutor("store", 2)
        yield Place(await LocalStore.open(str(tmp_path / "lake"), RealDisk(), executor, Ids(9)))
        executor.close()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def place(store: MemoryStore) -> Place:
    return Place(store)


async def turns(n: int = 30) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def until_calls(store: MemoryStore, operation: str, key: str, times: int = 1) -> None:
    while store.calls.count((operation, key)) < times:
        await asyncio.sleep(0)


def sizes(store: MemoryStore) -> list[int]:
    return [len(store.objects[key]) for key in sorted(store.objects)]


# -- batches -----------------------------------------------------------------------------------------------------------


async def test_what_one_tick_appends_is_one_object(place: Place, store: MemoryStore) -> None:
    wal = place.make(linger_ms=0)
    _, watcher = await started(wal)
    positions = append(wal, *(record(n) for n in range(1, 6)))
    assert positions == [position_of(1, n) for n in range(1, 6)]
    await watcher.until(positions[-1])
    assert watcher.durable == [positions[-1]]
    assert sizes(store) == [HEADER_BYTES + 5 * (ENTRY_BYTES + 100)]
    await watcher.until(append(wal, record(6))[0])
    assert len(store.objects) == 2
    assert (wal.appended_records, wal.appended_bytes, wal.writes.count) == (6, 600, 2)
    assert wal.upload_bytes == sum(sizes(store))
    assert sum(wal.writes.buckets) == 2
    assert (wal.retries, wal.unflushed_bytes, wal.used_bytes) == (0, 0, wal.upload_bytes + 2 * OBJECT_OVERHEAD_BYTES)
    await wal.close()


async def test_after_an_object_the_next_batch_waits_for_more(place: Place, store: MemoryStore) -> None:
    """However fast the store is and however steady the load: a linger makes one object, and so one request."""
    wal = place.make(linger_ms=NEVER_MS)
    _, watcher = await started(wal)
    append(wal, record(1))
    await watcher.until(position_of(1, 1))
    for n in range(2, 6):
        append(wal, record(n))
        await turns()
    assert store.calls == [("create", place.key(1))]
    await wal.close()
    assert (len(store.objects), watcher.durable[-1]) == (2, position_of(2, 4))


async def test_a_batch_goes_at_once_when_somebody_cannot_wait_for_more(place: Place, store: MemoryStore) -> None:
    wal = place.make(linger_ms=NEVER_MS)
    _, watcher = await started(wal)
    append(wal, record(1))
    await watcher.until(position_of(1, 1))
    wal.hurry()
    append(wal, record(2))
    append(wal, record(3))
    await turns()
    assert store.calls == [("create", place.key(1))], "nothing was there to hurry"
    wal.hurry()
    await watcher.until(position_of(2, 2))
    await wal.close()


async def test_when_nothing_more_comes_a_batch_goes_sooner(place: Place, store: MemoryStore) -> None:
    """Producers that wait for their answers send nothing more, however long one waits for it."""
    wal = place.make(linger_ms=60_000)
    _, watcher = await started(wal)
    store.fail("create", "slow")
    append(wal, record(1))
    await until_calls(store, "create", place.key(1))
    append(wal, record(2))
    wal._look(wal._open)  # no reason while something is on its way
    assert wal._open is not None and not wal._open.due
    store.gate.set()
    await watcher.until(position_of(1, 1))
    await turns()
    loop = asyncio.get_running_loop()
    assert wal._linger is not None and wal._linger.when() - loop.time() < 6.1, "a tenth of a linger"
    wal._active_at -= 6
    wal._look(wal._open)
    await watcher.until(position_of(2, 1))
    await wal.close()


async def test_after_a_quiet_linger_a_batch_goes_at_once(place: Place, store: MemoryStore) -> None:
    wal = place.make(linger_ms=1)
    _, watcher = await started(wal)
    append(wal, record(1))
    await watcher.until(position_of(1, 1))
    await asyncio.sleep(0.002)
    append(wal, record(2))
    await turns(2)
    assert store.calls == [("create", place.key(1)), ("create", place.key(2))]
    await wal.close()


async def test_a_batch_goes_when_it_has_lingered(place: Place, store: MemoryStore) -> None:
    wal = place.make(linger_ms=1)
    _, watcher = await started(wal)
    store.fail("create", "slow")
    append(wal, record(1))
    await turns()
    append(wal, record(2))
    await until_calls(store, "create", place.key(2))
    await turns()
    assert (place.key(2) in store.objects, watcher.durable) == (True, []), "landed, but it is not its turn yet"
    store.gate.set()
    await watcher.until(position_of(2, 1))
    assert watcher.durable == [position_of(2, 1)]
    await wal.close()


async def test_a_batch_goes_when_it_is_full_and_uploads_are_limited(place: Place, store: MemoryStore) -> None:
    wal = place.make(linger_ms=NEVER_MS, uploads_max=3, capacity_bytes=1 << 20)
    _, watcher = await started(wal)
    store.fail("create", "slow", times=100)
    for n in range(1, 60):
        append(wal, record(n, size_bytes=1000))
        await turns(2)
    assert [key for _, key in store.calls] == [place.key(1), place.key(2), place.key(3)]
    assert wal.unflushed_bytes > 59_000
    store.heal()
    await wal.close()
    assert max(sizes(store)) < SETTINGS.object_bytes + ENTRY_BYTES + 1000, "closed by the record that fills it"
    assert wal.unflushed_bytes == 0
    assert watcher.durable[-1] >= position_of(15, 1)


async def test_a_record_larger_than_an_object_fills_it(place: Place, store: MemoryStore) -> None:
    wal = place.make()
    _, watcher = await started(wal)
    positions = append(wal, record(1), record(2, size_bytes=10_000), record(3))
    assert positions == [position_of(1, 1), position_of(1, 2), position_of(2, 1)]
    await watcher.until(positions[-1])
    assert await wal.read(positions[1]) == record(2, size_bytes=10_000)
    await wal.close()


# -- unclear answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["unavailable", "full", "unknown", "applied_then_unknown"])
async def test_a_put_is_repeated_until_it_has_landed(place: Place, store: MemoryStore, fault: str) -> None:
    wal = place.make()
    _, watcher = await started(wal)
    store.fail("create", fault, times=7)  # type: ignore[arg-type]
    store.fail("get", "unavailable", times=2)
    positions = append(wal, record(1), record(2))
    await watcher.until(positions[-1])
    assert (watcher.failed, wal.writes.count) == ([], 1)
    assert wal.retries >= 2
    await wal.close()
    replayed, again, _ = await place.reopen(0)
    assert [r for _, r in replayed] == [record(1), record(2)]
    await again.close()


async def test_already_exists_of_our_own_put_is_no_fence(place: Place, store: MemoryStore) -> None:
    """Hazards C2: the store applied it, and its answer was lost on the way."""
    wal = place.make()
    _, watcher = await started(wal)
    store.fail("create", "applied_then_unknown")
    (position,) = append(wal, record(1))
    await watcher.until(position)
    assert store.calls.count(("create", place.key(1))) == 2
    assert store.calls.count(("get", place.key(1))) == 1, "what exists is read back, whatever the answer was"
    assert watcher.durable == [position]
    await wal.close()


async def test_a_late_first_attempt_does_no_harm(place: Place, store: MemoryStore) -> None:
    wal = place.make()
    _, watcher = await started(wal)
    store.fail("create", "late")
    (position,) = append(wal, record(1))
    await watcher.until(position)
    before = dict(store.objects)
    store.land()
    assert store.objects == before, "the same bytes at the same key"
    await wal.close()


async def test_while_it_is_unclear_what_exists_nothing_is_acked(place: Place, store: MemoryStore) -> None:
    wal = place.make()
    _, watcher = await started(wal)
    store.fail("create", "applied_then_unknown")
    store.fail("get", "unavailable", times=1 << 30)
    (position,) = append(wal, record(1))
    await until_calls(store, "get", place.key(1), times=4)
    assert watcher.durable == []
    store.heal()
    await watcher.until(position)
    await wal.close()


@pytest.mark.parametrize("other", ["fence", "data", "junk"])
async def test_another_object_at_its_key_is_the_end(place: Place, store: MemoryStore, other: str) -> None:
    if other == "data":
        twin = ObjectWal(store, node=NODE, broker_epoch=1, ids=Ids(99), settings=SETTINGS)
        _, watcher = await started(twin)
        await watcher.until(append(twin, record(1))[0])
        await twin.close()
    else:
        fence = encode_mark(ObjectHeader(ObjectKind.FENCE, NODE, 1, 1, 2, bytes(16)))
        store.objects[place.key(1)] = fence if other == "fence" else b"junk"
    wal = place.make()
    _, watcher = await started(wal)
    store.fail("create", "slow", key=place.key(2))
    large = SETTINGS.object_bytes
    append(wal, record(1, large), record(2, large), record(3, large))
    waiting = asyncio.create_task(wal.reserve(place.record_bytes_max, 60))
    await watcher.until_failed()
    assert [type(error) for error in watcher.failed] == [Corrupt if other == "junk" else Fenced]
    with pytest.raises(Closed):
        wal.append(record(4))
    with pytest.raises(Closed):
        wal.try_reserve(1)
    with pytest.raises(Closed):
        await waiting
    store.heal()
    await turns()
    assert watcher.durable == [], "what landed behind it is never acked"
    await wal.close()
    assert len(watcher.failed) == 1


async def test_an_error_nobody_expects_is_the_end(place: Place, store: MemoryStore, quiet: None) -> None:
    async def broken(key: str, parts: object) -> None:
        raise RuntimeError("planned")

    store.create = broken  # type: ignore[method-assign, assignment]
    wal = place.make()
    _, watcher = await started(wal)
    append(wal, record(1))
    await watcher.until_failed()
    assert "planned" in str(watcher.failed[0])
    await wal.close()


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamlake.core.tasks.log.error", lambda *args, **kwargs: None, raising=False)


# -- acks in order -----------------------------------------------------------------------------------------------------


async def test_no_ack_passes_a_gap(place: Place, store: MemoryStore) -> None:
    """Hazards C3, C6: of parallel puts the middle one does not land."""
    wal = place.make()
    _, watcher = await started(wal)
    store.fail("create", "unavailable", key=place.key(2), times=1 << 30)
    large = SETTINGS.object_bytes
    positions = append(wal, *(record(n, large) for n in range(1, 5)))
    await until_calls(store, "create", place.key(4))
    await until_calls(store, "create", place.key(2), times=3)
    assert place.key(3) in store.objects and place.key(4) in store.objects
    assert watcher.durable == [positions[0]]
    assert wal.durable_position == positions[0]
    with pytest.raises(NotFound):
        await wal.read(positions[2])
    store.heal()
    await watcher.until(positions[3])
    assert watcher.durable == [positions[0], positions[3]]
    await wal.close()


async def test_close_can_be_cancelled_while_the_store_is_away(place: Place, store: MemoryStore) -> None:
    wal = place.make()
    _, watcher = await started(wal)
    store.fail("create", "slow")
    store.fail("create", "unavailable", times=1 << 30)
    large = SETTINGS.object_bytes
    append(wal, *(record(n, large) for n in range(1, 4)), record(5))
    await turns(5)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await wal.close()
    store.heal()
    calls = len(store.calls)
    await turns()
    assert len(store.calls) == calls, "no task is left that would go on"
    assert watcher.durable == []
    store.land()  # the put that was cancelled lands nevertheless: a record that was not promised, nor lost
    recovery = place.recovery()
    assert [copied(r) async for _, r in recovery.recover(0)] == [record(1, large)]


# -- trimming ----------------------------------------------------------------------------------------------------------


async def test_trimmed_objects_are_deleted_but_not_the_one_that_holds_the_position(
    place: Place, store: MemoryStore
) -> None:
    wal = place.make()
    _, watcher = await started(wal)
    positions = []
    for n in range(1, 6):
        positions += append(wal, record(n), record(n))
        await watcher.until(positions[-1])
    store.fail("delete", "unavailable")
    store.fail("delete", "applied_then_unknown")
    await wal.trim(positions[4])  # the first record of the third object
    while wal.deleted_objects < 2:
        await asyncio.sleep(0)
    assert sorted(store.objects) == [place.key(seq) for seq in (3, 4, 5)]
    assert wal.used_bytes == 3 * (HEADER_BYTES + 2 * (ENTRY_BYTES + 100) + OBJECT_OVERHEAD_BYTES)
    await wal.trim(positions[-1])
    while wal.deleted_objects < 4:
        await asyncio.sleep(0)
    assert wal.used_bytes == 0
    assert sorted(store.objects) == [place.key(5)]
    await wal.close()


async def test_deletes_go_in_groups(place: Place, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal_module, "KEYS_PER_DELETE", 3)
    wal = place.make()
    _, watcher = await started(wal)
    position = 0
    for n in range(1, 10):
        (position,) = append(wal, record(n))
        await watcher.until(position)
    await wal.trim(position)
    while wal.deleted_objects < 8:
        await asyncio.sleep(0)
    assert [key for operation, key in store.calls if operation == "delete"] == [place.key(seq) for seq in (1, 4, 7)]
    await wal.close()


# -- reading -----------------------------------------------------------------------------------------------------------


async def test_neighbours_are_read_with_one_get(place: Place, store: MemoryStore) -> None:
    wal = place.make()
    _, watcher = await started(wal)
    positions = append(wal, *(record(n) for n in range(1, 20)))
    await watcher.until(positions[-1])
    found = await asyncio.gather(*(wal.read(position) for position in positions))
    assert found == [record(n) for n in range(1, 20)]
    assert store.calls.count(("get", place.key(1))) == 1
    await wal.close()


async def test_what_is_read_together_is_fetched_once(place: Place, store: MemoryStore) -> None:
    """As after an outage of the metadata store: stream by stream, from objects that hold a part of each."""
    wal = place.make(object_bytes=4096)
    _, watcher = await started(wal)
    positions = append(wal, *(record(n, size_bytes=800) for n in range(1, 60)))
    await watcher.until(positions[-1])
    after = rounds = 0
    while after < positions[-1]:
        end = wal.readable_together(after)
        together = [position for position in positions if after < position <= end]
        for first in (0, 1):
            for position in together[first::2]:
                await wal.read(position)
        after, rounds = end, rounds + 1
    gets = [key for operation, key in store.calls if operation == "get"]
    assert rounds > 5 and len(gets) == len(set(gets)) > 10
    assert wal.readable_together(after) == after
    assert sum(each.size_bytes for each in wal._read.values()) <= wal.read_cache_bytes
    await wal.close()


async def test_damage_is_named_when_read(place: Place, store: MemoryStore) -> None:
    wal = place.make()
    _, watcher = await started(wal)
    positions = append(wal, record(1), record(2))
    await watcher.until(positions[-1])
    data = bytearray(store.objects[place.key(1)])
    data[-1] ^= 1
    store.objects[place.key(1)] = bytes(data)
    with pytest.raises(Corrupt, match=place.key(1)):
        await wal.read(positions[1])
    assert await wal.read(positions[0]) == record(1)
    store.fail("get", "unavailable")
    wal._read.clear()
    with pytest.raises(Unavailable):
        await wal.read(positions[0])
    del store.objects[place.key(1)]
    with pytest.raises(NotFound):
        await wal.read(positions[0])
    await wal.close()
    with pytest.raises(Closed):
        await wal.read(positions[0])


async def test_a_slow_store_pushes_back_before_offsets_are_given(place: Place, store: MemoryStore) -> None:
    wal = place.make()
    _, watcher = await started(wal)
    store.fail("create", "slow", times=1 << 30)
    n = 0
    while wal.try_reserve(10_000):
        n += 1
        wal.append(record(n, 10_000))
        await turns(2)
    assert wal.unflushed_bytes <= SETTINGS.unflushed_bytes_max + 1000
    with pytest.raises(Full, match="see to the store"):
        await wal.reserve(10_000, 0.01)
    store.heal()
    await wal.reserve(10_000, 60)
    await wal.close()
    assert watcher.durable[-1] == position_of(n, 1)


# -- lives -------------------------------------------------------------------------------------------------------------


async def live(seeds: range) -> dict[str, int]:
    totals: dict[str, int] = {}
    for seed in seeds:
        lives = Lives(seed)
        try:
            await lives.run()
        except Violation as violation:
            raise Violation(f"seed {seed}: {violation}") from violation
        for name, count in lives.counts.items():
            totals[name] = totals.get(name, 0) + count
    return totals


async def test_random_lives_lose_nothing_and_repeat_nothing() -> None:
    counts = await live(range(200))
    assert counts["replayed"] > 1000
    assert counts["fenced"] > 50
    assert counts["acked_by_zombies"] > 0, "harmless, but it must happen to be proved so"


async def test_taking_exists_for_landed_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def blind(self: ObjectWal, key: str, seq: int) -> bool:
        return True

    monkeypatch.setattr(ObjectWal, "_is_ours", blind)
    with pytest.raises(Violation):
        await live(range(200))


async def test_taking_exists_for_a_fence_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def coward(self: ObjectWal, key: str, seq: int) -> bool:
        raise Fenced("planned")

    monkeypatch.setattr(ObjectWal, "_is_ours", coward)
    with pytest.raises(Violation, match="fenced without"):
        await live(range(200))


async def test_acking_out_of_order_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def hasty(self: ObjectWal) -> None:
        landed = [batch for batch in self._unacked if batch.landed]
        for batch in landed:
            self._unacked.remove(batch)
            self._space.flushed(batch.encoder.size_bytes)
        self._on_durable(landed[-1].last_position)
        if not self._unacked:
            self._settled.set()

    monkeypatch.setattr(ObjectWal, "_ack", hasty)
    with pytest.raises(Violation):
        await live(range(200))


async def test_recovering_without_a_fence_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def pretend(self: ObjectWalRecovery, seq: int) -> bytes:
        return encode_mark(self._mark(ObjectKind.FENCE, seq))

    monkeypatch.setattr(ObjectWalRecovery, "_fence", pretend)
    with pytest.raises(Violation):
        await live(range(200))


async def test_deleting_the_fence_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    discard = ObjectWalRecovery.discard

    async def thorough(self: ObjectWalRecovery) -> None:
        await discard(self)
        assert self._fence_seq is not None
        await self._delete([self._key(self._fence_seq)])

    monkeypatch.setattr(ObjectWalRecovery, "discard", thorough)
    with pytest.raises(Violation):
        await live(range(200))


async def test_deleting_without_the_mark_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    create = ObjectWalRecovery._create

    async def forgetful(self: ObjectWalRecovery, key: str, data: bytes) -> None:
        if "discarded" not in key:
            await create(self, key, data)

    monkeypatch.setattr(ObjectWalRecovery, "_create", forgetful)
    with pytest.raises(Violation):
        await live(range(200))


async def test_ending_at_a_gap_that_is_filled_before_the_fence_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deaf(self: ObjectWalRecovery, seq: int) -> bytes:
        mark = encode_mark(self._mark(ObjectKind.FENCE, seq))
        try:
            await self._store.create(self._key(seq), [mark])
        except (Exists, *TRANSIENT):
            pass
        return mark

    monkeypatch.setattr(ObjectWalRecovery, "_fence", deaf)
    with pytest.raises(Violation):
        await live(range(200))
