"""ObjectWalRecovery: what an earlier epoch left is replayed, fenced and discarded, whatever its zombie and the store do."""

import asyncio
from dataclasses import replace

import pytest
from contracts.wal_contract import Watcher, append, record, started
from support import object_wal_lives
from support.memory_store import MemoryStore
from support.object_wal_lives import copied

from streamlake.core.errors import Corrupt, Fenced, Invalid, NotFound
from streamlake.core.ids import Ids
from streamlake.s3stream.wal.object import recovery as recovery_module
from streamlake.s3stream.wal.object.format import (
    HEADER_BYTES,
    DataEncoder,
    ObjectKind,
    WalObject,
    discarded_key,
    object_wal_key,
    position_of,
    seq_of,
)
from streamlake.s3stream.wal.object.recovery import FENCE_AHEAD, ObjectWalRecovery, sweep
from streamlake.s3stream.wal.object.wal import ObjectWal
from streamlake.s3stream.wal.port import WalRecord

NODE = 3
SETTINGS = replace(object_wal_lives.SETTINGS, capacity_bytes=1 << 20)
LARGE = SETTINGS.object_bytes  # a record of this size is an object by itself
MARKS = {discarded_key(NODE, 1)}


def key(seq: int, epoch: int = 1) -> str:
    return object_wal_key(NODE, epoch, seq)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def owner(store: MemoryStore, epoch: int = 1, seed: int = 1) -> ObjectWal:
    return ObjectWal(store, node=NODE, broker_epoch=epoch, ids=Ids(seed), settings=SETTINGS)


def recoverer(store: MemoryStore, fencing_epoch: int = 2) -> ObjectWalRecovery:
    return ObjectWalRecovery(
        store, node=NODE, epoch=1, fencing_epoch=fencing_epoch, ids=Ids(fencing_epoch), settings=SETTINGS
    )


async def replay(recovery: ObjectWalRecovery, trim_position: int = 0) -> list[WalRecord]:
    return [copied(r) async for _, r in recovery.recover(trim_position)]


async def turns(n: int = 30) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def written(store: MemoryStore, objects: int) -> tuple[ObjectWal, Watcher]:
    """A WAL with so many objects of one record each: record(1), record(2), …"""
    wal = owner(store)
    _, watcher = await started(wal)
    for n in range(1, objects + 1):
        await watcher.until(append(wal, record(n))[0])
    return wal, watcher


def kind(store: MemoryStore, seq: int) -> ObjectKind:
    return WalObject(store.objects[key(seq)]).header.kind


# -- the end is fenced -------------------------------------------------------------------------------------------------


async def test_a_life_that_wrote_nothing_is_fenced_at_its_first_key(store: MemoryStore) -> None:
    wal, watcher = await written(store, 0)
    assert await replay(recoverer(store)) == []
    assert kind(store, 1) is ObjectKind.FENCE
    append(wal, record(1))
    await watcher.until_failed()
    assert isinstance(watcher.failed[0], Fenced)
    assert watcher.durable == []
    await wal.close()


async def test_objects_are_read_ahead_but_not_far(store: MemoryStore) -> None:
    wal, _ = await written(store, 30)
    recovering = recoverer(store).recover(0)
    first = await anext(recovering)
    assert first[1].base_offset == 1000
    await turns()
    gets = [k for operation, k in store.calls if operation == "get" and k != discarded_key(NODE, 1)]
    assert gets == [key(1 + FENCE_AHEAD)] + [key(seq) for seq in range(1, 9)]
    await recovering.aclose()
    await wal.close()


async def test_an_owner_that_is_alive_cannot_run_away(store: MemoryStore) -> None:
    """It writes on as fast as its recovery reads; the fence far ahead ends that."""
    settings = replace(SETTINGS, capacity_bytes=1 << 30)
    wal = ObjectWal(store, node=NODE, broker_epoch=1, ids=Ids(1), settings=settings)
    _, watcher = await started(wal)
    await watcher.until(append(wal, record(1))[0])
    recovering = recoverer(store).recover(0)
    last = 0
    async for position, _ in recovering:
        last = position
        if not watcher.failed:
            written = append(wal, record(seq_of(position) + 1))
            await watcher.until(written[-1])
    assert seq_of(last) <= FENCE_AHEAD and watcher.durable[-1] <= last
    await wal.close()


async def test_only_what_lies_above_the_trim_is_replayed(store: MemoryStore) -> None:
    wal = owner(store)
    _, watcher = await started(wal)
    positions = append(wal, record(1), record(2), record(3), record(4, LARGE))
    await watcher.until(positions[-1])
    assert await replay(recoverer(store), positions[1]) == [record(3), record(4, LARGE)]
    assert store.calls.count(("get", key(1))) == 1
    await wal.close()


async def test_a_zombie_put_after_recovery_and_discard(store: MemoryStore) -> None:
    """Hazards C3: A's put of the fence's key is on its way while B fences, replays and discards."""
    wal, watcher = await written(store, 2)
    store.fail("create", "slow", key=key(3))
    append(wal, record(3))
    await turns()
    recovery = recoverer(store)
    assert await replay(recovery) == [record(1), record(2)]
    await recovery.discard()
    assert set(store.objects) == {key(3), *MARKS}, "the fence stays"
    store.gate.set()
    await watcher.until_failed()
    assert isinstance(watcher.failed[0], Fenced)
    assert watcher.durable == [position_of(1, 1), position_of(2, 1)], "record 3 is never acked"
    await wal.close()


async def test_a_zombie_put_that_landed_unseen_lands_again_after_the_discard(store: MemoryStore) -> None:
    """A's put of object 2 lands, its answer is lost; B replays and deletes it; A puts it again, and it lands."""
    wal, watcher = await written(store, 1)
    store.fail("create", "applied_then_unknown", key=key(2))
    store.fail("create", "slow", key=key(2))
    append(wal, record(2))
    await turns()
    recovery = recoverer(store)
    assert await replay(recovery) == [record(1), record(2)]
    await recovery.discard()
    store.gate.set()
    await watcher.until(position_of(2, 1))
    assert watcher.durable[-1] == position_of(2, 1), "rightly acked: B has replayed it"
    append(wal, record(3))
    await watcher.until_failed()
    assert await replay(recoverer(store, 3)) == [], "the stray is not replayed a second time"
    await wal.close()
    assert await sweep(store, NODE, 3) == 1


async def test_nothing_behind_a_gap_is_replayed(store: MemoryStore) -> None:
    """The middle one of parallel puts does not land; the others are strays, and were never acked."""
    wal = owner(store)
    _, watcher = await started(wal)
    store.fail("create", "slow", key=key(2))
    append(wal, *(record(n, LARGE) for n in range(1, 5)))
    while key(4) not in store.objects:
        await asyncio.sleep(0)
    recovery = recoverer(store)
    assert await replay(recovery) == [record(1, LARGE)]
    assert kind(store, 2) is ObjectKind.FENCE
    store.heal()
    await watcher.until_failed()
    assert watcher.durable == [position_of(1, 1)]
    assert await replay(recoverer(store, 3)) == [record(1, LARGE)], "nor later"
    await recovery.discard()
    assert set(store.objects) == {key(2), *MARKS}, "discard deletes the strays too"
    await wal.close()


@pytest.mark.parametrize("fault", ["unavailable", "unknown", "applied_then_unknown", "late"])
async def test_the_fence_is_put_until_it_is_read_back(store: MemoryStore, fault: str) -> None:
    wal, _ = await written(store, 1)
    store.fail("create", fault, key=key(2), times=3)  # type: ignore[arg-type]
    recovery = recoverer(store)
    assert await replay(recovery) == [record(1)]
    store.land()
    assert kind(store, 2) is ObjectKind.FENCE
    gets = [call for call in store.calls if call[0] == "get"]
    assert gets[-2:] == [("get", key(2)), ("get", discarded_key(NODE, 1))]
    await wal.close()


async def test_data_that_landed_before_the_fence_is_replayed(store: MemoryStore) -> None:
    """The gap is filled between our GET and our fence."""
    wal, watcher = await written(store, 1)
    store.fail("create", "slow", key=key(2))
    recovery = recoverer(store)
    recovering = asyncio.create_task(replay(recovery))
    while ("create", key(2)) not in store.calls:
        await asyncio.sleep(0)
    await watcher.until(append(wal, record(2))[0])  # the first slow put is the fence's
    store.gate.set()
    assert await recovering == [record(1), record(2)]
    assert kind(store, 3) is ObjectKind.FENCE
    await wal.close()


async def test_a_put_that_was_cancelled_lands_before_or_behind_the_fence(store: MemoryStore) -> None:
    """Hazards C7."""
    wal, _ = await written(store, 1)
    store.fail("create", "slow", key=key(2))
    append(wal, record(2))
    await turns()
    closing = asyncio.create_task(wal.close())
    await turns(2)
    closing.cancel()
    await asyncio.wait([closing])
    assert await replay(recoverer(store)) == [record(1)]
    store.land()
    assert kind(store, 2) is ObjectKind.FENCE, "too late: the key is taken"
    assert await replay(recoverer(store, 3)) == [record(1)]


# -- throttling --------------------------------------------------------------------------------------------------------


async def test_recovery_goes_through_throttling_and_lost_answers(store: MemoryStore) -> None:
    wal, _ = await written(store, 20)
    for operation in ("get", "create", "delete"):
        store.fail(operation, "unavailable", times=30)
        store.fail(operation, "unknown", times=5)
        store.fail(operation, "full", times=2)
    recovery = recoverer(store)
    assert await replay(recovery) == [record(n) for n in range(1, 21)]
    await recovery.discard()
    assert set(store.objects) == {key(21), *MARKS}
    assert recovery.retries >= 3 * 37 - 2
    assert recovery.replayed_records == 20
    await recovery.close()
    await wal.close()


# -- two recoverers ----------------------------------------------------------------------------------------------------


async def test_a_fence_of_an_older_or_equal_recovery_is_as_good(store: MemoryStore) -> None:
    wal, _ = await written(store, 2)
    for fencing_epoch in (2, 2, 5):
        assert await replay(recoverer(store, fencing_epoch)) == [record(1), record(2)]
    assert sorted(store.objects) == [key(1), key(2), key(3)]
    await wal.close()


async def test_the_older_of_two_recoveries_is_fenced(store: MemoryStore) -> None:
    wal, _ = await written(store, 2)
    await replay(recoverer(store, 5))
    older = recoverer(store, 4)
    with pytest.raises(Fenced, match="epoch 4 must stop"):
        await replay(older)
    with pytest.raises(Invalid):
        await older.discard()
    await wal.close()


async def test_the_older_one_never_takes_what_the_newer_one_deleted_for_the_end(store: MemoryStore) -> None:
    wal, _ = await written(store, 20)
    older, newer = recoverer(store, 2), recoverer(store, 3)
    slow = older.recover(0)
    seen = [copied((await anext(slow))[1])]
    assert len(await replay(newer)) == 20
    await newer.discard()
    with pytest.raises(Fenced):
        async for _, each in slow:
            seen.append(copied(each))
    assert len(seen) < 20
    with pytest.raises(Fenced):
        await replay(recoverer(store, 2))
    await wal.close()


def test_only_a_newer_epoch_may_recover(store: MemoryStore) -> None:
    with pytest.raises(Invalid, match="newer"):
        recoverer(store, 1)


# -- crashes of the recoverer ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", range(1, 20))
async def test_a_recovery_that_dies_anywhere_is_taken_up_by_the_next(store: MemoryStore, stop: int) -> None:
    """The process dies within call number `stop` of the store, before or after it is applied."""
    wal, watcher = await written(store, 5)
    store.fail("create", "slow", key=key(6))
    append(wal, record(6))
    await turns()
    already = len(store.calls)

    async def dies() -> None:
        recovery = recoverer(store, 2)
        await replay(recovery)
        await recovery.discard()

    dying = asyncio.create_task(dies())
    while len(store.calls) < already + stop and not dying.done():
        await asyncio.sleep(0)
    dying.cancel()
    await asyncio.wait([dying])
    begun = discarded_key(NODE, 1) in store.objects
    recovery = recoverer(store, 3)
    found = await replay(recovery)
    assert found == ([] if begun else [record(n) for n in range(1, 6)])
    await recovery.discard()
    await recovery.discard()
    assert set(store.objects) == {key(6), *MARKS}
    store.gate.set()
    await watcher.until_failed()
    assert watcher.durable[-1] == position_of(5, 1)
    await wal.close()


async def test_after_a_trim_the_next_recovery_goes_on_there(store: MemoryStore) -> None:
    wal, _ = await written(store, 5)
    first = recoverer(store, 2)
    assert len(await replay(first)) == 5
    await first.trim(position_of(3, 1))
    second = recoverer(store, 3)
    assert await replay(second, position_of(3, 1)) == [record(4), record(5)]
    await second.discard()
    third = recoverer(store, 4)
    assert await replay(third, position_of(5, 1)) == [], "discarded: nothing is missing"
    await third.discard()
    assert set(store.objects) == {key(1), key(2), key(6), *MARKS}
    assert await sweep(store, NODE, 5) == 2
    await wal.close()


async def test_half_a_discard_is_never_taken_for_the_end(store: MemoryStore) -> None:
    wal, _ = await written(store, 5)
    first = recoverer(store, 2)
    await replay(first)
    store.fail("delete", "slow")
    dying = asyncio.create_task(first.discard())
    await turns()
    dying.cancel()
    await asyncio.wait([dying])
    await store.delete([key(1), key(3)])
    assert await replay(recoverer(store, 3), position_of(1, 1)) == []
    await wal.close()


async def test_discard_waits_for_the_end_of_recovery(store: MemoryStore) -> None:
    with pytest.raises(Invalid):
        await recoverer(store).discard()


# -- damage ------------------------------------------------------------------------------------------------------------


async def test_damage_is_refused_and_named(store: MemoryStore) -> None:
    wal, _ = await written(store, 3)
    good = store.objects[key(2)]
    header = WalObject(good).header
    encoder = DataEncoder()
    encoder.add(record(2))

    def forged(**changes: object) -> bytes:
        of = replace(header, **changes)  # type: ignore[arg-type]
        return b"".join(encoder.finish(node=of.node, broker_epoch=of.broker_epoch, seq=of.seq, nonce=of.nonce))

    flipped = bytearray(good)
    flipped[-1] ^= 1
    for bad in (
        b"",
        good[:-1],
        bytes(flipped),
        forged(node=4),
        forged(broker_epoch=2),
        forged(seq=3),
        forged(nonce=bytes(16)),
    ):
        store.objects[key(2)] = bad
        with pytest.raises(Corrupt, match=f"{key(2)} .*restore it"):
            await replay(recoverer(store))
    store.objects[key(2)] = good
    assert len(await replay(recoverer(store))) == 3
    await wal.close()


async def test_an_object_cut_short_on_its_way_is_read_again(store: MemoryStore) -> None:
    wal, _ = await written(store, 1)
    get, failures = store.get, 3

    async def cut(key: str) -> bytes:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise Corrupt("planned")
        return await get(key)

    store.get = cut  # type: ignore[method-assign]
    assert await replay(recoverer(store)) == [record(1)]
    failures = 1 << 30
    with pytest.raises(Corrupt, match="planned"):
        await replay(recoverer(store))
    await wal.close()


async def test_the_loss_of_the_first_object_is_noticed(store: MemoryStore) -> None:
    wal, _ = await written(store, 3)
    await store.delete([key(2)])
    for _ in range(2):
        with pytest.raises(Corrupt, match=f"{key(2)} .*missing"):
            await replay(recoverer(store), position_of(2, 1))
    await wal.close()


# -- sweeping ----------------------------------------------------------------------------------------------------------


async def test_sweep_deletes_data_of_earlier_epochs_only(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery_module, "KEYS_PER_DELETE", 2)
    wal, _ = await written(store, 5)
    await replay(recoverer(store))
    present = owner(store, epoch=2)
    _, watcher = await started(present)
    await watcher.until(append(present, record(1))[0])
    await store.put("wal/3/unknown", [bytes(100)])
    await store.put("wal/33/0000000000000001/0000000000000001", [bytes(100)])
    others = {"wal/3/unknown", "wal/33/0000000000000001/0000000000000001"}
    assert await sweep(store, NODE, 2) == 5
    assert set(store.objects) == {key(6), key(1, epoch=2), *others}
    assert len(store.objects[key(6)]) == HEADER_BYTES
    assert await sweep(store, NODE, 2) == 0
    with pytest.raises(NotFound):
        await wal.read(position_of(1, 1))
    await wal.close()
    await present.close()
